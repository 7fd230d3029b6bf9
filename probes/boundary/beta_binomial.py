"""Would the base ever solve it? A zero-inflated beta-binomial fitted to counts.

    fit = fit_counts(base)                     # valid answers unless told
    fit.below(detection_limit(32))             # share of problems below the detection limit
    fit.within(10_000)                         # pass@10000, if the fit holds so far out
    estimates(base, {"below": lambda fit: fit.below(0.01)})       # with bootstrap intervals

A share `zero` of the problems is never solved; of the others the rate is Beta(a, b), and of n
answers a binomial number is right. A plain beta has no mass at 0 and so assumes that everything
comes with enough tries (Kazdan et al. 2510.05197 extrapolate by it); how the density goes to 0,
as p^(a − 1), decides what is reached by many (Schaeffer et al. 2502.17578).

**An exact zero is not identified.** Problems of rate 0 and of rate 10⁻⁶ give the same counts, and
a beta with small `a` imitates a point mass: `zero` and `a` trade off along a ridge, and `zero`
alone is a property of the model. What the counts do tell is the mass *below a limit that n answers
can see* (`below`, together: the point mass and the beta's share), 1 − 0.05^(1/n) or about 3/n
(`probes.intervals.detection_limit`). Read `zero` beside `gain`, the log-likelihood that it adds to
the plain beta: below 1.35 (half of χ² with one degree of freedom, since 0 is the boundary of what
`zero` can be; 5% level) none is called for.

`again` is where the model can fail: it says how many of the problems unsolved by n answers are
solved by m more, which a re-test on fresh samples measures (`probes.boundary.solvable`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import optimize, special

from probes.boundary.curves import Counts, Which
from probes.intervals import Estimate, bootstrap_weights, undefined
from probes.records import Refusal

_BOUNDS = ((0.0, 1 - 1e-6), (-7.0, 7.0), (-7.0, 9.0))
"""Of zero, log a and log b. At the lower end a beta is two point masses, at the upper end one."""

_STARTS = ((0.0, 1.0, 1.0), (0.0, 0.2, 1.0), (0.5, 2.0, 4.0))
"""zero, a and b that the search begins from: the likelihood has a ridge and may have two tops."""


@dataclass(frozen=True)
class Fit:
    """The distribution of the chance that one answer is right, over problems."""

    zero: float
    """Share of problems that are never solved; not identified on its own."""
    a: float
    b: float
    log_likelihood: float
    gain: float = float("nan")
    """Log-likelihood that `zero` adds to the best plain beta-binomial."""

    def below(self, limit: float) -> float:
        """Share of the problems whose rate is below `limit`, the point mass at 0 included."""
        return self.zero + (1 - self.zero) * float(special.betainc(self.a, self.b, limit))

    def cover(self, tau: float) -> float:
        """Share of the problems whose rate is at least tau: Cover@tau without binomial noise."""
        return 1 - self.below(tau)

    def within(self, k: int) -> float:
        """pass@k, for any k: beyond the answers that were counted it is the model that speaks.

        (1 − zero) (1 − B(a, b + k) / B(a, b)), Kazdan et al. 2510.05197 with the zeros put in.
        """
        return (1 - self.zero) * -float(np.expm1(_log_unsolved(self, k)))

    def again(self, n: int, more: int) -> float:
        """Share of the problems unsolved by n answers that `more` of them will solve.

        NaN where n answers solve every problem.
        """
        left, then = (
            self.zero + (1 - self.zero) * float(np.exp(_log_unsolved(self, k)))
            for k in (n, n + more)
        )
        return 1 - then / left if left > 0 else float("nan")


def probability(fit: Fit, c: int, n: int) -> float:
    """Chance of c right answers out of n on a problem."""
    counted = np.array([float(c)]), np.array([float(n)])
    return float(np.exp(_log_chances(np.array([fit.zero, fit.a, fit.b]), *counted)[0])[0])


def fit_counts(measured: Sequence[Counts], *, which: Which = "valid") -> Fit:
    """The likeliest zero, a and b.

    Args:
        measured: counts of one model; problems may have been answered unequally often.
        which: answers with a valid trace by default: of right ones some are lucky, and luck
            solves everything in the end.

    Raises:
        Refusal: no problems, or none that was ever solved: nothing is known but a limit.
    """
    c, n, at = _grouped(measured, which)
    if not c.any():
        raise Refusal(
            f"none of {len(measured)} problems was solved by any of {int(n.max())} answers: "
            f"their rates are below the detection limit, and nothing can be fitted to them."
        )
    weights = np.bincount(at).astype(float)
    best = max((_maximum(c, n, weights, start) for start in _STARTS), key=_by_likelihood)
    plain = max((_maximum(c, n, weights, s, zeros=False) for s in _STARTS), key=_by_likelihood)
    best = max(best, plain, key=_by_likelihood)
    gain = best.log_likelihood - plain.log_likelihood
    return Fit(best.zero, best.a, best.b, best.log_likelihood, gain)


def estimates(
    measured: Sequence[Counts],
    quantities: Mapping[str, Callable[[Fit], float]],
    *,
    which: Which = "valid",
    fit: Fit | None = None,
    seed: int = 0,
    resamples: int = 400,
) -> dict[str, Estimate]:
    """Any functions of the fit, with intervals by bootstrap over problems.

    Args:
        measured: counts of one model.
        quantities: what is asked of a fit, by name.
        which: right answers, or those with a valid trace.
        fit: that of `fit_counts` to all of them, where it is known.
        seed: of the resamples.
        resamples: how many, a fit each.

    Undefined where nothing was ever solved, or so little that some resamples hold none of it.
    """
    c, n, at = _grouped(measured, which)
    if not c.any():
        reason = f"none of {sum(one.n for one in measured)} answers is {which}"
        return {name: undefined(reason, len(measured)) for name in quantities}
    start = fit or fit_counts(measured, which=which)
    known: dict[bytes, Fit | None] = {}

    def fitted(weights: np.ndarray) -> Fit | None:
        key = weights.tobytes()
        if key not in known:
            begin = (start.zero, start.a, start.b)
            some = bool(weights[c > 0].any())
            known[key] = _maximum(c, n, weights, begin) if some else None
        return known[key]

    def statistic(name: str) -> Callable[[np.ndarray], np.ndarray]:
        def of_weights(weights: np.ndarray) -> np.ndarray:
            grouped = np.zeros((len(weights), len(c)))
            np.add.at(grouped.T, at, weights.T)
            fits = [fitted(row) for row in grouped]
            return np.array([np.nan if fit is None else quantities[name](fit) for fit in fits])

        return of_weights

    size = len(measured)
    return {
        name: bootstrap_weights(statistic(name), size, seed=seed, resamples=resamples)
        for name in quantities
    }


def _grouped(
    measured: Sequence[Counts], which: Which
) -> tuple[Float[np.ndarray, " kinds"], Float[np.ndarray, " kinds"], np.ndarray]:
    """The different (c, n) and which of them each problem has: a fit costs as much as there are."""
    if not measured:
        raise Refusal("there are no problems: nothing was measured.")
    pairs = np.array([[one.number(which), one.n] for one in measured])
    kinds, at = np.unique(pairs, axis=0, return_inverse=True)
    return kinds[:, 0].astype(float), kinds[:, 1].astype(float), at.ravel()


def _maximum(
    c: np.ndarray,
    n: np.ndarray,
    weights: np.ndarray,
    start: tuple[float, float, float],
    *,
    zeros: bool = True,
) -> Fit:
    """Climb from a start; without `zeros` along the plain beta-binomials."""

    def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        natural = np.array([at[0], *np.exp(at[1:])])
        logs, slopes = _log_chances(natural, c, n)
        slopes = slopes * np.array([1.0, natural[1], natural[2]])[:, None]
        return -float(weights @ logs), -(slopes @ weights)

    bounds = _BOUNDS if zeros else ((0.0, 0.0), *_BOUNDS[1:])
    begin = np.array([start[0] if zeros else 0.0, *np.log(start[1:])])
    begin = np.clip(begin, [b[0] for b in bounds], [b[1] for b in bounds])
    found = optimize.minimize(loss, begin, jac=True, method="L-BFGS-B", bounds=bounds)
    zero, a, b = float(found.x[0]), float(np.exp(found.x[1])), float(np.exp(found.x[2]))
    return Fit(zero, a, b, -float(found.fun))


def _log_chances(
    natural: Float[np.ndarray, " 3"],
    c: Float[np.ndarray, " kinds"],
    n: Float[np.ndarray, " kinds"],
) -> tuple[Float[np.ndarray, " kinds"], Float[np.ndarray, "3 kinds"]]:
    """Log of the chance of each count, and its derivatives by zero, a and b."""
    zero, a, b = natural
    ways = special.gammaln(n + 1) - special.gammaln(c + 1) - special.gammaln(n - c + 1)
    plain = ways + special.betaln(c + a, n - c + b) - special.betaln(a, b)
    shared = special.digamma(a + b) - special.digamma(n + a + b)
    by_a = special.digamma(c + a) - special.digamma(a) + shared
    by_b = special.digamma(n - c + b) - special.digamma(b) + shared
    none = c == 0
    log_rest = np.log1p(-zero)
    mixed = np.where(none, np.logaddexp(np.log(zero) if zero > 0 else -np.inf, log_rest + plain), 0)
    logs = np.where(none, mixed, log_rest + plain)
    share = np.where(none, np.exp(log_rest + plain - logs), 1.0)
    by_zero = np.where(none, -np.expm1(plain) / np.exp(np.where(none, logs, 0)), -1 / (1 - zero))
    return logs, np.stack([by_zero, share * by_a, share * by_b])


def _log_unsolved(fit: Fit, k: int) -> float:
    """Log of the chance that k answers to a problem of the beta all fail."""
    return float(special.betaln(fit.a, fit.b + k) - special.betaln(fit.a, fit.b))


def _by_likelihood(fit: Fit) -> float:
    return fit.log_likelihood
