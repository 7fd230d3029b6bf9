"""How far two models reach: sampled, compared, tested again, and set beside its nulls.

    rows = reach(Reach(base="...", tuned="...", samples=1024))      # Measurement rows
    boundary.parquet, figures: `whenhow boundary` writes them

The measures are `probes.boundary`'s; here is where their answers come from. Base and tuned are read
from a record where one fits, else sampled in shards, and so are three sets of fresh answers, all at
sample indices of their own:

- the base once more, on every problem: a model *against itself*, the null of every comparison;
- both models on the problems that only one of them solved and on some of the others: the re-test.

A run that was stopped goes on with the first shard that isn't finished (`steering.shards`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from probes.boundary import Counts, Which, relabelled, retest, to_retest
from probes.boundary.rows import (
    ITSELF,
    SHUFFLED,
    of_accuracy,
    of_cover,
    of_curves,
    of_fit,
    of_guessing,
    of_later,
    of_pair,
    of_retest,
    seen,
    ways,
)
from probes.records import Measurement, Problem, Refusal, content_hash
from steering.evaluate import groups
from steering.shards import Shards, sample_shards
from steering.verdict.context import MODELS, Context
from steering.verdict.settings import VerdictSettings
from steering.verdict.stages import rollouts

AGAIN = 100_000
"""Index of the first fresh sample: beyond those of any first run."""

FITS = 200
"""Resamples of the beta-binomial, each a fit."""

Advance = Callable[[str, int, int], Any]
"""Told what is being sampled, how many answers more are done, and of how many."""


@dataclass(frozen=True)
class Reach:
    """What is asked."""

    base: str
    tuned: str
    task: str = "chain"
    out: Path = Path("runs/boundary")
    problems: int = 60
    samples: int = 32
    k: int = 0
    """Budget that differences are reported at, fixed beforehand; 0 for a quarter of the samples."""
    others: int = 40
    """Problems of "both" and of "neither" that are tested again, each."""
    seed: int = 0
    fresh: bool = False
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Refuse what can never work."""
        if self.samples < 2 or self.samples > AGAIN // 10 or not 0 <= self.k <= self.samples:
            raise Refusal(
                f"{self.samples} samples and k = {self.k}: give 2..{AGAIN // 10} answers to each "
                f"problem, and a k of at most as many (0 for a quarter of them)."
            )
        if self.others < 0:
            raise Refusal(
                f"others = {self.others}: how many problems are tested again is 0 or more."
            )

    @property
    def at(self) -> int:
        """The budget fixed beforehand."""
        return self.k or max(1, self.samples // 4)

    @cached_property
    def context(self) -> Context:
        """Models, task and problems, as the verdict has them."""
        return Context(
            VerdictSettings(
                self.base,
                self.tuned,
                self.task,
                self.out,
                seed=self.seed,
                problems=self.problems,
                samples=self.samples,
                device=self.device,
                dtype=self.dtype,  # type: ignore[arg-type]
            )
        )


def reach(asked: Reach, advance: Advance | None = None) -> list[Measurement]:
    """All rows, of each skill and half and of all problems together (skill "", part "").

    Args:
        asked: which models, how many answers.
        advance: told of progress.

    Raises:
        Refusal: models that can't be compared, or shards of another run in `out`.
    """
    problems = asked.context.test
    base, tuned = (first(asked, which, advance) for which in MODELS)
    again = sampled(asked, "base", "base-again", problems, AGAIN, advance).counts()
    tested: dict[Which, list[str]] = {
        which: to_retest(base, tuned, which=which, others=asked.others)
        for which in ways([*base, *tuned])
    }
    wanted = set().union(*tested.values())
    once_more = [p for p in problems if p.id in wanted]
    # Which these are depends on `others`: another choice of them is another set of shards.
    name = f"tuned-again-{content_hash([p.id for p in once_more])[:8]}"
    tuned_again = sampled(asked, "tuned", name, once_more, AGAIN, advance).counts()
    drawn = Drawn(base, tuned, again, tuned_again, tested)
    cells = groups(problems)
    pooled = [] if len(cells) == 1 else [("", "")]
    found: list[Measurement] = []
    for skill, part in [*pooled, *cells]:
        whole = (skill, part) in pooled
        of_it = [p for p in problems if whole or (p.skill, p.part) == (skill, part)]
        found += _rows(asked, drawn.of(of_it), of_it, {"skill": skill, "part": part})
        if advance:
            advance("measures", 1, len(cells) + len(pooled))
    return found


@dataclass(frozen=True)
class Drawn:
    """Counts of every sample that was drawn."""

    base: list[Counts]
    tuned: list[Counts]
    base_again: list[Counts]
    tuned_again: list[Counts]
    tested: dict[Which, list[str]]
    """Ids of the problems that were tested again, by what counts as solved."""

    def of(self, problems: Sequence[Problem]) -> "Drawn":
        """Those of some problems."""
        ids = {p.id for p in problems}

        def kept(counted: list[Counts]) -> list[Counts]:
            return [one for one in counted if one.problem in ids]

        return Drawn(
            kept(self.base),
            kept(self.tuned),
            kept(self.base_again),
            kept(self.tuned_again),
            {name: [i for i in found if i in ids] for name, found in self.tested.items()},
        )


def first(asked: Reach, which: str, advance: Advance | None) -> list[Counts]:
    """The answers that the verdict would read: recorded, or sampled at the same indices."""
    context = asked.context
    record = None if asked.fresh else rollouts.recorded(context, which)
    if record is not None:
        counted = Shards((record,), tuple(context.test)).counts()
        if advance:
            answers = sum(one.n for one in counted)
            advance(f"answers of {which} (recorded)", answers, answers)
        return counted
    return sampled(asked, which, which, context.test, 0, advance).counts()


def sampled(
    asked: Reach,
    which: str,
    name: str,
    problems: Sequence[Problem],
    offset: int,
    advance: Advance | None,
) -> Shards:
    """Answers in shards under `out`, at indices from `offset` on."""
    context, total = asked.context, len(problems) * asked.samples
    if not problems:
        return Shards((), ())
    return sample_shards(
        context.model(which),
        context.task,
        problems,
        asked.out / "samples" / name,
        samples=asked.samples,
        seed=asked.seed,
        first_sample=offset + context.first_sample(which),
        batch=rollouts.BATCH,
        progress=(lambda more: advance(f"answers of {name}", more, total)) if advance else None,
    )


def _rows(
    asked: Reach, drawn: Drawn, problems: Sequence[Problem], about: dict[str, str]
) -> list[Measurement]:
    """The rows of one skill and half."""
    how: dict[str, Any] = {"about": about, "seed": asked.seed}
    k, base, tuned = asked.at, drawn.base, drawn.tuned
    guesses = np.array([asked.context.task.guess_rate(p) for p in problems])
    limit = seen(base, guesses)
    strict = ways([*base, *tuned])[-1]  # valid answers, where traces are checked
    found = of_curves(base, tuned, k=k, **how)
    for model, counted in (("base", base), ("tuned", tuned)):
        found += of_cover(counted, model, **how)
        found += of_accuracy(counted, model, **how)
        found += of_fit(counted, model, which=strict, limit=limit, resamples=FITS, **how)
    found += of_pair(base, tuned, k=k, **how)
    for name, pair in (
        (ITSELF, (base, drawn.base_again)),
        (SHUFFLED, relabelled(base, tuned, seed=asked.seed)),
    ):
        found += of_pair(*pair, k=k, about={**about, "setting": name}, seed=asked.seed)
        found += [
            one
            for one in of_curves(*pair, k=k, about={**about, "setting": name}, seed=asked.seed)
            if one.model == "tuned - base"
        ]
    found += of_later(base, drawn.base_again, "base", which=strict, about=about)
    for which in drawn.tested:
        found += _retested(asked, drawn, which, about)
    return found + of_guessing(guesses, asked.samples, k=k, about=about)


def _retested(asked: Reach, drawn: Drawn, which: Which, about: dict[str, str]) -> list[Measurement]:
    ids = set(drawn.tested[which])
    if not ids:
        return []
    base, tuned = (
        [one for one in counted if one.problem in ids]
        for counted in (drawn.base_again, drawn.tuned_again)
    )
    moved = retest(drawn.base, drawn.tuned, base, tuned, which=which)
    return of_retest(moved, samples=asked.samples, which=which, about=about)
