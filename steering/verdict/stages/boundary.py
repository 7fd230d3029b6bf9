"""pass@k, right and valid, of both models, with the rate of guessing beside it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from probes.boundary import Point, compare, curve, guessed, paired
from probes.intervals import difference, rate
from probes.records import Measurement, write_table
from steering.evaluate import Judged, groups
from steering.verdict.context import MODELS, Context
from steering.verdict.rows import row

WHICH: tuple[Literal["right", "valid"], ...] = ("right", "valid")
MEASURES = {"right": "pass@k", "valid": "valid@k"}


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
        nan = float("nan")
        rows += [
            Measurement(
                "pass@k", value, nan, nan, len(of_cell), "guessing", skill, part, x=float(k)
            )
            for k, value in guessed(guesses, budgets(context.settings.samples))
        ]
        tick(i + 1, len(cells) + len(pooled))
    counted = [
        ModelCounts(which, **asdict(one)) for which in MODELS for one in judged[which].counts()
    ]
    write_table(context.file("counts.parquet"), counted, ModelCounts)
    return rows


def cell(
    context: Context, judged: dict[str, Judged], chosen: dict[str, str], skill: str, part: str
) -> list[Measurement]:
    """Curves of both models, differences at the ends of the curve, lucky and unreadable answers."""
    counts = {which: judged[which].counts(**chosen) for which in MODELS}
    ks = budgets(context.settings.samples)
    about: dict[str, Any] = {"skill": skill, "part": part}
    seed = context.settings.seed
    rows = []
    for kind in WHICH:
        for which in MODELS:
            points = curve(counts[which], ks, which=kind, seed=seed)
            rows += of_points(MEASURES[kind], points, which, about)
        ends = sorted({ks[0], ks[-1]})
        points = compare(counts["base"], counts["tuned"], ends, which=kind, seed=seed)
        rows += of_points(MEASURES[kind], points, "tuned - base", about)
    ordered = {"base": counts["base"], "tuned": paired(counts["base"], counts["tuned"])}
    for name, share in SHARES.items():
        values = {w: np.array([share(c) for c in ordered[w]]) for w in MODELS}
        rows += [row(name, rate(values[w], seed=seed), model=w, **about) for w in MODELS]
        change = difference(values["tuned"], values["base"], seed=seed)
        rows.append(row(name, change, model="tuned - base", **about))
    return rows


SHARES = {
    "lucky": lambda c: (c.right - c.valid) / c.n,  # right, by a trace that is no derivation
    "unparsed": lambda c: c.unparsed / c.n,
}


def of_points(
    measure: str, points: Sequence[Point], model: str, about: dict[str, Any]
) -> list[Measurement]:
    """Rows of a curve."""
    return [
        row(measure, point.estimate, model=model, x=float(point.k), **about) for point in points
    ]


def budgets(samples: int) -> list[int]:
    """Powers of two up to the number of samples, and that number."""
    return sorted({2**i for i in range(samples.bit_length())} | {samples})
