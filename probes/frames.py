"""Records as pandas frames, and as what a notebook shows of them.

    frame(found)                     # of directions, shares, measurements: a row each
    frame([pair.kappa for pair in pairs])

An estimate becomes its value and both ends (and a reason, where one has none); arrays and tensors
are left out: a frame is read by people.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from probes.intervals import Estimate
from probes.records import Refusal


def frame(rows: Sequence[Any]) -> Any:
    """A `pandas.DataFrame` of dataclass instances of one kind, a row each.

    >>> from probes.intervals import exact_rate
    >>> frame([exact_rate(3, 10)])[["value", "n"]].values.tolist()
    [[0.3, 10.0]]

    Raises:
        Refusal: rows that are no dataclass instances, or of several kinds.
    """
    import pandas as pd

    kinds = {type(row) for row in rows}
    if len(kinds) > 1 or not all(is_dataclass(kind) for kind in kinds):
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise Refusal(f"a frame is of records of one kind; these are of {names}.")
    return pd.DataFrame([facts(row) for row in rows])


def facts(record: Any) -> dict[str, Any]:
    """The fields of a record that fit into a cell, estimates as value, low and high."""
    found: dict[str, Any] = {}
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, Estimate) and not isinstance(record, Estimate):
            found |= {field.name: value.value, f"{field.name}_low": value.low}
            found |= {f"{field.name}_high": value.high, f"{field.name}_n": value.n}
            found[f"{field.name}_reason"] = value.reason
        elif isinstance(value, Enum):
            found[field.name] = value.value
        elif not hasattr(value, "shape") and not is_dataclass(value):
            found[field.name] = value
    return found


def card(title: str, told: Mapping[str, Any]) -> str:
    """HTML of a title and a table of two columns; whatever stands in them is escaped.

    >>> card("a < b", {"c": 0.123456})
    '<b>a &lt; b</b><table><tr><th>c</th><td>0.1235</td></tr></table>'
    """
    cells = (
        f"<tr><th>{html.escape(str(name))}</th><td>{html.escape(_said(value))}</td></tr>"
        for name, value in told.items()
    )
    return f"<b>{html.escape(title)}</b><table>{''.join(cells)}</table>"


def _said(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
