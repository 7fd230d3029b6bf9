"""pass@k of base and tuned and its critics: does the boundary move, or only the likelihood?

Rows as `probes.boundary.rows` names them.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from probes.boundary.solvable import KEPT_BY_LUCK
from probes.plots.style import (
    COLOURS,
    DASHES,
    NULL,
    absent,
    band,
    key,
    named,
    page,
    pick,
    whisker,
    written,
)

MEASURES = {
    "pass@k": "solved within k tries,\nright answers (share)",
    "valid@k": "solved within k tries,\nvalid traces (share)",
}


def pass_at_k(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Curves of both models, right above valid, a column a skill; what guessing reaches, dotted.

    Where the chance that the curves cross was measured it is written into the panel, and the place
    is marked with its interval, of the half that tuning never met (or of all).
    """
    curves = pick(frame, measure=list(MEASURES), model=["base", "tuned"], setting="")
    skills = sorted(curves.skill.unique(), key=lambda s: (s != "", s)) or [""]
    width = max(4.0, 0.9 + 1.45 * len(skills))
    marked = len(pick(frame, measure=["crossing right", "crossing valid"])) > 0
    with page(stem, 2, len(skills), width=width, height=4.9, sharey=True, sharex=True) as (
        fig,
        axs,
    ):
        for j, skill in enumerate(skills):
            for i, (measure, label) in enumerate(MEASURES.items()):
                axes, of_it = axs[i, j], pick(curves, measure=measure, skill=skill)
                if of_it.empty:
                    absent(axes)
                    continue
                _guesses(axes, pick(frame, skill=skill, setting=""))
                _crossed(axes, pick(frame, skill=skill, setting=""), measure)
                for (model, part), rows in of_it.groupby(["model", "part"]):  # type: ignore[misc]
                    band(axes, rows, COLOURS[model], ls=DASHES.get(part, "-"), ms=2.2)
                axes.set_ylim(-0.03, 1.03)
                axes.set_xscale("log", base=2)
                ticks = sorted(of_it.x.unique())
                axes.set_xticks(ticks[::2], [f"{k:g}" for k in ticks[::2]])
                axes.minorticks_off()
                if i == 0:
                    axes.set_title(named(skill), pad=26 if marked else 6)
                else:
                    axes.set_xlabel("k (tries)")
                if j == 0:
                    axes.set_ylabel(label)
        entries = [(m, {"color": COLOURS[m]}) for m in ("base", "tuned")]
        if set(curves.part) - {""}:
            entries += [(f"{p} entries", {"color": "k", "ls": DASHES[p]}) for p in _PARTS]
        entries += [("guessing", {"color": NULL, "ls": ":"})]
        if pick(frame, measure=["crossing k right", "crossing k valid"]).low.lt(math.inf).any():
            look = {"color": "k", "alpha": 0.25, "lw": 5}
            entries += [("base overtakes", look)]
        key(fig, entries)
    return written(stem)


_PARTS = ("untouched", "touched")


def _guesses(axes, rows: pd.DataFrame) -> None:
    """What guessing reaches within k tries; a lucky trace needs a lucky answer at least."""
    guessing = pick(rows, measure="pass@k", model="guessing").drop_duplicates("x")
    if len(guessing):
        line = guessing.sort_values("x")
        axes.plot(line.x, line.value, color=NULL, ls=":", lw=1.3)


def _crossed(axes: Axes, rows: pd.DataFrame, measure: str) -> None:
    """Where the base overtakes, with its interval, and how likely it does so at all."""
    which = {"pass@k": "right", "valid@k": "valid"}[measure]
    chances = pick(rows, measure=f"crossing {which}")
    parts = [part for part in ("untouched", "") if (chances.part == part).any()]
    if not parts:
        return
    chance = pick(chances, part=parts[0]).iloc[0]
    place = pick(rows, measure=f"crossing k {which}", part=parts[0]).iloc[0]
    censored = math.isinf(place.value)
    if not censored:
        axes.axvline(place.value, color="k", lw=0.9)
    if not math.isinf(place.low):
        axes.axvspan(place.low, min(place.high, place.x), color="k", alpha=0.06, lw=0)
    where = f"none by k = {place.x:g}" if censored else f"at k = {place.value:g}"
    said = f"P(cross) {chance.value:.2f},\n{where}"
    axes.text(0.5, 1.01, said, ha="center", va="bottom", transform=axes.transAxes, size=6.5)


_CELL_COLOURS = {"base only": COLOURS["base"], "tuned only": COLOURS["tuned"]}


def solvable(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Share of the problems that each model solves alone, and how much of it a re-test keeps.

    Beside each share the same of a model against itself and of shuffled labels.
    """
    which = _counted(frame)
    rows = pick(frame, measure=f"solvable {which}")
    groups = _groups(rows)
    height = 1.7 + 0.34 * max(2, len(groups))
    with page(stem, 1, 4, width=9.0, height=height, sharey=True) as (figure, axs):
        for j, cell in enumerate(("base only", "tuned only")):
            share, again = axs[0, 2 * j], axs[0, 2 * j + 1]
            if rows.empty:
                absent(share)
                absent(again)
                continue
            _bars(share, pick(rows, model=cell), groups, _CELL_COLOURS[cell])
            share.set_title(f"{cell}\nsolved at first")
            share.set_xlabel("share of problems")
            share.set_xlim(0, 1.05 * max(0.2, rows[rows.model.isin(_CELL_COLOURS)].high.max()))
            tested = pick(frame, measure=f"solvable again {which}", model=cell, setting="")
            _bars(again, tested, groups, _CELL_COLOURS[cell], hollow=True)
            again.axvline(KEPT_BY_LUCK, color=NULL, ls=":", lw=1.3)
            again.set_xlim(-0.03, 1.03)
            again.set_title(f"{cell}\nagain, on fresh samples")
            again.set_xlabel("share of the cell")
        if len(groups):
            axs[0, 0].set_yticks(range(len(groups)), [_label(g) for g in reversed(groups)])
        look = {"ls": "", "marker": "s"}
        entries = [(c, {"color": _CELL_COLOURS[c], **look}) for c in ("base only", "tuned only")]
        entries += [("null: against itself", {"color": NULL, "ls": "", "marker": "|", "ms": 9})]
        entries += [("null: shuffled labels", {"color": NULL, "ls": "", "marker": "x", "ms": 5})]
        entries += [("most that equal models keep", {"color": NULL, "ls": ":"})]
        key(figure, entries)
    return written(stem)


def cover(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Cover@tau of both models on valid answers, a panel a skill; guessing (right) dotted."""
    which = _counted(frame)
    rows = pick(frame, measure=f"cover {which}", model=["base", "tuned"], setting="")

    def draw(axes: Axes, skill: str) -> None:
        for (model, part), line in pick(rows, skill=skill).groupby(["model", "part"]):  # type: ignore[misc]
            band(axes, line, COLOURS[model], ls=DASHES.get(part, "-"), ms=2.2)
        guess = pick(frame, measure="cover right", model="guessing", skill=skill)
        guess = guess.drop_duplicates("x").sort_values("x")
        axes.plot(guess.x, guess.value, color=NULL, ls=":", lw=1.3)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlim(0, 1.02)

    labels = f"tau (share of {which} answers)", "problems at\ntau or above"
    return _panels(rows, stem, draw, *labels)


def accuracy(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """How many problems each model solves how often, 0 and 1 apart; guessing (right) dotted."""
    which = _counted(frame)
    rows = pick(frame, measure=f"accuracy {which}", model=["base", "tuned"], setting="")

    def draw(axes: Axes, skill: str) -> None:
        of_it = pick(rows, skill=skill)
        part = next((p for p in ("untouched", "") if (of_it.part == p).any()), "")
        for model, by in (("base", -0.016), ("tuned", 0.016)):
            for _, one in pick(of_it, model=model, part=part).iterrows():
                axes.bar(_spread(one.x) + by, one.value, 0.03, color=COLOURS[model], lw=0)
                whisker(axes, one, _spread(one.x) + by, "k", across=False, ms=0, lw=0.6)
        guess = pick(frame, measure="accuracy right", model="guessing", skill=skill, part=part)
        guess = guess.sort_values("x")
        axes.plot([_spread(x) for x in guess.x], guess.value, color=NULL, ls=":", lw=1.3)
        axes.set_xticks([-0.05, 0.25, 0.5, 0.75, 1.05], ["0", ".25", ".5", ".75", "1"])
        axes.set_ylim(0, 1.02)

    labels = f"share of {which} answers", "problems, untouched\nor undivided"
    return _panels(rows, stem, draw, *labels, halves=False)


def _counted(frame: pd.DataFrame) -> str:
    """Valid answers, or right ones where nobody checks the traces."""
    cells = pick(frame, measure="solvable valid")
    return "right" if len(cells) and (cells.model == "").all() else "valid"  # a reason, no cell


def _spread(x: float) -> float:
    """Exactly 0 and exactly 1 stand off from the tenths between them."""
    return -0.05 if x == 0 else 1.05 if x == 1 else x


def _panels(
    rows: pd.DataFrame,
    stem: Path,
    draw: Callable[[Axes, str], None],
    across: str,
    up: str,
    *,
    halves: bool = True,
) -> list[Path]:
    """One panel a skill, all problems first, in up to four columns."""
    skills = sorted(rows.skill.unique(), key=lambda s: (s != "", s)) or [""]
    columns = min(4, len(skills))
    lines = math.ceil(len(skills) / columns)
    width, height = max(4.0, 0.8 + 2.0 * columns), 0.9 + 1.75 * lines
    with page(stem, lines, columns, width=width, height=height, sharey=True, sharex=True) as (
        figure,
        axs,
    ):
        for i, axes in enumerate(axs.flat):
            if i >= len(skills):
                axes.set_axis_off()
            elif rows.empty:
                absent(axes)
            else:
                draw(axes, skills[i])
                axes.set_title(named(skills[i]))
        for i in range(len(skills)):
            if i + columns >= len(skills):  # the last of its column
                axs.flat[i].set_xlabel(across)
                axs.flat[i].tick_params(labelbottom=True)
            if i % columns == 0:
                axs.flat[i].set_ylabel(up)
        entries = [(m, {"color": COLOURS[m]}) for m in ("base", "tuned")]
        if halves and set(rows.part) - {""}:
            entries += [(part, {"color": "k", "ls": DASHES[part]}) for part in _PARTS]
        key(figure, [*entries, ("guessing", {"color": NULL, "ls": ":"})])
    return written(stem)


def _groups(rows: pd.DataFrame) -> list[tuple[str, str]]:
    found = rows.drop_duplicates(["skill", "part"])
    pairs = zip(found.skill, found.part, strict=True)
    return sorted(pairs, key=lambda g: (g[0] != "", g[0], g[1] != "untouched"))


def _label(group: tuple[str, str]) -> str:
    return " ".join(filter(None, group)) or "all"


def _bars(
    axes: Axes,
    rows: pd.DataFrame,
    groups: list[tuple[str, str]],
    colour: str,
    *,
    hollow: bool = False,
) -> None:
    """A bar with its interval for each skill and half, and the nulls as ticks."""
    for place, (skill, part) in enumerate(reversed(groups)):
        of_it = pick(rows, skill=skill, part=part)
        for _, one in pick(of_it, setting="").iterrows():
            if np.isnan(one.value):
                axes.text(0.0, place, " none", va="center", size=7, color=NULL)
                continue
            face = "white" if hollow else colour
            axes.barh(place, one.value, 0.62, color=face, ec=colour, lw=1.2)
            whisker(axes, one, float(place), "k", ms=0, lw=1.0)
        for setting, mark in (("against itself", "|"), ("shuffled labels", "x")):
            for _, one in pick(of_it, setting=setting).iterrows():
                axes.plot(one.value, place, mark, color=NULL, ms=10 if mark == "|" else 5, mew=1.6)


BOUNDARY = {
    "pass_at_k": pass_at_k,
    "solvable": solvable,
    "cover": cover,
    "accuracy": accuracy,
}
"""What `whenhow boundary` draws, by the names of the files."""
