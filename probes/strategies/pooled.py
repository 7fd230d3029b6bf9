"""A share pooled over problems, with the problem as the unit of its interval."""

import numpy as np
from jaxtyping import Shaped

from probes.intervals import FEW, LEVEL, Estimate, bootstrap, exact_rate, undefined

NEVER = "this decision never came up"


def too_few(
    chosen: Shaped[np.ndarray, " problems"], asked: Shaped[np.ndarray, " problems"]
) -> bool:
    """Whether too few problems hold both sides of the choice for a bootstrap to see its spread."""
    return bool(min((chosen > 0).sum(), (chosen < asked).sum()) < FEW)


def pooled_share(
    chosen: Shaped[np.ndarray, " problems"],
    asked: Shaped[np.ndarray, " problems"],
    seed: int,
    level: float = LEVEL,
    never: str = NEVER,
) -> Estimate:
    """Pooled share; by `exact_rate`, with problems as trials, where few problems vary.

    Args:
        chosen: of each problem, how often it was so.
        asked: of each, how often it could have been; at least once.
        seed: of the resamples.
        level: of the interval.
        never: why there is no share, where there is no problem.
    """
    n = len(asked)
    if n == 0:
        return undefined(never, 0, level)
    if too_few(chosen, asked):
        return exact_rate(float(chosen.sum() / asked.sum() * n), n, level=level)
    return bootstrap(lambda c, a: c / a, chosen, asked, seed=seed, level=level)
