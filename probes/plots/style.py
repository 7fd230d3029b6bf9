"""What the figures share: colours, panels, intervals, and how they are written."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from probes.records import Refusal, atomic_write

COLOURS = {"base": "#0072B2", "tuned": "#D55E00", "guessing": "#7F7F7F"}
"""Okabe and Ito's palette (jfly.uni-koeln.de/color), as are the others."""
MANY = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B8A800", "#7F7F7F")
NULL = "#7F7F7F"
DASHES = {"untouched": "-", "": "-", "touched": (0, (3, 2))}
"""Line of each half of the entries: dashed where tuning could have met them."""

SETTINGS: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "whenhow",
    "svg.fonttype": "path",
}
COLUMNS = (
    "measure",
    "value",
    "low",
    "high",
    "model",
    "skill",
    "part",
    "kind",
    "site",
    "setting",
    "x",
)


@contextmanager
def page(
    stem: Path, rows: int, columns: int, *, width: float, height: float, **shared: Any
) -> Iterator[tuple[Figure, np.ndarray]]:
    """A figure with a grid of panels, written as PNG and SVG when the block ends.

    Args:
        stem: path of the files without their suffix.
        rows: of panels.
        columns: of panels.
        width: of the figure, in inches; 8 is the width of a README.
        height: likewise.
        shared: what `Figure.subplots` takes: sharex, sharey, width_ratios.
    """
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, figure.subplots(rows, columns, squeeze=False, **shared)
        for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
            with atomic_write(stem.with_name(stem.name + suffix)) as file:
                figure.savefig(file, format=suffix[1:], dpi=150, metadata=metadata)


def written(stem: Path) -> list[Path]:
    """The files of a figure."""
    return [stem.with_name(stem.name + suffix) for suffix in (".png", ".svg")]


def pick(frame: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """Rows in which every named column has the value, or one of the values of a list.

    Raises:
        Refusal: the frame is no table of measurements.
    """
    if missing := [name for name in COLUMNS if name not in frame.columns]:
        raise Refusal(
            f"the table lacks the columns {', '.join(missing)}: figures are drawn from Measurement "
            f"rows, as in evidence.parquet."
        )
    kept = np.ones(len(frame), dtype=bool)
    for name, value in columns.items():
        wanted = value if isinstance(value, (list, tuple)) else [value]
        kept &= frame[name].isin(list(wanted)).to_numpy()
    return where(frame, kept)


def where(frame: pd.DataFrame, kept: Any) -> pd.DataFrame:
    """The rows of a mask."""
    return frame.loc[np.asarray(kept, dtype=bool), :]  # type: ignore[return-value]


def band(axes: Axes, rows: pd.DataFrame, colour: str, label: str = "", **line: Any) -> None:
    """A line over `x` with its intervals as a band, or as bars where there is one point."""
    rows = rows.dropna(subset=["x", "value"]).sort_values("x")
    if rows.empty:
        return
    x, value = rows.x.to_numpy(float), rows.value.to_numpy(float)
    low, high = rows.low.to_numpy(float), rows.high.to_numpy(float)
    known = ~(np.isnan(low) | np.isnan(high))
    marker = {"marker": "o", "ms": 3} if "marker" not in line else {}
    axes.plot(x, value, color=colour, label=label or None, **{"lw": 1.5, **marker, **line})
    if len(x) > 1:
        axes.fill_between(x, low, high, where=known, color=colour, alpha=0.16, lw=0)
    elif known.any():
        axes.vlines(x, low, high, color=colour, lw=1.2)


def whisker(
    axes: Axes, row: pd.Series, place: float, colour: str, *, across: bool = True, **marker: Any
) -> None:
    """A point with its interval, along x (`across`) or along y."""
    if np.isnan(row.value):
        return
    spread = np.abs(np.nan_to_num([[row.value - row.low], [row.high - row.value]]))
    where = {"xerr": spread} if across else {"yerr": spread}
    at = (row.value, place) if across else (place, row.value)
    drawn = {"fmt": "o", "ms": 5, "lw": 1.5, "color": colour, **where, **marker}
    axes.errorbar(*at, **drawn)


def key(figure: Figure, entries: Sequence[tuple[str, dict[str, Any]]], columns: int = 6) -> None:
    """One legend for all panels, below them, of as many columns as the figure has room for."""
    from matplotlib.lines import Line2D

    widest = 0.075 * max(len(label) for label, _ in entries) + 0.6  # inches, of a 9 point entry
    columns = max(1, min(columns, int(figure.get_figwidth() / widest)))
    lines = [Line2D([], [], label=label, **{"lw": 1.5, **look}) for label, look in entries]
    figure.legend(handles=lines, loc="outside lower center", ncols=min(columns, len(lines)))


def absent(axes: Axes, what: str = "not measured") -> None:
    """Say in a panel that there is nothing to show."""
    axes.text(0.5, 0.5, what, ha="center", va="center", transform=axes.transAxes, color=NULL)
    axes.tick_params(length=0, labelbottom=False, labelleft=False)  # ticks may be shared
    axes.grid(False)


def named(skill: str) -> str:
    """A skill as a panel's title."""
    return f"skill {skill}" if skill else "all problems"
