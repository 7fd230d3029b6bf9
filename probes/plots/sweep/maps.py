"""Gains by layer and strength, a number with its interval in every cell."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from probes.plots.style import absent, page, where, written
from probes.plots.sweep.rows import (
    chosen,
    combinations,
    estimate,
    largest,
    of_all,
    real,
    shown,
    told,
)

PANELS = 10
"""Five rows of two, or of the first axis' values."""
COLUMNS = 16
"""Strengths that a map has room for."""
WIDE, HIGH, LOW = 0.44, 0.34, 0.22
"""Of a cell, in inches; the lower one where there are many layers."""
MANY_LAYERS = 12
TALLEST = 20.0
"""Of a page."""
COLOUR_MAP = "RdBu"
FRAMED = "bold and framed: the interval excludes 0"


def heatmap(frame: pd.DataFrame, about: dict[str, Any], stem: Path, metric: str = "") -> list[Path]:
    """Gain over the unsteered model by layer and strength; bold where the interval excludes 0.

    A panel for each combination of the other axes that vary, all in one scale of colours centred
    at 0. In a cell the gain, and half the width of its interval; grey cells were not asked.

    Args:
        frame: table of settings.
        about: its "metrics".
        stem: path of the files without their suffix.
        metric: by default the first.

    Returns:
        The files; none unless both layer and strength vary.
    """
    metric = chosen(about, metric)
    gain = f"{metric}_gain"
    rows = real(frame, metric)
    rows = where(rows, rows[gain].notna() & rows.layer.notna())
    strengths, layers = sorted(rows.strength.unique()), sorted(rows.layer.unique())
    if min(len(strengths), len(layers)) < 2:
        return []
    if len(strengths) > COLUMNS:
        return _too_many(stem, len(strengths))
    panels, first = combinations(rows, ("layer", "strength"))
    columns = first if first in (2, 3) else min(len(panels), 2 if len(strengths) > 5 else 3)
    high = 0.45 + (HIGH if len(layers) <= MANY_LAYERS else LOW) * len(layers)
    kept = largest(panels, gain, min(PANELS, columns * max(1, int((TALLEST - 1) / high))))
    columns = min(columns, len(kept))
    deep = -(-len(kept) // columns)
    scale = float(np.abs(rows[gain].to_numpy(float)).max()) or 1.0
    width, height = 1.6 + columns * (0.2 + WIDE * len(strengths)), 0.9 + deep * high
    with page(stem, deep, columns, width=max(4.5, width), height=height) as (figure, axs):
        for axes, (title, of_it) in zip(axs.flat, kept, strict=False):
            _map(axes, of_it, gain, strengths, layers, scale)
            axes.set_title(title, fontsize=8.5)
        for axes in axs.flat[len(kept) :]:
            axes.set_axis_off()
        colours = ScalarMappable(Normalize(-scale, scale), COLOUR_MAP)
        figure.colorbar(colours, ax=axs, label=f"gain in {told(metric)}", aspect=40, pad=0.01)
        figure.supxlabel("strength", fontsize=9)
        left = shown(len(kept), len(panels), "combinations")
        full = sum(len(r) for _, r in kept) == len(kept) * len(layers) * len(strengths)
        said = f"{metric} less the unsteered model{of_all(rows)}{left}\n{FRAMED}"
        figure.suptitle(said if full else f"{said}; grey: not measured", fontsize=9)
    return written(stem)


def _too_many(stem: Path, strengths: int) -> list[Path]:
    """Draws from a range make no map."""
    with page(stem, 1, 1, width=5.0, height=1.6) as (_, axs):
        absent(axs[0, 0], f"{strengths} strengths are too many for a map: see dose_response")
    return written(stem)


def _map(
    axes: Axes, rows: pd.DataFrame, gain: str, strengths: list, layers: list, scale: float
) -> None:
    """One panel."""
    values = np.full((len(layers), len(strengths)), np.nan)
    found = [row for _, row in estimate(rows, gain).iterrows()]
    at = [
        (layers.index(a), strengths.index(b))
        for a, b in zip(rows.layer, rows.strength, strict=True)
    ]
    for place, one in zip(at, found, strict=True):
        values[place] = one.value
    axes.imshow(values, cmap=COLOUR_MAP, vmin=-scale, vmax=scale, aspect="auto", origin="lower")
    axes.set_facecolor("#DDDDDD")
    for (i, j), one in zip(at, found, strict=True):
        _cell(axes, i, j, one, scale)
    axes.set_xticks(range(len(strengths)), [f"{s:g}" for s in strengths])
    axes.set_yticks(range(len(layers)), [f"layer {layer}" for layer in layers])
    axes.grid(False)
    axes.tick_params(length=0)


def _cell(axes: Axes, i: int, j: int, one: pd.Series, scale: float) -> None:
    sure = one.low > 0 or one.high < 0
    dark = abs(one.value) > 0.6 * scale
    axes.text(
        j,
        i,
        cell_text(one.value, one.low, one.high, scale),
        ha="center",
        va="center",
        fontsize=6.2,
        linespacing=1.05,
        fontweight="bold" if sure else "normal",
        color="white" if dark else "black",
    )
    if sure:
        edge = {"fill": False, "ec": "black", "lw": 0.8}
        axes.add_patch(Rectangle((j - 0.47, i - 0.46), 0.94, 0.92, **edge))


def cell_text(value: float, low: float, high: float, scale: float) -> str:
    r"""A gain and half the width of its interval, in as many digits as the scale asks for.

    >>> cell_text(0.123, 0.07, 0.17, scale=0.5)
    '+.12\n±.05'
    >>> cell_text(-12.25, -13.0, -11.0, scale=13.0)
    '-12.2\n±1.0'
    """
    digits = 2 if scale < 2 else 1 if scale < 100 else 0
    parts = [f"{value:+.{digits}f}"]
    if np.isfinite(high - low):
        parts.append(f"±{(high - low) / 2:.{digits}f}")
    return "\n".join(re.sub(r"^([-+±])0\.", r"\1.", part) for part in parts)
