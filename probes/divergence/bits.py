"""What tuning changed about the solutions of a problem, in bits: selection and reshaping.

    found = bits(solved)                     # of one problem's `solutions`
    found.selection, found.reshaping

With S the set of a problem's solutions, p(S) the probability of solving it, and p(.|S) the
distribution over solutions once it is solved, RL's Razor (2509.04259, lemma A.1) has for a model q
that only ever solves

    KL(q || base) = log 1/base(S) + KL(q || base(.|S)).

The first term is what it costs to *select* the solutions among what the base writes anyway, the
second what it costs to *reshape* them: to solve it in other ways, or in other proportions.
Rejection sampling and a tilt by the reward have no second term. A tuned model that solves a problem
only sometimes has the same with three terms (the chain rule of KL):

    KL(tuned || base) = d(tuned(S) || base(S)) + tuned(S) KL(tuned(.|S) || base(.|S)) + failures

with d the KL of two coins. We call d *selection* and KL(tuned(.|S) || base(.|S)) *reshaping*: both
are 0 for a model and itself, and where tuned(S) = 1 they are the lemma's two terms. d says how much
changed, not which way: `gain` is log2 tuned(S)/base(S), with its sign.

Neither says where a solution came from: a base that solves a problem by guessing, at rate 1e-4, has
"selected" 13 bits when tuning makes that guess certain.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp, rel_entr

from probes.divergence.solutions import Solved

LOG2 = float(np.log(2))


@dataclass(frozen=True)
class Bits:
    """What tuning changed about the solutions of one problem; all but the masses in bits."""

    problem: str
    mass: tuple[float, float]
    """Probability of solving it, before and after: of the solutions that are listed."""
    missing: tuple[float, float]
    """At most so much is not listed."""
    selection: float
    """d(tuned(S) || base(S)); nan where the base has no listed solution."""
    reshaping: float
    """KL(tuned(.|S) || base(.|S)); nan where either has no listed solution."""
    gain: float
    """log2 tuned(S) / base(S)."""
    price: float
    """log2 1 / base(S): what full success would cost, the lemma's first term."""
    solutions: int


def bits(solved: Solved) -> Bits:
    """The decomposition over a problem's listed solutions; the first model is the base."""
    about = (solved.problem,)
    if not len(solved.texts):
        nan = float("nan")
        return Bits(*about, (0.0, 0.0), solved.missing, nan, nan, nan, nan, 0)
    base, tuned = (float(x) for x in logsumexp(solved.logprob, axis=1))
    before, after = (min(1.0, float(np.exp(x))) for x in (base, tuned))
    within = np.exp(solved.logprob[1] - tuned)
    apart = (solved.logprob[1] - tuned) - (solved.logprob[0] - base)
    return Bits(
        *about,
        (before, after),
        solved.missing,
        coin_kl(after, before) / LOG2,
        max(0.0, float(np.where(within > 0, within * apart, 0.0).sum())) / LOG2,
        (tuned - base) / LOG2,
        -base / LOG2,
        len(solved.texts),
    )


def coin_kl(p: float, q: float) -> float:
    """KL of two coins, in nats.

    >>> round(coin_kl(1.0, 0.25), 6)
    1.386294
    """
    return float(rel_entr(p, q) + rel_entr(1 - p, 1 - q))
