"""A dictionary of one site: a loaded SAELens object, its tensors, and what is known of it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probes.frames import card
from probes.records import Refusal

KINDS = ("standard", "jumprelu", "topk", "batchtopk")
"""How a latent is kept: all that are positive, those above their threshold, the k largest of the
row, or the k·rows largest of the batch (while training only: SAELens saves it as jumprelu)."""


@dataclass(frozen=True)
class Feature:
    """One latent as it was measured on held-out problems; a row of the table that is saved."""

    latent: int
    firing_rate: float
    """Share of the held-out rows in which it is above 0."""
    max_activation: float
    """Largest on any row of the reference text, training rows included: what a strength of 1 is."""
    problems: int
    """Held-out problems in which it fires at all."""


@dataclass(frozen=True, eq=False)
class Sae:
    """x ~ decode(encode(x)): a few of many directions for each activation of one site.

    The tensors are those of the SAELens object, which `encode` and `decode` call; they are there
    for whoever edits single latents. float32, on one device, without gradients of their own.
    """

    site: str
    """Full name, as in blocks.1.hook_resid_post."""
    folder: Path
    model: str
    """Content hash of the model whose activations it was trained on; "" where it isn't said."""
    sae: Any
    """The SAELens object."""
    encoder: Float[Tensor, "d latents"]
    encoder_bias: Float[Tensor, " latents"]
    decoder: Float[Tensor, "latents d"]
    decoder_bias: Float[Tensor, " d"]
    threshold: Float[Tensor, " latents"] | None
    """Of jumprelu: a latent counts where its pre-activation is above it."""
    kind: str
    """How it runs, one of `KINDS`; never batchtopk once it was saved."""
    subtracts_bias: bool
    """Whether the decoder's bias is taken off before encoding (`apply_b_dec_to_input`)."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What was said when it was trained (task, data, settings, measures); of a foreign
    one only "model", the name that SAELens wrote."""
    features: tuple[Feature, ...] = ()
    """A line a latent, () where the folder has no such table."""

    def _repr_html_(self) -> str:
        """What is known of it, in a notebook; `frame(sae.features)` has the latents."""
        width, latents = self.encoder.shape
        told = {"at": self.site, "kind": self.kind, "width": width, "latents": latents}
        told |= {"model": self.model[:12], "folder": str(self.folder)}
        return card("Sae", told | {k: v for k, v in self.facts.items() if k != "model"})

    @property
    def latents(self) -> int:
        """How many directions there are."""
        return self.decoder.shape[0]

    @property
    def width(self) -> int:
        """Length of an activation."""
        return self.decoder.shape[1]

    @property
    def k(self) -> int | None:
        """Of topk: how many latents a row keeps."""
        return int(self.sae.cfg.k) if self.kind == "topk" else None

    @property
    def max_activation(self) -> Float[Tensor, " latents"]:
        """Largest activation of each latent on the reference text.

        Raises:
            Refusal: the folder has no table of its features.
        """
        if not self.features:
            raise Refusal(
                f"{self.folder} has no features.parquet, so how strongly a latent fires is not "
                f"known: measure it on your texts first (probes.sae.firing)."
            )
        listed = [feature.max_activation for feature in self.features]
        return torch.tensor(listed, dtype=torch.float32, device=self.decoder.device)

    def encode(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows latents"]:
        """Activations of the latents, 0 or above; of raw activations of the site."""
        if x.shape[-1] != self.width:
            raise Refusal(
                f"activations of width {x.shape[-1]} for a dictionary of width {self.width} "
                f"({self.folder}): it is of another model."
            )
        return self.sae.encode(x.to(self.decoder)).to(x.device)

    def decode(self, a: Float[Tensor, "rows latents"]) -> Float[Tensor, "rows d"]:
        """The activation that these latents stand for, the decoder's bias included."""
        if a.shape[-1] != self.latents:
            raise Refusal(f"{a.shape[-1]} latents for a dictionary of {self.latents}.")
        return self.sae.decode(a.to(self.decoder)).to(a.device)
