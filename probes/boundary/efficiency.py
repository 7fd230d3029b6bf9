"""The sampling-efficiency gap: how far one try of the tuned model is from many of the base.

    efficiency_gap(base, tuned, k=16)         # pass@16 of the base − pass@1 of the tuned model

Δ_SE of Yue et al. (2504.13837, section 3; k = 256 there): 0 where tuning has turned all that the
base can reach within k tries into what it does at once. Negative where the tuned model does at
once what the base does not within k tries. It depends on k, which is to be fixed beforehand, and
where answers can be guessed it grows with k by luck alone: `guessed_gap`.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from probes.boundary.curves import Counts, Which, guessed, paired, solved
from probes.intervals import Estimate, difference


def efficiency_gap(
    base: Sequence[Counts],
    tuned: Sequence[Counts],
    k: int,
    *,
    which: Which = "right",
    seed: int = 0,
) -> Estimate:
    """pass@k of the base minus pass@1 of the tuned model, paired by problem."""
    reach = solved(base, k, which)
    return difference(reach, solved(paired(base, tuned), 1, which), seed=seed)


def guessed_gap(guess_rates: Float[np.ndarray, " problems"], k: int) -> float:
    """The gap of right answers between k guesses and one."""
    (_, often), (_, once) = guessed(guess_rates, [k, 1])
    return often - once
