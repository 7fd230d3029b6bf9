"""Run a model over finished sequences, with observers: teacher forcing.

    for rows, logits, now in replay(model, sequences, observers=[capture]):
        ...     # logits[i, now.width - 1] follows the last token of sequences[rows[i]]

The sequences are sorted by length, so batches hold little padding, and memory is bounded by the
batch and not by the number of sequences.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes.generate.hooks import Taps
from probes.generate.seam import Observer, Pass, Request
from probes.generate.stepper import Masks, together
from probes.models import Model
from probes.records import Refusal

MASK_CELLS = 1 << 25
"""Cells of the attention mask of one pass (rows x width x width): 128 MB in float32."""


class Replayed(NamedTuple):
    """One batch of a replay; rows are right-aligned, as in `Pass`."""

    rows: list[int]
    """Which sequence each row is."""
    logits: Float[Tensor, "rows width vocab"] | None
    """What follows each column; None where the pass was stopped before the end."""
    now: Pass


def replay(
    model: Model,
    sequences: Sequence[tuple[int, ...]],
    *,
    observers: Sequence[Observer] = (),
    requests: Sequence[Request] | None = None,
    batch: int = 64,
    stop_after: int | None = None,
    gradients: bool = False,
    keep: int = 0,
) -> Iterator[Replayed]:
    """Compute finished sequences, in batches of similar length.

    Args:
        model: what computes them.
        sequences: prompt and answer together, each at least one token.
        observers: as in `generate`.
        requests: one for each sequence, for observers that need to know the prompt's length or the
            setting; made up (the sequence's number, an empty setting) if absent.
        batch: most rows of a pass; fewer where the sequences are long.
        stop_after: the deepest layer that is needed. Later ones don't run, and there are no logits.
        gradients: keep the graph, to train through it.
        keep: logits of so many of the last columns only; 0: of all.

    Raises:
        Refusal: a sequence is empty or longer than the context.
    """
    requests = requests or [Request(str(i), 0, s, 1) for i, s in enumerate(sequences)]
    longest = max(map(len, sequences), default=1)
    if longest > model.context or not all(sequences):
        raise Refusal(
            f"the sequences have {min(map(len, sequences))} to {longest} tokens; {model.name} "
            f"reads 1 to {model.context}."
        )
    taps, masks = Taps(model, observers, stop_after=stop_after), Masks(model)
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    while order:
        width = len(sequences[order[-1]])
        count = max(1, min(batch, MASK_CELLS // width**2))
        count = together([len(sequences[i]) for i in order[-count:]])
        rows = order[-count:][::-1]
        del order[-count:]
        yield _run(masks, taps, sequences, rows, [requests[i] for i in rows], gradients, keep)


class Answered(NamedTuple):
    """One sequence of a replay, where the tokens of its answer were chosen."""

    index: int
    """Which sequence."""
    row: int
    """Of the pass, for what observers hold of it."""
    columns: slice
    """Of the pass: those whose next token is of the answer."""
    logits: Float[Tensor, "tokens vocab"]
    """What follows each of these columns."""


def replay_answers(
    model: Model,
    sequences: Sequence[tuple[int, ...]],
    counts: Sequence[int],
    *,
    observers: Sequence[Observer] = (),
    batch: int = 64,
) -> Iterator[Answered]:
    """Finished sequences, one at a time, at the positions that chose their last tokens.

    Args:
        model: what computes them.
        sequences: prompt and answer together.
        counts: of each, how many of its last tokens are the answer.
        observers: as in `replay`; what they hold is of the pass that the answer is a row of.
        batch: most rows of a pass.
    """
    for rows, logits, _ in replay(model, sequences, observers=observers, batch=batch):
        assert logits is not None, "a replay that isn't stopped has logits"
        for row, i in enumerate(rows):
            # Rows are right-aligned: the column before a token's own holds what it is drawn from.
            columns = slice(-counts[i] - 1, -1)
            yield Answered(i, row, columns, logits[row, columns])


class Held:
    """An observer that keeps what the current pass has at some sites, and changes nothing."""

    def __init__(self, sites: Sequence[str]) -> None:
        """Say which sites, in full names."""
        self.sites = tuple(sites)
        self.x: dict[str, Float[Tensor, "rows width d"]] = {}

    def seat(self, slots: Sequence[int], requests: Sequence[Request], rows: int) -> None:
        """Nothing depends on who sits where."""

    def at(
        self, site: str, x: Float[Tensor, "rows width d"], now: Pass
    ) -> Float[Tensor, "rows width d"]:
        """Keep the pass's values."""
        del now
        self.x[site] = x.detach()
        return x


def _run(
    masks: Masks,
    taps: Taps,
    sequences: Sequence[tuple[int, ...]],
    rows: list[int],
    requests: list[Request],
    gradients: bool,
    keep: int,
) -> Replayed:
    lengths = np.array([len(sequences[i]) for i in rows])
    width = int(lengths.max())
    tokens = torch.zeros((len(rows), width), dtype=torch.long)
    for row, i in enumerate(rows):
        tokens[row, width - lengths[row] :] = torch.tensor(sequences[i])
    now = Pass(tuple(requests), lengths - width, width)
    for observer in taps.observers:
        observer.seat(range(len(rows)), requests, len(rows))
    logits = None
    inference = torch.inference_mode(not gradients)
    with inference, torch.set_grad_enabled(gradients), taps.on(now):
        logits = masks.run(tokens.to(masks.model.device), now, masks.fresh(now), keep=keep)
    return Replayed(rows, logits, now)
