"""Every metric against strength, layer by layer, beside the controls and the unsteered model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from probes.plots.style import MANY, NULL, absent, band, key, page, written
from probes.plots.sweep.rows import (
    chosen,
    combinations,
    estimate,
    largest,
    of_all,
    real,
    shown,
    told,
    unsteered,
)

PANELS = 4
WIDE = 1000
"""Strengths that differ more stand on a logarithmic axis."""
LAYERS = 8
"""Curves of a panel."""
CONTROL: dict[str, Any] = {"color": NULL, "ls": (0, (3, 2)), "lw": 1.0, "alpha": 0.7}


def dose_response(
    frame: pd.DataFrame, about: dict[str, Any], stem: Path, metric: str = ""
) -> list[Path]:
    """Metrics against strength: a row each, a column a push or model, a colour a layer.

    Bands and bars are intervals. Controls are grey and dashed; the unsteered model is a horizontal
    line, and the point of every curve at 0.

    Args:
        frame: table of settings.
        about: its "metrics".
        stem: path of the files without their suffix.
        metric: of the first row, by default the first; it chooses what there is no room for.

    Returns:
        The files; none unless strength varies.
    """
    metric = chosen(about, metric)
    rows = real(frame, metric)
    if rows.strength.nunique() < 2 or not (rows.push != "").all():
        return []
    metrics = [metric, *(m for m in about["metrics"] if m != metric)]
    gain = f"{metric}_gain"
    panels, _ = combinations(rows, ("layer", "strength"))
    kept = largest(panels, gain, PANELS)
    drawn = pd.concat([of_it for _, of_it in kept])
    by_layer = largest(list(drawn.groupby("layer", dropna=False)), gain, LAYERS)
    colours = _colours([layer for layer, _ in by_layer])
    width, height = max(5.0, 1.0 + 2.3 * len(kept)), 1.2 + 1.6 * len(metrics)
    with page(
        stem, len(metrics), len(kept), width=width, height=height, sharex=True, sharey="row"
    ) as (figure, axs):
        for j, (title, of_it) in enumerate(kept):
            for i, name in enumerate(metrics):
                _panel(axs[i, j], frame, of_it, name, colours)
                if j == 0:
                    axs[i, j].set_ylabel(told(name).replace(" (", "\n("))
            axs[0, j].set_title(title, fontsize=8.5)
            axs[-1, j].set_xlabel("strength")
            sizes = of_it.strength.abs()[of_it.strength != 0]
            if len(sizes) and sizes.max() > WIDE * sizes.min():
                axs[-1, j].set_xscale("symlog", linthresh=float(sizes.min()))
        entries = [(_layer(layer), {"color": colour}) for layer, colour in colours.items()]
        entries += [("its controls", CONTROL)]
        key(figure, [*entries, ("unsteered", {"color": "black", "lw": 1.0})])
        left = shown(len(kept), len(panels), "combinations")
        left += shown(len(by_layer), len(drawn.layer.unique()), "layers")
        if failed := int(((frame.status == "failed") & (frame.control == "")).sum()):
            left += f"; {failed} failed"
        figure.suptitle(f"dose and response{of_all(rows)}{left}", fontsize=10)
    return written(stem)


def _panel(
    axes: Axes, frame: pd.DataFrame, rows: pd.DataFrame, metric: str, colours: dict[Any, str]
) -> None:
    """One metric of one combination."""
    if estimate(rows, metric).value.dropna().empty:
        absent(axes)
        return
    plain = unsteered(frame, rows.iloc[0], metric)
    axes.axhline(plain.value, color="black", lw=1.0)
    if plain.low <= plain.high:
        axes.axhspan(plain.low, plain.high, color="black", alpha=0.07, lw=0)
    for layer, of_it in rows.groupby("layer", dropna=False):
        if layer not in colours:
            continue
        curve, null = estimate(of_it, metric), estimate(of_it, f"{metric}_control").dropna()
        # A feature that is clamped to 0 is steered; and without interval a band would be torn.
        if "clamp" not in set(of_it.op) and plain.low <= plain.high:
            at_zero = plain.to_frame().T.assign(x=0.0)
            curve = pd.concat([curve, at_zero])
            null = pd.concat([null, at_zero]) if len(null) else null
        _null(axes, null.sort_values("x"))
        band(axes, curve, colours[layer])


def _null(axes: Axes, rows: pd.DataFrame) -> None:
    """Controls of a layer: bars in place of bands, of which there are enough."""
    spread = np.abs([rows.value - rows.low, rows.high - rows.value])
    axes.errorbar(rows.x, rows.value, yerr=spread, elinewidth=0.8, zorder=1, **CONTROL)


def _colours(layers: Sequence[Any]) -> dict[Any, str]:
    """Of few layers by the palette, of many from dark to light."""
    if len(layers) < len(MANY) - 1:
        return dict(zip(layers, MANY, strict=False))
    shades = matplotlib.colormaps["viridis"].resampled(len(layers) + 1)
    return {layer: to_hex(shades(i)) for i, layer in enumerate(layers)}


def _layer(layer: Any) -> str:
    return "steered" if pd.isna(layer) else f"layer {layer}"
