"""How much of the gap each arm recovers, and at what price: tidy rows.

    rows = recovery(run_arms(base, tuned, ...), pair="rl-0-0")

Of each skill and part, of each part, and of all problems together (skill and part ""), with
`model` the name of the pair and `setting` the arm:

    right, valid                 rate of the arm's answers
    gap right, gap valid         tuned - base, paired by problem
    recovered right, ... valid   (arm - base) / (tuned - base), signed, paired
    hybrid ahead right, ...      rate of the hybrid less this arm's, paired by problem
    steered share                of all tokens, those that not the base alone chose
    disagreement rate            of all tokens, those where the likeliest tokens differ
    oracle bits                  what the tuned model told the arm, in bits a token
    oracle bits, steered token   log2 of the candidates, and the disagreement bit
    fitted parameters            of vectors and gate

**The share is signed** and neither clipped nor taken of absolute values (Venhoff et al.,
arXiv:2510.07364, first release: max(0, (hybrid - min) / |gap|), which hides what goes the wrong
way). Where the gap's own interval holds 0 it is undefined, and the row says so.

**Oracle bits.** Of C candidates, steering a share s of the tokens, the tuned model tells where (the
entropy h(s) of one bit a token at most, nothing where the gate doesn't need it) and which
(s log2 C). C is the number of categories times that of coefficients; the vocabulary where the
tuned model's own token is taken; the width of a guardrail, which is asked at every token. A steered
token costs log2 C and the one bit of disagreement.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from probes.intervals import (
    FEW,
    Estimate,
    bootstrap,
    difference,
    exact_rate,
    rate,
    recovered,
    undefined,
)
from probes.measurements import point, row
from probes.records import Measurement, Problem, Refusal
from steering.evaluate import Which, groups
from steering.routing.arms import FULL, PLAIN, Answers, Arm
from steering.routing.hybrid import BASE, FIELDS
from steering.routing.running import Done

WHICH: tuple[Which, ...] = ("right", "valid")

NEAR = 0.1
"""Of a gap whose interval comes nearer to 0 than this share of its value a share says nothing: its
ends, divided by such a number, are as far away as one likes."""

Rates = Float[np.ndarray, " problems"]


def recovery(done: Sequence[Done], *, pair: str = "", seed: int = 0) -> list[Measurement]:
    """Rows of every arm, for each skill and part and pooled.

    Args:
        done: all arms, base and tuned among them.
        pair: name of the pair, for `model`.
        seed: of the resamples.

    Raises:
        Refusal: base or tuned is not among them.
    """
    by_name = {one.arm.name: one for one in done}
    if lost := [name for name in PLAIN if name not in by_name]:
        raise Refusal(f"there is no arm {lost[0]!r}: without it there is no gap to recover.")
    plain = by_name[PLAIN[0]].judged
    assert plain is not None, "a plain model always has answers"
    parts = [part for _, part in groups(plain.problems) if part]
    cells: list[tuple[str | None, str | None]] = [(None, None), *((None, p) for p in parts)]
    cells += groups(plain.problems)
    rows = []
    for skill, part in dict.fromkeys(cells):
        for one in done:
            rows += _of_arm(one, by_name, skill, part, pair, seed)
    return rows


def _of_arm(
    one: Done,
    by_name: dict[str, Done],
    skill: str | None,
    part: str | None,
    pair: str,
    seed: int,
) -> list[Measurement]:
    arm = one.arm
    about: dict[str, Any] = {"skill": skill or "", "part": part or "", "model": pair}
    found: list[tuple[str, Estimate]] = []
    for which in WHICH:
        base, tuned = (_rates(by_name[name], which, skill, part) for name in PLAIN)
        gap = _gap(tuned, base, seed)
        if arm.name == PLAIN[1]:
            found.append((f"gap {which}", gap))
        if one.judged is None:
            why = undefined(arm.undefined, len(base))
            found += [(which, why), (f"recovered {which}", why)]
            continue
        values = _rates(one, which, skill, part)
        found.append((which, _few(len(values)) or rate(values, seed=seed)))
        if arm.name not in PLAIN:
            found.append((f"recovered {which}", share_of_gap(values, base, tuned, seed=seed)))
        if arm.name not in (*PLAIN, FULL) and by_name[FULL].judged is not None:
            full = _rates(by_name[FULL], which, skill, part)
            found.append((f"{FULL} ahead {which}", _gap(full, values, seed)))
    if one.answers:
        assert one.judged is not None
        asked = [p for p in one.judged.problems if skill in (None, p.skill)]
        found += costs(arm, one.answers, [p for p in asked if part in (None, p.part)], seed=seed)
    rows = [row(name, e, setting=arm.name, note=arm.note, **about) for name, e in found]
    if arm.vectors is not None and skill is None and part is None:
        size = float(arm.parameters)
        rows.append(point("fitted parameters", size, 1, setting=arm.name, note=arm.note, **about))
    return rows


def share_of_gap(values: Rates, base: Rates, tuned: Rates, *, seed: int = 0) -> Estimate:
    """(arm - base) / (tuned - base), signed; undefined where the gap may be 0.

    The gap is judged by `intervals.difference`, whose interval is exact where few problems differ:
    a bootstrap of three problems' gap would exclude 0 too easily. The share of an arm that differs
    from the base in fewer than ten problems has conservative ends, for the same reason.
    """
    gap = _gap(tuned, base, seed)
    if not gap.defined:
        return gap
    if not gap.excludes(0.0):
        return undefined(f"the gap is {gap}, not told from 0", len(base))
    nearest = gap.low if gap.value > 0 else gap.high
    if nearest / gap.value < NEAR:
        return undefined(f"the gap is {gap}, too near 0 to be divided by", len(base))
    if ((values != base).sum() >= FEW) or np.array_equal(values, tuned):
        return recovered(values, base, tuned, seed=seed)
    # A bootstrap of few problems that differ is too narrow, and of none has width 0: the exact ends
    # of the difference, over the nearer or further end of the gap, whichever is wider.
    change = difference(values, base, seed=seed)
    ends = [above / below for above in (change.low, change.high) for below in (gap.low, gap.high)]
    return Estimate(change.value / gap.value, min(ends), max(ends), len(base))


def costs(
    arm: Arm, answers: Answers, problems: Sequence[Problem], *, seed: int = 0
) -> list[tuple[str, Estimate]]:
    """Share of steered tokens, disagreement rate and oracle bits, over these problems."""
    chooser, top = FIELDS.index("chooser"), (FIELDS.index("base_top"), FIELDS.index("tuned_top"))
    counted = {p.id: np.zeros(3) for p in problems}
    for (problem, _, _), table in answers.items():
        if problem in counted:
            steered = (table[:, chooser] != BASE).sum()
            apart = (table[:, top[0]] != table[:, top[1]]).sum()
            counted[problem] += (steered, apart, len(table))
    steered, apart, total = np.array(list(counted.values())).T
    choice = math.log2(arm.candidates)

    def bits(taken: np.ndarray, of: np.ndarray) -> np.ndarray:
        share = np.clip(taken / of, 0, 1)
        return share * choice + (_entropy(share) if arm.gated else 0.0)

    told = choice + float(arm.gated)
    n = len(problems)
    each = undefined("no token is steered", n)
    if steered.sum():
        each = Estimate(told, told, told, n, 0.0)
    return [
        ("steered share", _ratio(steered, total, seed)),
        ("disagreement rate", _ratio(apart, total, seed)),
        ("oracle bits", _few(n) or bootstrap(bits, steered, total, seed=seed)),
        ("oracle bits, steered token", each),
    ]


def _entropy(share: np.ndarray) -> np.ndarray:
    """Of a coin, in bits."""
    inside = np.clip(share, 1e-300, 1), np.clip(1 - share, 1e-300, 1)
    return -share * np.log2(inside[0]) - (1 - share) * np.log2(inside[1])


def _ratio(part: np.ndarray, whole: np.ndarray, seed: int) -> Estimate:
    """A share of tokens, problems resampled; exact over problems where no token is one."""
    if few := _few(len(part)):
        return few
    if not part.any():
        return exact_rate(0, len(part))
    return bootstrap(lambda a, b: a / b, part, whole, seed=seed)


def _rates(one: Done, which: Which, skill: str | None, part: str | None) -> Rates:
    assert one.judged is not None
    return one.judged.rates(which, skill=skill, part=part)


def _gap(tuned: Rates, base: Rates, seed: int) -> Estimate:
    return _few(len(base)) or difference(tuned, base, seed=seed)


def _few(problems: int) -> Estimate | None:
    if problems < 2:
        return undefined(f"{problems} problem gives no interval", problems)
    return None
