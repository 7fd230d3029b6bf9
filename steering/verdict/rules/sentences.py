"""The conclusion in words: what was gained, what it was, and where the evidence is silent."""

import math
from collections import Counter
from collections.abc import Sequence

from probes.records import Measurement, unique
from steering.verdict.rules.evidence import detectable, pick, said
from steering.verdict.rules.skills import UNTOUCHED, SkillVerdict


def sentences(rows: Sequence[Measurement], skills: Sequence[SkillVerdict]) -> tuple[str, ...]:
    """At most four."""
    found = [_gain(rows, skills), *_deployed(skills), *_others(skills), *_crossing(rows)]
    return tuple(found[:4])


def silences(rows: Sequence[Measurement], skills: Sequence[SkillVerdict]) -> tuple[str, ...]:
    """What the evidence doesn't say; each with what would."""
    found = (
        [] if skills else ["Valid answers were not measured: without them nothing is concluded."]
    )
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
        found.append(f"Undefined {about} ({whose}; {len(lost)} numbers): {_reasons(lost)}")
    return tuple(found)


REASONS = 3
"""Of numbers of one kind, so many are told."""


def _reasons(lost: Sequence[Measurement]) -> str:
    """Why numbers of one kind are undefined: the commonest reasons, each with how often."""
    counted = Counter(r.note or "no reason given" for r in lost).most_common()
    if len(counted) == 1:
        return counted[0][0]
    told = [f"{why.rstrip('.')} ({count})" for why, count in counted[:REASONS]]
    rest = sum(count for _, count in counted[REASONS:])
    return "; ".join([*told, *([f"other reasons ({rest})"] if rest else [])])


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
            f"after; a true change of {detectable(change):.3f} is found four times in five)."
        )
    return (
        f"Tuning raised the share of valid answers from {said(base)} to {said(tuned)}, and in "
        f"{len(gained)} of {len(skills)} skills ({_names(gained)}) beyond doubt."
    )


def _deployed(skills: Sequence[SkillVerdict]) -> list[str]:
    found = [s for s in skills if s.label == "deployed"]
    if not found:
        return []
    halves = {s.skill for s in found if s.decisive.part == UNTOUCHED}
    masses = "; ".join(
        f"{s.skill or 'all'} {said(s.decisive.base)} to {said(s.decisive.tuned)}"
        + (", undivided" if halves and s.skill not in halves else "")
        for s in found
    )
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


def _names(skills: Sequence[SkillVerdict]) -> str:
    names = [s.skill or "all problems" for s in skills]
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
