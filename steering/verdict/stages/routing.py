"""How much of the gap the base recovers when it is pushed where, and as, the tuned model says.

Taxonomy and vectors are read from beside the tuned model, or trained here. All arms are run, greedy
as in the papers; what is recorded of them lies in the run's folder ``routing/`` and, of the pair
that ships, beside the tuned model.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from probes.intervals import undefined
from probes.measurements import row
from probes.records import Measurement, Refusal
from probes.taxonomy import load_taxonomy, save_taxonomy
from steering.routing import Done, Parts, recovery, run_arms
from steering.routing.hybrid import check_vectors
from steering.routing.learnt import cuts, fit_gate, greedy_texts
from steering.vectors import Training, load_vectors, made, save_vectors
from steering.verdict.context import Context
from steering.verdict.lines.inside import ROUTED
from steering.verdict.settings import BESIDE
from steering.verdict.stages.rollouts import BATCH


def run(context: Context, tick: Any) -> list[Measurement]:
    """Every arm's rates, shares of the gap and costs; of a pair that can't be routed, why."""
    folder = context.file("routing")
    try:
        parts = trained(context, folder)
        if context.settings.gates:
            parts = gated(context, parts)
    except Unroutable as reason:
        why = undefined(str(reason), 0)
        return [row("recovered valid", why, model=ROUTED, setting="hybrid")]
    done = arms(context, parts, folder, tick)
    return recovery(done, pair=ROUTED, seed=context.settings.seed)


class Unroutable(Exception):
    """A pair for which there is nothing to train: no disagreement, steps of one kind."""


def trained(context: Context, folder: Path) -> Parts:
    """Taxonomy and vectors: those beside the tuned model, of an earlier try, or new ones."""
    base, tuned = context.pair
    if context.same:
        raise Unroutable("base and tuned are one model: they never disagree")
    files = context.fitted
    if not files:
        # Made by this very stage before, or made now: the seed is in the folder's name.
        made_in = folder / f"trained-{tuned.digest[:12]}-{context.settings.seed}"
        files = {name: made_in / file for name, file in BESIDE.items()}
        if not all(file.is_file() for file in files.values()):
            asked = Training(lr=RATE, allow_few=True, seed=context.settings.seed)
            try:
                command = f"whenhow vectors train --base {base.name} --tuned {tuned.name} "
                command += f"--task {context.settings.task} --lr {RATE} --allow-few"
                found = made(base, tuned, context.task, asked, command=command)
            except Refusal as refusal:
                raise Unroutable(str(refusal)) from refusal
            save_taxonomy(found.taxonomy, files["taxonomy"])
            for name in ("shared", "everywhere", "vectors"):
                one = getattr(found, name)
                assert one is not None, "controls were asked for"
                save_vectors(one, files[name])
    found = {name: load_vectors(file, base) for name, file in files.items() if name != "taxonomy"}
    for vectors in found.values():
        check_vectors(vectors, base, tuned)
    return Parts(
        load_taxonomy(files["taxonomy"], tuned),
        found["vectors"],
        shared=found.get("shared"),
        everywhere=found.get("everywhere"),
        seed=context.settings.seed,
    )


def gated(context: Context, parts: Parts) -> Parts:
    """The same with a linear probe, the KL and the entropy as gates, fitted on select problems.

    A pair that agrees everywhere there has none of them.
    """
    base, tuned = context.pair
    problems = context.problems("select", GATED)
    texts = greedy_texts(tuned, context.task, problems, batch=BATCH)
    try:
        gate = fit_gate(base, tuned, texts, parts.vectors.site, batch=BATCH)
        kl, entropy = cuts(base, tuned, texts, batch=BATCH)
    except Refusal:
        return parts
    return replace(parts, gate=gate, thresholds=(kl,), entropies=(entropy,))


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
    except Refusal as refusal:
        if "another run" not in str(refusal):
            raise
        # Of other settings than were recorded, or than before.
        shutil.rmtree(folder / "arms", ignore_errors=True)
        return asked()


RATE = 0.05
"""At which vectors are trained; at the authors' 0.01 ten epochs are too few on so few places."""

GATED = 20
"""Select problems of each skill and half that gates are fitted on."""

ARMS = 13
"""About so many are run, for the bar."""
