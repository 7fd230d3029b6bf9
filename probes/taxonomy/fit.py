"""Fit the restricted dictionary: few latents, three of them at a time, none cut at zero.

    taxonomy = fit(steps, "blocks.1.hook_resid_post", 15, task=content_hash(task.settings))
    taxonomy.category(steps.values[taxonomy.site])

Every constant is of the authors' code for arXiv:2510.07364 (cvenhoff/thinking-llms-interp,
train-saes and utils/sae.py; paper section 3 and appendix on training).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from probes.records import Refusal
from probes.taxonomy.record import Taxonomy
from probes.taxonomy.steps import Steps

K = 3
"""Latents of a reconstruction."""
SIZES = (5, 10, 15, 20, 25, 30, 35, 40, 45, 50)
"""How many latents to try: far fewer than dimensions, so that a latent is a kind of step."""
LR, LR_AT = 2e-4, 2**14
"""Adam's learning rate for 2^14 latents; it grows as the root of their number falls."""
BATCH, EPOCHS, PATIENCE = 512, 300, 10
LEAST = 10
"""Steps a latent, below which sorting them says nothing. Ours; the authors have thousands."""


@dataclass(frozen=True)
class Fitted:
    """A taxonomy, and how its fit went."""

    taxonomy: Taxonomy
    fvu: float
    """Fraction of variance unexplained, on the steps of the fit."""
    epochs: int
    parameters: int
    """Numbers that were fitted: encoder, decoder and their biases; the centre is a mean."""


def fit(
    steps: Steps,
    site: str,
    latents: int,
    *,
    task: str = "",
    k: int = K,
    seed: int = 0,
    epochs: int = EPOCHS,
    batch: int = BATCH,
    patience: int = PATIENCE,
    device: str | torch.device = "cpu",
    progress: Callable[[int], Any] | None = None,
) -> Fitted:
    """Fit one dictionary to the steps' activations at a site.

    The loss is the fraction of variance unexplained of a batch. Training stops when the mean loss
    of an epoch has not improved for `patience` epochs; the best epoch's weights are kept.

    Args:
        steps: what to sort.
        site: full name; one that the steps were read at.
        latents: how many kinds there may be.
        task: content hash of the task's settings, kept with the result.
        k: latents of a reconstruction.
        seed: of initialisation and of the order of the steps.
        epochs: at most.
        batch: steps of an update.
        patience: epochs without improvement before it stops.
        device: where it is fitted.
        progress: called with 1 after each epoch.

    Raises:
        Refusal: a site that was not read, k above the latents, or too few steps for so many.
    """
    if site not in steps.values:
        raise Refusal(f"the steps were read at {', '.join(steps.values)}, not at {site}.")
    raw = steps.values[site].to(device)
    if not 1 <= k <= latents:
        raise Refusal(f"{k} latents at a time of {latents}: give 1 to {latents}.")
    if len(raw) < LEAST * latents:
        raise Refusal(
            f"{len(raw)} steps for {latents} latents: at least {LEAST} a latent are needed, or a "
            f"kind is an accident. Give more texts, or ask for at most {len(raw) // LEAST}."
        )
    start = _initial(raw.shape[1], latents, seed, device)
    names = tuple(f"latent {j}" for j in range(latents))
    centre = steps.centre(site).to(device)
    blank = Taxonomy(site, centre, *start, k, names, steps.model, task, steps.data)
    x = blank.prepared(raw)
    weights, fvu, ran = _descend(x, start, k, seed, epochs, batch, patience, progress)
    parts = ("centre", "encoder", "encoder_bias", "decoder", "decoder_bias")
    tensors = {n: w.cpu() for n, w in zip(parts, (centre, *weights), strict=True)}
    unnamed = replace(blank, **tensors)
    found = unnamed.category(steps.values[site]).numpy()
    taxonomy = replace(unnamed, names=majority(found, steps.kinds, latents))
    return Fitted(taxonomy, fvu, ran, sum(w.numel() for w in weights))


def majority(
    found: Int[np.ndarray, " steps"], kinds: Shaped[np.ndarray, " steps"], latents: int
) -> tuple[str, ...]:
    """The commonest known kind of each latent's steps; "latent j" of one that has none."""
    names = []
    for j in range(latents):
        commonest = Counter(kinds[found == j].tolist()).most_common(1)
        names.append(commonest[0][0] if commonest else f"latent {j}")
    return tuple(names)


def reconstructed(
    x: Float[Tensor, "rows d"], weights: Sequence[Tensor], k: int
) -> Float[Tensor, "rows d"]:
    """The sum of the k strongest latents' decoder rows, each times its pre-activation, and bias."""
    encoder, encoder_bias, decoder, decoder_bias = weights
    strength, which = ((x - decoder_bias) @ encoder.T + encoder_bias).topk(k, dim=-1)
    return (
        torch.zeros(len(x), len(encoder), device=x.device).scatter(1, which, strength) @ decoder
        + decoder_bias
    )


def unexplained(x: Float[Tensor, "rows d"], again: Float[Tensor, "rows d"]) -> Float[Tensor, ""]:
    """Fraction of variance unexplained: squared error over that of the rows' mean."""
    return (x - again).square().sum() / (x - x.mean(0)).square().sum()


def _initial(
    width: int, latents: int, seed: int, device: str | torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Encoder as torch.nn.Linear draws it, no bias; decoder rows those of the encoder, length 1."""
    draw = torch.Generator().manual_seed(seed)
    encoder = (torch.rand(latents, width, generator=draw) * 2 - 1) / width**0.5
    decoder = encoder / encoder.norm(dim=1, keepdim=True)
    start = encoder, torch.zeros(latents), decoder, torch.zeros(width)
    encoder, encoder_bias, decoder, decoder_bias = (w.clone().to(device) for w in start)
    return encoder, encoder_bias, decoder, decoder_bias


def _descend(
    x: Float[Tensor, "rows d"],
    start: Sequence[Tensor],
    k: int,
    seed: int,
    epochs: int,
    batch: int,
    patience: int,
    progress: Callable[[int], Any] | None,
) -> tuple[list[Tensor], float, int]:
    """The best epoch's weights, their FVU, and how many epochs ran."""
    weights = [w.clone().requires_grad_() for w in start]
    rate = LR / (len(start[0]) / LR_AT) ** 0.5
    optimiser = torch.optim.Adam(weights, lr=rate)
    order = torch.Generator().manual_seed(seed + 1)
    best, kept, since, epoch = float("inf"), [w.detach().clone() for w in weights], 0, 0
    for epoch in range(1, epochs + 1):
        total = 0.0
        chunks = torch.randperm(len(x), generator=order).split(batch)
        for chunk in chunks:
            rows = x[chunk.to(x.device)]
            if len(rows) < 2:
                continue  # one row has no variance
            loss = unexplained(rows, reconstructed(rows, weights, k))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            with torch.no_grad():
                weights[2].div_(weights[2].norm(dim=1, keepdim=True))
            total += float(loss.detach()) * len(rows)
        if progress:
            progress(1)
        if not np.isfinite(total):
            raise FloatingPointError(f"the taxonomy's loss is {total} in epoch {epoch}.")
        since += 1
        if total < best:
            best, kept, since = total, [w.detach().clone() for w in weights], 0
        if since >= patience:
            break
    with torch.no_grad():
        fvu = float(unexplained(x, reconstructed(x, kept, k)))
    return kept, fvu, epoch
