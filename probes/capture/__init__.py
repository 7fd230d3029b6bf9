"""Activations out of a forward pass or of a generation, to disk.

    texts = from_rollouts(model, problems, rollouts)
    marks = [before_decisions(t, decisions(task, r.text)) for t, r in zip(texts, rollouts)]
    store = capture(model, ["blocks.1.hook_resid_post"], texts, folder, positions=marks)
    x = store.numpy("blocks.1.hook_resid_post", store.index.label == "check:yes")

Promises, each held by a test:

- the values are those of the native forward pass, at the four sites of `probes.models`, whatever
  the padding and the batch: what is read equals Hugging Face's ``hidden_states`` and
  TransformerLens' bridge;
- reading changes no bit of what is computed, and nothing behind the deepest wanted layer is;
- memory is bounded by one batch and one shard; the store appears whole or not at all.

`capture` reads finished texts, in one pass each. `Capture` is the same as an observer of
`probes.generate.generate`: it keeps what was computed while the answer was written, under whatever
interventions it was written. On the plain model both give the same values.

    positions   which positions, under which label
    observer    Capture
    writing     Writer: rows in, a store out
    store       Store: reading it

Not here: what to mark (`probes.strategies`), what to learn from it (`probes.directions`).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from probes.capture.observer import Capture, Editor
from probes.capture.positions import (
    Mark,
    Positions,
    Text,
    before_decisions,
    by_text,
    from_rollouts,
    from_strings,
    spans,
    step_ends,
    wanted,
)
from probes.capture.store import Store
from probes.capture.writing import Activation, Writer
from probes.generate import Observer, Request, replay
from probes.models import Model, layer_index
from probes.records import SITES, Refusal, parse_site, site_name

__all__ = [
    "Activation",
    "Capture",
    "Editor",
    "Mark",
    "Store",
    "Text",
    "Writer",
    "before_decisions",
    "capture",
    "from_rollouts",
    "from_strings",
    "open_writer",
    "resolve",
    "spans",
    "step_ends",
]


def resolve(model: Model, sites: Sequence[str]) -> list[str]:
    """Full names with layers counted from 0, each once, in the order of computation.

    Raises:
        Refusal: none, or a layer or site that the model doesn't have.
    """
    if not sites:
        raise Refusal("no site was named; for example blocks.0.hook_resid_post.")
    found = {(layer_index(layer, model.depth), kind) for layer, kind in map(parse_site, sites)}
    return [site_name(*pair) for pair in sorted(found, key=lambda p: (p[0], SITES.index(p[1])))]


def open_writer(
    model: Model,
    sites: Sequence[str],
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    shard_rows: int = 8192,
    **about: Any,
) -> Writer:
    """A writer for this model's sites, to be used as a context manager.

    Args:
        model: whose activations they are; its name and digest are recorded.
        sites: full names.
        folder: where the store appears at the end; it must not hold anything.
        dtype: float32, bfloat16 or float16.
        shard_rows: rows of a shard, which is what is held in memory.
        about: what else is true of all rows; JSON-able.
    """
    said = {"model": model.name, "digest": model.digest, "width": model.width, **about}
    return Writer(folder, resolve(model, sites), dtype, shard_rows=shard_rows, about=said)


def capture(
    model: Model,
    sites: Sequence[str],
    texts: Sequence[Text],
    folder: str | Path,
    *,
    positions: Positions = "all",
    dtype: torch.dtype = torch.float32,
    batch: int = 64,
    shard_rows: int = 8192,
    observers: Sequence[Observer] = (),
    progress: Callable[[int], Any] | None = None,
) -> Store:
    """Run the model over finished texts and store what flows through the sites.

    Args:
        model: what computes.
        sites: full names, of any layers; -1 is the last.
        texts: prompts with their answers (`from_rollouts`, `from_strings`).
        positions: "all"; "generated" (P-1 to the last but one, where the answer's tokens were
            chosen); or a list for each text (`step_ends`, `spans`, `before_decisions`).
        folder: where the store appears; it must not hold anything.
        dtype: float32, bfloat16 or float16.
        batch: most rows of a pass.
        shard_rows: rows of a shard, which is what is held in memory.
        observers: what edits the pass, by the texts' settings; each can say where (`Editor`).
        progress: called with the number of texts done since the last call.

    Raises:
        Refusal: an unknown site or layer, no text, a text twice or too long, a position that isn't
            there, a folder in use, values beyond the dtype, an observer that can't say what it
            edits.
    """
    marks = by_text(texts, wanted(texts, positions))
    if not any(marks.values()):
        raise Refusal(f"no position of the {len(texts)} texts is wanted: nothing to capture.")
    editors = [o for o in observers if isinstance(o, Editor)]
    if len(editors) < len(observers):
        raise Refusal("an observer of a captured pass must say what it edits: edited(site, now).")
    requests = [Request(t.problem, t.sample, t.prompt, 1, t.setting) for t in texts]
    with open_writer(model, sites, folder, dtype=dtype, shard_rows=shard_rows) as writer:
        reading = Capture(writer, marks, edits=editors)
        sites_run = [*writer.sites, *(s for o in observers for s in resolve(model, o.sites))]
        deepest = max(parse_site(site)[0] for site in sites_run)
        for done in replay(
            model,
            [t.tokens for t in texts],
            observers=[*observers, reading],
            requests=requests,
            batch=batch,
            stop_after=deepest,
        ):
            if progress:
                progress(len(done.rows))
        reading.finish()
    return Store(folder)
