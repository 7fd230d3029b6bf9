"""Lines about what is inside: what can be read, what a push does, what moved."""

import math
from collections.abc import Sequence

from probes.records import Measurement, unique
from steering.verdict.lines.line import Line, power
from steering.verdict.rules import pick, said

PUSHES = ("random direction", "shuffled labels", "another strategy", "logit bias")
"""Controls of a push, each matched to it at equal KL."""

BESIDE = ("last three tokens", "decision logit", "random weights", "twin", "shuffled labels")
"""Baselines of an AUC, in the order of the table."""

DIRECTION = "direction"

CELLS = {
    "base": "base's direction in base",
    "base's direction in tuned": "base's direction in tuned",
    "tuned's direction in base": "tuned's direction in base",
    "tuned": "tuned's direction in tuned",
}
"""Source x target, by what `Measurement.model` calls them."""


def directions(rows: Sequence[Measurement]) -> list[Line]:
    """AUC before a decision is taken, which must beat every baseline."""
    found = []
    for kind in unique([r.kind for r in rows if r.measure == "auc"]):
        r = pick(rows, "auc", model="base", kind=kind, setting="chosen")
        if r is None:
            continue
        beside = {name: pick(rows, "auc", model="base", kind=kind, setting=name) for name in BESIDE}
        # What labels without meaning reach is the end of their interval, not their mean.
        bars = {
            name: b.high if name == "shuffled labels" else b.value
            for name, b in beside.items()
            if b is not None and name != "decision logit" and not math.isnan(b.value)
        }
        control = ", ".join(
            f"{n} {b.value:.2f}" for n, b in beside.items() if b and not math.isnan(b.value)
        )
        beyond = [name for name, bar in bars.items() if not r.low > bar]
        speaks = f"not beyond {', '.join(beyond)}" if beyond else "the base knows when"
        speaks = "undefined" if math.isnan(r.value) else speaks
        found.append(
            Line("Is it readable before?", f"AUC of {kind}, {r.site}", said(r), control, speaks)
        )
    return found


def steering(rows: Sequence[Measurement]) -> list[Line]:
    """The push that was chosen; it must beat every control at the same KL, interval by interval."""
    r = next((r for r in rows if r.measure == "recovered" and r.setting == "direction"), None)
    if r is None:
        return []
    nulls = {
        name: pick(rows, "recovered", setting=name, model=r.model, kind=r.kind) for name in PUSHES
    }
    measured = {name: o for name, o in nulls.items() if o is not None and not math.isnan(o.value)}
    control = ", ".join(f"{name} {said(o)}" for name, o in measured.items())
    level = [name for name, o in measured.items() if not r.low > o.high]
    speaks = "deployable by a push" if measured else "not compared"
    if level:
        speaks = f"not beyond {', '.join(level)}"
    if not r.low > 0:
        speaks = f"nothing shown {power(r)}" if not math.isnan(r.value) else "undefined"
    label = f"share of the gap, {r.kind} at {r.x:g}"
    return [Line("Does a push recover it?", label, said(r), control, speaks)]


def crosswise(rows: Sequence[Measurement]) -> list[Line]:
    """All four source x target cells: the most that a direction changes the strategy's rate."""
    found = []
    for kind in unique([r.kind for r in rows if r.model == "base's direction in tuned"]):
        for model in CELLS:
            of_it = [
                r
                for r in rows
                if (r.measure, r.model, r.kind, r.setting)
                == ("option rate", model, kind, DIRECTION)
                and not (r.skill or r.part or math.isnan(r.value))
            ]
            still = next((r for r in of_it if r.x == 0), None)
            moved = [r for r in of_it if r.x != 0]
            if still is None or not moved:
                continue
            most = max(moved, key=lambda r, at=still.value: abs(r.value - at))
            apart = most.low > still.high or most.high < still.low
            label = f"rate of {kind}, {CELLS[model]} at {most.x:g}"
            speaks = "moves it" if apart else "not shown to move it"
            control = f"unsteered {said(still)}"
            found.append(Line("Decodable, or deployable?", label, said(most), control, speaks))
    return found


def drift(rows: Sequence[Measurement]) -> list[Line]:
    """Where the activations moved most."""
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
