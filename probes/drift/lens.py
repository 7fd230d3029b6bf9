"""What the change of activations says, read as if it were the last layer's.

    see = lens(base)                                # activations to logits: final norm, unembedding
    promoted(see, before, after, problems)[0]       # "?" by 1.9 [1.7, 2.1]

The logit lens (nostalgebraist 2020) of both models through one readout, the base's, so that what
differs is the activations. Its logits are shifted to mean 0 over the vocabulary (softmax ignores a
constant), subtracted, and averaged over positions: a norm is not linear, so the lens of the mean
change would be another thing. In early layers the lens of real models reads poorly (Belrose et al.
2023, arXiv:2303.08112); a token that it promotes there need not be one that the model writes.

The readout is TransformerLens': the bridge of `probes.models`. A final soft cap (Gemma 2) is left
out; it is monotone and changes no order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from probes.intervals import Estimate, bootstrap
from probes.models import Model, bridge
from probes.records import Refusal

BATCH = 1024
"""Rows read at a time: what is held is one batch × vocabulary, and a row for each problem."""


@dataclass(frozen=True)
class Lens:
    """The readout of a model: residual vectors to logits, differentiable. Make it with `lens`."""

    model: Model
    seen: Any
    """Its bridge, which takes half a second to boot: use one lens for many calls."""

    def __call__(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n vocab"]:
        """Final norm and unembedding."""
        moved = x.to(self.model.device, self.model.dtype)
        return self.seen.unembed(self.seen.ln_final(moved[None]))[0]


@dataclass(frozen=True)
class Promoted:
    """A token that the change promotes, or demotes where `change` is negative."""

    token: int
    word: str
    change: Estimate
    """Mean rise of its logit above the mean logit, over positions; the interval is over problems.
    Choosing the largest of many flatters: what noise would give is another copy's change."""


def lens(model: Model) -> Lens:
    """The readout of a model, through its bridge."""
    return Lens(model, bridge(model))


def promoted(
    read: Lens,
    before: Float[np.ndarray, "n d"],
    after: Float[np.ndarray, "n d"],
    problems: Shaped[np.ndarray, " n"],
    *,
    count: int = 5,
    tokens: Sequence[int] | None = None,
    seed: int = 0,
) -> list[Promoted]:
    """The tokens whose logits rise most and fall most, the largest rise first.

    Args:
        read: whose final norm and unembedding read both; the base's.
        before: activations of the base at the wanted positions.
        after: of the tuned model, at the same.
        problems: of each row.
        count: how many on each side.
        tokens: these and no others, in the order given.
        seed: of the resamples.
    """
    model = read.model
    if not 1 <= 2 * count <= model.vocab:
        raise Refusal(f"{count} tokens on each side of {model.vocab}: at least 1, at most half.")
    if before.shape != after.shape or len(before) != len(problems):
        raise Refusal(
            f"{before.shape} and {after.shape} activations of {len(problems)} problems' rows: the "
            f"same positions of both models are compared."
        )
    names, codes = np.unique(problems, return_inverse=True)
    sums = np.zeros((len(names), model.vocab))
    for start in range(0, len(before), BATCH):
        rows = slice(start, start + BATCH)
        with torch.no_grad():
            first, second = (_centred(read, x[rows]) for x in (before, after))
        np.add.at(sums, codes[rows], second - first)
    counts = np.bincount(codes).astype(float)
    order = np.argsort(-sums.sum(0), kind="stable")
    return [
        Promoted(
            int(token),
            str(model.tokenizer.decode([int(token)])),
            bootstrap(lambda s, n: s / n, sums[:, token], counts, seed=seed),
        )
        for token in (tokens or [*order[:count], *order[-count:]])
    ]


def readout(
    read: Lens, x: Float[np.ndarray, "n d"], yes: Sequence[int], no: Sequence[int]
) -> Float[np.ndarray, " d"]:
    """The direction that raises the log-odds of some tokens against others, at unit length.

    The mean gradient of logsumexp(yes) − logsumexp(no) of the lens over the rows: with a final norm
    the unembedding alone is not that direction.
    """
    point = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)).requires_grad_()
    with torch.enable_grad():
        logits = read(point)
        odds = logits[:, list(yes)].logsumexp(-1) - logits[:, list(no)].logsumexp(-1)
        gradient = torch.autograd.grad(odds.sum(), point)[0]
    vector = gradient.double().mean(0).cpu().numpy()
    return vector / np.linalg.norm(vector)


def _centred(read: Lens, x: np.ndarray) -> np.ndarray:
    logits = read(torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))).double()
    return (logits - logits.mean(-1, keepdim=True)).cpu().numpy()
