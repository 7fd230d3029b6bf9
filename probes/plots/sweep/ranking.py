"""The best settings, each beside its controls and its unsteered model."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from probes.plots.style import COLOURS, NULL, absent, key, page, whisker, written
from probes.plots.sweep.rows import chosen, estimate, labels, of_all, real, told, unsteered, varying

SHOWN = 15
"""Settings of a leaderboard."""
LOOKS = {
    "steered": {"color": COLOURS["tuned"], "fmt": "o", "ms": 5},
    "its controls": {"color": NULL, "fmt": "D", "ms": 3.5},
    "unsteered": {"color": COLOURS["base"], "fmt": "|", "ms": 9},
}
SHIFT = {"steered": -0.22, "its controls": 0.0, "unsteered": 0.22}
"""Below the place of a setting."""


def leaderboard(
    frame: pd.DataFrame, about: dict[str, Any], stem: Path, metric: str = ""
) -> list[Path]:
    """The best settings by a metric, with their intervals, their controls' and the plain model's.

    Beside each stands the p of its gain in the sweep's first metric, corrected for all looks.

    Args:
        frame: table of settings.
        about: its "metrics".
        stem: path of the files without their suffix.
        metric: by default the first.
    """
    metric = chosen(about, metric)
    rows = real(frame, metric)
    best = rows.sort_values(metric, ascending=False, kind="stable").head(SHOWN)
    with page(stem, 1, 1, width=8.0, height=1.5 + 0.27 * max(4, len(best))) as (figure, axs):
        axes = axs[0, 0]
        if best.empty:
            absent(axes, f"no setting has a value of {metric}")
        else:
            drawn = _lines(axes, frame, best, metric)
            axes.set_yticks(range(len(best)), labels(best, varying(rows) or ["push"]), fontsize=7.5)
            axes.set_xlabel(told(metric))
            said = f"{len(rows)} settings by {metric}{of_all(rows)}"
            if len(best) < len(rows):
                said = f"the best {len(best)} of {said}\non the problems that chose them"
            figure.suptitle(said, fontsize=9.5)
            _chances(axes, best, about["metrics"][0])
            key(figure, [(name, _in_key(LOOKS[name])) for name in LOOKS if name in drawn])
    return written(stem)


def _lines(axes: Axes, frame: pd.DataFrame, best: pd.DataFrame, metric: str) -> set[str]:
    """A setting a line, the best on top; which looks were used."""
    own, null = estimate(best, metric), estimate(best, f"{metric}_control")
    used = set()
    for place, (_, row) in enumerate(best.iterrows()):
        found = {"its controls": null.iloc[place], "unsteered": unsteered(frame, row, metric)}
        if row.setting != row.unsteered:
            found["steered"] = own.iloc[place]
        for name, one in found.items():
            style = {k: v for k, v in LOOKS[name].items() if k != "color"}
            whisker(axes, one, place + SHIFT[name], LOOKS[name]["color"], lw=1.2, **style)
            used |= {name} if np.isfinite(one.value) else set()
    axes.set_ylim(len(best) - 0.4, -0.6)
    return used


def _in_key(look: dict[str, Any]) -> dict[str, Any]:
    """A look without its line."""
    return {"color": look["color"], "marker": look["fmt"], "ms": look["ms"], "ls": ""}


def _chances(axes: Axes, best: pd.DataFrame, first: str) -> None:
    """A column of p at the right."""
    at = {"transform": axes.get_yaxis_transform(), "fontsize": 7.5, "va": "center"}
    if not np.isfinite(best.p_corrected).any():
        return
    axes.text(1.02, -0.6, f"p ({first}),\ncorrected", **{**at, "va": "bottom", "color": NULL})
    for place, p in enumerate(best.p_corrected):
        if np.isfinite(p):
            axes.text(1.02, place, f"{p:.2g}", **at)
