"""Many settings judged on the same problems: in batches, on many machines, nothing lost.

    frame = sweep("mine.toml", Path("runs/mine"))        # or a dict of what such a file holds
    frame[["push", "strength", "right", "right_low", "right_high", "right_gain", "right_control"]]

A sweep file names axes; a point of them is a setting, known by the hash of everything that
determines its answers. Settings of one model share batches, whatever they differ in, and prompts
that no edit touches are prefilled once. Shards are laid down in a plan before any work, so who
runs them, on how many machines, and after how many crashes, changes no row of the result. How that
scales to a million answers of a 7B model, with the sizes of everything that moves, is on paper in
``SCALE.md`` beside this file.

    axes          lists, ranges, grids, axes that move together, draws
    file          SweepFile: what is written down, with every mistake told at once
    settings      Setting: its identity, its edits, its controls
    resolving     from points to settings, checked without loading a weight
    plan          which answers each shard holds
    writer        rows of any settings side by side; broken ones set apart
    side_effects  KL from the unsteered model
    working       Worker: one shard after another
    answers       the table of a shard, and of all
    engines/      who runs shards: processes here, or Ray
    running       prepare and run: the driver, which alone writes
    scores        numbers beside their controls; the best, on problems that did not choose it
    results       the tables

Not here: what an edit does (`steering.interventions`), figures (`probes.plots.sweep`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from steering.sweep.engines import ENGINES, ShardLost
from steering.sweep.file import AXES, METRICS, Mistakes, SweepFile, read_sweep
from steering.sweep.results import read_settings
from steering.sweep.running import Prepared, Progress, prepare, run

__all__ = [
    "AXES",
    "ENGINES",
    "METRICS",
    "Mistakes",
    "Prepared",
    "Progress",
    "ShardLost",
    "SweepFile",
    "prepare",
    "read_settings",
    "read_sweep",
    "run",
    "sweep",
]


def sweep(
    source: str | Path | Mapping[str, Any] | SweepFile,
    out: str | Path,
    *,
    engine: str = "local",
    workers: int | None = None,
    address: str = "",
    device: str = "cpu",
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Run a sweep, or what is missing of it; one row a setting, controls behind the rest.

    Args:
        source: a sweep file, the name of one that ships, or what such a file holds.
        out: the sweep's folder; everything is kept there.
        engine: "local" or "ray".
        workers: processes; by default one a core, or one a GPU. 0 does all in this one. From a
            script, call it under ``if __name__ == "__main__":`` unless 0: workers import it.
        address: of a Ray cluster that runs already.
        device: "cpu", or "cuda" for one GPU a worker.
        progress: told who finished how many answers, and of how many; a bar by default.

    Raises:
        Mistakes: all those of the file at once.
        Refusal: another sweep's folder, or what `run` refuses.
    """
    ready = prepare(source, Path(out))
    asked = {"workers": workers, "address": address, "device": device}
    if progress is not None:
        run(ready, engine_name=engine, progress=progress, **asked)
        return read_settings(Path(out))[0]
    from tqdm.auto import tqdm

    with tqdm(total=ready.answers(), unit="answer", desc=ready.file.name) as bar:
        run(ready, engine_name=engine, progress=lambda _, n, __: bar.update(n), **asked)
    return read_settings(Path(out))[0]
