"""How good a dictionary is on given activations: FVU, L0, dead latents, and what fires how often.

Sums are kept for each problem, so that every number has an interval over problems and no more than
a block of rows is encoded at a time.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped

from probes.capture import Store
from probes.intervals import Estimate, bootstrap, bootstrap_weights
from probes.records import Refusal
from probes.sae.record import Feature, Sae

BLOCK = 8192
"""Rows that are encoded at a time."""

ONCE = 3
"""A latent seen in fewer problems would be missed by another draw of as many with a chance above
5%: (1 - c/n)^n is about exp(-c)."""


@dataclass(frozen=True, eq=False)
class Sums:
    """Of each problem, in the order of `problems`; all float64."""

    problems: Shaped[np.ndarray, " problems"]
    rows: Float[np.ndarray, " problems"]
    error: Float[np.ndarray, " problems"]
    """Squared length of what is not reconstructed."""
    square: Float[np.ndarray, " problems"]
    """Squared length of the activations."""
    total: Float[np.ndarray, "problems d"]
    """Sum of the activations."""
    fired: Float[np.ndarray, "problems latents"]
    """Rows in which each latent is above 0."""
    largest: Float[np.ndarray, " latents"]
    """Largest activation on any row."""


def sums(sae: Sae, x: Float[np.ndarray, "rows d"], problems: Shaped[np.ndarray, " rows"]) -> Sums:
    """What all measures of a dictionary on these activations need."""
    names, codes = np.unique(problems, return_inverse=True)
    return sum_blocks(sae, names, blocks_of(x, codes))


def blocks_of(
    x: Float[np.ndarray, "rows d"], codes: Int[np.ndarray, " rows"]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Activations and the numbers of their problems, block by block."""
    for start in range(0, len(x), BLOCK):
        yield x[start : start + BLOCK], codes[start : start + BLOCK]


def stored(
    store: Store, site: str, lines: Int[np.ndarray, " rows"]
) -> tuple[Shaped[np.ndarray, " problems"], Iterator[tuple[np.ndarray, np.ndarray]]]:
    """Names of the problems of these lines, and their activations block by block."""
    names, codes = np.unique(store.index.problem.to_numpy().astype(str)[lines], return_inverse=True)
    starts = range(0, len(lines), BLOCK)
    read = ((store.numpy(site, lines[s : s + BLOCK]), codes[s : s + BLOCK]) for s in starts)
    return names, read


def sum_blocks(
    sae: Sae,
    names: Shaped[np.ndarray, " problems"],
    blocks: Iterable[tuple[np.ndarray, np.ndarray]],
) -> Sums:
    """The sums of `sums`, of blocks of activations and the numbers of their problems."""
    n = len(names)
    rows, error, square = np.zeros(n), np.zeros(n), np.zeros(n)
    total, fired = np.zeros((n, sae.width)), np.zeros((n, sae.latents))
    largest = np.zeros(sae.latents)
    for values, codes in blocks:
        x = torch.from_numpy(values).to(sae.decoder)
        a = sae.encode(x)
        short = (x - sae.decode(a)).double().square().sum(-1).cpu().numpy()
        rows += np.bincount(codes, minlength=n)
        error += np.bincount(codes, short, minlength=n)
        square += np.bincount(codes, x.double().square().sum(-1).cpu().numpy(), minlength=n)
        np.add.at(total, codes, values)
        # Rows of a problem stand together in a store, so this is a few slices and not a scatter.
        fires = (a > 0).cpu().numpy()
        cuts = np.flatnonzero(np.diff(codes)) + 1
        for start, stop in zip([0, *cuts], [*cuts, len(codes)], strict=True):
            fired[codes[start]] += fires[start:stop].sum(0)
        largest = np.maximum(largest, a.amax(0).cpu().numpy())
    if not len(names):
        raise Refusal("no activation was given: nothing can be said of the dictionary.")
    return Sums(names, rows, error, square, total, fired, largest)


def fvu(found: Sums, *, seed: int = 0) -> Estimate:
    """Fraction of variance unexplained: squared error over squared distance from the mean.

    0 is a perfect reconstruction; 1 is what the mean alone gives. The mean is that of the rows
    themselves, weighted as the problems are.
    """
    return bootstrap_weights(lambda w: unexplained(found, w), len(found.problems), seed=seed)


def unexplained(
    found: Sums, weights: Float[np.ndarray, "*draws problems"]
) -> Float[np.ndarray, "*draws"]:
    """The FVU with each problem counted so often."""
    rows, total = weights @ found.rows, weights @ found.total
    spread = weights @ found.square - (total**2).sum(-1) / rows
    return weights @ found.error / spread


def l0(found: Sums, *, seed: int = 0) -> Estimate:
    """Mean number of latents above 0 in a row."""
    return bootstrap(lambda a, n: a / n, found.fired.sum(-1), found.rows, seed=seed)


def dead(found: Sums, before: Float[np.ndarray, " latents"] | None = None) -> Estimate:
    """Share of latents that fire in no row.

    Problems resampled can only lose firings, so a bootstrap of this would be wrong on one side.
    The ends are: latents that don't fire in training either (`before`: rows each fired in there),
    and latents that fire in fewer than three problems, which another draw of problems would miss
    with a chance above 5%.
    """
    problems = (found.fired > 0).sum(0)
    never = problems == 0
    low = never & (before == 0) if before is not None else np.zeros_like(never)
    value, low, high = (float(mask.mean()) for mask in (never, low, problems < ONCE))
    return Estimate(value, low, high, len(found.problems))


def firing(found: Sums, reference: Float[np.ndarray, " latents"] | None = None) -> list[Feature]:
    """A line a latent: how often it fires in these rows.

    Args:
        found: sums on the rows.
        reference: largest activations on other rows of the reference text.
    """
    rates = found.fired.sum(0) / found.rows.sum()
    largest = found.largest if reference is None else np.maximum(found.largest, reference)
    seen = (found.fired > 0).sum(0)
    return [Feature(i, float(rates[i]), float(largest[i]), int(seen[i])) for i in range(len(rates))]
