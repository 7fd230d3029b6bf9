"""The tidy rows that stages write and figures read: of an estimate, or of a bare number."""

from probes.intervals import Estimate
from probes.records import Measurement


def row(
    measure: str,
    estimate: Estimate,
    *,
    model: str = "",
    skill: str = "",
    part: str = "",
    kind: str = "",
    site: str = "",
    setting: str = "",
    x: float = float("nan"),
    note: str = "",
) -> Measurement:
    """A row with the columns that apply; where the estimate is undefined, the note says why."""
    value, low, high, n = estimate.value, estimate.low, estimate.high, estimate.n
    why = estimate.reason or note
    return Measurement(
        measure, value, low, high, n, model, skill, part, kind, site, setting, x, why
    )


def point(
    measure: str,
    value: float,
    n: int,
    *,
    model: str = "",
    skill: str = "",
    part: str = "",
    kind: str = "",
    site: str = "",
    setting: str = "",
    x: float = float("nan"),
    note: str = "",
) -> Measurement:
    """A number without an interval: a description, not an inference."""
    nan = float("nan")
    return Measurement(
        measure, value, nan, nan, n, model, skill, part, kind, site, setting, x, note
    )
