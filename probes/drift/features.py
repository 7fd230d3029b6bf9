"""How tuning moved a dictionary's latents: how often they fire, and how much they still explain.

    before, after = (active(sae, rows_of(store, sae.site)) for store in (of_base, of_tuned))
    firing_shift(before, after)                   # a `Moved` for each latent, on the same texts
    fvu_table({"base": sae, "tuned": other}, {"base": rows, "tuned": moved_rows})

Both models read the same texts, so a latent that fires more often does so because the weights
changed and not because other texts were written. It fires by the dictionary of one of them, which
never saw the other's activations: hold a shift against the one between two seeds of the tuning.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import false_discovery_control

from probes.intervals import FEW, Estimate, bootstrap
from probes.records import Refusal
from probes.sae import Sae, fvu, sums
from probes.sae.active import Active, Rows, sums_by_problem

FLIPS = 400
"""Draws of the null: in each, every problem's two models are exchanged or not."""


@dataclass(frozen=True)
class FiringShift:
    """One latent before and after, on the same rows."""

    latent: int
    before: Estimate
    after: Estimate
    difference: Estimate
    """Share of rows after − before, paired by problem."""
    q: float
    """Benjamini and Hochberg's; nan where it fires in fewer than ten problems."""


def firing_shift(before: Active, after: Active, *, seed: int = 0) -> list[FiringShift]:
    """The latents that fire in ten problems at least, by the size of the shift.

    Under no change each problem's two models could be exchanged, so the null flips the sign of
    whole problems; latents are pooled in units of their own spread, as in `probes.sae.spans`.

    Raises:
        Refusal: rows that don't match, or no latent that fires often enough.
    """
    check_same(before, after)
    fired = [_fired(rows) for rows in (before, after)]
    rows = sums_by_problem(np.ones((len(before.problems), 1)), before.problems)[:, 0]
    seen = ((fired[0] + fired[1]) > 0).sum(0)
    known = np.flatnonzero(seen >= FEW)
    if not len(known):
        raise Refusal(f"no latent fires in {FEW} of these {len(rows)} problems: give more.")
    q = false_discovery_control(_p(fired[1][:, known] - fired[0][:, known], seed))
    found = []
    for latent, value in zip(known, q, strict=True):
        a, b = (f[:, latent] for f in fired)
        found.append(
            FiringShift(
                int(latent),
                bootstrap(lambda x, n: x / n, a, rows, seed=seed),
                bootstrap(lambda x, n: x / n, b, rows, seed=seed),
                bootstrap(lambda x, y, n: (y - x) / n, a, b, rows, seed=seed),
                float(value),
            )
        )
    return sorted(found, key=lambda one: (-abs(one.difference.value), one.latent))


def fvu_table(
    saes: Mapping[str, Sae], rows: Mapping[str, Rows], *, seed: int = 0
) -> dict[tuple[str, str], Estimate]:
    """FVU of each dictionary (first of a pair) on each model's activations (second)."""
    return {
        (name, of): fvu(sums(sae, x.x, x.problems), seed=seed)
        for name, sae in saes.items()
        for of, x in rows.items()
    }


def check_same(before: Active | Rows, after: Active | Rows) -> None:
    """Refuse rows of two models that are not the same places of the same texts."""
    for what in ("problems", "samples", "positions"):
        if not np.array_equal(getattr(before, what), getattr(after, what)):
            raise Refusal(
                "the two models' rows are not the same positions of the same texts, so nothing "
                "pairs: capture both on the same texts."
            )


def _fired(rows: Active) -> Float[np.ndarray, "problems latents"]:
    """Rows of each problem in which each latent is above 0."""
    names, codes = np.unique(rows.problems, return_inverse=True)
    found = np.zeros((len(names), rows.latents))
    a = rows.a.tocoo()
    np.add.at(found, (codes[a.row], a.col), a.data > 0)
    return found


def _p(change: Float[np.ndarray, "problems latents"], seed: int) -> Float[np.ndarray, " latents"]:
    """Two-sided p of each column's sum against sums with the signs of whole problems flipped."""
    spread = np.sqrt((change**2).sum(0))
    units = np.where(spread > 0, spread, 1)
    own = np.abs(change.sum(0) / units)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (FLIPS, len(change)))
    pooled = np.sort(np.abs(signs @ change / units)[:, spread > 0].ravel())
    above = len(pooled) - np.searchsorted(pooled, own - 1e-12, "left")
    return np.where(spread > 0, (1 + above) / (1 + len(pooled)), 1.0)
