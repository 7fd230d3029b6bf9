"""Which problems only one of two models can solve, and whether that holds on fresh samples.

    found = solvable(base, tuned)                        # {"both": 0.63 [...], "base only": ...}
    again = to_retest(base, tuned, others=40)            # ids; sample these anew, both models
    retest(base, tuned, fresh_base, fresh_tuned)         # how many stayed in their cell

A problem is solved by a model if any of its n answers is right (or valid). So the table is of a
budget, not of an ability, and its two exclusive cells are where luck collects: a problem that both
models solve with chance 1/n is "base only" one time in four. Yue et al. (2504.13837 v4, table 2)
give the cells without a second look, and note that what only the tuned model solved at 128
samples the base solved at 1,024.

A re-test on fresh samples (disjoint sample indices) makes the regression to the mean visible: of
the problems of a cell, the share that is in it again. For two equal models of which each solves a
problem with chance q, an exclusive cell keeps q(1 − q) of it, never more than `KEPT_BY_LUCK`. Of
the cells "both" and "neither" a random sample is tested along with all exclusive ones: a re-test
of the surprising ones alone could only make them fewer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from probes.boundary.curves import Counts, Which, paired
from probes.intervals import Estimate, exact_rate, rate, undefined
from probes.records import Refusal

CELLS = ("both", "base only", "tuned only", "neither")
EXCLUSIVE = ("base only", "tuned only")

KEPT_BY_LUCK = 0.25
"""Most that an exclusive cell of two equal models keeps in a re-test: the maximum of q(1 − q)."""

_UNEQUAL = 0.01
"""Share of answers that one model may have fewer of: graders that failed (`probes.verify`)."""


@dataclass(frozen=True)
class Again:
    """One cell of the table in the re-test."""

    cell: str
    found: int
    """Problems in it at first."""
    tested: int
    """Of these, tested again."""
    stayed: Estimate
    """Share of these that were in it again."""
    moved: dict[str, int]
    """How many of the tested are in each cell now, its own included."""


def cells(base: Sequence[Counts], tuned: Sequence[Counts], *, which: Which = "right") -> list[str]:
    """The cell of each problem, in the order of the base's.

    Raises:
        Refusal: other problems, or unequal budgets, by which the larger would win.
    """
    tuned = paired(base, tuned)
    budgets = [sum(one.n for one in counted) for counted in (base, tuned)]
    if abs(budgets[0] - budgets[1]) > _UNEQUAL * max(budgets):
        raise Refusal(
            f"{budgets[0]} answers of the base and {budgets[1]} of the tuned model: who is asked "
            f"more often solves more. Compare equal numbers of answers to each problem."
        )
    solved = [(b.number(which) > 0, t.number(which) > 0) for b, t in zip(base, tuned)]  # noqa: B905 - paired
    names = {(True, True): 0, (True, False): 1, (False, True): 2, (False, False): 3}
    return [CELLS[names[one]] for one in solved]


def solvable(
    base: Sequence[Counts], tuned: Sequence[Counts], *, which: Which = "right", seed: int = 0
) -> dict[str, Estimate]:
    """Share of the problems in each cell; the four sum to 1."""
    found = np.array(cells(base, tuned, which=which))
    return {cell: rate((found == cell).astype(float), seed=seed) for cell in CELLS}


def to_retest(
    base: Sequence[Counts],
    tuned: Sequence[Counts],
    *,
    which: Which = "right",
    others: int = 40,
    seed: int = 0,
) -> list[str]:
    """Ids of all problems in an exclusive cell, and of `others` at random from the two other cells.

    Args:
        base: counts of the base.
        tuned: counts of the tuned model.
        which: right answers, or those with a valid trace.
        others: how many of "both" and "neither", each; all where there are fewer.
        seed: of the choice.
    """
    rng = np.random.default_rng(seed)
    found = cells(base, tuned, which=which)
    chosen: set[str] = set()
    for cell in CELLS:
        members = [one.problem for one, at in zip(base, found, strict=True) if at == cell]
        most = len(members) if cell in EXCLUSIVE else min(others, len(members))
        chosen |= {members[i] for i in rng.permutation(len(members))[:most]}
    return [one.problem for one in base if one.problem in chosen]


def retest(
    base: Sequence[Counts],
    tuned: Sequence[Counts],
    fresh_base: Sequence[Counts],
    fresh_tuned: Sequence[Counts],
    *,
    which: Which = "right",
) -> list[Again]:
    """What became of each cell on fresh samples of some of its problems.

    Args:
        base: counts of the base, by which the cells were found.
        tuned: counts of the tuned model, likewise.
        fresh_base: counts of fresh answers, of the problems of `to_retest`.
        fresh_tuned: likewise.
        which: the criterion by which the problems were chosen: those chosen by another are no
            random sample of its cells.
    """
    first = dict(zip((b.problem for b in base), cells(base, tuned, which=which), strict=True))
    if unknown := {one.problem for one in fresh_base} - set(first):
        raise Refusal(f"{len(unknown)} problem(s) are tested again and were never tested.")
    now = cells(fresh_base, fresh_tuned, which=which)
    pairs = [(first[one.problem], at) for one, at in zip(fresh_base, now, strict=True)]
    found = []
    for cell in CELLS:
        moved = {to: sum(pair == (cell, to) for pair in pairs) for to in CELLS}
        tested = sum(moved.values())
        stayed = (
            exact_rate(moved[cell], tested)
            if tested
            else undefined("no problem of this cell was tested again", 0)
        )
        members = sum(at == cell for at in first.values())
        found.append(Again(cell, members, tested, stayed, moved))
    return found
