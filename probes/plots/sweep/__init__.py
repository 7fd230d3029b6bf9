"""Figures of a sweep, from its table of settings and from nothing else.

    frame, about = read_settings(Path("runs/chain"))             # steering.sweep
    figures(frame, about, Path("runs/chain/figures"))            # all that there is anything for
    heatmap(frame, about, Path("map"), metric="right")           # one, as map.png and map.svg

A figure for which there is nothing to draw (no two layers to map, no two strengths to join) isn't
written and returns no path. Settings that failed, or whose metric is NaN, are left out. Where a
figure has room for some panels only, it shows those with the largest gains and says of how many.

    names         short_names: paths and names by what tells them apart
    rows          which rows are drawn, what varies in them, in which panels they go
    ranking       leaderboard
    maps          heatmap
    doses         dose_response
    costs         side_effects, and the Pareto front
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from probes.plots.sweep.costs import pareto_front, side_effects
from probes.plots.sweep.doses import dose_response
from probes.plots.sweep.maps import heatmap
from probes.plots.sweep.names import short_names
from probes.plots.sweep.ranking import leaderboard

SWEEP: dict[str, Callable[[pd.DataFrame, dict[str, Any], Path, str], list[Path]]] = {
    "leaderboard": leaderboard,
    "heatmap": heatmap,
    "dose_response": dose_response,
    "side_effects": side_effects,
}
"""Every figure by the name of its files."""

__all__ = [
    "SWEEP",
    "dose_response",
    "figures",
    "heatmap",
    "leaderboard",
    "pareto_front",
    "short_names",
    "side_effects",
]


def figures(
    frame: pd.DataFrame, about: dict[str, Any], folder: Path, metric: str = ""
) -> list[Path]:
    """Every figure that there is something for.

    Args:
        frame: table of settings.
        about: its "metrics", the first of which is drawn unless another is named.
        folder: where the files go; it is made.
        metric: by default the first.

    Returns:
        The files, PNG and SVG of each figure.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [
        path for name, draw in SWEEP.items() for path in draw(frame, about, folder / name, metric)
    ]
