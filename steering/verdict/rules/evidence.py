"""Looking numbers up among the measurements, and saying them."""

import math
from collections.abc import Sequence
from statistics import NormalDist  # scipy's would triple the time of `whenhow --help`

from probes.records import Measurement

_QUANTILE = NormalDist().inv_cdf


def pick(
    rows: Sequence[Measurement], measure: str, *, x: float | None = None, **where: str
) -> Measurement | None:
    """The first row of a measure with these columns; the others must be "" unless named."""
    columns = {"skill": "", "part": "", "kind": ""} | where
    for row in rows:
        fits = all(getattr(row, name) == value for name, value in columns.items())
        if row.measure == measure and fits and (x is None or row.x == x):
            return row
    return None


def said(row: Measurement | None) -> str:
    """A number with its interval, or why there is none."""
    if row is None:
        return "not measured"
    if math.isnan(row.value):
        return f"undefined ({row.note})" if row.note else "undefined"
    if math.isnan(row.low):
        return f"{row.value:.3f}"
    half = (row.high - row.low) / 2
    digits = 2 if half >= 0.02 or half == 0 else 3
    return f"{row.value:.{digits}f} [{row.low:.{digits}f}, {row.high:.{digits}f}]"


def detectable(change: Measurement, tests: int = 1) -> float:
    """The true difference that would be found four times in five, `tests` being made at once.

    (z of the level, z of the power .8) standard errors: 2.80 for one test, more for several
    (Bonferroni). The error is read off the 95% interval, as a 3.92th of its width.
    """
    error = (change.high - change.low) / (2 * _QUANTILE(0.975))
    return (_QUANTILE(1 - 0.025 / max(1, tests)) + _QUANTILE(0.8)) * error


def widened(change: Measurement, tests: int) -> tuple[float, float]:
    """The interval at which `tests` of them hold together with 95% (Bonferroni).

    Each side is stretched by the ratio of the normal quantiles, so a skew stays.
    """
    stretch = _QUANTILE(1 - 0.025 / max(1, tests)) / _QUANTILE(0.975)
    return (
        change.value - stretch * (change.value - change.low),
        change.value + stretch * (change.high - change.value),
    )
