"""From counted answers to numbers: every setting beside the unsteered model and its controls.

Of every metric m a setting has m, m_gain (less the unsteered model, paired by problem), m_control
(its random directions, averaged by problem) and m_beyond (less those), each with its 95% interval.
`p_corrected` is the chance of a gain or loss in the first metric as large as this one in any of the
settings that were looked at, if none did anything (`probes.columns.familywise`).

The best of many is too good on the problems that chose it. So `best` chooses on every other problem
and reports on the rest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from probes.columns import Columns, Range, columns, familywise
from steering.sweep.axes import Point
from steering.sweep.resolving import HALVES, Asked, Resolved
from steering.sweep.settings import Setting

RANGES: dict[str, tuple[Range, Range]] = {
    "right": ("rate", "difference"),
    "valid": ("rate", "difference"),
    "parsed": ("rate", "difference"),
    "length": ("any", "any"),
    "kl": ("any", "any"),
    "strategy": ("rate", "difference"),
}
"""Of a metric and of its gain."""

OFF = ("right", "valid")
"""Metrics of the task beside."""


@dataclass(frozen=True)
class Tally:
    """What the answers of every setting to every problem came to."""

    codes: Mapping[str, int]
    """Row of each setting, by its key."""
    means: Mapping[str, Float[np.ndarray, "settings problems"]]
    """Of each metric, over the samples; NaN where no answer could be graded."""
    answers: Float[np.ndarray, "settings problems"]
    """How many were graded."""


def frame_of(
    resolved: Sequence[Resolved],
    asked: Mapping[str, tuple[Asked, ...]],
    tallies: Mapping[str, Tally],
    failed: Mapping[str, str],
    metrics: Sequence[str],
) -> pd.DataFrame:
    """One row a point of the axes, in their order, then one a control.

    Args:
        resolved: the points.
        asked: problems of each setting, by `Setting.problems`.
        tallies: likewise.
        failed: reasons, by key.
        metrics: in order; the first is what p is of.
    """
    parts = []
    for name, of_name in _grouped(resolved).items():
        parts.append(_group(of_name, asked[name], tallies[name], failed, metrics))
    frame = pd.concat(parts).sort_values(["control_of", "place"], kind="stable")
    # Looked at together, so corrected together: by Bonferroni where problems are not shared.
    frame["p_corrected"] = np.minimum(1.0, frame.p_corrected * len(parts))
    return frame.drop(columns=["place", "control_of"]).reset_index(drop=True)


def best(
    frame: pd.DataFrame,
    asked: Mapping[str, tuple[Asked, ...]],
    tallies: Mapping[str, Tally],
    metrics: Sequence[str],
) -> list[dict[str, Any]]:
    """The best push of each model and task, chosen on one half and reported on the other."""
    found = []
    real = frame[(frame.control == "") & (frame.status == "ok") & (frame.push != "")]
    for pair, rows in real.groupby(["model", "task"], sort=False):
        name = str(rows.problems_hash.iloc[0])
        tally, halves = tallies[name], _halves(asked[name])
        first = tally.means[metrics[0]]
        at = [tally.codes[k] for k in rows.setting]
        chosen_on = first[at][:, halves[HALVES[0]]].mean(1)
        row = rows.iloc[int(np.nanargmax(chosen_on))]
        about: dict[str, Any] = dict(zip(("model", "task"), pair, strict=True))  # type: ignore[call-overload]
        about["setting"] = row.setting
        about |= {k: _plain(row[k]) for k in ("push", "op", "layer", "strength", "window")}
        about |= {"looked_at": len(rows), "p_corrected": float(row.p_corrected)}
        about["chosen_on"] = {
            "problems": int(halves[HALVES[0]].sum()),
            metrics[0]: float(np.nanmax(chosen_on)),
        }
        about["reported_on"] = {"problems": int(halves[HALVES[1]].sum())}
        keys = [row.setting], [row.unsteered], [str(row.controls).split(",")]
        for metric in metrics:
            found_here = _compared(tally, metric, *keys, halves[HALVES[1]])
            about["reported_on"] |= {k: _triple(v) for k, v in found_here.items()}
        found.append(about)
    return found


def _plain(value: Any) -> Any:
    """As JSON has it."""
    return value.item() if isinstance(value, np.generic) else value


def _triple(found: Columns) -> list[float]:
    return [float(x[0]) for x in (found.value, found.low, found.high)]


def _grouped(resolved: Sequence[Resolved]) -> dict[str, list[tuple[int, Resolved]]]:
    """Points with their place in the file, by the problems they share."""
    found: dict[str, list[tuple[int, Resolved]]] = {}
    for place, one in enumerate(resolved):
        found.setdefault(one.setting.problems, []).append((place, one))
    return found


def _halves(asked: tuple[Asked, ...]) -> dict[str, Bool[np.ndarray, " problems"]]:
    """Which problems of the task itself are in each half; those beside are in none."""
    count = [len(a.problems) for a in asked]
    place = np.arange(sum(count))
    own = place < count[0]
    return {name: own & (place % 2 == i) for i, name in enumerate(HALVES)}


def _group(
    of_name: list[tuple[int, Resolved]],
    asked: tuple[Asked, ...],
    tally: Tally,
    failed: Mapping[str, str],
    metrics: Sequence[str],
) -> pd.DataFrame:
    """The rows of settings that were asked the same problems."""
    rows = [(place, one.point, one.setting) for place, one in of_name]
    nulls = {c.key: (c, one.plain.key) for _, one in of_name for c in one.controls}
    start = len(of_name)
    rows += [(start + i, {}, c) for i, (c, _) in enumerate(nulls.values())]
    keys = [s.key for *_, s in rows]
    plain = [one.plain.key for _, one in of_name] + [k for _, k in nulls.values()]
    beside = [[c.key for c in one.controls] for _, one in of_name] + [[] for _ in nulls]
    count = [len(a.problems) for a in asked]
    own = np.arange(sum(count)) < count[0]
    data: dict[str, Any] = {
        "place": [place for place, *_ in rows],
        "control_of": [bool(s.control) for *_, s in rows],
        "setting": keys,
        "unsteered": plain,
        "controls": [",".join(b) for b in beside],
        "control": [s.control for *_, s in rows],
        "draw": [s.draw for *_, s in rows],
        "status": ["failed" if k in failed else "ok" for k in keys],
        "reason": [failed.get(k, "") for k in keys],
        **_described(rows),
        "problems_hash": [s.problems for *_, s in rows],
        "problems": int(own.sum()),
        "answers": tally.answers[:, own].sum(1)[[tally.codes[k] for k in keys]].astype(int),
    }
    for metric in metrics:
        for name, found in _compared(tally, metric, keys, plain, beside, own).items():
            data |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
    for metric in (m for m in OFF if m in metrics and len(asked) > 1):
        for name, found in _compared(tally, metric, keys, plain, beside, ~own).items():
            data |= {
                f"off_{name}{e}": getattr(found, v)
                for e, v in (("", "value"), ("_low", "low"), ("_high", "high"))
            }
    data["p_corrected"] = _corrected(tally, metrics[0], rows, keys, plain, own)
    return pd.DataFrame(data)


def _described(rows: Sequence[tuple[int, Point, Setting]]) -> dict[str, list[Any]]:
    """What each setting is, in the words of the file where a point has them."""
    found: dict[str, list[Any]] = {}
    for _, point, s in rows:
        layer = int(s.site.split(".")[1]) if s.site else point.get("layer")
        about = {
            "model": point.get("model", s.model),
            "task": point.get("task", s.task),
            "push": "" if not s.push else str(point.get("push", s.push)),
            "file": s.push,
            "op": s.op,
            "layer": layer,
            "site": s.site,
            "strength": float(point.get("strength", s.strength if s.push else 0.0)),
            "unit": s.unit,
            "window": s.window,
            "temperature": s.temperature,
            "top_p": s.top_p,
            "seed": s.seed,
        }
        for key, value in about.items():
            found.setdefault(key, []).append(value)
    return {**found, "layer": pd.array(found["layer"], dtype="Int64")}  # type: ignore[dict-item]


def _compared(
    tally: Tally,
    metric: str,
    keys: Sequence[str],
    plain: Sequence[str],
    beside: Sequence[Sequence[str]],
    kept: Bool[np.ndarray, " problems"],
) -> dict[str, Columns]:
    """A metric of these settings, and less the unsteered and less the controls."""
    means = tally.means[metric][:, kept]
    own = means[[tally.codes[k] for k in keys]]
    base = means[[tally.codes[k] for k in plain]]
    base[[k == p for k, p in zip(keys, plain, strict=True)]] = np.nan  # nothing to compare
    null = np.full_like(own, np.nan)
    for i, names in enumerate(beside):
        if names := [n for n in names if n]:
            null[i] = means[[tally.codes[n] for n in names]].mean(0)
    value, change = RANGES[metric]
    return {
        metric: columns(own, value),
        f"{metric}_gain": columns(own - base, change),
        f"{metric}_control": columns(null, value),
        f"{metric}_beyond": columns(own - null, change),
    }


def _corrected(
    tally: Tally,
    metric: str,
    rows: Sequence[tuple[int, Point, Setting]],
    keys: Sequence[str],
    plain: Sequence[str],
    own: Bool[np.ndarray, " problems"],
) -> Float[np.ndarray, " settings"]:
    """NaN of the unsteered model and of controls, which are not among those looked at."""
    looked = [i for i, (*_, s) in enumerate(rows) if s.steered and not s.control]
    p = np.full(len(rows), np.nan)
    if looked:
        means = tally.means[metric][:, own]
        gains = (
            means[[tally.codes[keys[i]] for i in looked]]
            - means[[tally.codes[plain[i]] for i in looked]]
        )
        p[looked] = familywise(gains)
    return p
