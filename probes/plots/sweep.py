"""Figures of a sweep."""

from pathlib import Path
from typing import Any

import pandas as pd


def figures(
    frame: pd.DataFrame, about: dict[str, Any], folder: Path, metric: str = ""
) -> list[Path]:
    """None yet."""
    return []
