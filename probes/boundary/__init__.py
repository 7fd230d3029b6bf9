"""The boundary of what a model can solve: pass@k and its critics, with intervals.

    base = counts([r.problem for r in rollouts], graded)         # per problem: n, right, valid
    curve(base, ks=(1, 4, 16))                                   # pass@k with problem bootstrap
    curve(base, ks=(1, 4, 16), which="valid")                    # lucky answers don't count
    compare(base, tuned, ks=(1, 4, 16))                          # tuned − base, paired
    crossing(base, tuned)                                        # P(the curves cross by k_max)

pass@k at k near n is "any right at all" and varies most: sample two to four times the largest k
that is reported. Where answers can be guessed, pass@k at large k is luck: it approaches
1 − (1 − g)^k for a guess rate g (`guessed`), and only the valid-trace version says otherwise
(CoT-pass@k of Wen et al. 2506.14245, here with an exact checker in place of a judge model).

    curves          counts; pass@k of one model, of two, of guessing
    crossing        whether the base overtakes the tuned model, and where; censored
    solvable        which problems only one of them solves, and a re-test
    coverage        Cover@tau, histograms of accuracy
    efficiency      the sampling-efficiency gap
    beta_binomial   would the base ever solve it: mass below the detection limit
    nulls           a comparison of two models that are equal
    votes           a majority vote
    rows            all of it as tidy rows
"""

from probes.boundary.beta_binomial import Fit, estimates, fit_counts
from probes.boundary.coverage import Bin, Cover, compare_cover, cover, histogram
from probes.boundary.crossing import Crossing, crossing
from probes.boundary.curves import (
    Counts,
    Point,
    Which,
    compare,
    counts,
    curve,
    guessed,
    paired,
    pass_at_k,
)
from probes.boundary.efficiency import efficiency_gap
from probes.boundary.nulls import relabelled
from probes.boundary.solvable import Again, retest, solvable, to_retest
from probes.boundary.votes import majority

__all__ = [
    "Again",
    "Bin",
    "Counts",
    "Cover",
    "Crossing",
    "Fit",
    "Point",
    "Which",
    "compare",
    "compare_cover",
    "counts",
    "cover",
    "crossing",
    "curve",
    "efficiency_gap",
    "estimates",
    "fit_counts",
    "guessed",
    "histogram",
    "majority",
    "paired",
    "pass_at_k",
    "relabelled",
    "retest",
    "solvable",
    "to_retest",
]
