"""The base's next-token logits at places under pushes, and the losses that are trained on them.

A push acts on a place's own position alone: earlier positions are unsteered, as they are for a
router, whose cache keeps what the base computed without pushes. So each place is a row of its own,
cut off behind its position, and the steering is the engine's own `Steer`. (The released code pushes
at several places of one row, where a later one attends to earlier pushed ones, and then steers the
newest position only.) The price is a prefix computed once for each of its places.
"""

from collections.abc import Hashable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.generate import Request, replay
from probes.models import Model
from steering.interventions import Intervention, Steer, Window

LAST = Window(0, 1, "generated")
"""The last position of a row that is all prompt."""


def steered_logits(
    base: Model,
    sequences: Sequence[tuple[int, ...]],
    site: str,
    pushes: Float[Tensor, "pushes d"] | None,
    which: Int[Tensor, " rows"] | None = None,
    *,
    batch: int = 256,
    gradients: bool = False,
    checked: bool = True,
) -> Float[Tensor, "rows vocab"]:
    """Logits of what follows each sequence, with a push added at its last position.

    Args:
        base: what computes; nothing of it is changed.
        sequences: each at least one token.
        site: full name of where the push is added.
        pushes: what is added, or None for the base as it is; one of zeros adds nothing.
        which: of the pushes is each row's; None: row i has push i.
        batch: most rows of a pass.
        gradients: keep the graph, to learn the pushes.
        checked: count the pushes that were made. A coefficient network can turn a push off, so
            that it changes no bit; only there is this no error.

    Raises:
        NotFired: a push was not made, or is below the precision of the residual.
    """
    steer, settings = None, [None] * len(sequences)
    if pushes is not None:
        moved = (pushes.detach() != 0).any(-1).tolist()
        edits: dict[Hashable, list[Intervention]] = {
            i: [Intervention("add", site, push, window=LAST)]
            for i, push in enumerate(pushes.unbind())
            if moved[i]
        }
        steer = Steer(base, edits)
        lines = range(len(sequences)) if which is None else which.tolist()
        settings = [i if moved[i] else None for i in lines]
    pairs = zip(sequences, settings, strict=True)
    requests = [Request(str(i), 0, s, 1, setting) for i, (s, setting) in enumerate(pairs)]
    passes = replay(
        base,
        list(sequences),
        observers=[steer] if steer else [],
        requests=requests,
        batch=batch,
        gradients=gradients,
        keep=1,
    )
    found, order = [], []
    for rows, logits, _ in passes:
        assert logits is not None, "a replay that isn't stopped has logits"
        with torch.set_grad_enabled(gradients):
            found.append(logits[:, -1].float())
        order += rows
        if steer and checked:
            steer.check()
    with torch.set_grad_enabled(gradients):
        place = torch.argsort(torch.tensor(order))
        return torch.cat(found)[place.to(found[0].device)]


def truncated_kl(
    logits: Float[Tensor, "rows vocab"],
    top: Int[Tensor, "rows k"],
    logprobs: Float[Tensor, "rows k"],
) -> Float[Tensor, " rows"]:
    """KL(tuned || steered base) in nats, the tuned distribution cut to its top tokens and rescaled.

    The base's is not cut, so mass that it puts elsewhere counts against it. With k the vocabulary
    this is the KL itself.
    """
    wanted = torch.log_softmax(logprobs.to(logits.device), -1)
    said = torch.log_softmax(logits, -1).gather(-1, top.to(logits.device))
    return (wanted.exp() * (wanted - said)).sum(-1)


def cross_entropy(
    logits: Float[Tensor, "rows vocab"],
    top: Int[Tensor, "rows k"],
    logprobs: Float[Tensor, "rows k"],
) -> Float[Tensor, " rows"]:
    """Nats for the tuned model's greedy token."""
    del logprobs
    said = torch.log_softmax(logits, -1)
    return -said.gather(-1, top[:, :1].to(logits.device))[:, 0]


LOSSES = {"kl": truncated_kl, "ce": cross_entropy}
