"""A taxonomy of steps: a small dictionary whose strongest latent names what a step does."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.frames import card
from probes.records import Refusal, parse_site


@dataclass(frozen=True, eq=False)
class Taxonomy:
    """A restricted TopK dictionary over step activations of one model (arXiv:2510.07364, 3).

    Activations are centred and scaled to length 1 before anything else, in training and in use:
    the authors' first release left that out in use, so its router read other inputs than its
    dictionary was fitted to.
    """

    site: str
    """Full name of the site whose activations it reads."""
    centre: Float[Tensor, " d"]
    """Mean of the responses' means; subtracted first."""
    encoder: Float[Tensor, "latents d"]
    encoder_bias: Float[Tensor, " latents"]
    decoder: Float[Tensor, "latents d"]
    """Rows of length 1."""
    decoder_bias: Float[Tensor, " d"]
    k: int
    """How many latents a reconstruction uses."""
    names: tuple[str, ...]
    """Of each latent: the known kind of step that most of its steps are, or "latent 3"."""
    model: str
    """Content hash of the model that was read."""
    task: str
    """Content hash of the task's settings."""
    data: str
    """Hash of the activations it was fitted to."""

    def __post_init__(self) -> None:
        """Refuse parts that don't belong together."""
        parse_site(self.site)
        latents, width = self.encoder.shape
        if not 1 <= self.k <= latents or len(self.names) != latents:
            raise Refusal(f"{latents} latents, k = {self.k}, {len(self.names)} names.")
        if self.centre.shape[0] != width or self.decoder.shape != self.encoder.shape:
            raise Refusal(
                f"encoder {tuple(self.encoder.shape)}, decoder {tuple(self.decoder.shape)}, "
                f"centre {tuple(self.centre.shape)} are not of one dictionary."
            )

    def _repr_html_(self) -> str:
        """Its site and the names of its latents, in a notebook."""
        told = {"at": self.site, "model": self.model[:12], "k": self.k}
        return card("Taxonomy", told | {f"latent {i}": name for i, name in enumerate(self.names)})

    def prepared(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        """Centred and of length 1, in float32."""
        if x.shape[-1] != self.centre.shape[0]:
            raise Refusal(
                f"activations of width {x.shape[-1]} for a taxonomy of width "
                f"{self.centre.shape[0]}: it is of another model."
            )
        x = x.float() - self.centre.to(x.device)
        return x / x.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)

    def latents(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows latents"]:
        """Pre-activations W (x - b_dec) + b_enc of raw activations; nothing is cut at zero."""
        at = x.device
        x = self.prepared(x) - self.decoder_bias.to(at)
        return x @ self.encoder.T.to(at) + self.encoder_bias.to(at)

    def category(self, x: Float[Tensor, "rows d"]) -> Int[Tensor, " rows"]:
        """The strongest latent of each raw activation."""
        return self.latents(x).argmax(-1)
