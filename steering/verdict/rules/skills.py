"""The conclusion on one skill, from its halves and from its elicitation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from probes.records import Measurement, unique
from steering.verdict.rules.evidence import pick, said
from steering.verdict.rules.halves import Reading, Thresholds, read

UNTOUCHED = "untouched"

GAINED = ("deployed", "latent", "created", "not found", "touched only")
"""Labels of skills in which tuning gained."""


@dataclass(frozen=True)
class SkillVerdict:
    """The conclusion on one skill."""

    skill: str
    label: str
    """One of `GAINED`, or "no gain", "lost", "undecided"."""
    touched_only: bool
    """The gain is on entries that tuning met, and not shown on the others."""
    reason: str
    needed: str
    readings: tuple[Reading, ...]

    @property
    def decisive(self) -> Reading:
        """The half that the label was read on."""
        wanted = "touched" if self.touched_only else UNTOUCHED
        return next((r for r in self.readings if r.part == wanted), self.readings[0])


def judge(rows: Sequence[Measurement], skill: str, limits: Thresholds, tests: int) -> SkillVerdict:
    """One skill, from its halves and from its elicitation."""
    parts = unique([r.part for r in rows if (r.measure, r.skill) == ("guess rate", skill)])
    readings = tuple(read(rows, skill, part, limits, tests) for part in parts)
    by_part = {r.part: r for r in readings}
    main = by_part.get(UNTOUCHED) or readings[0]
    touched = by_part.get("touched", main)
    touched_only = not main.gained and touched.gained
    if touched_only:
        main = touched

    def verdict(label: str, reason: str, needed: str = "") -> SkillVerdict:
        return SkillVerdict(skill, label, touched_only, reason, needed, readings)

    if main.label == "deployed" and touched_only:
        return verdict(
            "touched only",
            f"{main.reason}, but on entries that tuning never met {by_part[UNTOUCHED].reason}",
            "a twin tuned the same way, or " + (by_part[UNTOUCHED].needed or "more problems"),
        )
    if main.label != "not found" and not (main.label == "undecided" and main.gained):
        return verdict(main.label, main.reason, main.needed)
    about: dict[str, Any] = {"skill": skill, "setting": "elicitation", "model": "elicited"}
    elicited = pick(rows, "valid", part=UNTOUCHED, **about)
    taught = pick(rows, "valid", part="touched", **about)
    if elicited is None or taught is None or math.isnan(elicited.value):
        if main.label == "undecided":
            return verdict(main.label, main.reason, main.needed)
        return verdict(
            "not found", main.reason, "an elicitation budget: a locked skill looks absent"
        )
    budget = f"the elicitation budget ({said(elicited)}, chance {elicited.x:.3f}; {elicited.note})"
    if elicited.low > elicited.x:
        return verdict("latent", f"{main.reason}, but brought out by {budget}")
    if main.label == "undecided":
        return verdict(main.label, f"{main.reason}, nor brought out by {budget}", main.needed)
    if elicited.high < elicited.x + limits.margin and taught.low > elicited.x:
        return verdict("created", f"{main.reason}, nor brought out by {budget}")
    return verdict(
        "not found",
        f"{main.reason}; whether it can be elicited is open after {budget}",
        "more problems, or a larger elicitation budget",
    )
