"""Which rows of a table of settings are drawn, what varies in them, in which panels they go."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from probes.plots.style import where
from probes.plots.sweep.names import short_names

AXES = (
    "model",
    "task",
    "push",
    "op",
    "site",
    "layer",
    "strength",
    "window",
    "temperature",
    "top_p",
    "seed",
)
"""In the order in which a label says them."""
WORDED = ("model", "task", "push", "window")
"""Axes whose values are shortened."""
BEFORE = {"layer": "layer ", "temperature": "T ", "top_p": "top-p ", "seed": "seed "}
METRICS = {
    "right": "right answers (share)",
    "valid": "valid answers (share)",
    "parsed": "readable answers (share)",
    "length": "tokens of an answer",
    "kl": "KL from unsteered (nats a token)",
    "strategy": "strategy used (share)",
}


def chosen(about: dict[str, Any], metric: str) -> str:
    """The metric that was named, or the first."""
    return metric or about["metrics"][0]


def told(metric: str) -> str:
    """A metric as an axis' label."""
    return METRICS.get(metric, metric)


def real(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Each setting of the axes that has a value once; steered ones, if there are any."""
    kept = where(frame, (frame.control == "") & (frame.status == "ok") & frame[metric].notna())
    kept = kept.drop_duplicates(["setting", "model", "task"])
    if (kept.push != "").to_numpy().any():
        kept = where(kept, kept.push != "")
    kept = kept.assign(site=[str(s).split(".", 2)[-1] for s in kept.site])  # the layer stands apart
    return _as_templates(kept)


def _as_templates(rows: pd.DataFrame) -> pd.DataFrame:
    """Pushes that differ by their layer only as one, as if the file had said {layer}."""
    pushes = [re.sub(r"blocks\.\d+\.", "blocks.{layer}.", str(p)) for p in rows.push]
    merged = rows.assign(push=pushes)
    return merged if len(merged.drop_duplicates(list(AXES))) == len(rows) else rows


def varying(rows: pd.DataFrame, *, without: Sequence[str] = ()) -> list[str]:
    """Axes of which there are two values or more."""
    return [a for a in AXES if a not in without and len(rows[a].dropna().unique()) > 1]


def labels(rows: pd.DataFrame, axes: Sequence[str]) -> list[str]:
    """What each row is on these axes, in few words."""
    names = {a: short_names(map(str, rows[a])) for a in axes if a in WORDED}
    return [
        " · ".join(_said(a, row[a], names.get(a, {})) for a in axes) for _, row in rows.iterrows()
    ]


def _said(axis: str, value: Any, names: dict[str, str]) -> str:
    if pd.isna(value):
        return f"no {axis}"
    if axis == "strength":
        return f"{value:+.3g}"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return BEFORE.get(axis, "") + names.get(text, text)


def estimate(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """A column with its interval as value, low, high, over x, the strength."""
    about = {"value": name, "low": f"{name}_low", "high": f"{name}_high", "x": "strength"}
    return pd.DataFrame({k: rows[column].astype(float) for k, column in about.items()})


def unsteered(frame: pd.DataFrame, row: pd.Series, metric: str) -> pd.Series:
    """The model of a row without any edit; without interval where the axes lack it."""
    plain = where(frame, (frame.setting == row.unsteered) & (frame.status == "ok"))
    if len(plain):
        return estimate(plain, metric).iloc[0]
    value = row[metric] - row[f"{metric}_gain"]
    return pd.Series({"value": value, "low": np.nan, "high": np.nan, "x": 0.0})


def combinations(
    rows: pd.DataFrame, without: Sequence[str]
) -> tuple[list[tuple[str, pd.DataFrame]], int]:
    """Rows by every other axis that varies, titled, and how many values the first of those has.

    The first axis is the fastest, so that with its count of columns each has one.
    """
    axes = varying(rows, without=without)
    if not axes:
        return [("", rows)], 1
    found = []
    places = {a: {v: i for i, v in enumerate(rows[a].unique())} for a in axes}
    for values, of_it in rows.groupby(axes, sort=False, dropna=False):
        assert isinstance(values, tuple)
        order = [places[a].get(v, -1) for a, v in zip(axes, values, strict=True)]
        found.append(((*order[1:], order[0]), of_it))
    found.sort(key=lambda one: one[0])
    titles = labels(pd.concat([of_it.iloc[:1] for _, of_it in found]), axes)
    return [(t, of_it) for t, (_, of_it) in zip(titles, found, strict=True)], len(places[axes[0]])


def largest(
    panels: Sequence[tuple[Any, pd.DataFrame]], gain: str, most: int
) -> list[tuple[Any, pd.DataFrame]]:
    """So many panels at most: those with the largest gains, in their order."""
    tops = np.nan_to_num([rows[gain].max() for _, rows in panels], nan=-np.inf)
    kept = np.sort(np.argsort(-tops, kind="stable")[:most])
    return [panels[i] for i in kept]


def shown(count: int, of: int, what: str) -> str:
    """How many of how many, where that isn't all."""
    return "" if count == of else f"; {count} of {of} {what}, those with the largest gains"


def of_all(rows: pd.DataFrame) -> str:
    """The model, task and push, if all rows share them, for a title."""
    axes = [a for a in ("model", "task", "push") if a not in varying(rows)]
    axes = [a for a in axes if rows[a].iloc[0] != ""]
    return f" ({labels(rows.iloc[:1], axes)[0]})" if axes else ""
