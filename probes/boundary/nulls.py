"""What a comparison of two models shows where there is nothing to see.

    compare(*relabelled(base, tuned, seed=0), ks=(1, 4, 16))     # any measure of a pair

Of the answers to each problem, both models' are shuffled and dealt anew to the two names, each
getting as many as it had: whatever is left of a difference is luck. It costs no samples. The other
null is a model against itself on disjoint samples, and what guessing reaches (`guessed`) is a
third: it bounds right answers, since a guess has no valid trace.
"""

from collections.abc import Sequence

import numpy as np

from probes.boundary.curves import Counts, paired


def relabelled(
    base: Sequence[Counts], tuned: Sequence[Counts], *, seed: int = 0
) -> tuple[list[Counts], list[Counts]]:
    """The same answers under shuffled names: counts of two models that are equal on each problem.

    The deal is the multivariate hypergeometric one of valid, lucky, unreadable and other answers;
    where the traces were not checked, of right ones in place of the first two.
    """
    rng = np.random.default_rng(seed)
    dealt: tuple[list[Counts], list[Counts]] = ([], [])
    for one, other in zip(base, paired(base, tuned), strict=True):
        pooled = _kinds(one) + _kinds(other)
        first = rng.multivariate_hypergeometric(pooled, one.n)
        for pile, kinds in zip(dealt, (first, pooled - first), strict=True):
            valid, lucky, unparsed, _ = map(int, kinds)
            told = None if one.valid is None or other.valid is None else valid
            pile.append(Counts(one.problem, int(kinds.sum()), valid + lucky, told, unparsed))
    return dealt


def _kinds(one: Counts) -> np.ndarray:
    valid = one.valid or 0
    return np.array([valid, one.right - valid, one.unparsed, one.n - one.right - one.unparsed])
