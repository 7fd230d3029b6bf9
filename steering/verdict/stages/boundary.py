"""pass@k and its critics, right and valid, of both models, with guessing and a null beside them."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from probes.boundary import Counts, paired, relabelled
from probes.boundary.rows import SHUFFLED, of_cover, of_curves, of_fit, of_guessing, of_pair, seen
from probes.intervals import difference, rate
from probes.measurements import row
from probes.records import Measurement, write_table
from steering.evaluate import Judged, groups
from steering.verdict.context import MODELS, Context

TAUS = (0.1, 0.5, 0.9)
"""Of Cover@tau; `whenhow boundary` draws the whole curve."""
FITS = 200
"""Resamples of a beta-binomial: each is a fit of milliseconds, and there are a dozen cells."""


@dataclass(frozen=True)
class ModelCounts:
    """`probes.boundary.Counts`, and whose they are."""

    model: str
    problem: str
    n: int
    right: int
    valid: int
    unparsed: int


def run(context: Context, tick: Any) -> list[Measurement]:
    """Rows of each skill and half, and of all together (skill "", part "")."""
    judged = {which: context.rollouts(which) for which in MODELS}
    problems = judged["base"].problems
    cells = groups(problems)
    pooled = [] if cells == [("", "")] else [("", "")]
    rows: list[Measurement] = []
    for i, (skill, part) in enumerate([*pooled, *cells]):
        whole = (skill, part) in pooled
        chosen = {} if whole else {"skill": skill, "part": part}
        rows += cell(context, judged, chosen, skill, part)
        of_cell = [p for p in problems if whole or (p.skill, p.part) == (skill, part)]
        guesses = np.array([context.task.guess_rate(p) for p in of_cell])
        if not whole:
            value = float(guesses.mean())
            rows.append(
                Measurement("guess rate", value, value, value, len(of_cell), "", skill, part)
            )
        about = {"skill": skill, "part": part}
        samples = context.settings.samples
        rows += of_guessing(guesses, samples, k=fixed(samples), taus=TAUS, about=about)
        tick(i + 1, len(cells) + len(pooled))
    counted = [
        ModelCounts(which, **asdict(one)) for which in MODELS for one in judged[which].counts()
    ]
    write_table(context.file("counts.parquet"), counted, ModelCounts)
    return rows


def cell(
    context: Context, judged: dict[str, Judged], chosen: dict[str, str], skill: str, part: str
) -> list[Measurement]:
    """Curves and their crossing, coverage, the base's unsolved mass, lucky and unread answers."""
    base = judged["base"].counts(**chosen)
    tuned = paired(base, judged["tuned"].counts(**chosen))
    about, seed = {"skill": skill, "part": part}, context.settings.seed
    how: dict[str, Any] = {"about": about, "seed": seed}
    k = fixed(min(one.n for one in base))
    rows = of_curves(base, tuned, k=k, **how)
    for model, counted in (("base", base), ("tuned", tuned)):
        rows += of_cover(counted, model, taus=TAUS, **how)
    asked = judged["base"].where(**chosen).problems
    guesses = np.array([context.task.guess_rate(p) for p in asked])
    rows += of_fit(base, "base", limit=seen(base, guesses), resamples=FITS, **how)
    rows += of_pair(base, tuned, k=k, taus=TAUS, **how)
    null = relabelled(base, tuned, seed=seed)
    rows += of_pair(*null, k=k, taus=TAUS, about={**about, "setting": SHUFFLED}, seed=seed)
    return rows + shares(base, tuned, about, seed)


def shares(
    base: list[Counts], tuned: list[Counts], about: dict[str, Any], seed: int
) -> list[Measurement]:
    """Lucky and unreadable answers of both, and the changes."""
    rows = []
    for name, share in SHARES.items():
        before, after = (np.array([share(one) for one in counted]) for counted in (base, tuned))
        rows.append(row(name, rate(before, seed=seed), model="base", **about))
        rows.append(row(name, rate(after, seed=seed), model="tuned", **about))
        rows.append(row(name, difference(after, before, seed=seed), model="tuned - base", **about))
    return rows


SHARES = {
    "lucky": lambda c: (c.right - c.valid) / c.n,  # right, by a trace that is no derivation
    "unparsed": lambda c: c.unparsed / c.n,
}


def fixed(samples: int) -> int:
    """The budget of the efficiency gap: a quarter of the answers, whatever they are."""
    return max(1, samples // 4)
