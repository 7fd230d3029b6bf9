"""How alike two models' activations are: linear CKA, debiased, with token and position removed.

    x, y = (without_means(a, spots.tokens, spots.places) for a in (x, y))
    cka(x, y)                                                  # 0.93 [0.91, 0.94]

CKA (Kornblith et al. 2019, arXiv:1905.00414) is HSIC(K, L) / √(HSIC(K, K) HSIC(L, L)) of the two
Gram matrices: 1 for activations that differ by a rotation and a scale, 0 for independent ones.

Three things go wrong with the usual estimate, and each is dealt with here:

- with as many dimensions as rows it is near 1 for noise. So HSIC is the unbiased estimator
  (Song et al. 2012, JMLR 13:1393, equation 5; for why, Murphy et al. 2024, arXiv:2405.01012);
- rows of one problem resemble each other, in both models. So no two of them are compared: a draw
  has one row of each problem, and HSIC is averaged over draws, as over minibatches in Nguyen et
  al. (2021, arXiv:2010.15327, equation 2), which leaves it unbiased;
- any two models that read the same text know which token it is and where, which alone makes them
  alike. So `without_means` takes both out first.

What stays true of CKA (Davari et al. 2023, arXiv:2210.16156): a few directions of large variance
rule it, a subset of rows moved far away changes it at will, and equal function doesn't need a
value near 1. It describes; read it beside a pair whose difference means nothing (two RL seeds,
random rewards), and conclude nothing from it alone.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from probes.directions import identities
from probes.intervals import RESAMPLES, Estimate, Statistic, bootstrap_weights
from probes.records import Refusal

RARE = 10
"""Tokens (or positions) seen in fewer rows than this share one mean: that of one row would make it
vanish, in both models at once."""


def hsic(k: Float[np.ndarray, "n n"], l: Float[np.ndarray, "n n"]) -> float:  # noqa: E741
    """The unbiased estimator of HSIC from two Gram matrices (Song et al. 2012, equation 5).

    It may be negative, as an unbiased estimate of 0 must.

    Raises:
        Refusal: fewer than four rows.
    """
    if len(k) < 4:
        raise Refusal(f"{len(k)} rows: the unbiased estimator compares four at a time.")
    return float(_averaged([(k, l)])(np.ones((1, len(k))))[0])


def cka(
    x: Float[np.ndarray, "problems rows d"],
    y: Float[np.ndarray, "problems rows e"],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Debiased linear CKA, with its interval by bootstrap over problems.

    A problem that a resample holds twice is never compared with itself. Memory: two Gram matrices
    (problems × problems) a draw; time: rows × problems² × resamples.

    Args:
        x: activations of one model, `rows` of each problem (`reading.spread`).
        y: of the other, at the same positions.
        seed: of the resamples.
        resamples: how many.

    Returns:
        At most about 1, and about 0 or slightly below for independent activations; undefined
        where one side doesn't vary.

    Raises:
        Refusal: other positions, or fewer than four problems.
    """
    if x.shape[:2] != y.shape[:2] or len(x) < 4:
        raise Refusal(
            f"{x.shape[:2]} and {y.shape[:2]} (problems, rows): the same positions of both models "
            f"are compared, of four problems or more."
        )
    ks, ls = (_grams(np.asarray(a, dtype=float)) for a in (x, y))
    pairs = ((ks, ls), (ks, ks), (ls, ls))
    averaged = [_averaged(list(zip(*pair, strict=True))) for pair in pairs]

    def of_weights(weights: np.ndarray) -> np.ndarray:
        both, first, second = (of_pair(weights) for of_pair in averaged)
        return both / np.sqrt(first * second)

    return bootstrap_weights(of_weights, len(x), seed=seed, resamples=resamples)


def without_means(
    x: Float[np.ndarray, "problems rows d"],
    tokens: Int[np.ndarray, "problems rows"],
    places: Int[np.ndarray, "problems rows"],
) -> Float[np.ndarray, "problems rows d"]:
    """What is left of activations when token and position are known: residuals of a linear fit.

    The fit is x ≈ a(token) + b(position), both at once (least squares), so that the order of
    removal doesn't matter. Its parameters are fitted on these rows; with n of them, G tokens and
    positions, and activations of effective dimension D, that adds about G·D/n² to the CKA of
    independent activations: nothing, for thousands of rows. Tokens (or positions) of fewer than
    `RARE` rows share one mean.
    """
    flat = np.asarray(x, dtype=float).reshape(-1, x.shape[-1])
    labels = np.stack([_pooled(tokens.ravel()), _pooled(places.ravel())], axis=1)
    known = identities(labels).astype(float)
    fitted = known @ np.linalg.lstsq(known, flat, rcond=None)[0]
    return (flat - fitted).reshape(x.shape)


def _pooled(labels: np.ndarray) -> np.ndarray:
    """The labels, with -1 for the rare ones; the next rarest join until there are enough."""
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    rarest = np.argsort(counts, kind="stable")
    before = np.cumsum(counts[rarest]) - counts[rarest]
    rare = np.zeros(len(counts), dtype=bool)
    rare[rarest] = (counts[rarest] < RARE) | ((before < RARE) & (before > 0))
    return np.where(rare[codes], -1, labels)


def _grams(x: np.ndarray) -> list[np.ndarray]:
    return [x[:, draw] @ x[:, draw].T for draw in range(x.shape[1])]


def _averaged(grams: Sequence[tuple[np.ndarray, np.ndarray]]) -> Statistic:
    """HSIC over any weighting of the rows, averaged over pairs of Gram matrices.

    With k and l cleared of their diagonals, HSIC = E k_ij l_ij + E k_ij E l_qr − 2 E k_ij l_iq over
    rows that are all different. A weight is how often a row was drawn; sums over different rows
    follow from unrestricted ones by inclusion and exclusion. All weights 1 give equation 5.
    """

    def of_weights(w: np.ndarray) -> np.ndarray:
        squares, together = w * w, np.zeros_like(grams[0][0])
        triples = quadruples = np.zeros(len(w))
        for gram, other in grams:
            k = gram - np.diag(np.diag(gram))
            l = k if other is gram else other - np.diag(np.diag(other))  # noqa: E741
            a = w @ k
            b = a if l is k else w @ l
            together += k * l
            triples = triples + (w * a * b).sum(1)
            quadruples = quadruples + (w * a).sum(1) * (w * b).sum(1) - 4 * (squares * a * b).sum(1)
        met = squares @ together  # of each row: products with the others, these weighted twice
        pairs = (w * (w @ together)).sum(1)
        triples = triples - (w * met).sum(1)
        quadruples = quadruples + (4 - 2) * (squares * met).sum(1)
        s1, s2, s3, s4 = (np.power(w, p).sum(1) for p in (1, 2, 3, 4))
        in_triples = s1**3 - 3 * s1 * s2 + 2 * s3
        in_quadruples = s1**4 - 6 * s1**2 * s2 + 3 * s2**2 + 8 * s1 * s3 - 6 * s4
        mean = pairs / (s1**2 - s2) + quadruples / in_quadruples - 2 * triples / in_triples
        return mean / len(grams)

    return of_weights
