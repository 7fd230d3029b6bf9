"""Figures of labellers beside each other, from the rows of `probes.strategies.between`.

Every pair has its panel, with kappa and its interval in the title, and every cell its own: a share
of three sentences must not look like one of three hundred.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from probes.plots.style import COLOURS, NULL, absent, page, pick, whisker, written

PAIR = ["model", "setting"]
CELL = 0.92
"""Inches of a cell: what holds a share and its interval at 7 points."""


def kappas(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Kappa of every pair with its interval over problems; where there is none, the reason."""
    rows = pick(frame, measure="kappa")
    with page(stem, 1, 1, width=7.0, height=1.2 + 0.55 * max(1, len(rows))) as (figure, axs):
        axes = axs[0, 0]
        if rows.empty:
            absent(axes)
        for place, (_, row) in enumerate(rows.iterrows()):
            whisker(axes, row, float(place), COLOURS["tuned"])
            if np.isnan(row.value):
                axes.text(0.02, place, f"undefined: {row.note}", va="center", fontsize=7.5)
        if not rows.empty:
            names = [f"{r.model}\n{r.setting}" for _, r in rows.iterrows()]
            axes.set_yticks(range(len(names)), names)
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.axvline(0, color=NULL, lw=1)
            axes.set_xlim(min(-0.1, float(rows.low.min(skipna=True)) - 0.05), 1.05)
            axes.set_xlabel("Cohen's kappa: 0 is chance, 1 is complete (95% over problems)")
        figure.suptitle("agreement between labellers")
    return written(stem)


def confusion(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Of the segments that one calls so, the share that the other calls so; rows sum to 1."""
    kept = pick(frame, measure="label given label")
    pairs = list(dict.fromkeys(zip(kept.model, kept.setting, strict=True))) or [("", "")]
    shapes = [(_of(kept, p).skill.nunique(), _of(kept, p).kind.nunique()) for p in pairs]
    widest = max(2, *(columns for _, columns in shapes))
    deep = [max(1, rows) for rows, _ in shapes]
    height = sum(0.55 * CELL * rows + 1.35 for rows in deep)
    about = {"width": 2.4 + CELL * widest, "height": height, "height_ratios": deep}
    with page(stem, len(pairs), 1, **about) as (_, axs):
        for axes, pair in zip(axs[:, 0], pairs, strict=True):
            of_it = _of(kept, pair)
            if of_it.empty:
                absent(axes)
            else:
                _panel(axes, of_it, pick(frame, measure="kappa", model=pair[0], setting=pair[1]))
    return written(stem)


def _of(rows: pd.DataFrame, pair: tuple[str, str]) -> pd.DataFrame:
    return pick(rows, model=pair[0], setting=pair[1])


def _panel(axes: Axes, rows: pd.DataFrame, kappa: pd.DataFrame) -> None:
    mine, theirs = list(dict.fromkeys(rows.skill)), list(dict.fromkeys(rows.kind))
    shares = np.full((len(mine), len(theirs)), np.nan)
    segments = dict.fromkeys(mine, 0.0)
    for _, row in rows.iterrows():
        i, j = mine.index(row.skill), theirs.index(row.kind)
        shares[i, j] = row.value
        segments[row.skill] += row.x
        ends = f"{row.value:.2f}\n[{row.low:.2f}, {row.high:.2f}]"
        dark = "white" if row.value > 0.6 else "black"
        axes.text(j, i, ends, ha="center", va="center", fontsize=7, color=dark)
    axes.imshow(shares, cmap="Oranges", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(theirs)), theirs, rotation=30, ha="right")
    axes.set_yticks(range(len(mine)), [f"{name}\n({segments[name]:.0f})" for name in mine])
    axes.set_xlabel(str(rows.setting.iloc[0]))
    axes.set_ylabel(f"{rows.model.iloc[0]}\n(segments)")
    axes.grid(False)
    for _, row in kappa.iterrows():
        ends = (f"{round(x, 2) + 0.0:.2f}" for x in (row.value, row.low, row.high))  # no -0.00
        said = "{} [{}, {}], ".format(*ends) + f"{row.n} problems"
        axes.set_title(f"kappa {said if not np.isnan(row.value) else 'undefined: ' + row.note}")


LABELLERS = {"kappas": kappas, "confusion": confusion}
"""Every figure by the end of its file's name."""
