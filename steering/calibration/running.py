"""Every copy scored, several at a time; what is finished is not done again."""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from probes.records import Refusal, content_hash, file_hash, read_table, write_table
from steering.calibration.copies import Copy
from steering.calibration.thresholds import VERDICT, Cell, judged

VERSION = 3
"""Raised whenever a copy's cells change for the same settings."""

SKIP = ("directions", "strategies", "sharpening", "divergence", "features")
"""Stages of the verdict that no conclusion rests on; what needs them is skipped too."""


ROUTED = 40
"""Problems of each half of a skill that the arms of routing answer."""


def calibrate(
    copies: Sequence[Copy],
    out: Path,
    *,
    problems: int = 60,
    samples: int = 16,
    workers: int = 2,
    progress: Callable[[int], Any] | None = None,
) -> list[Cell]:
    """Truth and every measure of every divided skill of every copy.

    Args:
        copies: which.
        out: folder of the verdicts' tables and of the cells of each copy; a stopped run goes on.
        problems: select problems for each half of a skill, which the truth is measured on.
        samples: answers to each.
        workers: processes; 0 does everything in this one.
        progress: called with the number of copies finished since the last call.
    """
    tell = progress or (lambda _: None)
    cells: dict[str, list[Cell]] = {}
    if workers == 0:
        for copy in copies:
            cells[copy.name] = cells_of(copy, out, problems, samples)
            tell(1)
    else:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, spawn, initializer=_begin) as pool:
            jobs = {pool.submit(cells_of, c, out, problems, samples): c.name for c in copies}
            try:
                for job in as_completed(jobs):
                    cells[jobs[job]] = job.result()
                    tell(1)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return judged([cell for copy in copies for cell in cells[copy.name]])


def _begin() -> None:
    """An interrupt is for the parent; two threads would fight for the other worker's core."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    torch.set_num_threads(1)


def cells_of(copy: Copy, out: Path, problems: int, samples: int) -> list[Cell]:
    """What is true of one copy and what each measure scores, before any threshold."""
    from steering.verdict import VerdictSettings, verdict

    settings = VerdictSettings(
        base=str(copy.base),
        tuned=str(copy.tuned),
        task=copy.task,
        out=out / copy.name,
        skip=SKIP,
        routed_problems=ROUTED,
        gates=True,
        workers=0,
    )
    identity = _identity(copy, settings, problems, samples)
    path = out / copy.name / "cells.parquet"
    with suppress(Refusal):  # absent or damaged: it is made again
        cells, about = read_table(path, Cell)
        if about.get("identity") == identity:
            return cells
    said = {s.skill: s.label for s in verdict(settings, progress=False).conclusion.skills}
    cells = _measured(copy, settings, said, problems, samples)
    write_table(path, cells, Cell, identity=identity)
    return cells


def _measured(copy: Copy, settings: Any, said: dict, problems: int, samples: int) -> list[Cell]:
    from steering.calibration.evidence import Evidence
    from steering.calibration.scores import gain, scores
    from steering.calibration.truth import halves, truth

    regimes, cells, evidence = dict(copy.regimes), [], Evidence(settings)
    scored = scores(evidence)
    for skill, half in halves(copy, problems=problems, samples=samples).items():
        twin = half["twin"].change if "twin" in half else None
        regime = regimes.get(skill, "")
        true = truth(half["touched"].change, half["untouched"].change, twin, regime)
        gained = gain(evidence, skill)
        blank = Cell(
            *(copy.name, copy.method, copy.organism, copy.seed, skill, regime, true, "verdict"),
            *(gained.value, gained.low, gained.high, *[float("nan")] * 3),
            said=VERDICT.get(said[skill], "undecided"),
            note=said[skill],
        )
        cells.append(blank)
        for (measure, of), found in scored.items():
            if of == skill:
                values = {"score": found.value, "low": found.low, "high": found.high}
                cells.append(
                    replace(blank, measure=measure, said="undecided", note=found.reason, **values)
                )
    return cells


def _identity(copy: Copy, settings: Any, problems: int, samples: int) -> str:
    """Hash of what determines the cells; models by their content."""
    from probes.models import load
    from probes.tasks import load_task
    from steering.calibration.scores import MEASURES
    from steering.verdict.context import RESULT_VERSION

    paths = (copy.base, copy.tuned, copy.twin, copy.tuned_twin)
    digests = [load(path).digest if path else "" for path in paths]
    task = load_task(copy.task).settings
    counts = [VERSION, RESULT_VERSION, problems, samples]
    fitted = [file_hash(f) for f in sorted(copy.tuned.glob("*.safetensors"))]
    asked = {k: v for k, v in asdict(settings).items() if k not in ("base", "tuned", "out")}
    saes = (f for m in (copy.base, copy.tuned) for f in sorted(m.glob("sae/*/*.safetensors")))
    latents = [file_hash(f) for f in saes]
    more = [list(MEASURES), list(copy.regimes), fitted, latents, asked]
    return content_hash([counts, digests, task, *more])
