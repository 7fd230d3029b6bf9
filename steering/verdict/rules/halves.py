"""One half of a skill's entries, read by the three rules."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from probes.records import Measurement, Refusal
from steering.verdict.rules.evidence import detectable, pick, said, widened


@dataclass(frozen=True)
class Thresholds:
    """What the rules compare with; printed with every verdict."""

    tuning_rollouts: int = 38_400
    """Answers that tuning sampled."""
    margin: float = 0.05
    """The change of a rate that would not matter."""


@dataclass(frozen=True)
class Reading:
    """One half of a skill's entries (or all, where they are undivided), read by the rules."""

    part: str
    label: str
    """"deployed", "not found", "no gain", "lost" or "undecided"."""
    limit: float
    """The detection limit that the base is compared with."""
    base: Measurement
    tuned: Measurement
    change: Measurement
    gained: bool
    """Whether a gain was shown, whatever it is made of."""
    reason: str
    needed: str = ""
    """What would decide it, where it is undecided."""


def limit_of(rows: Sequence[Measurement], skill: str, part: str, limits: Thresholds) -> float:
    """The detection limit of a half: the guess rate, or one in all rollouts that tuning made."""
    guess = pick(rows, "guess rate", skill=skill, part=part)
    return max(guess.value if guess else 0.0, 1 / limits.tuning_rollouts)


def read(
    rows: Sequence[Measurement], skill: str, part: str, limits: Thresholds, tests: int
) -> Reading:
    """One half of a skill by the three rules.

    Args:
        rows: the measurements.
        skill: whose.
        part: which half of its entries.
        limits: what is compared with.
        tests: how many halves are read at once; a gain must hold among them all.

    Raises:
        Refusal: valid@1 of that half was not measured.
    """
    where: dict[str, Any] = {"skill": skill, "part": part}
    base, tuned, change = (
        pick(rows, "valid@k", x=1.0, model=model, **where)
        for model in ("base", "tuned", "tuned - base")
    )
    if base is None or tuned is None or change is None:
        raise Refusal(
            f"valid@1 of skill {skill!r}, part {part!r} was not measured: no boundary stage?"
        )
    limit = limit_of(rows, skill, part, limits)
    gold = pick(rows, "gold trace probability", model="base", **where)
    lowest = max(base.low, gold.low if gold and not math.isnan(gold.low) else 0.0)
    low, high = widened(change, tests)

    def reading(label: str, reason: str, needed: str = "") -> Reading:
        return Reading(part, label, limit, base, tuned, change, low > 0, reason, needed)

    if math.isnan(change.low + change.high):
        return reading("undecided", f"the change is {said(change)}", "more problems or samples")
    found = f"a true change of {detectable(change, tests):.3f} is found four times in five"
    masses = f"base {said(base)}, tuned {said(tuned)}, limit {limit:.3f}"
    if high < 0:
        return reading("lost", f"valid answers became rarer by {said(change)}")
    if not low > 0:
        if -limits.margin < change.low and change.high < limits.margin:
            return reading(
                "no gain",
                f"the change {said(change)} lies within the margin of {limits.margin:g} ({found})",
            )
        return reading(
            "undecided",
            f"gain neither shown nor excluded: the change is {said(change)} ({found})",
            f"about {_times(change, limits.margin)} times as many problems",
        )
    if lowest > limit:
        return reading("deployed", f"the base already writes valid traces ({masses})")
    if base.high < limit < tuned.low:
        return reading("not found", f"no valid traces above the limit in the base ({masses})")
    off = max(abs(base.value - limit), 1e-9)
    more = math.ceil(max(2.0, ((base.high - base.low) / 2 / off) ** 2))
    if base.high >= limit:
        needed = (
            f"about {more} times as many problems"
            if more <= 1000
            else "a task with a lower guess rate: the base is at the limit itself"
        )
        return reading("undecided", f"the base's interval holds the limit ({masses})", needed)
    return reading(
        "undecided",
        f"the tuned model itself is not above the limit ({masses})",
        "more tuning, or a task with a lower guess rate",
    )


def _times(change: Measurement, margin: float) -> int:
    """How many times the problems until the interval would fit inside the margin."""
    return max(2, math.ceil(((change.high - change.low) / 2 / margin) ** 2))
