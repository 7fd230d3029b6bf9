"""What every measure said where the truth is known: scores, thresholds, and what was right."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from probes.plots.style import MANY, NULL, absent, key, page, where, written

TRUTHS = ("deployed", "recombined", "created")
"""Rows of a panel: where something was gained in truth."""
COLOURS = {"right": MANY[0], "wrong": "#D55E00", "undecided": NULL}
ACROSS = 4


def calibration(cells: pd.DataFrame, stem: Path) -> list[Path]:
    """A panel a measure: every gained skill's score with its interval, and the thresholds.

    Args:
        cells: columns of `steering.calibration.Cell` and `outcome`.
        stem: path of the files without their suffix.
    """
    scored = where(cells, (cells.measure != "verdict") & cells.truth.isin(TRUTHS))
    measures = list(dict.fromkeys(scored.measure))
    rows = max(1, -(-len(measures) // ACROSS))
    with page(stem, rows, ACROSS, width=9.5, height=0.6 + 1.9 * rows, sharey=True) as (figure, axs):
        for i, axes in enumerate(axs.flat):
            if i < len(measures):
                _panel(axes, where(scored, scored.measure == measures[i]))
                axes.set_title(measures[i])
            else:
                axes.set_visible(False)
        if not measures:
            axs[0, 0].set_visible(True)
            absent(axs[0, 0], "nothing was gained in truth")
        figure.suptitle("score; to the right of its threshold a measure says deployed", fontsize=9)
        entries: list[tuple[str, dict[str, Any]]] = [
            (n, {"color": c, "ls": "", "marker": "o"}) for n, c in COLOURS.items()
        ]
        entries.append(
            ("threshold, from other seeds", {"color": "k", "lw": 0.8, "ls": (0, (3, 2))})
        )
        key(figure, entries, columns=4)
    return written(stem)


def _panel(axes: Axes, cells: pd.DataFrame) -> None:
    for row, truth in enumerate(TRUTHS):
        of_it = where(cells, (cells.truth == truth) & cells.score.notna()).sort_values(by="score")
        places = row + np.linspace(-0.32, 0.32, max(2, len(of_it)))[: len(of_it)]
        for outcome, colour in COLOURS.items():
            chosen = (of_it.outcome == outcome).to_numpy()
            some, at = of_it[chosen], places[chosen]
            axes.hlines(at, some.low, some.high, color=colour, lw=0.8)
            axes.plot(some.score, at, "o", ms=2.6, color=colour)
    for limit in sorted(set(cells.threshold.dropna())):
        axes.axvline(limit, color="k", lw=0.8, ls=(0, (3, 2)))
    axes.set_yticks(range(len(TRUTHS)), TRUTHS)
    axes.set_ylim(len(TRUTHS) - 0.5, -0.5)
    axes.grid(False, axis="y")
    axes.locator_params(axis="x", nbins=4)
