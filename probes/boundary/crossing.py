"""Do the two curves of pass@k cross, and where? A probability, and a k that may be censored.

    found = crossing(base, tuned)
    found.probability              # share of resamples in which they cross by k_max
    str(found)                     # "0.93, at k = 9 [4, > 32]"

To cross is to change places: the tuned model solves more within one try, the base more within k,
for some k up to the largest budget (Yue et al. 2504.13837 read it off two curves without
intervals, and others' runs of the same models did not cross where theirs did). A tie is no
crossing: where both solve everything, both curves end at 1.

Where the curves don't cross by k_max, the crossing is *censored*: it lies beyond, or nowhere, and
nothing is extrapolated. In the interval of k such resamples stand at infinity, so its upper end is
finite only if nearly all resamples cross. Among resamples are also those in which tuning has no
lead to lose; they don't cross either, and `ahead` says how many have one.

The probability is of problems drawn like these (a paired bootstrap over problems, which carries
along the luck of the samples); it is no p-value. Two equal models cross often, since nobody leads
for long: compare with the same number of a model against itself and of answers dealt anew
(`probes.boundary.nulls`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from probes.boundary.curves import Counts, Which, paired
from probes.intervals import RESAMPLES
from probes.records import Refusal

_TIE = 1e-9
"""Differences below it are rounding: the curves are products of up to a thousand factors."""


@dataclass(frozen=True)
class Crossing:
    """Whether the base overtakes the tuned model by `k_max`, and where."""

    probability: float
    """Share of the resamples in which it does."""
    ahead: float
    """Share of the resamples in which the tuned model leads at k = 1, so that it can."""
    k: float
    """The first k at which the base leads, on all problems; infinite where there is none."""
    low: float
    """Lower end of the 95% interval of k."""
    high: float
    """Upper end; infinite where 2.5% of the resamples or more don't cross by `k_max`."""
    k_max: int
    n: int
    """Problems."""

    @property
    def censored(self) -> bool:
        """Whether the curves themselves don't cross by `k_max`."""
        return math.isinf(self.k)

    def __str__(self) -> str:
        """Probability and place.

        >>> str(Crossing(0.5, 1.0, 9.0, 4.0, math.inf, 32, 200))
        '0.500, at k = 9 [4, > 32]'
        """
        k, low, high = (
            f"> {self.k_max}" if math.isinf(x) else f"{x:g}" for x in (self.k, self.low, self.high)
        )
        if self.censored:
            return f"{self.probability:.3f}, not by k = {self.k_max}"
        return f"{self.probability:.3f}, at k = {k} [{low}, {high}]"


def crossing(
    base: Sequence[Counts],
    tuned: Sequence[Counts],
    k_max: int | None = None,
    *,
    which: Which = "right",
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Crossing:
    """The chance that the curves cross by `k_max`, and the k at which they do.

    Args:
        base: counts of the base.
        tuned: counts of the tuned model, on the same problems.
        k_max: the largest budget looked at; None for the fewest answers of a problem. There
            pass@k is "any right at all" and varies most: half of the answers is a steadier end.
        which: right answers, or those with a valid trace.
        seed: of the resamples, which are of problems, the same for both models.
        resamples: how many.

    Raises:
        Refusal: other problems, or a budget that was not measured.
    """
    tuned = paired(base, tuned)
    answers = np.array([one.n for one in [*base, *tuned]])
    if not answers.size:
        raise Refusal("there are no problems: nothing was measured.")
    k_max = int(answers.min()) if k_max is None else k_max
    if not 2 <= k_max <= answers.min():
        raise Refusal(
            f"k_max = {k_max}: curves of {answers.min()} answers a problem can be compared for k "
            f"in 2..{answers.min()}; sample more, or look no further."
        )
    lead = pass_curves(tuned, k_max, which) - pass_curves(base, k_max, which)
    n = len(lead)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n
    ks = overtaken(weights @ lead)
    place = np.sort(ks)[[int(0.025 * resamples), math.ceil(0.975 * resamples) - 1]]
    return Crossing(
        probability=float(np.isfinite(ks).mean()),
        ahead=float(((weights @ lead[:, 0]) > _TIE).mean()),
        k=float(overtaken(lead.mean(0)[None])[0]),
        low=float(place[0]),
        high=float(place[1]),
        k_max=k_max,
        n=n,
    )


def overtaken(lead: Float[np.ndarray, "curves ks"]) -> Float[np.ndarray, " curves"]:
    """The first k at which a lead that was there at k = 1 is lost; infinite where it never is.

    >>> overtaken(np.array([[0.2, 0.1, -0.1], [0.2, 0.1, 0.0], [-0.1, 0.1, -0.2]])).tolist()
    [3.0, inf, inf]
    """
    behind = (lead < -_TIE) & (lead[:, :1] > _TIE)
    return np.where(behind.any(1), behind.argmax(1) + 1.0, math.inf)


def pass_curves(
    measured: Sequence[Counts], k_max: int, which: Which
) -> Float[np.ndarray, "problems {k_max}"]:
    """pass@k of each problem for every k from 1 to `k_max`.

    The same estimator as `pass_at_k`, by the recurrence over k that costs one product a step,
    where binomial coefficients of a thousand answers would take minutes; equal to 1e-12.
    """
    n = np.array([one.n for one in measured])[:, None]
    correct: Int[np.ndarray, "problems 1"] = np.array([m.number(which) for m in measured])[:, None]
    tried = np.arange(k_max)
    return 1 - np.cumprod(np.maximum(0.0, 1 - correct / (n - tried)), axis=1)
