"""Latent scaling: whether a direction of one model's dictionary is there in the other model too.

Minder et al. 2504.02922, section 3: for a latent i with activation f_i and direction d_i, beta is
the least-squares factor of f_i d_i on a target,

    beta = sum <f_i d_i, target> / sum ||f_i d_i||^2

    reconstruction   target = h - b_dec - sum over j != i of f_j d_j     what is left for the latent
    error            target = h - SAE(h)                                  what the dictionary misses

fitted on the activations h of each model, f always those of the dictionary's own model. nu is the
other model's beta over the own one's: about 1 where the direction is used alike, about 0 where the
other model has nothing there. They made it because crosscoders trained with L1 invent latents that
look like one model's own; a dictionary of each model apart has no shared latents at all, so here
nu is the only thing that says shared.

A beta on the error is near 0 for the own model wherever the dictionary is good; nu then divides by
noise and is said to be undefined.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from probes.drift.features import check_same
from probes.intervals import Estimate, bootstrap, bootstrap_weights, ratio, undefined
from probes.records import Refusal
from probes.sae import Sae
from probes.sae.active import Rows
from probes.sae.measures import BLOCK

Target = Literal["reconstruction", "error"]
FEWEST = 30
"""Rows that a latent must fire in, to be fitted at all."""
FEWEST_PROBLEMS = 10
"""And problems, or its interval would rest on too few."""
BELOW = 0.5
"""nu below which a latent counts as the own model's, for the share of such latents."""


@dataclass(frozen=True, eq=False)
class Scaling:
    """Sums over each problem's rows, for every latent of one model's dictionary."""

    own: dict[str, Float[np.ndarray, "problems latents"]]
    """sum <f d, target> of each target, on the dictionary's own model."""
    other: dict[str, Float[np.ndarray, "problems latents"]]
    """The same on the other model."""
    square: Float[np.ndarray, "problems latents"]
    """sum ||f d||^2."""
    known: Bool[np.ndarray, " latents"]
    """Latents that fire often enough to be fitted."""

    def beta(self, which: Literal["own", "other"], target: Target = "reconstruction") -> np.ndarray:
        """The factor of every latent, (latents,); nan where it doesn't fire often enough."""
        with np.errstate(divide="ignore", invalid="ignore"):
            found = getattr(self, which)[target].sum(0) / self.square.sum(0)
        return np.where(self.known, found, np.nan)

    def nu(self, target: Target = "reconstruction") -> Float[np.ndarray, " latents"]:
        """Other over own; nan where it doesn't fire often enough."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.beta("other", target) / self.beta("own", target)

    def nu_interval(
        self, latent: int, target: Target = "reconstruction", *, seed: int = 0
    ) -> Estimate:
        """Nu with its interval over problems; undefined where the own beta isn't told from 0."""
        if not self.known[latent]:
            return undefined("it fires in too few rows", len(self.square))
        return ratio(self.other[target][:, latent], self.own[target][:, latent], seed=seed)

    def halves(self) -> tuple["Scaling", "Scaling"]:
        """The same latents on every other problem, and on the rest: to choose on, and to report."""
        return self._where(slice(0, None, 2)), self._where(slice(1, None, 2))

    def _where(self, some: slice) -> "Scaling":
        own, other = ({t: x[some] for t, x in of.items()} for of in (self.own, self.other))
        return Scaling(own, other, self.square[some], self.known)

    def median(self, target: Target = "reconstruction", *, seed: int = 0) -> Estimate:
        """The middle nu of all latents, with its interval over problems."""
        return self._over(lambda nu: np.median(nu, axis=-1), target, seed)

    def share_below(
        self, bound: float = BELOW, target: Target = "reconstruction", *, seed: int = 0
    ) -> Estimate:
        """Share of the latents whose nu is below a bound, with its interval over problems."""
        return self._over(lambda nu: (nu < bound).mean(axis=-1), target, seed)

    def share_beyond(
        self,
        null: "Scaling",
        bound: float = BELOW,
        target: Target = "reconstruction",
        *,
        seed: int = 0,
    ) -> Estimate:
        """Share of the latents below a bound here, less the share in a null; paired by problem.

        Raises:
            Refusal: a null of other problems or another dictionary.
        """
        if self.square.shape != null.square.shape or not np.allclose(self.square, null.square):
            raise Refusal("shares of different texts or dictionaries can't be paired.")
        if not self.known.any():
            return undefined("no latent fires often enough", len(self.square))
        of = [(s.other[target][:, self.known], s.own[target][:, self.known]) for s in (self, null)]

        def statistic(weights: np.ndarray) -> np.ndarray:
            here, there = (
                ((weights @ other) / (weights @ own) < bound).mean(axis=-1) for other, own in of
            )
            return here - there

        return bootstrap_weights(statistic, len(self.square), seed=seed)

    def explained(self, latent: int, *, seed: int = 0) -> Estimate:
        """The other model's beta itself, with its interval over problems."""
        other, square = self.other["reconstruction"][:, latent], self.square[:, latent]
        return bootstrap(lambda a, b: a / b, other, square, seed=seed)

    def _over(self, statistic, target: Target, seed: int) -> Estimate:  # type: ignore[no-untyped-def]
        if not self.known.any():
            return undefined("no latent fires often enough", len(self.square))
        other, own = (table[target][:, self.known] for table in (self.other, self.own))
        return bootstrap_weights(
            lambda weights: statistic((weights @ other) / (weights @ own)), len(own), seed=seed
        )


def latent_scaling(sae: Sae, own: Rows, other: Rows, *, fewest: int = FEWEST) -> Scaling:
    """Fit every latent of a dictionary on its own model's activations and on another's.

    Args:
        sae: the dictionary.
        own: activations of the model it was trained on.
        other: of the other model, at the same positions of the same texts.
        fewest: rows that a latent must fire in.

    Raises:
        Refusal: rows that don't match, another site's, or fewer than two problems.
    """
    check_same(own, other)
    if (own.site, other.site) != (sae.site, sae.site):
        raise Refusal(f"the dictionary is of {sae.site}, the rows of {own.site} and {other.site}.")
    names, codes = np.unique(own.problems, return_inverse=True)
    if len(names) < 2:
        raise Refusal(f"{len(names)} problem gives no interval: two is the least.")
    keys = [(whose, target) for whose in ("own", "other") for target in ("reconstruction", "error")]
    tables = {key: np.zeros((len(names), sae.latents)) for key in [*keys, "square", "fires"]}
    for start in range(0, len(codes), BLOCK):
        block = slice(start, start + BLOCK)
        for key, values in _products(sae, own.x[block], other.x[block]).items():
            _add(tables[key], codes[block], values)
    fires = tables["fires"]
    known = (fires.sum(0) >= fewest) & ((fires > 0).sum(0) >= FEWEST_PROBLEMS)
    of = {
        whose: {target: tables[whose, target] for target in ("reconstruction", "error")}
        for whose in ("own", "other")
    }
    return Scaling(of["own"], of["other"], tables["square"], known)


def _products(
    sae: Sae, own: Float[np.ndarray, "rows d"], other: Float[np.ndarray, "rows d"]
) -> dict:
    """Of each row and latent: <f d, target> of every target and model, ||f d||^2, and whether."""
    x, y = (torch.from_numpy(values).to(sae.decoder) for values in (own, other))
    f = sae.encode(x)
    back = sae.decode(f)
    square = f**2 * (sae.decoder**2).sum(-1)
    found: dict[Any, torch.Tensor] = {"square": square, "fires": (f > 0).float()}
    for whose, h in (("own", x), ("other", y)):
        # h - b_dec - sum over j != i of f_j d_j  is  h - SAE(own h) + f_i d_i
        found[whose, "reconstruction"] = f * ((h - back) @ sae.decoder.T) + square
        found[whose, "error"] = f * ((h - sae.decode(sae.encode(h))) @ sae.decoder.T)
    return {key: values.double().cpu().numpy() for key, values in found.items()}


def _add(table: np.ndarray, codes: Int[np.ndarray, " rows"], values: np.ndarray) -> None:
    """Add rows to their problems; those of a problem stand together, so it is a few slices."""
    cuts = np.flatnonzero(np.diff(codes)) + 1
    for start, stop in zip([0, *cuts], [*cuts, len(codes)], strict=True):
        table[codes[start]] += values[start:stop].sum(0)
