"""How much of the gap the base recovers when it is pushed where, and as, the tuned model says.

Taxonomy and vectors are read from beside the tuned model, or trained here. All arms are run, greedy
as in the papers; what is recorded of them lies in the run's folder ``routing/`` and, of the pair
that ships, beside the tuned model.
"""

import shutil
from pathlib import Path
from typing import Any

from probes.intervals import undefined
from probes.measurements import row
from probes.records import Measurement, Refusal
from probes.taxonomy import Taxonomy, load_taxonomy, save_taxonomy
from steering.routing import Done, Parts, recovery, run_arms
from steering.vectors import Training, Vectors, load_vectors, made, save_vectors
from steering.verdict.context import Context
from steering.verdict.lines.inside import ROUTED
from steering.verdict.stages.rollouts import BATCH


def run(context: Context, tick: Any) -> list[Measurement]:
    """Every arm's rates, shares of the gap and costs; of a pair that can't be routed, why."""
    base, tuned = context.pair
    folder = context.file("routing")
    try:
        taxonomy, vectors = trained(context, folder)
        parts = Parts(taxonomy, vectors, seed=context.settings.seed)
        done = arms(context, parts, folder, tick)
    except Refusal as refusal:  # a model against itself, steps of one kind, ...
        why = undefined(str(refusal), 0)
        return [row("recovered valid", why, model=ROUTED, setting="hybrid")]
    return recovery(done, pair=ROUTED, seed=context.settings.seed)


def trained(context: Context, folder: Path) -> tuple[Taxonomy, Vectors]:
    """Of this pair: those beside the tuned model, those of an earlier try, or new ones."""
    base, tuned = context.pair
    files = context.fitted or {n: folder / f"{n}.safetensors" for n in ("taxonomy", "vectors")}
    if all(file.is_file() for file in files.values()):
        return load_taxonomy(files["taxonomy"], tuned), load_vectors(files["vectors"], base)
    asked = Training(lr=RATE, allow_few=True, no_controls=True, seed=context.settings.seed)
    found = made(base, tuned, context.task, asked)
    save_taxonomy(found.taxonomy, files["taxonomy"])
    save_vectors(found.vectors, files["vectors"])
    return found.taxonomy, found.vectors


def arms(context: Context, parts: Parts, folder: Path, tick: Any) -> list[Done]:
    """Every arm, read from the record where this is its run."""
    problems = context.problems("test", context.settings.routed_problems)
    finished = 0

    def progress(_: str, more: int, of_arm: int) -> None:
        nonlocal finished
        finished += more
        tick(finished, max(finished, ARMS * of_arm))

    def asked() -> list[Done]:
        return run_arms(
            *context.pair,
            context.task,
            problems,
            parts,
            folder=folder / "arms",
            batch=BATCH,
            progress=progress,
        )

    recorded = Path(context.settings.tuned) / "routing"
    if recorded.is_dir() and not context.settings.fresh and not (folder / "arms").exists():
        shutil.copytree(recorded, folder / "arms")
    try:
        return asked()
    except Refusal:  # arms of another run: of other settings than were recorded, or than before
        shutil.rmtree(folder / "arms", ignore_errors=True)
        return asked()


RATE = 0.05
"""At which vectors are trained; at the authors' 0.01 ten epochs are too few on so few places."""

ARMS = 13
"""About so many are run, for the bar."""
