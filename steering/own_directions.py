"""Directions of strategies out of a model's own answers, at every layer.

    for d in own_directions(model, task):
        save(d, folder / file_name(d))          # "check-blocks.1.hook_resid_post.safetensors"

The model answers problems of one split; where a decision is taken, the residual is read before the
token that takes it, and the difference of means (or another method) points to the strategy being
used. Each direction carries its AUC on problems it never met and the null of shuffled labels.

A task with a grammar names its decisions. In free text a lexicon does: before each sentence it is
open whether that will be one of a label, and the residual is read at the last token before it.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probes.capture import before_decisions, capture, from_rollouts
from probes.directions import Direction, Source, find
from probes.generate import Decoding
from probes.models import Model
from probes.records import Decision, Refusal, Rollout, content_hash, site_name
from probes.strategies.lexicon import Lexicon
from probes.strategies.openings import OPTIONS, openings
from probes.tasks import Task, decisions
from probes.tasks.cells import cells_of, problems_of
from steering.evaluate import evaluate

LEAST = 30
"""Decisions either way, below which a kind is left out: thirds of it would hold ten."""


def own_directions(
    model: Model,
    task: Task,
    *,
    lexicon: Lexicon | None = None,
    problems: int = 24,
    samples: int = 8,
    split: str = "select",
    sites: Sequence[str] = ("hook_resid_post",),
    method: str = "difference",
    temperature: float = 1.0,
    batch: int = 128,
    seed: int = 0,
    progress: Callable[[int], Any] | None = None,
) -> list[Direction]:
    """A direction for each strategy, layer and site, from the model's own decisions.

    Args:
        model: answers, and is read.
        task: names the decisions; the first option of each is the strategy being used.
        lexicon: names them instead, one a label: whether the next sentence is of it.
        problems: of each skill and part.
        samples: answers to each.
        split: of the problems; others than those on which a sweep is judged.
        sites: of each block.
        method: one of `probes.directions.METHODS`.
        temperature: of the answers.
        batch: rows decoded together.
        seed: of the answers and of the thirds of the problems.
        progress: called with the number of answers finished since the last call.

    Raises:
        Refusal: the task has no decisions and no lexicon was given, or none was taken often enough
            either way.
    """
    kinds = dict.fromkeys(lexicon.labels, OPTIONS) if lexicon else task.decision_kinds
    if not kinds:
        raise Refusal(
            f"{task.name} is free text, in which no grammar names decisions: give a lexicon, whose "
            f"labels sentences have or have not."
        )
    if lexicon and task.decision_kinds:
        raise Refusal(
            f"{task.name} names its decisions by its grammar; a lexicon is for free text. Leave it "
            f"out."
        )
    asked = problems_of(task, cells_of(task), split, problems)
    judged = evaluate(
        model,
        task,
        asked,
        samples=samples,
        decoding=Decoding(temperature),
        seed=seed,
        batch=batch,
        progress=progress,
    )
    texts = from_rollouts(model, judged.problems, judged.rollouts)
    by_id = {p.id: p for p in judged.problems}

    def taken(rollout: Rollout) -> list[Decision]:
        if lexicon:
            return openings(model, rollout.tokens, lexicon)
        return decisions(task, by_id[rollout.problem], rollout.text)

    marks = [
        before_decisions(text, taken(r)) for text, r in zip(texts, judged.rollouts, strict=True)
    ]
    places = [site_name(layer, site) for layer in range(model.depth) for site in sites]
    found: list[Direction] = []
    with tempfile.TemporaryDirectory(prefix="whenhow-directions-") as folder:
        store = capture(model, places, texts, Path(folder) / "store", positions=marks)
        labels = store.index.label.to_numpy().astype(str)
        owners = store.index.problem.to_numpy().astype(str)
        source = Source(model.digest, content_hash(task.settings))
        norms = {
            place: float(np.linalg.norm(store.numpy(place).astype(float), axis=1).mean())
            for place in places
        }
        for kind, options in kinds.items():
            lines = np.flatnonzero([label.split(":")[0] == kind for label in labels])
            used = (labels[lines] == f"{kind}:{next(iter(options))}").astype(int)
            if min(used.sum(), len(used) - used.sum()) < LEAST:
                continue
            x = {place: store.numpy(place, lines) for place in places}
            found += find(
                x,
                used,
                owners[lines],
                strategy=kind,
                source=source,
                methods=(method,),
                norms=norms,
                seed=seed,
            )
    if not found:
        taken_so = Counter(mark.label for listed in marks for mark in listed)
        counted = (
            ", ".join(f"{label} {n}" for label, n in sorted(taken_so.items())) or "none at all"
        )
        raise Refusal(
            f"no decision of {task.name} was taken {LEAST} times either way in {len(texts)} "
            f"answers of {model.name} ({counted}): more problems or samples may do."
        )
    return found


def file_name(direction: Direction) -> str:
    """Of its file: strategy and site, so that a sweep can name all layers by one pattern."""
    return f"{direction.strategy}-{direction.place}.safetensors"
