"""Intervals of many settings' rates at once, and what having looked at many does to them.

    found = columns(rates)                  # rates (settings, problems): value, low, high of each
    gains = columns(rates - plain)          # paired, where `plain` is (problems,)
    familywise(rates - plain)               # (settings,): p of each, corrected for all of them

The same numbers as `probes.intervals` gives one by one (`rate`, `difference`, `bootstrap`): the
same resamples, BCa, and where fewer than ten problems are off the edge of the range the exact
interval. Ten thousand settings take seconds and not minutes, as they share the resamples. Of
numbers without a range and fewer than ten problems the interval is Student's: with four, resamples
cover the mean of skewed ones three times in four.

`beyond_draws` compares with a few random draws: another few would have had another mean.

`familywise` is the single-step maxT procedure of Westfall and Young (1993): the signs of all gains
of a problem are flipped together, and each setting's |mean / standard error| is held against the
largest of any setting. Settings of one sweep resemble each other, and this loses less by it than
Bonferroni does. Flipping assumes that without an effect a gain is as likely up as down.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy import special

from probes.intervals import FEW, LEVEL, RESAMPLES, bootstrap_counts
from probes.records import Refusal

Range = Literal["rate", "difference", "any"]
"""Numbers in 0..1, differences of such, or any numbers (lengths, nats): which have no exact
interval."""

_CELLS = 1 << 22
"""Resamples x settings held at a time (32 MB)."""


@dataclass(frozen=True)
class Columns:
    """One estimate a setting; NaN where there is none."""

    value: Float[np.ndarray, " settings"]
    low: Float[np.ndarray, " settings"]
    high: Float[np.ndarray, " settings"]


def columns(
    values: Float[np.ndarray, "settings problems"], of: Range = "rate", *, seed: int = 0
) -> Columns:
    """Mean over problems of each setting, with its 95% interval.

    Args:
        values: of each problem; a row with a NaN has no estimate.
        of: what the numbers are.
        seed: of the resamples.

    Raises:
        Refusal: fewer than two problems.
    """
    count, problems = values.shape
    if problems < 2:
        raise Refusal(f"{problems} problem(s) give no interval; two is the least.")
    value, low, high = (np.full(count, np.nan) for _ in range(3))
    known = np.isfinite(values).all(1)
    value[known] = values[known].mean(1)
    if of == "any" and problems < FEW:
        error = values[known].std(1, ddof=1) / np.sqrt(problems)
        half = special.stdtrit(problems - 1, (1 + LEVEL) / 2) * error
        low[known], high[known] = value[known] - half, value[known] + half
        return Columns(value, low, high)
    exact = known & _few(values, of)
    low[exact], high[exact] = _exact(values[exact], of)
    rest = np.flatnonzero(known & ~exact)
    if len(rest):
        weights = bootstrap_counts(problems, seed=seed)
        size = max(1, _CELLS // RESAMPLES)
        for start in range(0, len(rest), size):
            at = rest[start : start + size]
            low[at], high[at] = _bca(weights, values[at])
    return Columns(value, low, high)


def beyond_draws(
    own: Float[np.ndarray, "settings problems"],
    drawn: Float[np.ndarray, "settings problems"],
    spread: Float[np.ndarray, " settings"],
    draws: Float[np.ndarray, " settings"],
    freedom: Float[np.ndarray, " settings"],
    of: Range = "difference",
    *,
    seed: int = 0,
) -> Columns:
    """How far each setting is from the random draws beside it, if it could be one of them.

    Two things make it uncertain, and their half-widths add as squares: which problems were asked
    (`columns`, paired), and which few draws there were, a Student interval of another draw's
    distance from the mean of so many: t * spread * sqrt(1 + 1 / draws). Without the second, half of
    all random directions would be "beyond" two others.

    Args:
        own: of each problem.
        drawn: mean over the draws beside it.
        spread: standard deviation, between draws, of their means over problems.
        draws: how many are in `drawn`.
        freedom: of the spread, its degrees of freedom; below 1, or without draws, no interval.
        of: what the differences are.
        seed: of the resamples.
    """
    found = columns(own - drawn, of, seed=seed)
    known = (freedom >= 1) & (draws >= 1)
    quantile = special.stdtrit(np.where(known, freedom, 1), (1 + LEVEL) / 2)
    other = quantile * spread * np.sqrt(1 + 1 / np.where(known, draws, 1))
    half = np.where(known, other, np.nan)
    low = found.value - np.hypot(found.value - found.low, half)
    high = found.value + np.hypot(found.high - found.value, half)
    if of == "difference":
        low, high = np.maximum(low, -1.0), np.minimum(high, 1.0)
    return Columns(found.value, low, high)


def familywise(
    gains: Float[np.ndarray, "settings problems"], *, seed: int = 0, flips: int = 4999
) -> Float[np.ndarray, " settings"]:
    """Chance of a gain or loss so large in any of these settings if none did anything.

    Args:
        gains: of each setting on each problem, paired; rows with a NaN are left out and get NaN.
        seed: of the flips.
        flips: how many; the smallest p that can come out is 1 / (flips + 1).
    """
    known = np.isfinite(gains).all(1)
    moved = known & (gains != 0).any(1)
    found = np.where(known, 1.0, np.nan)
    d = gains[moved]
    if not len(d):
        return found
    n = d.shape[1]
    squares = (d**2).sum(1)

    def statistic(sums: np.ndarray) -> np.ndarray:
        # |mean| over its standard error; flipping signs leaves the squares as they are.
        spread = np.maximum(squares - sums**2 / n, 1e-12 * squares)
        return np.abs(sums) / np.sqrt(spread)

    own = statistic(d.sum(1))
    rng = np.random.default_rng(seed)
    reached = np.ones(len(d))  # the data themselves are one of the arrangements
    size = max(1, min(flips, _CELLS // max(1, len(d))))
    for start in range(0, flips, size):
        signs = rng.choice((-1.0, 1.0), size=(min(size, flips - start), n))
        most = statistic(signs @ d.T).max(1)
        reached += (most[:, None] >= own * (1 - 1e-9)).sum(0)
    found[moved] = reached / (flips + 1)
    return found


def _few(values: np.ndarray, of: Range) -> Bool[np.ndarray, " settings"]:
    if of == "any":
        return np.zeros(len(values), dtype=bool)
    inner = (abs(values) > 0).sum(1), (abs(values) < 1).sum(1)
    return np.minimum(*inner) < FEW


def _exact(values: np.ndarray, of: Range) -> tuple[np.ndarray, np.ndarray]:
    """Clopper and Pearson's, as `rate` and `difference` have it."""
    n = values.shape[1]
    if of == "rate":
        return _clopper(values.sum(1), n, LEVEL)
    half = (1 + LEVEL) / 2
    rise = _clopper(np.maximum(values, 0).sum(1), n, half)
    fall = _clopper(np.maximum(-values, 0).sum(1), n, half)
    return rise[0] - fall[1], rise[1] - fall[0]


def _clopper(successes: np.ndarray, n: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    tail = (1 - level) / 2
    with np.errstate(invalid="ignore"):
        low = special.betaincinv(successes, n - successes + 1, tail)
        high = special.betaincinv(successes + 1, n - successes, 1 - tail)
    return np.where(successes > 0, low, 0.0), np.where(successes < n, high, 1.0)


def _bca(weights: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Efron's (1987) interval of each row's mean, as `probes.intervals` has it."""
    n = values.shape[1]
    mean = values.sum(1) / n  # as the resamples are summed, or ties would be lost by rounding
    draws = np.sort(weights @ values.T / n, axis=0)  # (resamples, settings)
    left_out = (values.sum(1, keepdims=True) - values) / (n - 1)
    below = ((draws < mean).sum(0) + (draws == mean).sum(0) / 2 + 0.5) / (len(draws) + 1)
    bias = special.ndtri(below)
    influence = left_out.mean(1, keepdims=True) - left_out
    scale = 6 * (influence**2).sum(1) ** 1.5
    skewed = scale > 1e-30 * np.maximum(1.0, abs(mean)) ** 3
    third = (influence**3).sum(1)
    acceleration = np.where(skewed, third / np.where(skewed, scale, 1.0), 0.0)
    ends = []
    for tail in ((1 - LEVEL) / 2, (1 + LEVEL) / 2):
        z = bias + special.ndtri(tail)
        at = special.ndtr(bias + z / (1 - acceleration * z)) * (len(draws) - 1)
        floor = np.floor(at).astype(int)
        above = np.minimum(floor + 1, len(draws) - 1)
        pick = np.arange(len(mean))
        share = at - floor
        ends.append(draws[floor, pick] * (1 - share) + draws[above, pick] * share)
    return ends[0], ends[1]
