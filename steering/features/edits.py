"""One feature of a dictionary set, moved or removed, and nothing else of the residual."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from probes.models import Model
from probes.records import Refusal
from probes.sae import Sae, check_fits
from steering.interventions import ALL, Reading, Window

OPERATIONS = ("add", "ablate", "clamp")


@dataclass(frozen=True, eq=False)
class FeatureEdit:
    """One operation on one feature; the package's docstring has the formulas.

    It stands in the list of a setting beside interventions, of the same site or of others.
    """

    op: str
    """One of add, ablate, clamp."""
    sae: Sae
    latent: int
    strength: float | int = 1.0
    """In multiples of `unit`; of ablate: the share that is removed, 1 all of it."""
    unit: float | int | None = None
    """An activation; None: the feature's largest on the reference text, from the folder's table."""
    window: Window = ALL
    along: Float[Tensor, " d"] | None = None
    """What is written in place of the decoder's row, made as long as it is: for a control whose
    edits are as large as the feature's at every position, in another direction."""
    foreign: bool = False
    """Allow a dictionary that was trained on another model (a tuned model's feature in its base).
    The width and the layer must fit all the same."""

    def __post_init__(self) -> None:
        """Refuse what can never work."""
        if self.op not in OPERATIONS:
            known = ", ".join(OPERATIONS)
            raise Refusal(f"operation {self.op!r} on a feature is not known; there are {known}.")
        if not 0 <= self.latent < self.sae.latents:
            raise Refusal(
                f"latent {self.latent} is not in {self.sae.folder}, which has 0.."
                f"{self.sae.latents - 1}."
            )
        if self.sae.kind == "batchtopk":
            raise Refusal(
                "a batchtopk dictionary in training keeps the largest activations of a batch, so a "
                "row's edit would depend on its neighbours: save it, which makes it a jumprelu."
            )
        if not math.isfinite(self.strength):
            raise Refusal(f"strength {self.strength} of latent {self.latent} is not finite.")
        if self.op != "ablate" and not 0 < self.norm < math.inf:
            raise Refusal(
                f"latent {self.latent} of {self.sae.folder}: strengths in multiples of "
                f"{self.norm:g} mean nothing. A feature that never fires on the reference text has "
                f"no largest activation; give `unit`, the activation that 1 stands for."
            )
        lengths = [float(v.norm()) for v in (self.vector, self.sae.decoder[self.latent])]
        if not all(0 < length < math.inf for length in lengths):
            raise Refusal(f"what latent {self.latent} is to write has the lengths {lengths}.")

    @property
    def site(self) -> str:
        """The one that the dictionary was trained at."""
        return self.sae.site

    @property
    def norm(self) -> float:
        """The activation that a strength of 1 stands for."""
        if self.op == "ablate":
            return 1.0
        if self.unit is not None:
            return float(self.unit)
        if not self.sae.features:
            raise Refusal(
                f"{self.sae.folder} has no features.parquet, so the largest activation of latent "
                f"{self.latent} is not known: measure it (probes.sae.firing), or give `unit`."
            )
        return self.sae.features[self.latent].max_activation

    @property
    def vector(self) -> Float[Tensor, " d"]:
        """What each unit of activation adds to the residual; the same object at each call."""
        return self._vector

    @property
    def reading(self) -> Reading:
        """How its activation is read: by its own row of the encoder where that is enough."""
        return self._reading

    @cached_property
    def _vector(self) -> Float[Tensor, " d"]:
        return self._written().detach()

    def _written(self) -> Float[Tensor, " d"]:
        """The same with its gradient: anew at each call, as `along` may be learning."""
        row = self.sae.decoder[self.latent]
        if self.along is None:
            return row
        if self.along.shape != row.shape:
            raise Refusal(
                f"a direction of shape {tuple(self.along.shape)} can't be written in place of a "
                f"decoder's row of length {len(row)}."
            )
        along = self.along.to(row.device, torch.promote_types(self.along.dtype, torch.float32))
        return along * (row.norm() / along.norm())

    @cached_property
    def _reading(self) -> Reading:
        sae, i = self.sae, self.latent
        row = sae.encoder[:, i]
        shift = float(sae.encoder_bias[i])
        if sae.subtracts_bias:
            shift -= float(row.double() @ sae.decoder_bias.double())
        # Above a negative threshold, sae-lens' jumprelu is still rectified.
        above = 0.0 if sae.threshold is None else max(0.0, float(sae.threshold[i]))
        encode = None if sae.kind in ("standard", "jumprelu") else sae.encode
        return Reading(sae.sae, i, row, shift, above, encode)

    def tensor(self, width: int) -> Float[Tensor, " d"]:
        """`vector`, at least in float32; `fits` has seen to its length."""
        assert len(self.vector) == width, (len(self.vector), width)
        written = self._written()
        return written.to(torch.promote_types(written.dtype, torch.float32))

    def fits(self, model: Model) -> None:
        """Refuse a model that has other layers, another width, or, unless `foreign`, other weights.

        Raises:
            Refusal: with what is what.
        """
        check_fits(replace(self.sae, model="", facts={}) if self.foreign else self.sae, model)
