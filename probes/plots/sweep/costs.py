"""What a gain costs elsewhere: the Pareto front of gain and side effects."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.axes import Axes

from probes.plots.style import MANY, NULL, key, page, where, written
from probes.plots.sweep.rows import chosen, estimate, labels, of_all, real, told, varying

NAMED = 8
"""Settings of the fronts that are named."""
FAR = 20
"""Times the cheapest on the front: where costs are drawn in a logarithmic scale, linear near 0."""


@dataclass(frozen=True)
class Cost:
    """A side effect, the less the better."""

    column: str
    label: str
    sign: int
    """1 or -1; 0 where a change either way is one."""

    def of(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Value, low, high."""
        found = estimate(rows, self.column)
        if self.sign > 0:
            return found
        if self.sign < 0:
            return found.assign(value=-found.value, low=-found.high, high=-found.low)
        ends = found[["low", "high"]].abs()
        inside = (found.low <= 0) & (found.high >= 0)
        low = ends.min(axis=1, skipna=False).mask(inside, 0.0)
        return found.assign(value=found.value.abs(), low=low, high=ends.max(axis=1, skipna=False))


COSTS = (
    Cost("kl", told("kl"), 1),
    Cost("length_gain", "change in tokens of an answer, either way", 0),
    Cost("off_right_gain", "loss of right answers off task (share)", -1),
    Cost("off_valid_gain", "loss of valid answers off task (share)", -1),
)


def _there(rows: pd.DataFrame, own: tuple[str, ...]) -> list[Cost]:
    """Side effects that the table has, other than the metric itself."""
    found = [c for c in COSTS if c.column in rows and c.column not in own]
    return [c for c in found if np.isfinite(estimate(rows, c.column).value).any()]


def pareto_front(
    cost: Float[np.ndarray, " settings"], gain: Float[np.ndarray, " settings"]
) -> Int[np.ndarray, " front"]:
    """Settings than which none gains as much at less cost, or more at as little; cheapest first.

    >>> pareto_front(np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.0, 0.3, 0.2, 0.5])).tolist()
    [0, 1, 3]

    Of equal ones the first; one with a NaN never.
    """
    known = np.flatnonzero(np.isfinite(cost) & np.isfinite(gain))
    front, top = [], -np.inf
    for i in known[np.lexsort((known, -gain[known], cost[known]))]:
        if gain[i] > top:
            front.append(i)
            top = gain[i]
    return np.array(front, dtype=int)


def side_effects(
    frame: pd.DataFrame, about: dict[str, Any], stem: Path, metric: str = ""
) -> list[Path]:
    """Gain in a metric against each side effect, with the front.

    Side effects are the KL, the change in length, and what is lost on the task beside, whichever
    the table has. The unsteered model, at 0, may be on a front. Controls are grey; the numbers
    on the fronts are named below.

    Args:
        frame: table of settings.
        about: its "metrics".
        stem: path of the files without their suffix.
        metric: by default the first.

    Returns:
        The files; none where there is no gain or no side effect to hold it against.
    """
    metric = chosen(about, metric)
    gain = f"{metric}_gain"
    rows = real(frame, metric)
    rows = where(rows, rows[gain].notna()).reset_index(drop=True)
    costs = _there(rows, (metric, gain))
    if rows.empty or not costs:
        return []
    nulls = where(frame, (frame.control != "") & (frame.status == "ok"))
    groups = _groups(rows)
    fronts = [_front(rows, cost, gain) for cost in costs]
    numbers = {
        i: n + 1 for n, i in enumerate(dict.fromkeys(i for f in fronts for i in f if i >= 0))
    }
    columns = 2 if len(costs) == 4 else len(costs)
    deep = len(costs) // columns
    width = max(5.0, 0.9 + 3.4 * columns)
    height = 0.9 + 3.4 * deep + 0.16 * min(NAMED, len(numbers))
    with page(stem, deep, columns, width=width, height=height, sharey=True) as (figure, axs):
        for axes, cost, front in zip(axs.flat, costs, fronts, strict=True):
            _points(axes, nulls, cost, gain, NULL, marker="D", ms=2.5)
            for _, colour, at in groups:
                _points(axes, rows.iloc[at], cost, gain, colour, marker="o", ms=3.5)
            _step(axes, rows, cost, gain, front, numbers)
            axes.axhline(0, color="black", lw=0.6)
            axes.set_xlabel(cost.label)
            _spread(axes, cost, rows, front)
        for axes in axs[:, 0]:
            axes.set_ylabel(f"gain in {told(metric)}")
        named = labels(rows, varying(rows) or ["push"])
        entries = _entries({name: colour for name, colour, _ in groups}, controls=len(nulls) > 0)
        for i, number in list(numbers.items())[:NAMED]:
            entries.append((named[i], {"color": "black", "marker": f"${number}$", "ls": ""}))
        figure.suptitle(f"what a gain costs{of_all(rows)}", fontsize=10)
        key(figure, entries)
    return written(stem)


def _entries(colours: dict[str, str], *, controls: bool) -> list[tuple[str, dict[str, Any]]]:
    """Of the key, but for the numbers."""
    dots: dict[str, Any] = {"ls": "", "ms": 4}
    entries = [(n, {"color": c, "marker": "o", **dots}) for n, c in colours.items()]
    entries += [("control", {"color": NULL, "marker": "D", **dots})] if controls else []
    entries += [("unsteered", {"color": "black", "marker": "s", **dots})]
    return [*entries, ("front", {"color": "black", "lw": 1.5})]


def _groups(rows: pd.DataFrame) -> list[tuple[str, str, list[int]]]:
    """Settings by the first axis of few values: its value, a colour, and which they are."""
    for axis in varying(rows):
        values = list(rows[axis].unique())
        if len(values) < len(MANY):
            firsts = rows.drop_duplicates(axis)
            names = labels(firsts, [axis])
            places = [
                np.flatnonzero((rows[axis] == v).fillna(False)).tolist() for v in firsts[axis]
            ]
            return list(zip(names, MANY, places, strict=False))
    return [("steered", MANY[0], list(range(len(rows))))]


def _front(rows: pd.DataFrame, cost: Cost, gain: str) -> list[int]:
    """Settings on the front, -1 for the unsteered model, which costs and gains nothing."""
    spent = np.append(0.0, cost.of(rows).value.to_numpy(float))
    front = pareto_front(spent, np.append(0.0, rows[gain].to_numpy(float)))
    return [int(i) - 1 for i in front]


def _points(
    axes: Axes, rows: pd.DataFrame, cost: Cost, gain: str, colour: str, **look: Any
) -> None:
    """Settings, their intervals in both directions light."""
    found = [cost.of(rows), estimate(rows, gain)]
    known = (found[0].value.notna() & found[1].value.notna()).to_numpy()
    if not known.any():
        return
    x, y = (one[known] for one in found)
    spread = [np.abs(np.nan_to_num([one.value - one.low, one.high - one.value])) for one in (x, y)]
    light = {"fmt": "none", "ecolor": colour, "elinewidth": 0.7, "alpha": 0.22}
    axes.errorbar(x.value, y.value, xerr=spread[0], yerr=spread[1], zorder=1, **light)
    axes.plot(x.value, y.value, ls="", color=colour, mec="white", mew=0.3, zorder=2, **look)


def _spread(axes: Axes, cost: Cost, rows: pd.DataFrame, front: Sequence[int]) -> None:
    """Show small costs apart where the dearest setting would press the front into a corner."""
    spent = cost.of(rows).value
    cheap = spent.iloc[[i for i in front if i >= 0]]
    cheap = cheap[cheap > 0]
    if cost.sign >= 0 and len(cheap) and spent.max() > FAR * cheap.min():
        linear = 10 ** np.floor(np.log10(cheap.min()))
        axes.set_xscale("symlog", linthresh=linear)
        axes.set_xlim(left=-linear / 4)


def _step(
    axes: Axes,
    rows: pd.DataFrame,
    cost: Cost,
    gain: str,
    front: Sequence[int],
    numbers: dict[int, int],
) -> None:
    """The front up to the dearest setting, and a number at each of its own."""
    x = np.append(cost.of(rows).value.to_numpy(float), 0.0)  # -1 is the unsteered model
    y = np.append(rows[gain].to_numpy(float), 0.0)
    at = [*front, front[-1]]
    xs = [*x[list(front)], np.nanmax(x)]
    axes.plot(xs, y[at], color="black", lw=1.3, drawstyle="steps-post", zorder=3)
    axes.plot([0.0], [0.0], color="black", marker="s", ms=5, ls="", zorder=4)
    for i in front:
        if numbers.get(i, NAMED + 1) <= NAMED:
            look = {"xytext": (2, 3), "textcoords": "offset points", "fontsize": 7.5}
            axes.annotate(str(numbers[i]), (x[i], y[i]), fontweight="bold", zorder=5, **look)
