"""What a feature's effect is compared with: another feature, another direction.

Each answers one objection. Would any feature do? One that fires as often is clamped likewise, to as
many of its own largest activations. Would any push of that size do? A random direction is written
by the feature's own activation, so that every row is moved as far at every position. (Is it only
the length of the answers? `steering.features.length`.)
"""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes.records import Refusal
from probes.sae import Sae
from steering.controls import shaped_random
from steering.features.edits import FeatureEdit


def same_rate(
    sae: Sae, latent: int, count: int = 1, *, seed: int, within: float = 1.5, alike: float = 0.7
) -> list[int]:
    """Random latents that fire about as often as this one.

    Args:
        sae: the dictionary; its table has the rates.
        latent: the feature.
        count: how many, all different.
        seed: of the draw.
        within: rates may differ by this factor.
        alike: a latent whose decoder's row has a cosine of more than this with the feature's is
            another copy of it, and no control.

    Raises:
        Refusal: no table of rates, a feature that never fires, or fewer such latents than asked.
    """
    if not sae.features:
        raise Refusal(f"{sae.folder} has no features.parquet: firing rates are not known.")
    rates = np.array([feature.firing_rate for feature in sae.features])
    usable = np.array([feature.max_activation > 0 for feature in sae.features])
    if not rates[latent] > 0:
        raise Refusal(f"latent {latent} of {sae.folder} never fires: no rate to be matched.")
    with np.errstate(divide="ignore"):
        apart = np.abs(np.log(rates / rates[latent]))
    rows = sae.decoder.detach().double()
    cosine = torch.cosine_similarity(rows, rows[latent][None], dim=-1).cpu().numpy()
    usable &= (cosine <= alike) & (np.arange(len(rates)) != latent)
    found = np.flatnonzero(usable & (apart <= np.log(within)))
    if len(found) < count:
        nearest = rates[usable][np.argmin(apart[usable])] if usable.any() else float("nan")
        raise Refusal(
            f"{len(found)} other latents fire within a factor {within:g} of latent {latent}'s rate "
            f"({rates[latent]:.3g}; the nearest other one {nearest:.3g}), and {count} are wanted."
        )
    random = np.random.Generator(np.random.Philox([seed, latent]))
    return [int(i) for i in random.choice(found, count, replace=False)]


def same_size(edit: FeatureEdit, activations: Float[Tensor, "rows d"], *, seed: int) -> FeatureEdit:
    """The edit along a random direction, as long as the feature's own at every position.

    The size stays |a' - a| |d|, of the feature's own activation a at that position; its direction
    is drawn from N(0, covariance of the activations), as an isotropic one lies mostly where
    activations never go.

    Raises:
        Refusal: the activations have no covariance.
    """
    drawn = shaped_random(activations, seed=seed)
    return replace(edit, along=drawn.to(edit.sae.decoder.device))
