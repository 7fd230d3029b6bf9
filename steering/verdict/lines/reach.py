"""Lines about how far the models reach: crossing, who solves what, how reliably, and the rest."""

from collections.abc import Sequence

from probes.records import Measurement
from steering.verdict.lines.line import Line, sign
from steering.verdict.rules import SkillVerdict, pick, said

SHUFFLED = "shuffled labels"
"""As `probes.boundary.rows` names it; importing it would load scipy for `whenhow --help`."""

CERTAIN = 0.975
"""Share of the resamples from which on a crossing, or none, counts as shown."""

HALF = 0.5
"""Of the problems."""

SOMETIMES = 0.5
"""The tau of the line on Cover@tau: solved in half of the answers or more."""


def reach(rows: Sequence[Measurement]) -> list[Line]:
    """Over all problems: do the curves cross, who solves what alone, and how reliably."""
    return [*_crossing(rows), *_alone(rows), *_cover(rows)]


def unsolved(rows: Sequence[Measurement], skills: Sequence[SkillVerdict]) -> list[Line]:
    """Would the base ever solve it: of each skill that is not deployed, on its decisive half."""
    found = []
    for skill in skills:
        of_it, part = skill.skill, skill.decisive.part
        below, never, gain = (
            pick(rows, f"{name} valid", skill=of_it, part=part, model="base")
            for name in ("below limit", "never", "zero gain")
        )
        if skill.label not in ("latent", "created", "not found") or not (below and never):
            continue
        adds = f", adding {gain.value:.1f} to its log-likelihood" if gain else ""
        speaks = "open"
        if below.low > HALF:
            speaks = "seldom or never: not told apart"
        elif below.high < HALF:
            speaks = "most problems are solved in time"
        found.append(
            Line(
                "Would the base ever solve it?",
                " ".join(filter(None, (of_it, part)))
                + f", problems solved by less than {below.x:.3f} of its answers",
                said(below),
                f"never {said(never)}, by the fit{adds}",
                speaks,
            )
        )
    return found


def _crossing(rows: Sequence[Measurement]) -> list[Line]:
    found, null = (pick(rows, "crossing valid", setting=s) for s in ("", SHUFFLED))
    ahead = pick(rows, "ahead valid", setting="")
    if not (found and ahead):
        return []
    speaks = "open"
    if found.value >= CERTAIN:
        speaks = "the base overtakes"
    elif ahead.value <= 1 - CERTAIN:
        speaks = "no lead to lose"
    elif ahead.value >= CERTAIN and found.value <= 1 - CERTAIN:
        speaks = "the base does not overtake"
    return [
        Line(
            "Does the boundary move?",
            f"chance that the base overtakes by k = {found.x:.0f}, valid",
            f"{found.value:.3f}",
            f"tuned leads at k = 1: {ahead.value:.3f}"
            + (f", shuffled labels {null.value:.3f}" if null else ""),
            speaks,
        )
    ]


def _alone(rows: Sequence[Measurement]) -> list[Line]:
    base, tuned = (
        pick(rows, "solvable valid", model=f"{model} only", setting="")
        for model in ("base", "tuned")
    )
    nulls = [
        pick(rows, "solvable valid", model=f"{model} only", setting=SHUFFLED)
        for model in ("base", "tuned")
    ]
    if not (base and tuned):
        return []
    apart = "more solved by the tuned model alone" if tuned.low > base.high else ""
    apart = "more solved by the base alone" if base.low > tuned.high else apart
    control = ", ".join(f"{null.value:.2f}" for null in nulls if null)
    return [
        Line(
            "Does the boundary move?",
            f"solved by base alone, by tuned alone, within {base.x:.0f}",
            f"{said(base)}, {said(tuned)}",
            f"shuffled labels {control}; not re-tested",
            apart or "not told apart",
        )
    ]


def _cover(rows: Sequence[Measurement]) -> list[Line]:
    base, tuned, change = (
        pick(rows, "cover valid", x=SOMETIMES, model=model, setting="")
        for model in ("base", "tuned", "tuned - base")
    )
    guess = pick(rows, "cover right", x=SOMETIMES, model="guessing")
    if not (base and tuned and change):
        return []
    return [
        Line(
            "Does the boundary move?",
            f"problems solved in {SOMETIMES:.0%} of the answers",
            f"{said(base)} to {said(tuned)}",
            f"guessing {guess.value:.3f}" if guess else "",
            sign(change, "more reliable", "less reliable", "no change shown"),
        )
    ]
