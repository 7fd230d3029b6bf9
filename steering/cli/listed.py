"""Rows as the JSON that verbs write and print."""

import math
from typing import Any


def finite(row: dict[str, Any]) -> dict[str, Any]:
    """A row for JSON, which has neither NaN nor infinity: what is not there is null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }
