"""Vectors made of trained ones, for what they are compared with.

    norm_matched(vectors, seed=1)       # as long, in directions of chance
    mean_vector(vectors), only(vectors, 2)

A category whose push is zero steers nowhere; `alive` names the others.
"""

from dataclasses import replace

import torch
from jaxtyping import Float, Int

from probes.records import Refusal
from steering.vectors.record import Vectors


def alive(vectors: Vectors) -> list[int]:
    """The categories that push at all: one with too few places may have been left at zero.

    Raises:
        Refusal: none does.
    """
    found = (_pushes(vectors).norm(dim=1) > 0).nonzero()[:, 0].tolist()
    if not found:
        raise Refusal("every vector is zero: there is nothing to steer with.")
    return found


def norm_matched(vectors: Vectors, *, seed: int, repeat: int = 1) -> Vectors:
    """Random directions, each as long as the push of a category, bias included.

    Of length 1 beside a kept bias, as in the released code, they would be the bias alone: learnt
    pushes are 40 to 60 times as long there. A coefficient network keeps its factors, which are that
    large themselves: only the directions change.

    Args:
        vectors: whose lengths are matched.
        seed: of the directions.
        repeat: so many directions for each category.
    """
    lengths = _pushes(vectors).norm(dim=1).repeat_interleave(repeat)
    draw = torch.Generator().manual_seed(seed)
    drawn = torch.randn(len(lengths), vectors.vectors.shape[1], generator=draw)
    drawn = drawn / drawn.norm(dim=1, keepdim=True) * lengths[:, None]
    lines = torch.arange(len(vectors.names)).repeat_interleave(repeat)
    return replace(_fixed(vectors, drawn, lines), parameters=0)


def mean_vector(vectors: Vectors) -> Vectors:
    """The mean of the categories' pushes, weighted by the places each was fitted to."""
    weights = torch.tensor(vectors.counts, dtype=torch.float32)
    mean = (weights / weights.sum().clamp_min(1)) @ _pushes(vectors)
    found = _fixed(vectors, mean[None], torch.zeros(1, dtype=torch.long))
    return replace(found, names=("mean",), counts=(int(weights.sum()),))


def only(vectors: Vectors, category: int) -> Vectors:
    """One category's push as vectors of their own."""
    fixed = _fixed(vectors, _pushes(vectors)[category : category + 1], torch.tensor([category]))
    size = vectors.parameters if len(vectors.names) == 1 else vectors.vectors.shape[1] + 1
    return replace(fixed, parameters=size)


def _pushes(vectors: Vectors) -> Float[torch.Tensor, "categories d"]:
    """What each category adds; of a coefficient network, what its factors multiply."""
    fixed = replace(vectors, network=None)
    return fixed.pushes(torch.arange(len(vectors.vectors))).detach().cpu().float()


def _fixed(
    vectors: Vectors, pushes: Float[torch.Tensor, "lines d"], lines: Int[torch.Tensor, " lines"]
) -> Vectors:
    """These pushes in place of those of these categories, with nothing else added.

    A coefficient network goes on to give the factor that the category has at each residual.
    """
    network = vectors.network
    if network is not None:
        heads = {name: network[name].cpu()[lines] for name in ("heads", "heads_bias")}
        network = {name: x.cpu() for name, x in network.items()} | heads
    return replace(
        vectors,
        vectors=pushes,
        coefficients=torch.ones(len(pushes)),
        bias=None,
        names=tuple(vectors.names[i] for i in lines.tolist()),
        counts=tuple(vectors.counts[i] for i in lines.tolist()),
        network=network,
        losses=(),
    )
