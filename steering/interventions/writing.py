"""Write, or replay, under interventions: nothing is forgotten and everything is checked.

    rollouts = write(model, {"push": [push]}, requests, decoding)
    for batch in replayed(model, {"push": [push]}, sequences, requests): ...

`generate` with a `Steer` among its observers does the same for interventions that depend on
positions only. Those that act after certain tokens, and biases on logits, need the writer here.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.generate import (
    Choice,
    Decoding,
    Observer,
    Pass,
    Replayed,
    Request,
    Stepper,
    Turn,
    choose,
    generate,
    replay,
)
from probes.models import Model
from probes.records import Refusal, Rollout
from steering.interventions.readings import Operation
from steering.interventions.steer import LOGITS, Steer

Settings = Mapping[Hashable, Sequence[Operation]]


class Steered:
    """A writer: one model under a `Steer`, which learns the newest tokens from it."""

    def __init__(self, steer: Steer, observers: Sequence[Observer] = ()) -> None:
        """`observers` come behind the steering, so a capture among them sees what was edited."""
        self.steer = steer
        self.stepper = Stepper(steer.model, [steer, *observers])
        self.steppers = (self.stepper,)
        steer.told = True

    def next(self, tokens: Int[Tensor, " rows"], turn: Turn) -> Choice:
        """Sample from the edited model's distribution, its logits biased."""
        return choose(self.logits(tokens, turn), turn.uniforms, turn.decoding)

    def logits(self, tokens: Int[Tensor, " rows"], turn: Turn) -> Float[Tensor, "rows vocab"]:
        """What follows the newest tokens in the edited model."""
        newest = [w[-1] if w else r.prompt[-1] for w, r in _rows(turn)]
        self.steer.newest = np.array(newest, dtype=np.int64)
        logits = self.stepper.forward(tokens)
        now = Pass(turn.requests, self.stepper.lengths - 1, 1)
        logits = _biased(self.steer, logits[:, None], now)[:, 0]
        self.steer.newest = None
        return logits


def write(
    model: Model,
    settings: Settings,
    requests: Sequence[Request],
    decoding: Decoding = Decoding(),  # noqa: B008 - frozen
    *,
    observers: Sequence[Observer] = (),
    batch: int = 64,
    seed: int = 0,
    progress: Callable[[int], Any] | None = None,
) -> list[Rollout]:
    """`generate` under the interventions of each request's setting, checked.

    Raises:
        Refusal: a setting that isn't there, or what `generate` refuses.
        NotFired: an edit was not made where its window said.
    """
    steer = Steer(model, settings)
    writer = Steered(steer, observers)
    keyed = steer.keyed(requests)
    rollouts = generate(writer, keyed, decoding, batch=batch, seed=seed, progress=progress)
    steer.check()
    return rollouts


def replayed(
    model: Model,
    settings: Settings,
    sequences: Sequence[tuple[int, ...]],
    requests: Sequence[Request],
    *,
    batch: int = 64,
    gradients: bool = False,
) -> Iterator[Replayed]:
    """`replay` under the interventions of each request's setting, checked at the end.

    Args:
        model: what computes.
        settings: what each setting does.
        sequences: prompt and answer together.
        requests: one for each; they say where the prompt ends and which setting holds.
        batch: most rows of a pass.
        gradients: keep the graph, to learn a vector through it.

    Raises:
        Refusal: another number of requests than sequences, a setting that isn't there.
        NotFired: an edit was not made where its window said.
    """
    if len(sequences) != len(requests):
        raise Refusal(f"{len(sequences)} sequences and {len(requests)} requests.")
    steer = Steer(model, settings)
    steer.tell(requests, sequences)
    passes = replay(
        model, sequences, observers=[steer], requests=requests, batch=batch, gradients=gradients
    )
    for rows, logits, now in passes:
        assert logits is not None, "a replay that isn't stopped has logits"
        with torch.set_grad_enabled(gradients):
            biased = _biased(steer, logits, now)
        steer.check()
        yield Replayed(rows, biased, now)


def _biased(steer: Steer, logits: Tensor, now: Pass) -> Tensor:
    return steer.at(LOGITS, logits, now) if steer.biased else logits


def _rows(turn: Turn) -> Iterator[tuple[list[int], Request]]:
    return zip(turn.written, turn.requests, strict=True)
