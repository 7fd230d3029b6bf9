"""From counted answers to numbers: every setting beside the unsteered model and its controls.

Of every metric m a setting has m, m_gain (less the unsteered model, paired by problem), m_control
(its random directions, averaged by problem) and m_beyond (less those), each with its 95% interval;
that of m_beyond counts that the random directions are few (`probes.columns.beyond_draws`).
`p_corrected` is the chance of a gain or loss in the first metric as large as this one in any of the
settings that were looked at, if none did anything (`probes.columns.familywise`).

The best of many is too good on the problems that chose it. So `best` chooses on every other problem
and reports on the rest.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from probes.columns import Columns, Range, beyond_draws, columns, familywise
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
    resolved: Sequence[Resolved],
    asked: Mapping[str, tuple[Asked, ...]],
    tallies: Mapping[str, Tally],
    metrics: Sequence[str],
) -> list[dict[str, Any]]:
    """The best push of each model and task, chosen on one half and reported on the other."""
    found = []
    settings = {s.key: s for r in resolved for s in (r.setting, *r.controls)}
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
        about |= {"looked_at": int(rows.setting.nunique()), "p_corrected": float(row.p_corrected)}
        about["chosen_on"] = {
            "problems": int(halves[HALVES[0]].sum()),
            metrics[0]: float(np.nanmax(chosen_on)),
        }
        about["reported_on"] = {"problems": int(halves[HALVES[1]].sum())}
        null = [settings[key] for key in str(row.controls).split(",") if key]
        one = _Compared([settings[row.setting]], [row.unsteered], [null])
        for metric in metrics:
            found_here = one.by(tally, metric, halves[HALVES[1]], settings.values())
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
    named = {one.setting.key for _, one in of_name}
    # What a row is compared with has a row, though the axes may not name it.
    bare = {p.key: p for _, one in of_name for p in [one.plain] if p.key not in named}
    nulls = {c.key: (c, one.plain.key) for _, one in of_name for c in one.controls}
    start = of_name[-1][0] + 1
    rows += [
        (start + i, {}, s) for i, s in enumerate([*bare.values(), *(c for c, _ in nulls.values())])
    ]
    settings = [s for *_, s in rows]
    keys = [s.key for s in settings]
    plain = [one.plain.key for _, one in of_name] + [*bare, *(k for _, k in nulls.values())]
    beside = [list(one.controls) for _, one in of_name] + [[] for _ in (*bare, *nulls)]
    compared = _Compared(settings, plain, beside)
    count = [len(a.problems) for a in asked]
    own = np.arange(sum(count)) < count[0]
    data: dict[str, Any] = {
        "place": [place for place, *_ in rows],
        "control_of": [bool(s.control) for s in settings],
        "setting": keys,
        "unsteered": plain,
        "controls": [",".join(c.key for c in b) for b in beside],
        "control": [s.control for s in settings],
        "draw": [s.draw for s in settings],
        "status": ["failed" if k in failed else "ok" for k in keys],
        "reason": [failed.get(k, "") for k in keys],
        **_described(rows),
        "problems_hash": [s.problems for s in settings],
        "problems": int(own.sum()),
        "answers": tally.answers[:, own].sum(1)[[tally.codes[k] for k in keys]].astype(int),
    }
    for metric in metrics:
        for name, found in compared.by(tally, metric, own, settings).items():
            data |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
    for metric in (m for m in OFF if m in metrics and len(asked) > 1):
        for name, found in compared.by(tally, metric, ~own, settings).items():
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


@dataclass(frozen=True)
class _Compared:
    """Settings, each with the unsteered model and the random directions that it is held against."""

    settings: Sequence[Setting]
    plain: Sequence[str]
    beside: Sequence[Sequence[Setting]]

    def by(
        self,
        tally: Tally,
        metric: str,
        kept: Bool[np.ndarray, " problems"],
        among: Iterable[Setting],
    ) -> dict[str, Columns]:
        """A metric of these settings, and less the unsteered and less the controls.

        Args:
            tally: of all settings.
            metric: one of `RANGES`.
            kept: the problems that count.
            among: whose controls say how far random directions are from each other.
        """
        means = tally.means[metric][:, kept]
        own = means[[tally.codes[s.key] for s in self.settings]]
        base = means[[tally.codes[k] for k in self.plain]]
        alone = [s.key == p for s, p in zip(self.settings, self.plain, strict=True)]
        base[alone] = np.nan  # nothing to compare
        null = np.full_like(own, np.nan)
        for i, controls in enumerate(self.beside):
            if controls:
                null[i] = means[[tally.codes[c.key] for c in controls]].mean(0)
        known = _spreads(means, tally.codes, among)
        spread, freedom = np.array([known.get(_alike(s), (np.nan, 0)) for s in self.settings]).T
        draws = np.array([len(controls) for controls in self.beside], dtype=float)
        value, change = RANGES[metric]
        return {
            metric: columns(own, value),
            f"{metric}_gain": columns(own - base, change),
            f"{metric}_control": columns(null, value),
            f"{metric}_beyond": beyond_draws(own, null, spread, draws, freedom, change),
        }


def _spreads(
    means: Float[np.ndarray, "settings problems"],
    codes: Mapping[str, int],
    settings: Iterable[Setting],
) -> dict[Hashable, tuple[float, int]]:
    """Standard deviation between random directions alike, and its degrees of freedom.

    Those of one size are pooled, a push and its opposite each about its own mean.
    """
    drawn: dict[Hashable, dict[bool, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for s in settings:
        value = means[codes[s.key]].mean() if s.control and s.key in codes else np.nan
        if np.isfinite(value):
            drawn[_alike(s)][s.strength > 0][s.key] = value
    found = {}
    for alike, by_sign in drawn.items():
        sets = [np.array(list(values.values())) for values in by_sign.values()]
        freedom = sum(len(one) - 1 for one in sets)
        squares = sum(((one - one.mean()) ** 2).sum() for one in sets)
        found[alike] = (float(np.sqrt(squares / freedom)) if freedom else np.nan, freedom)
    return found


def _alike(s: Setting) -> Hashable:
    """Equal for a push and those random directions that could stand in its place."""
    size = abs(s.strength if s.op == "ablate" else s.strength * s.unit)
    place = (s.digest, s.problems, s.op, s.site, s.window, s.temperature, s.top_p, s.seed)
    return (*place, size, s.push if "#" in s.push else "")


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
