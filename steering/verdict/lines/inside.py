"""Lines about deployment by pushes and about dictionaries: routing, latents of one model only."""

import math
from collections.abc import Sequence

from probes.records import Measurement, unique
from steering.verdict.lines.line import Line, power
from steering.verdict.rules import pick, said

NULLS = (
    "shared vector",
    "random vectors",
    "random candidates",
    "random category",
    "bias only",
    "unconditional vector",
    "random position",
)
"""Arms that a hybrid must beat before its categories mean anything, in the order of the table."""

CEILINGS = ("guardrail", "substitution")
"""Arms in which the tuned model writes: what a push could come to at most."""

ROUTED = "routing"
"""`Measurement.model` of the routing stage."""


def routing(rows: Sequence[Measurement]) -> list[Line]:
    """The share of the gap that steering at disagreements recovers; it must beat every null."""
    found = []
    of_it = [r for r in rows if r.measure == "recovered valid" and r.model == ROUTED]
    for part in unique([r.part for r in of_it if not r.skill]):
        arms = {r.setting: r for r in of_it if r.part == part and not r.skill}
        r = arms.get("hybrid")
        if r is None:
            continue
        nulls = {n: arms[n] for n in NULLS if n in arms and not math.isnan(arms[n].value)}
        level = [name for name in nulls if not _ahead(rows, name, part)]
        shown = [n for n in NULLS if n in NULLS[:4] or n in level]
        beside = {n: arms[n] for n in (*shown, *CEILINGS) if n in arms}
        control = ", ".join(f"{name} {said(o)}" for name, o in beside.items())
        speaks = f"not beyond {', '.join(level)}" if level else "deployable where the tuned says"
        if math.isnan(r.value):
            speaks = "undefined"
        elif not r.low > 0:
            speaks = f"nothing shown {power(r)}"
        share = pick(rows, "steered share", model=ROUTED, setting="hybrid", part=part)
        told = (
            f", steering {share.value:.0%} of tokens"
            if share and share.value == share.value
            else ""
        )
        label = f"share of the gap, {part or 'all'}{told}"
        found.append(Line("Can the base be routed?", label, said(r), control, speaks))
    return found


def _ahead(rows: Sequence[Measurement], arm: str, part: str) -> bool:
    """Whether the hybrid is right more often than an arm, problem by problem."""
    r = pick(rows, "hybrid ahead valid", model=ROUTED, setting=arm, part=part)
    return r is not None and r.low > 0


def latents(rows: Sequence[Measurement]) -> list[Line]:
    """Latents that the base has nothing of; the null is another seed of the same tuning.

    Compared problem by problem; in a table without that row, by whether the intervals are apart.
    """
    r = pick(rows, "nu below 0.5", model="base / tuned", kind="tuned's dictionary")
    if r is None:
        return []
    null = pick(rows, "nu below 0.5", model="again / tuned", kind="tuned's dictionary")
    back = pick(rows, "nu below 0.5", model="tuned / base", kind="base's dictionary")
    beyond = pick(
        rows,
        "nu below 0.5, beyond another seed",
        model="base / tuned",
        kind="tuned's dictionary",
    )
    beside = {"another seed": null, "the base's own": back}
    control = ", ".join(f"{name} {said(o)}" for name, o in beside.items() if o is not None)
    if math.isnan(r.value):
        speaks = "undefined"
    elif null is None or math.isnan(null.value) or (beyond and math.isnan(beyond.value)):
        speaks = "not compared"
    else:
        more = beyond.low > 0 if beyond else r.low > null.high
        speaks = "more than another seed's" if more else "not beyond another seed"
    label = f"tuned's latents that the base lacks, {r.site}".removesuffix(", ")
    return [Line("New features?", label, said(r), control, speaks)]
