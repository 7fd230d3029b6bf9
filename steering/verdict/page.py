"""The verdict as a table, as text and as JSON; from measurements only."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from probes.records import Measurement, unique
from steering.verdict.rules import UNTOUCHED, Conclusion, SkillVerdict, pick, said

BESIDE = ("last three tokens", "decision logit", "random weights", "twin", "shuffled labels")
"""Baselines of an AUC, in the order of the table."""


@dataclass(frozen=True)
class Line:
    """One line of the table of the evidence."""

    question: str
    measure: str
    value: str
    """With its interval."""
    control: str
    """What the value is to be compared with."""
    speaks: str
    """What it speaks for."""


def table(rows: Sequence[Measurement], conclusion: Conclusion) -> list[Line]:
    """The evidence, a line a number, in the order in which the questions are asked."""
    found = [_skill(skill) for skill in conclusion.skills]
    found += [*_ends(rows), *_sharpening(rows), *_crossed(rows), *_strategies(rows)]
    found += [*_directions(rows), *_steering(rows), *_elicited(rows), *_drift(rows)]
    return found


def _skill(skill: SkillVerdict) -> Line:
    of_it = skill.decisive
    where = f", {of_it.part}" if of_it.part else ""
    return Line(
        f"Did {skill.skill or 'it'} gain?",
        f"valid answers{where}",
        f"{said(of_it.base)} to {said(of_it.tuned)}",
        f"limit {of_it.limit:.3f}",
        skill.label,
    )


def _ends(rows: Sequence[Measurement]) -> list[Line]:
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
            _sign(valid or last, "reach", "lost reach", "likelihood, not reach"),
        )
    ]


def _sharpening(rows: Sequence[Measurement]) -> list[Line]:
    """The base decoded more sharply, against the tuned; the tuned at the base's entropy."""
    controls = {
        "sharpened valid": pick(rows, "valid@k", x=1.0, model="tuned"),
        "sharpened right": pick(rows, "pass@k", x=1.0, model="tuned"),
    }
    base = pick(rows, "valid@k", x=1.0, model="base")
    found = []
    for r in rows:
        if r.measure not in controls or r.skill or r.part or " - " in r.model:
            continue
        tuned = controls[r.measure]
        of = "" if r.measure == "sharpened valid" else " (right answers)"
        if r.model == "base":
            reached = tuned is not None and r.high >= tuned.value
            speaks = "sharpening may explain it" if reached else "more than sharpening"
            control = f"tuned {said(tuned)}"
        else:
            gone = base is not None and r.low <= base.value
            speaks = "sharpening may explain it" if gone else "more than sharpening"
            control = f"base {said(base)}"
        label = f"{r.model}, {r.setting}{of}"
        found.append(Line("Is it only sharpening?", label, said(r), control, speaks))
    return found


def _crossed(rows: Sequence[Measurement]) -> list[Line]:
    found = []
    parts = unique([r.part for r in rows if r.measure == "deployment valid" and not r.skill])
    for part in parts:
        where = f", {part}" if part else ", undivided" if len(parts) > 1 else ""
        control = pick(rows, "deployment valid", part=part, setting="random tokens")
        for name, speaks in (("deployment", "when"), ("execution", "how"), ("interaction", "both")):
            r = pick(rows, f"{name} valid", part=part, setting="decision tokens")
            if r is None:
                continue
            sign = _sign(r, speaks, f"against {speaks}", "not shown")
            beside = ""
            if name == "deployment":
                beside = f"random tokens {said(control)}"
                apart = "decision tokens - random tokens"
                beyond = pick(rows, "deployment valid", part=part, setting=apart)
                if sign == speaks and not (beyond and beyond.low > 0):
                    sign = "no more than random tokens"
            found.append(Line("When or how?", name + where, said(r), beside, sign))
    return found


def _strategies(rows: Sequence[Measurement]) -> list[Line]:
    found = []
    for kind in unique([r.kind for r in rows if r.measure == "option rate" and not r.skill]):
        option = next(
            (
                r.setting
                for r in rows
                if r.measure == "option rate" and r.kind == kind and r.setting == "yes"
            ),
            "",
        )
        before, after, change = (
            pick(rows, "option rate", model=m, kind=kind, setting=option)
            for m in ("base", "tuned", "tuned - base")
        )
        if before and after and change and option:
            found.append(
                Line(
                    "Which strategies?",
                    f"rate of {kind}",
                    f"{said(before)} to {said(after)}",
                    "",
                    _sign(change, "more of it", "less of it", "no change shown"),
                )
            )
    return found


def _directions(rows: Sequence[Measurement]) -> list[Line]:
    found = []
    for kind in unique([r.kind for r in rows if r.measure == "auc"]):
        r = pick(rows, "auc", model="base", kind=kind, setting="chosen")
        if r is None:
            continue
        beside = {name: pick(rows, "auc", model="base", kind=kind, setting=name) for name in BESIDE}
        # What labels without meaning reach is the end of their interval, not their mean.
        bars = [
            (b.high if n == "shuffled labels" else b.value)
            for n, b in beside.items()
            if b is not None and n != "decision logit"
        ]
        bar = max((b for b in bars if not math.isnan(b)), default=0.5)
        control = ", ".join(
            f"{n} {b.value:.2f}" for n, b in beside.items() if b and not math.isnan(b.value)
        )
        speaks = "the base knows when" if r.low > bar else "no more than its tokens say"
        speaks = "undefined" if math.isnan(r.value) else speaks
        found.append(
            Line("Is it readable before?", f"AUC of {kind}, {r.site}", said(r), control, speaks)
        )
    return found


def _steering(rows: Sequence[Measurement]) -> list[Line]:
    r = next((r for r in rows if r.measure == "recovered" and r.setting == "direction"), None)
    if r is None:
        return []
    others = [
        f"{o.setting} {said(o)}"
        for o in rows
        if o.measure == "recovered" and o.setting in ("random direction", "logit bias")
    ]
    bias = next((o for o in rows if o.measure == "recovered" and o.setting == "logit bias"), None)
    speaks = "nothing" if not r.low > 0 else "deployable by a push"
    if bias is not None and r.low > 0 and bias.high >= r.value:
        speaks = "deployable, by a logit bias as well"
    return [
        Line(
            "Does a push recover it?",
            f"share of the gap, {r.kind} at {r.x:g}",
            said(r),
            ", ".join(others),
            speaks,
        )
    ]


def _elicited(rows: Sequence[Measurement]) -> list[Line]:
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


def _drift(rows: Sequence[Measurement]) -> list[Line]:
    shifts = [r for r in rows if r.measure == "activation shift" and r.setting == "tuned's texts"]
    if not shifts:
        return []
    most = max(shifts, key=lambda r: r.value)
    return [
        Line(
            "Where did it move?",
            f"activation shift, {most.site}",
            said(most),
            f"least {said(min(shifts, key=lambda r: r.value))}",
            "description only",
        )
    ]


def _sign(r: Measurement, above: str, below: str, neither: str) -> str:
    if math.isnan(r.value):
        return "undefined"
    return above if r.low > 0 else below if r.high < 0 else neither


def as_json(
    settings: dict[str, Any], conclusion: Conclusion, lines: Sequence[Line], about: dict[str, Any]
) -> dict[str, Any]:
    """The whole verdict; NaN, which JSON lacks, as null."""
    return _clean(
        {
            "answer": conclusion.answer,
            "conclusion": list(conclusion.sentences),
            "silent": list(conclusion.silent),
            "skills": [asdict(skill) for skill in conclusion.skills],
            "evidence": [asdict(line) for line in lines],
            "about": about,
            "settings": settings,
        }
    )


def _clean(content: Any) -> Any:
    if isinstance(content, dict):
        return {k: _clean(v) for k, v in content.items()}
    if isinstance(content, (list, tuple)):
        return [_clean(v) for v in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def render(verdict: Any, width: int | None = None) -> Any:
    """A rich renderable: the table, the conclusion, where the evidence is silent.

    Args:
        verdict: a `steering.verdict.Verdict`.
        width: columns; None fits the terminal.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=verdict.heading, width=width, show_lines=False)
    for name in ("question", "measure", "value [95%]", "control", "speaks for"):
        grid.add_column(name, overflow="fold")
    last = ""
    for line in verdict.lines:
        question = "" if line.question == last else line.question
        grid.add_row(*map(Text, (question, line.measure, line.value, line.control, line.speaks)))
        last = line.question
    said_so = Text(f"\n{verdict.conclusion.answer.upper()}. ", style="bold")
    said_so.append(" ".join(verdict.conclusion.sentences), style="not bold")
    silent = Text("\nWhere the evidence is silent\n", style="bold")
    for one in verdict.conclusion.silent:
        silent.append(f"- {one}\n", style="not bold")
    return Group(grid, said_so, silent)
