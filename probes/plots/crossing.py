"""When or how: who decides and who executes."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from probes.plots.style import COLOURS, MANY, NULL, absent, key, named, page, pick, whisker, written

CELLS = {
    "base x base": COLOURS["base"],
    "tuned x base": MANY[0],
    "base x tuned": MANY[1],
    "tuned x tuned": COLOURS["tuned"],
}
"""Deciding x executing model."""
TERMS = ("deployment", "execution", "interaction", "gain")
FACES = {"untouched": None, "": None, "touched": "white"}
ARMS = {"decision tokens": "k", "random tokens": NULL}


def crossing(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Above, accuracy of the four cells by skill; below, the numbers that they make."""
    cells = pick(frame, measure="valid", model=list(CELLS), setting="decision tokens")
    skills = sorted(cells.skill.unique()) or [""]
    columns = max(2, len(skills))
    with page(stem, 2, columns, width=max(7.0, 1.2 + 1.4 * columns), height=4.8) as (figure, axs):
        for j in range(columns):
            if j < len(skills) and len(cells):
                _cells(axs[0, j], pick(cells, skill=skills[j]), first=j == 0)
                axs[0, j].set_title(named(skills[j]))
            else:
                absent(axs[0, j])
        half = columns // 2
        below = [_merged(figure, axs[1], span) for span in (slice(half), slice(half, None))]
        divided = (frame.part == "untouched").any()
        for axes, part in zip(below, ("untouched", "touched") if divided else ("",), strict=False):
            terms(axes, frame, part)
            if part == "touched":
                axes.tick_params(labelleft=False)
        if not divided:
            absent(below[1], "entries are not divided")
        figure.supylabel("who decides x who executes", fontsize=9, y=0.76)
        looks = {"ls": "", "marker": "o"}
        entries = [("untouched entries", {"color": "k", **looks})]
        entries += [("touched entries", {"color": "k", "mfc": "white", **looks})]
        entries += [
            (f"{name} crossed", {"color": c, "ls": "", "marker": "s"}) for name, c in ARMS.items()
        ]
        key(figure, entries, columns=4)
    return written(stem)


def terms(axes: Axes, frame: pd.DataFrame, part: str) -> None:
    """Deployment, execution and interaction over all skills, with their control, in one panel."""
    rows = pick(frame, measure=[f"{t} valid" for t in TERMS], part=[part])
    rows = pick(rows, skill="")
    if rows.empty:
        absent(axes)
        return
    for _, row in pick(rows, setting=list(ARMS)).iterrows():
        place = len(TERMS) - 1 - TERMS.index(row.measure.split()[0])
        shift = 0.0 if row.setting == "decision tokens" else -0.25
        whisker(axes, row, place + shift, ARMS[row.setting], fmt="s", ms=4.5)
    axes.axvline(0, color="k", lw=0.8)
    axes.set_yticks(range(len(TERMS)), reversed(TERMS))
    axes.set_ylim(-0.6, len(TERMS) - 0.5)
    axes.set_xlabel("change of the rate of valid answers")
    axes.set_title(f"{part} entries" if part else "all problems")


def _cells(axes: Axes, rows: pd.DataFrame, *, first: bool) -> None:
    for _, row in rows.iterrows():
        place = len(CELLS) - 1 - list(CELLS).index(row.model)
        shift = -0.14 if row.part == "touched" else 0.14 if row.part == "untouched" else 0.0
        face = FACES.get(row.part) or CELLS[row.model]
        whisker(axes, row, place + shift, CELLS[row.model], ms=4, mfc=face)
    axes.set_yticks(range(len(CELLS)), reversed(CELLS) if first else [""] * len(CELLS))
    axes.set_ylim(-0.6, len(CELLS) - 0.4)
    axes.set_xlim(-0.05, 1.05)
    axes.set_xlabel("valid answers (share)" if first else "")


def _merged(figure, row, span: slice) -> Axes:
    """One panel in the place of several of a row."""
    grid = row[0].get_subplotspec().get_gridspec()
    for axes in row[span]:
        axes.remove()
    return figure.add_subplot(grid[1, span])
