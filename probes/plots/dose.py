"""What single features do at every strength, each beside its controls."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from probes.plots.style import (
    COLOURS,
    MANY,
    NULL,
    absent,
    band,
    key,
    page,
    pick,
    where,
    whisker,
    written,
)

CONTROLS = {
    "random feature": MANY[0],
    "random direction": MANY[1],
    "length-matched": MANY[2],
}
FIXED = {
    "right": "right answers (share)",
    "valid": "valid answers (share)",
    "length": "tokens of an answer",
}
RATE = "option rate of "
SPREAD = 0.025
"""Distance between controls of the same strength, as a share of the range of strengths."""


def feature_dose(frame: pd.DataFrame, stem: Path, kinds: Sequence[str] | None = None) -> list[Path]:
    """Answers, strategies and lengths against strength: a column a feature, a row a measure.

    Controls are drawn at the strength they belong to: random features and random directions were
    sampled there, the length-matched answers are as long as the feature's there.

    Args:
        frame: rows of `steering.features.dose_response`.
        stem: path of the files without their suffix.
        kinds: strategies to show; by default the two that the features move most.
    """
    rows = where(frame, frame.kind.str.startswith("feature "))
    rows = pick(rows, setting=["feature", *CONTROLS])
    plain = pick(frame, setting="unsteered")
    features = list(dict.fromkeys(rows.kind)) or [""]
    if kinds is None:
        kinds = _moved(rows, plain)
    measures = [*list(FIXED)[:2], *(RATE + kind for kind in kinds), *list(FIXED)[2:]]
    width, height = max(4.5, 1.2 + 2.6 * len(features)), 0.9 + 1.65 * len(measures)
    with page(
        stem, len(measures), len(features), width=width, height=height, sharex="col", sharey="row"
    ) as (figure, axs):
        for j, feature in enumerate(features):
            for i, measure in enumerate(measures):
                of_it = pick(rows, kind=feature, measure=measure)
                _panel(axs[i, j], of_it, pick(plain, measure=measure))
                if j == 0:
                    axs[i, j].set_ylabel(FIXED.get(measure, f"rate of {measure[len(RATE) :]}"))
            axs[0, j].set_title(feature)
            axs[-1, j].set_xlabel("strength (largest activations)")
        entries = [("the feature", {"color": COLOURS["base"]})]
        looks = {"ls": "", "marker": "D", "ms": 4}
        entries += [(name, {"color": colour, **looks}) for name, colour in CONTROLS.items()]
        entries += [("unsteered", {"color": NULL})]
        key(figure, entries, columns=3)
    return written(stem)


def _panel(axes: Axes, rows: pd.DataFrame, plain: pd.DataFrame) -> None:
    """One measure of one feature."""
    if rows.empty:
        absent(axes)
        return
    for _, one in plain.iterrows():
        axes.axhline(one.value, color=NULL, lw=1.2)
        axes.axhspan(one.low, one.high, color=NULL, alpha=0.15, lw=0)
    apart = SPREAD * float(rows.x.max() - rows.x.min())
    for m, (name, colour) in enumerate(CONTROLS.items()):
        for _, one in pick(rows, setting=name).iterrows():
            place = one.x + (m - (len(CONTROLS) - 1) / 2) * apart
            whisker(axes, one, place, colour, across=False, fmt="D", ms=3.5)
    band(axes, pick(rows, setting="feature"), COLOURS["base"], lw=1.8)


def _moved(rows: pd.DataFrame, plain: pd.DataFrame) -> list[str]:
    """The two strategies whose rate the features move furthest from the unsteered one."""
    of_it = pick(rows, setting="feature")
    of_it = where(of_it, of_it.measure.str.startswith(RATE))
    unsteered = plain.drop_duplicates("measure").set_index("measure").value
    known = where(of_it, of_it.measure.isin(list(unsteered.index)))
    if known.empty:
        return []
    far = (known.value - known.measure.map(unsteered)).abs().groupby(known.measure).max()
    names = [str(name) for name in far.sort_values(ascending=False, kind="stable").index[:2]]
    return [name[len(RATE) :] for name in names]
