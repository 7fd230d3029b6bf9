"""The current form: vectors that correct the base where it disagrees (arXiv:2510.07364v4).

    vectors = fit_current(base, tuned, train, hold, taxonomy.names)

All categories' vectors are learnt at once, each with a factor kept positive by a softplus: one
number a category, or (`network`) read off the base's residual by a small network. The constants are
of the authors' code (train-vectors/optimize_correction_vectors.py and coef_mlp.py).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.models import Model
from probes.records import Refusal
from steering.vectors.places import Places
from steering.vectors.record import Vectors, network_factor
from steering.vectors.steered import LOSSES, steered_logits

ONE = math.log(math.e - 1)
"""Softplus of it is 1."""
HEADS_BIAS = 0.5
"""Initial bias of every layer of the coefficient network (coef_mlp.py)."""


@dataclass(frozen=True)
class CurrentSettings:
    """How the current form is trained."""

    loss: Literal["kl", "ce"] = "kl"
    """Truncated KL to the tuned distribution, or cross-entropy to the tuned greedy token."""
    epochs: int = 10
    patience: int = 5
    """Epochs without a lower loss on the hold-out problems before it stops."""
    seeds: int = 3
    """Starts; the one with the lowest hold-out loss is kept."""
    seed: int = 0
    """The first of them."""
    lr: float = 1e-2
    """Of vectors and factors."""
    batch: int = 64
    """Places of an update."""
    network: bool = False
    """Whether a network reads the factor off the residual."""
    hidden: int = 512
    network_lr: float = 1e-3
    weight_decay: float = 0.01
    """Of the network alone."""
    clip: float = 1.0
    """Largest norm of a gradient: of the vectors', and of the network's."""
    least: int = 20
    """Places a category needs. Ours."""
    allow_few: bool = False
    """Leave a category with fewer at zero, which steers nowhere, instead of refusing."""


class Learnt:
    """What is being fitted: the categories' vectors, and their factors or the network of these."""

    def __init__(
        self, places: Places, categories: int, kept: Tensor, settings: CurrentSettings, seed: int
    ) -> None:
        """Start at random directions of length 1.

        The authors start at the length of the mean residual. At the same rate that leaves the
        start's direction standing: after ten epochs on the chain organisms the loss was .63 against
        .52, since a push fifty times the rate's step hardly turns.
        """
        draw = torch.Generator().manual_seed(seed)
        width = places.x.shape[1]
        start = torch.randn(categories, width, generator=draw)
        start = start / start.norm(dim=1, keepdim=True)
        self.kept = kept[:, None].float()
        self.vectors = (start * self.kept).requires_grad_()
        self.raw = torch.full((categories,), ONE).requires_grad_()
        self.network: dict[str, Tensor] | None = None
        if settings.network:
            sizes = {"trunk": (settings.hidden, width), "heads": (categories, settings.hidden)}
            self.network = {}
            for name, (out, into) in sizes.items():
                # Each head is a layer of one output of its own: Xavier counts it as such.
                reach = math.sqrt(6 / (into + (out if name == "trunk" else 1)))
                weight = (torch.rand(out, into, generator=draw) * 2 - 1) * reach
                self.network[name] = weight.requires_grad_()
                self.network[f"{name}_bias"] = torch.full((out,), HEADS_BIAS).requires_grad_()

    def groups(self, settings: CurrentSettings) -> list[dict[str, Any]]:
        """Parameters with their learning rates."""
        groups: list[dict[str, Any]] = [{"params": [self.vectors], "lr": settings.lr}]
        if self.network is None:
            groups[0]["params"].append(self.raw)
        else:
            decay = {"lr": settings.network_lr, "weight_decay": settings.weight_decay}
            groups.append({"params": list(self.network.values()), **decay})
        return groups

    def pushes(
        self, category: Int[Tensor, " rows"], x: Float[Tensor, "rows d"]
    ) -> tuple[Float[Tensor, "pushes d"], Int[Tensor, " rows"] | None]:
        """What is added, and which of it at each place: one a category, or one a place."""
        vectors = self.vectors * self.kept
        if self.network is None:
            return torch.nn.functional.softplus(self.raw)[:, None] * vectors, category
        return network_factor(self.network, x, category)[:, None] * vectors[category], None

    def state(self) -> list[Tensor]:
        """A copy of everything that is fitted."""
        return [
            p.detach().clone() for p in (self.vectors, self.raw, *(self.network or {}).values())
        ]


def fit_current(
    base: Model,
    tuned: Model,
    train: Places,
    hold: Places,
    names: tuple[str, ...],
    settings: CurrentSettings = CurrentSettings(),  # noqa: B008 - frozen
    *,
    taxonomy: str = "",
    progress: Callable[[int], Any] | None = None,
) -> Vectors:
    """Vectors that bring the base's choice at the places nearest to the tuned model's.

    Args:
        base: what is steered; frozen.
        tuned: what it is steered towards; named in the result.
        train: places of the fit.
        hold: places of other problems: they stop a start and choose among starts.
        names: of the categories.
        settings: of the training.
        taxonomy: hash of the data of the taxonomy that the categories are of.
        progress: called with 1 after each epoch of `settings.seeds` x `settings.epochs`, and with
            what an early stop left out.

    Raises:
        Refusal: places at different sites, problems in both parts, or a category with too few
            places (named; `allow_few` leaves it at zero).
        FloatingPointError: the loss is not finite.
    """
    counts = checked(train, hold, names, settings)
    kept = counts >= max(1, settings.least)
    best: tuple[float, list[Tensor], Learnt] | None = None
    for seed in range(settings.seed, settings.seed + settings.seeds):
        learnt = Learnt(train, len(counts), kept, settings, seed)
        loss, state = _descend(base, train, hold, learnt, settings, seed, progress)
        if best is None or loss < best[0]:
            best = loss, state, learnt
    assert best is not None, "there is at least one start"
    _, (vectors, raw, *network), learnt = best
    fitted = int(kept.sum())
    size = fitted * train.x.shape[1]
    trained = None
    if learnt.network is not None:
        trained = dict(zip(learnt.network, network, strict=True))
        size += trained["trunk"].numel() + settings.hidden + fitted * (settings.hidden + 1)
    else:
        size += fitted
    factors = torch.nn.functional.softplus(raw)
    return Vectors(
        site=train.site,
        vectors=vectors * learnt.kept,
        coefficients=torch.ones_like(factors) if trained else factors,
        bias=None,
        names=tuple(names),
        form="current",
        parameters=size,
        base=base.digest,
        tuned=tuned.digest,
        taxonomy=taxonomy,
        data=train.data,
        counts=tuple(int(c) for c in counts),
        network=trained,
    )


def checked(
    train: Places, hold: Places, names: tuple[str, ...], settings: CurrentSettings
) -> Int[Tensor, " categories"]:
    """Places of each category in the fit; refusals as in `fit_current`."""
    if train.site != hold.site:
        raise Refusal(f"places at {train.site} to fit and at {hold.site} to hold out.")
    if shared := set(train.problems.tolist()) & set(hold.problems.tolist()):
        raise Refusal(
            f"{len(shared)} problems are in the fit and held out, such as {min(shared)}: what is "
            f"chosen on a problem of the fit is not held out."
        )
    if int(train.category.max()) >= len(names):
        raise Refusal(f"a place is of category {int(train.category.max())} of {len(names)}.")
    if settings.seeds < 1 or settings.epochs < 1 or settings.batch < 1:
        raise Refusal(
            f"{settings.seeds} starts of {settings.epochs} epochs, batch {settings.batch}: each "
            f"must be at least 1."
        )
    counts = torch.bincount(train.category, minlength=len(names))
    few = [j for j, count in enumerate(counts.tolist()) if count < max(1, settings.least)]
    if len(few) == len(counts) or (few and not settings.allow_few):
        told = ", ".join(f"{j} ({names[j]}): {counts[j]}" for j in few)
        raise Refusal(
            f"of {len(train)} places too few are in the categories {told}; {settings.least} each "
            f"are needed. Give more problems or samples, a smaller taxonomy, or --allow-few, which "
            f"leaves those at zero: at their places the base is not steered."
        )
    return counts


def _descend(
    base: Model,
    train: Places,
    hold: Places,
    learnt: Learnt,
    settings: CurrentSettings,
    seed: int,
    progress: Callable[[int], Any] | None,
) -> tuple[float, list[Tensor]]:
    """The lowest hold-out loss of one start, and what was fitted there."""
    optimiser = torch.optim.AdamW(learnt.groups(settings), weight_decay=0.0)
    order = torch.Generator().manual_seed(seed + 1000)
    best, state, since, epoch = float("inf"), learnt.state(), 0, 0
    for epoch in range(1, settings.epochs + 1):
        for chunk in torch.randperm(len(train), generator=order).split(settings.batch):
            places = train.take(chunk)
            loss = _losses(base, places, learnt, settings, gradients=True).mean()
            optimiser.zero_grad()
            loss.backward()
            for group in optimiser.param_groups:
                torch.nn.utils.clip_grad_norm_(group["params"], settings.clip)
            optimiser.step()
        held = float(_losses(base, hold, learnt, settings, gradients=False).mean())
        if not math.isfinite(held):
            raise FloatingPointError(f"the loss of the vectors is {held} in epoch {epoch}.")
        if progress:
            progress(1)
        since += 1
        if held < best:
            best, state, since = held, learnt.state(), 0
        if since >= settings.patience:
            break
    if progress and epoch < settings.epochs:
        progress(settings.epochs - epoch)
    return best, state


def _losses(
    base: Model, places: Places, learnt: Learnt, settings: CurrentSettings, *, gradients: bool
) -> Float[Tensor, " places"]:
    with torch.set_grad_enabled(gradients):
        pushes, which = learnt.pushes(places.category, places.x)
        logits = steered_logits(
            base,
            places.sequences,
            places.site,
            pushes,
            which,
            gradients=gradients,
            checked=learnt.network is None,
        )
        return LOSSES[settings.loss](logits, places.top, places.logprobs)
