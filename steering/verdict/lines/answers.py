"""Lines about what the models answer: gains, reach, decoding, decisions, luck."""

from collections.abc import Sequence
from typing import Any

from probes.records import Measurement, unique
from steering.verdict.lines.line import Line, power, sign
from steering.verdict.rules import UNTOUCHED, SkillVerdict, pick, said

KITAGAWA = {
    "mix": "gain by the mix of strategies",
    "within": "gain within strategies",
    "interaction": "gain by both at once",
    "alone": "gain by strategies that one model alone uses",
}
"""Terms of the split, each with its words."""


def skill(of: SkillVerdict) -> Line:
    """Gain of one skill, on the half that its label was read on."""
    of_it = of.decisive
    where = f", {of_it.part}" if of_it.part else ""
    return Line(
        f"Did {of.skill or 'it'} gain?",
        f"valid answers{where}",
        f"{said(of_it.base)} to {said(of_it.tuned)}",
        f"limit {of_it.limit:.3f}",
        of.label,
    )


def ends(rows: Sequence[Measurement]) -> list[Line]:
    """The change of pass@k at the largest budget."""
    changes = [
        r
        for r in rows
        if (r.measure, r.model, r.skill, r.part) == ("pass@k", "tuned - base", "", "")
    ]
    if not changes:
        return []
    last = max(changes, key=lambda r: r.x)
    valid = pick(rows, "valid@k", x=last.x, model="tuned - base")
    return [
        Line(
            "Does the boundary move?",
            f"pass@{last.x:.0f}, tuned - base",
            said(last),
            f"valid only {said(valid)}",
            sign(valid or last, "reach", "lost reach", "no change of reach shown"),
        )
    ]


def sharpening(rows: Sequence[Measurement]) -> list[Line]:
    """The base decoded more sharply, and the tuned model at the base's entropy.

    Of the base under another decoding the tuned model's paired lead decides; of the tuned model,
    how much of its own rate it loses.
    """
    found = []
    for r in rows:
        sharp = r.measure in ("sharpened valid", "sharpened right")
        if not sharp or r.skill or r.part or " - " in r.model:
            continue
        name = f"tuned - {r.model}"
        lead = pick(rows, r.measure, model=name, setting=r.setting)
        if r.model == "base":
            names = ("more than sharpening", "sharpening does more", "not told from sharpening")
            control = f"tuned leads by {said(lead)}"
        else:
            names = ("sharpness is part of the gain", "more without it", "no loss shown")
            control = f"loses {said(lead)} of the tuned model's rate"
        speaks = "not compared" if lead is None else sign(lead, *names)
        of = "" if r.measure == "sharpened valid" else " (right answers)"
        label = f"{r.model}, {r.setting}{of}"
        found.append(Line("Is it only sharpening?", label, said(r), control, speaks))
    return found


def crossed(rows: Sequence[Measurement]) -> list[Line]:
    """Deployment, execution and interaction; deployment must beat as many random tokens."""
    found = []
    parts = unique([r.part for r in rows if r.measure == "deployment valid" and not r.skill])
    for part in parts:
        where = f", {part}" if part else ", undivided" if len(parts) > 1 else ""
        control = pick(rows, "deployment valid", part=part, setting="random tokens")
        for name, speaks in (("deployment", "when"), ("execution", "how"), ("interaction", "both")):
            r = pick(rows, f"{name} valid", part=part, setting="decision tokens")
            if r is None:
                continue
            told = sign(r, speaks, f"against {speaks}", "not shown")
            beside = ""
            if name == "deployment":
                beside = f"random tokens {said(control)}"
                apart = "decision tokens - random tokens"
                beyond = pick(rows, "deployment valid", part=part, setting=apart)
                if told == speaks and beyond is not None and not beyond.low > 0:
                    told = f"not beyond random tokens {power(beyond)}"
            found.append(Line("When or how?", name + where, said(r), beside, told))
    return found


def strategies(rows: Sequence[Measurement]) -> list[Line]:
    """How often each strategy is taken."""
    found = []
    for kind in unique([r.kind for r in rows if r.measure == "option rate" and not r.skill]):
        before, after, change = (
            pick(rows, "option rate", model=m, kind=kind, setting="yes")
            for m in ("base", "tuned", "tuned - base")
        )
        if before and after and change:
            found.append(
                Line(
                    "Which strategies?",
                    f"rate of {kind}",
                    f"{said(before)} to {said(after)}",
                    "",
                    sign(change, "more of it", "less of it", "no change shown"),
                )
            )
    return found


def texts(rows: Sequence[Measurement]) -> list[Line]:
    """What kind of answers they are: readable, lucky, and how the mix of strategies accounts."""
    found = []
    labels = {
        "unparsed": ("unreadable answers", "fewer", "more"),
        "lucky": ("right by an invalid trace", "fewer", "more"),
    }
    for measure, (label, fewer, more) in labels.items():
        before, after, change = (
            pick(rows, measure, model=m) for m in ("base", "tuned", "tuned - base")
        )
        if before and after and change:
            speaks = sign(change, more, fewer, "no change shown")
            value = f"{said(before)} to {said(after)}"
            found.append(Line("Is it format or luck?", label, value, "", speaks))
    total = pick(rows, "kitagawa", setting="total")
    for setting, label in KITAGAWA.items():
        r = pick(rows, "kitagawa", setting=setting)
        if r and total:
            control = f"of {said(total)} in all"
            found.append(Line("Within problems?", label, said(r), control, "description only"))
    return found


def parting(rows: Sequence[Measurement]) -> list[Line]:
    """How much of where the models part is decisions, by either model's lights."""
    where: dict[str, Any] = {"kind": "decision", "setting": "base's texts"}
    there = pick(rows, "kl share", model="base || tuned", **where)
    back = pick(rows, "kl share", model="tuned || base", **where)
    if there is None or back is None:
        return []
    label = "share of KL(base || tuned) at decisions, base's texts"
    control = f"KL(tuned || base): {said(back)}"
    return [Line("Where do they part?", label, said(there), control, "description only")]


def elicited(rows: Sequence[Measurement]) -> list[Line]:
    """What the budget brought out."""
    return [
        Line(
            "Can it be elicited?",
            f"valid answers to {r.skill} after the budget, {r.part}",
            said(r),
            f"chance {r.x:.3f}, before {said(_before(rows, r))}",
            r.note.split(":")[0],
        )
        for r in rows
        if (r.measure, r.setting, r.model, r.part)
        == ("valid", "elicitation", "elicited", UNTOUCHED)
    ]


def _before(rows: Sequence[Measurement], of_it: Measurement) -> Measurement | None:
    where: dict[str, Any] = {"skill": of_it.skill, "part": of_it.part}
    where |= {"setting": "elicitation", "model": "base"}
    return pick(rows, "valid", **where)
