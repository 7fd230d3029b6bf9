"""Unsteered answers as long as the steered ones, for whoever fears that length is the effect.

Steering along "reasoning" features makes traces longer (by a fifth in Galichin et al.,
arXiv:2503.18878), and longer traces are more often right for reasons that are nobody's feature.
Weighting the unsteered answers by their length would be free, and wrong: length is an outcome, and
the unsteered answers that are long are those to problems, and after turns, that made them so.
Cutting all answers at one budget only takes from the longer side. So the length is set by an
intervention that knows nothing of the feature: a bias on the logits of the tokens that end an
answer, at several strengths.

Between two of them the match is exact: of answers that are taken from the one with probability
1 - w and from the other with w, length and rate are the same mixture, and some w has the steered
mean length. That is a way of answering that can be run, no interpolation of a curve.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from probes.intervals import FEW, Estimate, bootstrap, difference, rate, undefined

Column = Float[np.ndarray, " problems"]


def matched(
    length: Column,
    value: Column,
    arms: Sequence[tuple[Column, Column]],
    *,
    seed: int = 0,
) -> tuple[Estimate, Estimate]:
    """Rate of unsteered answers of the steered ones' mean length, and how far the steered is above.

    Both are paired by problem, and w is found anew in each resample of the bootstrap. Where too few
    problems vary for one, w is held and the interval is the exact one.

    Args:
        length: mean length of each problem's steered answers, in tokens.
        value: a rate of each, in 0..1.
        arms: (length, rate) of each problem's unsteered answers, at each bias; the plain model,
            whose bias is 0, is one of them.
        seed: of the resamples.
    """
    means = [float(of_arm.mean()) for of_arm, _ in arms]
    target, n = float(length.mean()), len(length)
    if not means or not min(means) <= target <= max(means):
        reached = f"{min(means):.3g} to {max(means):.3g}" if means else "none"
        why = f"steered answers have {target:.3g} tokens; unsteered ones could be had of {reached}"
        return undefined(why, n), undefined(why, n)
    order = np.argsort(means, kind="stable")
    above = next(i for i in order if means[i] >= target)
    below = [i for i in order if means[i] <= target][-1]
    (shorter, low), (longer, high) = arms[below], arms[above]
    if means[above] == means[below]:
        return rate(low, seed=seed), difference(value, low, seed=seed)
    share = (target - means[below]) / (means[above] - means[below])
    mixed = low + share * (high - low)
    found, change = rate(mixed, seed=seed), difference(value, mixed, seed=seed)

    def of_it(
        steered: np.ndarray, short: np.ndarray, long: np.ndarray, a: np.ndarray, b: np.ndarray
    ) -> np.ndarray:
        return a + (steered - short) / (long - short) * (b - a)

    columns = (length, shorter, longer, low, high)
    if min((mixed > 0).sum(), (mixed < 1).sum()) >= FEW:
        found = bootstrap(of_it, *columns, seed=seed)
    moved = value - mixed
    if (moved != 0).sum() >= FEW and (np.abs(moved) != 1).sum() >= FEW:
        change = bootstrap(lambda v, *rest: v - of_it(*rest), value, *columns, seed=seed)
    return found, change
