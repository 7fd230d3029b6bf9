"""From measurements to conclusions, by written rules; pure, and the same in every calibration.

    concluded = conclude(rows, Thresholds(tuning_rollouts=38_400, margin=0.05))
    concluded.answer                    # "deployed", "created", "mixed", "no gain", "undecided"
    concluded.sentences                 # at most four
    concluded.silent                    # what the evidence doesn't say, and what would

Everything is read on *valid* answers (right by a valid trace), by skill and half of its entries.
With B and T the valid mass of base and tuned, and the limit the larger of the guess rate and one
in all rollouts that tuning made, of a half where T gained:

- **deployed**: B's lower bound exceeds the limit (B's lower bound is the sampled one, or the mean
  probability of one canonical valid trace if that is higher);
- **not found in the base at this detection limit**: B's upper bound lies below the limit and T's
  lower bound above;
- **undecided** otherwise.

A gain is a paired difference above 0 with all halves tested at once (Bonferroni): a model against
itself would otherwise gain somewhere in one run out of four. **No gain** is the interval of the
difference within the margin; a gain neither shown nor excluded is undecided.

Of a skill the half that tuning never met decides. Where only the half that it met gained, the
conclusion says so, and a skill that the base has is then **touched only** and not deployed: that
entries were rewritten can't be told from it. Not found becomes **created** if the elicitation
budget failed too. A gain that sampling the base does not explain, not found or undecided, is
**latent** if the budget brought it out of the base: a locked skill looks absent to sampling.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist  # scipy's would triple the time of `whenhow --help`
from typing import Any

from probes.records import Measurement, Refusal, unique

UNTOUCHED = "untouched"
GAINED = ("deployed", "latent", "created", "not found", "touched only")
"""Labels of skills in which tuning gained."""

_QUANTILE = NormalDist().inv_cdf


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


@dataclass(frozen=True)
class Conclusion:
    """What follows from the measurements."""

    answer: str
    """"deployed", "created", "mixed", "no gain" or "undecided"."""
    sentences: tuple[str, ...]
    """At most four."""
    silent: tuple[str, ...]
    """What the evidence doesn't say; each with what would."""
    skills: tuple[SkillVerdict, ...]


def pick(
    rows: Sequence[Measurement], measure: str, *, x: float | None = None, **where: str
) -> Measurement | None:
    """The first row of a measure with these columns; the others must be "" unless named."""
    columns = {"skill": "", "part": "", "kind": ""} | where
    for row in rows:
        fits = all(getattr(row, name) == value for name, value in columns.items())
        if row.measure == measure and fits and (x is None or row.x == x):
            return row
    return None


def said(row: Measurement | None) -> str:
    """A number with its interval, or why there is none."""
    if row is None:
        return "not measured"
    if math.isnan(row.value):
        return f"undefined ({row.note})" if row.note else "undefined"
    if math.isnan(row.low):
        return f"{row.value:.3f}"
    half = (row.high - row.low) / 2
    digits = 2 if half >= 0.02 or half == 0 else 3
    return f"{row.value:.{digits}f} [{row.low:.{digits}f}, {row.high:.{digits}f}]"


def detectable(change: Measurement) -> float:
    """Smallest true difference found with power .8 at 95%: 2.80 standard errors.

    The error is read off the interval, as a 3.92th of its width.
    """
    return (_QUANTILE(0.975) + _QUANTILE(0.8)) * (change.high - change.low) / (2 * _QUANTILE(0.975))


def widened(change: Measurement, tests: int) -> tuple[float, float]:
    """The interval at which `tests` of them hold together with 95% (Bonferroni).

    Each side is stretched by the ratio of the normal quantiles, so a skew stays.
    """
    stretch = _QUANTILE(1 - 0.025 / max(1, tests)) / _QUANTILE(0.975)
    return (
        change.value - stretch * (change.value - change.low),
        change.value + stretch * (change.high - change.value),
    )


def read(
    rows: Sequence[Measurement], skill: str, part: str, limits: Thresholds, tests: int
) -> Reading:
    """One half of a skill by the three rules."""
    where: dict[str, Any] = {"skill": skill, "part": part}
    base, tuned, change = (
        pick(rows, "valid@k", x=1.0, model=model, **where)
        for model in ("base", "tuned", "tuned - base")
    )
    if base is None or tuned is None or change is None:
        raise Refusal(
            f"valid@1 of skill {skill!r}, part {part!r} was not measured: no boundary stage?"
        )
    guess = pick(rows, "guess rate", **where)
    limit = max(guess.value if guess else 0.0, 1 / limits.tuning_rollouts)
    gold = pick(rows, "gold trace probability", model="base", **where)
    lowest = max(base.low, gold.low if gold and not math.isnan(gold.low) else 0.0)
    low, high = widened(change, tests)

    def reading(label: str, reason: str, needed: str = "") -> Reading:
        return Reading(part, label, limit, base, tuned, change, low > 0, reason, needed)

    masses = f"base {said(base)}, tuned {said(tuned)}, limit {limit:.3f}"
    if high < 0:
        return reading("lost", f"valid answers became rarer by {said(change)}")
    if not low > 0:
        if -limits.margin < change.low and change.high < limits.margin:
            return reading(
                "no gain",
                f"the change {said(change)} lies within the margin of {limits.margin:g} "
                f"(smallest detectable change {detectable(change):.3f})",
            )
        return reading(
            "undecided",
            f"gain neither shown nor excluded: the change is {said(change)}, and below "
            f"{detectable(change):.3f} none would have been detected",
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


def conclude(rows: Sequence[Measurement], limits: Thresholds) -> Conclusion:
    """The answer, its sentences and its silences."""
    cells = unique([(r.skill, r.part) for r in rows if r.measure == "guess rate"])
    skills = tuple(judge(rows, s, limits, len(cells)) for s in unique([s for s, _ in cells]))
    answer = _answer(skills)
    sentences = [_gain(rows, skills), *_deployed(skills), *_others(skills), *_crossing(rows)]
    return Conclusion(answer, tuple(sentences[:4]), tuple(_silences(rows, skills)), skills)


def _answer(skills: Sequence[SkillVerdict]) -> str:
    labels = {s.label for s in skills if s.label in GAINED}
    if not labels:
        settled = all(s.label in ("no gain", "lost") for s in skills)
        return "no gain" if settled else "undecided"
    if labels <= {"deployed", "latent"}:
        return "deployed"
    if labels == {"created"}:
        return "created"
    return "mixed" if labels & {"deployed", "latent", "created"} else "undecided"


def _gain(rows: Sequence[Measurement], skills: Sequence[SkillVerdict]) -> str:
    base, tuned, change = (
        pick(rows, "valid@k", x=1.0, model=m) for m in ("base", "tuned", "tuned - base")
    )
    gained = [s for s in skills if any(r.gained for r in s.readings)]
    if not (base and tuned and change):
        return "The valid answers of the two models were not compared over all skills."
    if not gained and all(s.label == "no gain" for s in skills):
        return (
            f"Tuning changed the share of valid answers by {said(change)} and in no skill by as "
            f"much as the margin: no gain."
        )
    if not gained and change.low > 0:
        return (
            f"Over all skills tuning raised the share of valid answers from {said(base)} to "
            f"{said(tuned)}, but in no single skill is the gain beyond doubt."
        )
    if not gained:
        return (
            f"No gain is shown in any skill (valid answers {said(base)} before, {said(tuned)} "
            f"after; a change below {detectable(change):.3f} would not have been detected)."
        )
    return (
        f"Tuning raised the share of valid answers from {said(base)} to {said(tuned)}, and in "
        f"{len(gained)} of {len(skills)} skills ({_names(gained)}) beyond doubt."
    )


def _deployed(skills: Sequence[SkillVerdict]) -> list[str]:
    found = [s for s in skills if s.label == "deployed"]
    if not found:
        return []
    masses = "; ".join(
        f"{s.skill or 'all'} {said(s.decisive.base)} to {said(s.decisive.tuned)}" for s in found
    )
    halves = any(s.decisive.part == UNTOUCHED for s in found)
    where = " on entries that tuning never met" if halves else ""
    return [
        f"It deployed {_names(found)}: the base already wrote valid traces above the limit of "
        f"{max(s.decisive.limit for s in found):.3f}, and tuning made them likelier{where} "
        f"({masses})."
    ]


def _others(skills: Sequence[SkillVerdict]) -> list[str]:
    """Everything gained that is not deployed, in one sentence."""
    wordings = {
        "created": "created (not found in the base, and the elicitation budget failed)",
        "latent": "latent in the base (not shown by sampling, but brought out by a small budget)",
        "not found": "not found in the base at this detection limit, and whether created is open",
        "touched only": "better on touched entries only, which does not show deployment",
        "lost": "worse after tuning",
    }
    clauses = []
    for label, wording in wordings.items():
        for only in (False, True):
            found = [s for s in skills if s.label == label and s.touched_only == only]
            if found:
                tail = ", the gain being on touched entries only" if only else ""
                tail = "" if label == "touched only" else tail
                verb = "is" if len(found) == 1 else "are"
                clauses.append(f"{_names(found)} {verb} {wording}{tail}")
    return [f"Of the other skills, {'; '.join(clauses)}."] if clauses else []


def _crossing(rows: Sequence[Measurement]) -> list[str]:
    parts = unique([r.part for r in rows if r.measure == "deployment valid" and not r.skill])
    if not parts:
        return []
    part = UNTOUCHED if UNTOUCHED in parts else parts[0]
    terms = [
        pick(rows, f"{m} valid", part=part, setting="decision tokens")
        for m in ("deployment", "execution", "interaction")
    ]
    if any(t is None or math.isnan(t.value) for t in terms):
        return []
    deploy, execute, together = terms
    where = f" on {part} entries" if part else ""
    null = pick(rows, "deployment valid", part=part, setting="random tokens")
    beside = f"; as many random tokens: {said(null)}" if null else ""
    return [
        f"Crossed decoding puts the gain{where} down to when ({said(deploy)}, the tuned model's "
        f"decisions in the base{beside}), how ({said(execute)}, its execution under the base's "
        f"decisions) and both together ({said(together)})."
    ]


def _silences(rows: Sequence[Measurement], skills: Sequence[SkillVerdict]) -> list[str]:
    found = []
    for s in skills:
        name = f"Skill {s.skill}" if s.skill else "All problems"
        if s.label in ("undecided", "not found", "touched only"):
            found.append(f"{name}: {s.reason}. What would decide it: {s.needed}.")
        elif s.label == "no gain":
            found.append(f"{name}: {s.reason}.")
        if s.label == "deployed" and not s.decisive.part:
            found.append(f"{name}: its entries are not divided, so rewriting can't be excluded.")
    missing: dict[str, list[Measurement]] = {}
    for row in rows:
        if math.isnan(row.value):
            about = " of ".join(filter(None, (row.measure, row.kind)))
            missing.setdefault(about, []).append(row)
    for about, lost in missing.items():
        whose = ", ".join(unique([r.model for r in lost if r.model])) or "all"
        why = next((r.note for r in lost if r.note), "no reason given")
        found.append(f"Undefined {about} ({whose}; {len(lost)} numbers): {why}")
    return found


def _names(skills: Sequence[SkillVerdict]) -> str:
    names = [s.skill or "all problems" for s in skills]
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
