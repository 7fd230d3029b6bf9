"""The first form: a bias over whole traces, then a vector a category on top (arXiv:2510.07364v1).

    vectors = fit_first(base, tuned, taxonomy, site, train, hold)

Cross-entropy to the tokens of the tuned model's texts. The push is on *every* target position of a
row, so later ones attend to earlier pushed ones; that is as the authors train it, and fits a use
that steers all positions, not one that steers the newest only (for that see `current`).

What differs from the authors' code (utils/steering_opt.py, train-vectors/optimize_cat_vectors_
multi.py): the hook. They train before block L and steer behind it; here both are at `site`. They
scale the logits by 0.7 and divide the loss by ln 10 (`quirk`); by default neither is done. They
stop and choose by the training loss; here by hold-out problems.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probes.models import Model, check_pair
from probes.records import Refusal, content_hash
from probes.taxonomy import Taxonomy
from steering.vectors.record import Vectors
from steering.vectors.targets import Stretches, Target, surprises

COLDNESS = 0.7
"""Factor of the logits in the authors' loss (`--coldness`)."""


@dataclass(frozen=True)
class FirstSettings:
    """How the first form is trained."""

    lr: float = 1e-2
    """Of Adam; it falls to 0 along a cosine over the epochs."""
    epochs: int = 50
    patience: int = 10
    """Epochs without a lower loss on the hold-out problems before it stops."""
    batch: int = 32
    """Rows of an update; the authors take 8, of sentences ten times as long."""
    examples: int = 2048
    """N: of the 4N steps of a category with the largest activation, those N that the base finds
    most surprising."""
    words: int = 1
    """Tokens that a step must have; 7 words for the authors, whose steps are sentences."""
    quirk: bool = False
    """Scale the logits by 0.7 and the loss by 1 / ln 10, as the authors' code does."""
    seed: int = 0
    least: int = 20
    """Steps a category needs. Ours."""
    allow_few: bool = False
    """Leave a category with fewer at the bias alone, instead of refusing."""


def fit_first(
    base: Model,
    tuned: Model,
    taxonomy: Taxonomy,
    site: str,
    train: Stretches,
    hold: Stretches,
    settings: FirstSettings = FirstSettings(),  # noqa: B008 - frozen
    *,
    progress: Callable[[int], Any] | None = None,
) -> Vectors:
    """The bias on whole answers, then every category's vector with the bias held.

    Args:
        base: what is steered; frozen.
        tuned: whose texts they are; named in the result.
        taxonomy: that gave the steps their categories.
        site: full name, where the push is added in training and in use.
        train: what is fitted to.
        hold: of other problems; what stops the training and says which epoch is kept.
        settings: of the training.
        progress: called with 1 after each of 2 x `settings.epochs` epochs.

    Raises:
        Refusal: models that are no pair, shared problems, or a category with too few steps (named).
        FloatingPointError: the loss is not finite.
    """
    _check(base, tuned, train, hold)
    categories = len(taxonomy.names)
    chosen = [_examples(base, site, train.steps, c, settings) for c in range(categories)]
    few = [c for c in range(categories) if len(chosen[c]) < max(1, settings.least)]
    if len(few) == categories or (few and not settings.allow_few):
        told = ", ".join(f"{c} ({taxonomy.names[c]}): {len(chosen[c])}" for c in few)
        raise Refusal(
            f"too few steps are in the categories {told}; {settings.least} each are needed. Give "
            f"more problems or samples, a smaller taxonomy, or --allow-few, which leaves those at "
            f"the bias alone."
        )
    draw = torch.Generator().manual_seed(settings.seed)
    start = torch.nn.functional.normalize(torch.randn(1 + categories, base.width, generator=draw))
    bias = _descend(base, site, train.answers, hold.answers, start[:1], None, settings, progress)
    kept = torch.tensor([[float(c not in few)] for c in range(categories)])
    examples = [t for c in range(categories) if c not in few for t in chosen[c]]
    held = [t for t in hold.steps if t.category not in few]
    own = _descend(base, site, examples, held, start[1:] * kept, bias[0], settings, progress)
    return Vectors(
        site=site,
        vectors=own * kept,
        coefficients=torch.ones(categories),
        bias=bias[0],
        names=taxonomy.names,
        form="first",
        parameters=(1 + categories - len(few)) * base.width,
        base=base.digest,
        tuned=tuned.digest,
        taxonomy=taxonomy.data,
        data=content_hash([train.data, settings.examples]),
        counts=tuple(map(len, chosen)),
    )


def fit_everywhere(
    base: Model,
    tuned: Model,
    site: str,
    train: Stretches,
    hold: Stretches,
    settings: FirstSettings = FirstSettings(),  # noqa: B008 - frozen
    *,
    progress: Callable[[int], Any] | None = None,
) -> Vectors:
    """One vector pushed at every token: the bias of the first form, by itself.

    What a hybrid must beat to show that *where* it steers matters. Arguments and errors are those
    of `fit_first`.
    """
    _check(base, tuned, train, hold)
    draw = torch.Generator().manual_seed(settings.seed)
    start = torch.nn.functional.normalize(torch.randn(1, base.width, generator=draw))
    found = _descend(base, site, train.answers, hold.answers, start, None, settings, progress)
    return _everywhere(found, site, base.digest, tuned.digest, train)


def bias_everywhere(first: Vectors, train: Stretches) -> Vectors:
    """What `fit_everywhere` would find again: the bias of a first form fitted to the same texts."""
    if first.bias is None:
        raise Refusal("vectors of the current form have no bias that was fitted to every token.")
    return _everywhere(first.bias[None], first.site, first.base, first.tuned, train)


def _everywhere(
    line: Float[Tensor, "1 d"], site: str, base: str, tuned: str, train: Stretches
) -> Vectors:
    return Vectors(
        site=site,
        vectors=line,
        coefficients=torch.ones(1),
        bias=None,
        names=("everywhere",),
        form="first",
        parameters=line.shape[1],
        base=base,
        tuned=tuned,
        taxonomy="",
        data=content_hash([train.data]),
        counts=(len(train.answers),),
    )


def _check(base: Model, tuned: Model, train: Stretches, hold: Stretches) -> None:
    check_pair(base, tuned)
    if shared := {t.problem for t in train.answers} & {t.problem for t in hold.answers}:
        raise Refusal(f"{len(shared)} problems are in the fit and held out, as {min(shared)}.")


def _examples(
    base: Model, site: str, steps: Sequence[Target], category: int, settings: FirstSettings
) -> list[Target]:
    """The 4N steps of the largest activation, and of these the N of the highest perplexity."""
    of_it = [t for t in steps if t.category == category and t.length >= settings.words]
    strong = sorted(of_it, key=lambda t: -t.activation)[: 4 * settings.examples]
    if len(strong) <= settings.examples:
        return strong
    nats = surprises(base, site, strong, None)
    order = sorted(range(len(strong)), key=lambda i: -float(nats[i].mean()))
    return [strong[i] for i in order[: settings.examples]]


def _descend(
    base: Model,
    site: str,
    train: Sequence[Target],
    hold: Sequence[Target],
    start: Float[Tensor, "lines d"],
    static: Float[Tensor, " d"] | None,
    settings: FirstSettings,
    progress: Callable[[int], Any] | None,
) -> Float[Tensor, "lines d"]:
    """The lines of the epoch with the lowest hold-out loss."""
    lines = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([lines], lr=settings.lr)
    steps = settings.epochs * math.ceil(len(train) / settings.batch)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    order = torch.Generator().manual_seed(settings.seed + 1)
    coldness = COLDNESS if settings.quirk else 1.0
    scale = 1 / math.log(10) if settings.quirk else 1.0

    def loss(targets: Sequence[Target], gradients: bool) -> Tensor:
        with torch.set_grad_enabled(gradients):
            pushes = lines if static is None else lines + static
            nats = surprises(base, site, targets, pushes, coldness=coldness, gradients=gradients)
            return torch.cat(nats).mean() * scale

    best, kept, since, epoch = float("inf"), start, 0, 0
    for epoch in range(1, settings.epochs + 1):
        for chunk in torch.randperm(len(train), generator=order).split(settings.batch):
            value = loss([train[i] for i in chunk.tolist()], gradients=True)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            falling.step()
        held = float(loss(hold, gradients=False))
        if not math.isfinite(held):
            raise FloatingPointError(f"the loss of the first form is {held} in epoch {epoch}.")
        if progress:
            progress(1)
        since += 1
        if held < best:
            best, kept, since = held, lines.detach().clone(), 0
        if since >= settings.patience:
            break
    if progress and epoch < settings.epochs:
        progress(settings.epochs - epoch)
    return kept
