"""A dictionary of 16,384 rectified latents on the shipped base, and one of them clamped.

Its weights are random: what is timed doesn't depend on them.
"""

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probes.sae import Sae
from steering.features import FeatureEdit
from steering.interventions import GENERATED

from ._shipped import base

SITE = "blocks.1.hook_resid_post"
LATENTS, LATENT, VALUE = 16384, 123, 6.0


@cache
def sae() -> Sae:
    from sae_lens import StandardSAE, StandardSAEConfig

    torch.manual_seed(0)
    made: Any = StandardSAE(StandardSAEConfig(d_in=base().width, d_sae=LATENTS))
    made = made.eval().requires_grad_(False)
    return Sae(
        site=SITE,
        folder=Path("random"),
        model="",
        sae=made,
        encoder=made.W_enc.data,
        encoder_bias=made.b_enc.data,
        decoder=made.W_dec.data,
        decoder_bias=made.b_dec.data,
        threshold=None,
        kind="standard",
        subtracts_bias=True,
    )


def clamp() -> FeatureEdit:
    return FeatureEdit("clamp", sae(), LATENT, VALUE, unit=1.0, window=GENERATED)


def by_error_term() -> Any:
    """SAELens' own way: its object with the error term on, and a hook that sets the activation."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # `use_error_term` is to be given to a TransformerLens model
        sae().sae.use_error_term = True

    def clamped(acts: Tensor, hook: Any) -> Tensor:  # noqa: ARG001 - passed by name
        acts[..., LATENT] = VALUE
        return acts

    def edit(x: Tensor) -> Tensor:
        with sae().sae.hooks(fwd_hooks=[("hook_sae_acts_post", clamped)]):
            return sae().sae(x)

    return edit


def by_hand(x: Tensor) -> Tensor:
    """Its encoder and decoder called as little as it takes: one encoding, two decodings."""
    made = sae().sae
    acts = made.encode(x)
    error = x - made.decode(acts)
    acts[..., LATENT] = VALUE
    return made.decode(acts) + error
