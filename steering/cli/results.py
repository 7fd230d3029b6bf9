"""What a measuring verb leaves behind: its numbers as Parquet and JSON, and their figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from probes.records import Measurement, write_json, write_table


def write_results(
    out: Path,
    verb: str,
    rows: Sequence[Measurement],
    settings: Mapping[str, Any],
    figures: Mapping[str, Callable[..., Any]],
) -> str:
    """Write ``verb.parquet``, ``verb.json`` and every figure below `out`; the text of the JSON.

    Args:
        out: folder of the results.
        verb: its name.
        rows: what was measured.
        settings: what was asked, kept beside the numbers in both files.
        figures: what draws each, by the name of its file.
    """
    import pandas as pd

    listed = [asdict(row) for row in rows]
    write_table(out / f"{verb}.parquet", rows, Measurement, settings=settings)
    write_json(out / f"{verb}.json", {"settings": settings, "rows": listed})
    frame = pd.DataFrame(listed)
    for name, draw in figures.items():
        draw(frame, out / "figures" / name)
    return (out / f"{verb}.json").read_text().rstrip()
