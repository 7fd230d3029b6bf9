"""Cover@tau: how many problems are solved how reliably; and the histogram of accuracies.

    cover(tuned, taus=(0.1, 0.5, 0.9))        # share of problems with accuracy >= tau
    histogram(tuned)                          # share of problems in each tenth, 0 and 1 apart

pass@k forgets how often a problem is solved; Cover@tau is the whole distribution (2510.08325),
G(tau) = share of problems with p >= tau, and pass@k is an integral of it,
∫ G(tau) k (1 − tau)^(k − 1) dtau, with nearly all weight near tau = 0 where k is large.

Of n answers a problem, only c/n is seen, and the share of problems with c/n >= tau is a *biased*
estimate of G(tau): no unbiased one exists, since every expectation of a function of c is a
polynomial in p, and a step is none. The binomial noise smears the distribution by up to
1/(2 √n), so a step of G is seen as a slope; where many problems lie just below tau, Cover@tau is
too high, where many lie just above, too low. `Fit.cover` of `probes.boundary.beta_binomial` undoes
the smearing under a model, and the two side by side tell its size. A guesser is smeared alike:
its Cover@tau (`guessed_cover`) is that of n binomial answers, not a step at the guess rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from probes.boundary.curves import Counts, Which, paired
from probes.intervals import Estimate, difference, rate
from probes.records import Refusal

TAUS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)

_ROUNDING = 1e-9
"""0.7 · 10 is 7.000000000000001 in binary: 7 of 10 do reach 0.7."""


@dataclass(frozen=True)
class Cover:
    """Cover@tau, or the difference of two, at one tau."""

    tau: float
    estimate: Estimate


@dataclass(frozen=True)
class Bin:
    """The share of problems whose accuracy lies in (low, high]."""

    low: float
    high: float
    estimate: Estimate
    """Of the first bin, [0, 0]: no answer solved it; of the last, [1, 1]: every one did."""

    @property
    def middle(self) -> float:
        """Where it is drawn."""
        return (self.low + self.high) / 2


def cover(
    measured: Sequence[Counts],
    taus: Sequence[float] = TAUS,
    *,
    which: Which = "right",
    seed: int = 0,
) -> list[Cover]:
    """Share of the problems that are solved in a share of tau of their answers or more.

    Args:
        measured: the counts of one model.
        taus: in (0, 1]; at 0 every problem is covered by any model.
        which: right answers, or those with a valid trace.
        seed: of the resamples.
    """
    return [Cover(tau, rate(_reached(measured, tau, which), seed=seed)) for tau in _checked(taus)]


def compare_cover(
    base: Sequence[Counts],
    tuned: Sequence[Counts],
    taus: Sequence[float] = TAUS,
    *,
    which: Which = "right",
    seed: int = 0,
) -> list[Cover]:
    """Cover@tau of `tuned` minus that of `base`, paired by problem."""
    tuned = paired(base, tuned)
    pairs = [(t, _reached(tuned, t, which), _reached(base, t, which)) for t in _checked(taus)]
    return [Cover(tau, difference(after, before, seed=seed)) for tau, after, before in pairs]


def guessed_cover(
    guess_rates: Float[np.ndarray, " problems"], n: int, taus: Sequence[float] = TAUS
) -> list[tuple[float, float]]:
    """Cover@tau of right answers of a model that answers n times without any thought.

    The mean over problems of P(Binomial(n, g) >= tau n): guesses are smeared like answers.
    """
    least = [_least(tau, n) for tau in _checked(taus)]
    return [
        (tau, float(stats.binom.sf(c - 1, n, guess_rates).mean()))
        for tau, c in zip(taus, least, strict=True)
    ]


def histogram(
    measured: Sequence[Counts], *, which: Which = "right", bins: int = 10, seed: int = 0
) -> list[Bin]:
    """Share of the problems by accuracy: exactly 0, each tenth of what lies between, exactly 1.

    The ends stand alone, as in Yue et al. (2504.13837, figure 5): tuning is said to fill both. The
    shares sum to 1.
    """
    accuracy = np.array([one.number(which) / one.n for one in measured])
    return [
        Bin(low, high, rate(_inside(accuracy, low, high).astype(float), seed=seed))
        for low, high in _edges(bins)
    ]


def guessed_histogram(
    guess_rates: Float[np.ndarray, " problems"], n: int, bins: int = 10
) -> list[tuple[float, float]]:
    """Middle of each bin, and the share of problems that n guesses put there."""
    chances = stats.binom.pmf(np.arange(n + 1), n, guess_rates[:, None]).mean(0)
    accuracy = np.arange(n + 1) / n
    return [
        ((low + high) / 2, float(chances[_inside(accuracy, low, high)].sum()))
        for low, high in _edges(bins)
    ]


def _edges(bins: int) -> list[tuple[float, float]]:
    inner = [(i / bins, (i + 1) / bins) for i in range(bins)]
    return [(0.0, 0.0), *inner, (1.0, 1.0)]


def _inside(accuracy: np.ndarray, low: float, high: float) -> np.ndarray:
    if low == high:
        return abs(accuracy - low) < _ROUNDING
    within = (accuracy > low + _ROUNDING) & (accuracy <= high + _ROUNDING)
    return within & (accuracy < 1 - _ROUNDING)


def _reached(
    measured: Sequence[Counts], tau: float, which: Which
) -> Float[np.ndarray, " problems"]:
    if not measured:
        raise Refusal("there are no problems: nothing was measured.")
    return np.array([float(one.number(which) >= _least(tau, one.n)) for one in measured])


def _least(tau: float, n: int) -> int:
    """The fewest right answers of n that are a share of tau."""
    return int(np.ceil(tau * n - _ROUNDING))


def _checked(taus: Sequence[float]) -> Sequence[float]:
    if bad := [tau for tau in taus if not 0 < tau <= 1]:
        raise Refusal(
            f"tau = {bad[0]:g}: a share of the answers lies in (0, 1]; any model covers every "
            f"problem at 0."
        )
    return taus
