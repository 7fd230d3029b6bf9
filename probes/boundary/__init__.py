"""The boundary of what a model can solve: pass@k and its critics, with intervals.

    base = counts([r.problem for r in rollouts], graded)         # per problem: n, right, valid
    curve(base, ks=(1, 4, 16))                                   # pass@k with problem bootstrap
    curve(base, ks=(1, 4, 16), which="valid")                    # lucky answers don't count
    compare(base, tuned, ks=(1, 4, 16))                          # tuned − base, paired

pass@k at k near n is "any right at all" and varies most: sample two to four times the largest k
that is reported. Where answers can be guessed, pass@k at large k is luck: it approaches
1 − (1 − g)^k for a guess rate g (`guessed`), and only the valid-trace version says otherwise
(CoT-pass@k of Wen et al. 2506.14245, here with an exact checker in place of a judge model).
"""

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
from probes.boundary.votes import majority

__all__ = [
    "Counts",
    "Point",
    "Which",
    "compare",
    "counts",
    "curve",
    "guessed",
    "majority",
    "paired",
    "pass_at_k",
]
