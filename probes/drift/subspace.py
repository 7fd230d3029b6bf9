"""The subspace that tuning moved: how many directions, how much of the change, at which angles.

    moved = Moved(after - before, rank=5)      # (problems, rows, d), as `reading.spread` reads them
    moved.dimension()                          # 7.9 [7.1, 8.8] directions
    moved.share()                              # 0.71 [0.69, 0.73] of the squared change, held out
    moved.overlap(seeds)                       # 0.83 [0.80, 0.85] with another seed's; see `chance`
    moved.angles(directions)                   # principal angles in degrees, smallest first

The subspace is spanned by the leading eigenvectors of the second moment of after − before, about 0
and not about the mean: a shift that is the same everywhere is a change as well.

Random subspaces are a weak null: activations vary in few directions, and so does any change of
them. A strong one is another copy's subspace whose tuning taught nothing (random rewards), and the
ceiling is that of one copy from halves of the problems (`halves`).
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float

from probes.intervals import Estimate, bootstrap, bootstrap_weights
from probes.records import Refusal

RESAMPLES = 200
"""Of the problems: each costs an eigendecomposition. The ends of an interval are known to about a
tenth of its width."""
CHUNK = 64
"""Resamples whose second moments are held at a time."""
MOMENTS = 2**25
"""Numbers (256 MB) up to which the second moment of each problem is kept; beyond, resamples start
from the rows, which is slower and takes no more memory than they do."""
SPLITS = 20


@dataclass(frozen=True, eq=False)
class Moved:
    """The change of activations at one site, and its leading subspace.

    What is held is the change itself, and of each resample of the problems one basis (d × rank):
    two subspaces of the same problems are resampled together.
    """

    change: Float[np.ndarray, "problems rows d"]
    rank: int
    """Dimension of the subspace."""
    seed: int = 0
    resamples: int = RESAMPLES
    _known: dict[bytes, np.ndarray] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Refuse what has no such subspace."""
        problems, rows, d = self.change.shape
        if not 1 <= self.rank < d or self.rank > problems * rows or problems < 4:
            raise Refusal(
                f"a subspace of rank {self.rank} from {problems} problems × {rows} rows of width "
                f"{d}: the rank lies in 1..{d - 1} and the problems are four or more."
            )
        if not np.isfinite(self.change).all():
            raise Refusal("the change holds NaN or infinity: the activations are broken.")
        if not self.change.any():
            raise Refusal("nothing moved: the two models have the same activations everywhere.")

    def dimension(self) -> Estimate:
        """Effective number of directions: (tr C)² / tr C², the participation ratio.

        C is the second moment of the change. Both squares are estimated from pairs of different
        problems, without which tr C² would be too large by what each row has in common with
        itself, and the dimension of n rows of noise about n / 2 where it is d.
        """
        flat = self.change.astype(float)
        energy = (flat**2).sum(-1).mean(1)
        n = len(flat)
        squares = np.zeros((n, n))
        for one in range(flat.shape[1]):
            for other in range(flat.shape[1]):
                squares += (flat[:, one] @ flat[:, other].T) ** 2
        squares /= flat.shape[1] ** 2
        totals = np.outer(energy, energy)
        for table in (squares, totals):
            np.fill_diagonal(table, 0.0)

        def of_weights(w: np.ndarray) -> np.ndarray:
            above, below = (((w @ table) * w).sum(1) for table in (totals, squares))
            return above / below

        return bootstrap_weights(of_weights, n, seed=self.seed)

    def share(self) -> Estimate:
        """Share of the squared change inside the subspace, fitted and measured on other problems.

        On the problems that it was fitted on, the share of noise too is well above rank / d.
        """
        half = self._halves(1)[0]
        basis = self._bases(half[None])[0]
        rest = self.change[half == 0].astype(float)
        return bootstrap(
            lambda inside, whole: inside / whole,
            ((rest @ basis) ** 2).sum((1, 2)),
            (rest**2).sum((1, 2)),
            seed=self.seed,
        )

    def steady(self) -> Estimate:
        """Share of the squared change that is one constant vector: |mean|² / mean of squares.

        |mean|² is estimated from pairs of different problems: else noise would have a share too.
        """
        means = self.change.astype(float).mean(1)
        products = means @ means.T
        np.fill_diagonal(products, 0.0)
        energy = (self.change.astype(float) ** 2).sum(-1).mean(1)

        def of_weights(w: np.ndarray) -> np.ndarray:
            total, squared = w.sum(1), (w * w).sum(1)
            constant = ((w @ products) * w).sum(1) / (total**2 - squared)
            return constant / (w @ energy / total)

        return bootstrap_weights(of_weights, len(means), seed=self.seed)

    def overlap(self, other: "Moved | Float[np.ndarray, 'd k']") -> Estimate:
        """Mean squared cosine of the principal angles with another subspace, 0..1.

        Args:
            other: what another copy moved, of the same problems, resampled together; or vectors as
                columns, taken as they are.
        """

        def of_weights(w: np.ndarray) -> np.ndarray:
            cosines = self._cosines(other, w)
            return (cosines**2).mean(1)

        return self._interval(of_weights)

    def angles(self, other: "Moved | Float[np.ndarray, 'd k']") -> list[Estimate]:
        """Principal angles in degrees, the smallest first (Björck and Golub 1973)."""
        count = self._cosines(other, np.ones((1, len(self.change)))).shape[1]

        def nth(i: int) -> Estimate:
            return self._interval(lambda w: np.degrees(np.arccos(self._cosines(other, w)[:, i])))

        return [nth(i) for i in range(count)]

    def halves(self, other: "Moved") -> Estimate:
        """Overlap of this subspace from half of the problems with the other's from the other half.

        Of `self` with itself it is the ceiling: what sampling of problems alone takes away.
        The mean over random splits, and the middle 95% of them.
        """
        first = self._halves(SPLITS)
        one, two = self._bases(first), other._bases(1 - first)
        values = (_cosines(one, two) ** 2).mean(1)
        low, high = np.quantile(values, [0.025, 0.975])
        spread = float(values.std(ddof=1))
        return Estimate(float(values.mean()), float(low), float(high), len(self.change), spread)

    @property
    def basis(self) -> Float[np.ndarray, "d rank"]:
        """Orthonormal columns, the direction of largest change first."""
        return self._bases(np.ones((1, len(self.change))))[0]

    def _interval(self, of_weights) -> Estimate:
        n = len(self.change)
        return bootstrap_weights(of_weights, n, seed=self.seed, resamples=self.resamples)

    def _halves(self, count: int) -> np.ndarray:
        rng = np.random.default_rng(self.seed)
        n = len(self.change)
        return np.stack([rng.permutation(n) % 2 for _ in range(count)]).astype(float)

    def _cosines(self, other: "Moved | np.ndarray", w: np.ndarray) -> np.ndarray:
        mine = self._bases(w)
        return _cosines(mine, other._bases(w) if isinstance(other, Moved) else _orthonormal(other))

    def _bases(self, weights: np.ndarray) -> np.ndarray:
        """(weightings, d, rank); kept, since every interval draws the same resamples."""
        key = weights.tobytes()
        if key not in self._known:
            self._known[key] = np.concatenate(
                [self._fitted(some) for some in np.array_split(weights, -(-len(weights) // CHUNK))]
            )
        return self._known[key]

    def _fitted(self, weights: np.ndarray) -> np.ndarray:
        _, rows, d = self.change.shape
        if self._moments is not None:
            summed = (weights @ self._moments).reshape(-1, d, d)
            return np.linalg.eigh(summed)[1][..., : -self.rank - 1 : -1]
        flat = self.change.reshape(-1, d).astype(float)
        each = [flat * np.sqrt(w.repeat(rows))[:, None] for w in weights]
        return np.stack([_leading(scaled, self.rank) for scaled in each])

    @cached_property
    def _moments(self) -> np.ndarray | None:
        """(problems, d²): second moment of each problem, where that fits; None where not."""
        problems, _, d = self.change.shape
        if problems * d * d > MOMENTS:
            return None
        x = self.change.astype(float)
        return (x.swapaxes(1, 2) @ x).reshape(problems, d * d)


def chance(rank: int, other: int, d: int) -> float:
    """Expected overlap of a fixed subspace and a random one: the larger dimension over d.

    tr(P Q) has the mean rank · other / d for a uniformly random projection, and there are as many
    principal angles as the smaller subspace has dimensions.

    >>> chance(5, 1, 100)
    0.05
    """
    return max(rank, other) / d


def random_overlap(rank: int, other: int, d: int, *, draws: int = 1000, seed: int = 0) -> Estimate:
    """Overlap of random subspaces: its mean (`chance`) and the middle 95% of draws."""
    values = (random_cosines(rank, other, d, draws=draws, seed=seed) ** 2).mean(1)
    low, high = np.quantile(values, [0.025, 0.975])
    return Estimate(chance(rank, other, d), float(low), float(high), draws)


def random_cosines(
    rank: int, other: int, d: int, *, draws: int = 1000, seed: int = 0
) -> Float[np.ndarray, "draws angles"]:
    """Cosines of the principal angles between a fixed subspace and random ones, largest first."""
    rng = np.random.default_rng(seed)
    drawn = np.linalg.qr(rng.standard_normal((draws, d, other)))[0]
    return np.clip(np.linalg.svd(drawn[:, :rank], compute_uv=False), 0, 1)


def _leading(rows: np.ndarray, rank: int) -> np.ndarray:
    """The leading right singular vectors, by the smaller of the two Gram matrices."""
    n, d = rows.shape
    if d <= n:
        return np.linalg.eigh(rows.T @ rows)[1][:, : -rank - 1 : -1]
    vectors = rows.T @ np.linalg.eigh(rows @ rows.T)[1][:, : -rank - 1 : -1]
    return np.linalg.qr(vectors)[0]


def _orthonormal(vectors: np.ndarray) -> np.ndarray:
    """A basis of the span of the columns."""
    basis, sizes, _ = np.linalg.svd(vectors.astype(float), full_matrices=False)
    if not sizes.max(initial=0.0) > 0:
        raise Refusal("vectors of length 0 span no subspace.")
    return basis[:, sizes > 1e-10 * sizes.max()]


def _cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(weightings, angles), largest first; rounding takes none above 1."""
    return np.clip(np.linalg.svd(one.swapaxes(-1, -2) @ other, compute_uv=False), 0, 1)
