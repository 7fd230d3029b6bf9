"""An estimate with its interval: bootstrap over problems, paired, and exact where that fails.

    base, tuned = rates of the same problems, in the same order      # (problems,) each
    rate(base)                                   # 0.18 [0.14, 0.22]
    difference(tuned, base)                      # paired: a resample takes both of a problem
    bootstrap(lambda t, b: t / b, tuned, base)   # any function of means over problems

The unit of resampling is the problem, never the answer: answers to one problem resemble each
other, and counting each of 16 as news would make an interval a quarter as wide. Two calls with
the same number of problems and the same seed draw the same resamples.

Intervals are BCa (Efron 1987, JASA 82:171, section 4): bias-corrected, accelerated, 95%
unless told. Percentile intervals were tried beside them: for skewed rates (Beta(.3, 1.5), 16
answers a problem) of 20, 50, 200 problems they covered .907, .934, .945 and missed mostly on
one side; BCa .926, .946, .947. With the same 20 problems neither is 95%: read such an interval
as a little too narrow. Where fewer than ten problems are off the edge of the range no bootstrap
is any good (with none it has width 0), and `rate` and `difference` give an exact interval.

An estimate that does not exist (a share of a gap that may be zero) has no number but a reason.
"""

import html
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped
from scipy import special

from probes.records import Refusal

RESAMPLES = 2000
LEVEL = 0.95

FEW = 10
"""With fewer problems than this off the edge of the range, a bootstrap sees too little of the
spread (of rare rates, Beta(.1, 4), it covered .80 to .94): the exact interval takes over."""

_BLOCK = 2**22
"""Resampled problems held at a time (32 MB)."""

Number = int | float | np.integer | np.floating

Statistic = Callable[[Float[np.ndarray, "resamples problems"]], Shaped[np.ndarray, " resamples"]]
"""A number from the weight of each problem, for many weightings at once."""


@dataclass(frozen=True)
class Estimate:
    """A number, the interval that holds it, and from how many problems; or why there is none.

    >>> str(Estimate(0.4213, 0.38, 0.46, n=200))
    '0.42 [0.38, 0.46]'
    >>> str(undefined("no problem has a check", n=0))
    'undefined (no problem has a check)'
    """

    value: float
    """NaN where undefined."""
    low: float
    high: float
    n: int
    """Independent units it rests on: problems, or trials of an exact rate."""
    se: float = math.nan
    """Standard error: the spread of the resamples."""
    level: float = LEVEL
    reason: str = ""
    """Why there is no number; "" where there is one."""

    @property
    def defined(self) -> bool:
        """Whether there is a number."""
        return not self.reason

    def excludes(self, value: Number) -> bool:
        """Whether `value` lies outside the interval; never so where there is no number."""
        return self.defined and not self.low <= value <= self.high

    def __str__(self) -> str:
        if not self.defined:
            return f"undefined ({self.reason})"
        half = (self.high - self.low) / 2
        digits = min(6, max(2, -math.floor(math.log10(half)))) if half > 0 else 2
        value, low, high = (round(x, digits) + 0.0 for x in (self.value, self.low, self.high))
        return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"

    def _repr_html_(self) -> str:
        """The same in a notebook, with what it rests on."""
        return f"{html.escape(str(self))} <small>n = {self.n}, {self.level:.0%}</small>"


def undefined(reason: str, n: int, level: Number = LEVEL) -> Estimate:
    """An estimate without a number."""
    return Estimate(math.nan, math.nan, math.nan, n, math.nan, float(level), reason)


def bootstrap(
    statistic: Callable[..., Shaped[np.ndarray, " resamples"]],
    *arrays: Shaped[np.ndarray, " problems"],
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: Number = LEVEL,
) -> Estimate:
    """Interval of a function of means over problems, such as a ratio of sums.

    Args:
        statistic: takes the mean of each array, as vectors over resamples, and returns a vector.
        arrays: one number a problem; all in the same order, so that resamples are paired.
        seed: fixes the resamples, together with the number of problems.
        resamples: how many; 2,000 put the ends of a 95% interval within about 3% of its width.
        level: of the interval.

    >>> right, asked = np.array([1, 2, 0, 1] * 10), np.array([2, 2, 2, 2] * 10)
    >>> bootstrap(lambda r, a: r / a, right, asked).value
    0.5

    Raises:
        Refusal: arrays of unequal length, NaN, or fewer than two problems.
    """
    columns = _checked(arrays)

    def of_weights(weights: np.ndarray) -> np.ndarray:
        total = weights.sum(axis=1)
        return statistic(*(weights @ column / total for column in columns))

    return bootstrap_weights(
        of_weights, len(columns[0]), seed=seed, resamples=resamples, level=level
    )


def bootstrap_weights(
    statistic: Statistic,
    n: int,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: Number = LEVEL,
) -> Estimate:
    """Interval of any statistic that can weight `n` problems, for instance an AUC.

    Undefined where the statistic is not finite on all problems, or in 1% of the resamples or
    more (too few problems carry it); rarer failures are left out.
    """
    if n < 2:
        raise Refusal(f"{n} problem(s) give no interval; two is the least, dozens are wanted.")
    if not 0 < level < 1:
        raise Refusal(f"level {level} is no confidence level; it lies between 0 and 1, like 0.95.")
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(np.ones((1, n)))[0])
        rng = np.random.default_rng(seed)
        drawn = (_counts(rng, size, n) for size in _blocks(resamples, n))
        draws = np.concatenate([statistic(weights) for weights in drawn])
        left_out = [_leave_one_out(start, size, n) for start, size in _starts(_blocks(n, n))]
        jackknife = np.concatenate([statistic(weights) for weights in left_out])
    if not math.isfinite(value):
        return undefined("it divides by zero on these problems", n, level)
    lost = 1 - np.isfinite(draws).mean()
    if lost >= 0.01 or not np.isfinite(jackknife).all():
        return undefined("too few problems carry it: some resamples have none", n, level)
    draws = draws[np.isfinite(draws)]
    low, high = np.quantile(draws, _bca(draws, value, jackknife, level))
    return Estimate(value, float(low), float(high), n, float(draws.std(ddof=1)), float(level))


def bootstrap_counts(
    n: int, *, seed: int = 0, resamples: int = RESAMPLES
) -> Float[np.ndarray, "resamples n"]:
    """How often each of `n` problems is drawn in each of the resamples of all functions here."""
    rng = np.random.default_rng(seed)
    return np.concatenate([_counts(rng, size, n) for size in _blocks(resamples, n)])


def rate(
    values: Shaped[np.ndarray, " problems"], *, seed: int = 0, level: Number = LEVEL
) -> Estimate:
    """Mean of one rate in 0..1 a problem (a pass@k, a share of right answers).

    Where fewer than ten problems are above 0, or below 1, the interval is `exact_rate` of the sum
    of rates among as many trials as there are problems. For rates that are 0 or 1 this is exact;
    for others it is too wide, since among variables of the same mean these vary most.
    """
    values = _within(values, 0, 1)
    if min((values > 0).sum(), (values < 1).sum()) >= FEW:
        return bootstrap(lambda mean: mean, values, seed=seed, level=level)
    _checked((values,))
    return exact_rate(float(values.sum()), len(values), level=level)


def difference(
    after: Shaped[np.ndarray, " problems"],
    before: Shaped[np.ndarray, " problems"],
    *,
    seed: int = 0,
    level: Number = LEVEL,
) -> Estimate:
    """`after` − `before` of rates in 0..1, paired by problem.

    Where fewer than ten problems differ, the mean rise and the mean fall are each bounded as in
    `rate`, at half the error, and the ends of the two intervals subtracted: wide, and never of
    width 0 because no problem happened to differ.
    """
    after, before = _checked((_within(after, 0, 1), _within(before, 0, 1)))
    change = after - before
    if (change != 0).sum() >= FEW and (abs(change) != 1).sum() >= FEW:
        return bootstrap(lambda mean: mean, change, seed=seed, level=level)
    n, half = len(change), (1 + level) / 2
    rise = exact_rate(float(np.maximum(change, 0).sum()), n, level=half)
    fall = exact_rate(float(np.maximum(-change, 0).sum()), n, level=half)
    low, high = rise.low - fall.high, rise.high - fall.low
    se = _half_width_error(low, high, level)
    return Estimate(float(change.mean()), low, high, n, se, float(level))


def ratio(
    above: Shaped[np.ndarray, " problems"],
    below: Shaped[np.ndarray, " problems"],
    *,
    seed: int = 0,
    level: Number = LEVEL,
) -> Estimate:
    """Mean of `above` over mean of `below`, paired; undefined where `below` may be zero."""
    return _share(above, below, "the denominator", seed, level)


def recovered(
    steered: Shaped[np.ndarray, " problems"],
    base: Shaped[np.ndarray, " problems"],
    tuned: Shaped[np.ndarray, " problems"],
    *,
    seed: int = 0,
    level: Number = LEVEL,
) -> Estimate:
    """Signed share of the gap from base to tuned that the steered model closes.

    (steered − base) / (tuned − base) over the same problems: 1 is the whole gap, above 1 more,
    below 0 a move the wrong way; no absolute value and no clipping (both were used in Venhoff et
    al. 2510.07364 v1). Undefined where the gap's own interval holds 0: noise has no shares.
    """
    steered, base, tuned = _checked((steered, base, tuned))
    return _share(steered - base, tuned - base, "the gap", seed, level)


def exact_rate(successes: Number, trials: int, *, level: Number = LEVEL) -> Estimate:
    """Clopper and Pearson's (1934) interval of one binomial rate: covers at least `level`.

    A fractional number of successes interpolates (see `rate`).

    >>> str(exact_rate(0, 200))
    '0.000 [0.000, 0.018]'
    """
    _check_trials(successes, trials)
    tail = (1 - level) / 2
    low = special.betaincinv(successes, trials - successes + 1, tail) if successes > 0 else 0.0
    high = (
        special.betaincinv(successes + 1, trials - successes, 1 - tail)
        if successes < trials
        else 1.0
    )
    return Estimate(
        float(successes / trials),
        float(low),
        float(high),
        trials,
        _half_width_error(float(low), float(high), level),
        float(level),
    )


def wilson(successes: Number, trials: int, *, level: Number = LEVEL) -> Estimate:
    """Wilson's (1927) score interval of one binomial rate: covers `level` on average.

    Narrower than `exact_rate`; for a rule that must hold in the worst case take that one.
    """
    _check_trials(successes, trials)
    z = float(special.ndtri((1 + level) / 2))
    share, spread = successes / trials, z * z / trials
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Estimate(float(share), float(low), float(high), trials, half / z, float(level))


def detection_limit(trials: int, *, level: Number = LEVEL) -> float:
    """The largest rate that `trials` without one success leave possible (one-sided, exact).

    1 − (1 − level)^(1/trials): about 3/trials at 95%, the rule of three.

    >>> round(detection_limit(1000), 5)
    0.00299
    """
    _check_trials(0, trials)
    return -math.expm1(math.log1p(-level) / trials)


def equivalent(change: Estimate, margin: Number) -> bool:
    """Whether a difference is shown to lie within ±`margin`: two one-sided tests (Schuirmann 1987).

    True where the whole interval does, so with a 95% interval each side is tested at 2.5%. False
    means not shown, not that there is a difference: that is `change.excludes(0)`.
    """
    if not margin > 0:
        raise Refusal(f"margin {margin} leaves no room; state the change that would matter, > 0.")
    return bool(change.defined and -margin < change.low and change.high < margin)


def detectable(change: Estimate, *, power: float = 0.8) -> float:
    """The smallest true difference that such a comparison would find with this power.

    (z of the level + z of the power) standard errors: 2.80 of them at 95% and 80%. NaN where the
    comparison is undefined.
    """
    return float(special.ndtri((1 + change.level) / 2) + special.ndtri(power)) * change.se


def _share(
    above: np.ndarray, below: np.ndarray, denominator: str, seed: int, level: Number
) -> Estimate:
    above, below = _checked((above, below))
    whole = bootstrap(lambda mean: mean, below, seed=seed, level=level)
    if not whole.excludes(0.0):
        return undefined(f"{denominator} is {whole}, not told from 0", len(below), level)
    return bootstrap(lambda a, b: a / b, above, below, seed=seed, level=level)


def _bca(
    draws: np.ndarray, value: float, jackknife: np.ndarray, level: Number
) -> Float[np.ndarray, " 2"]:
    """The quantiles of the resamples that bound the interval (Efron 1987, equation 6.8)."""
    below = ((draws < value).sum() + (draws == value).sum() / 2 + 0.5) / (len(draws) + 1)
    bias = special.ndtri(below)
    influence = jackknife.mean() - jackknife
    scale = 6 * (influence @ influence) ** 1.5
    # Rounding leaves an influence of 1e-17 where there is none; its skewness would be noise.
    skewed = scale > 1e-30 * max(1.0, abs(value)) ** 3
    acceleration = (influence**3).sum() / scale if skewed else 0.0
    z = bias + special.ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
    return special.ndtr(bias + z / (1 - acceleration * z))


def _counts(rng: np.random.Generator, size: int, n: int) -> np.ndarray:
    """How often each problem is drawn, in `size` resamples."""
    drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(float)


def _leave_one_out(start: int, size: int, n: int) -> np.ndarray:
    weights = np.ones((size, n))
    weights[np.arange(size), np.arange(start, start + size)] = 0
    return weights


def _blocks(rows: int, n: int) -> list[int]:
    """Sizes of the blocks in which `rows` weightings of `n` problems are made."""
    size = max(1, min(rows, _BLOCK // n))
    return [min(size, rows - start) for start in range(0, rows, size)]


def _starts(sizes: list[int]) -> list[tuple[int, int]]:
    return [(sum(sizes[:i]), size) for i, size in enumerate(sizes)]


def _checked(arrays: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    columns = tuple(np.asarray(a, dtype=float) for a in arrays)
    lengths = [column.shape for column in columns]
    if len(set(lengths)) != 1 or columns[0].ndim != 1:
        raise Refusal(
            f"arrays of shapes {lengths} can't be paired: give one number a problem, of the same "
            f"problems in the same order."
        )
    if len(columns[0]) < 2:
        raise Refusal(
            f"{len(columns[0])} problem(s) give no interval; two is the least, dozens are wanted."
        )
    if bad := sum(int((~np.isfinite(column)).sum()) for column in columns):
        raise Refusal(
            f"{bad} of the numbers are NaN or infinite: leave a problem that was not measured out "
            f"of every array, don't fill it in."
        )
    return columns


def _within(values: np.ndarray, low: Number, high: Number) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.size and not (np.nanmin(values) >= low and np.nanmax(values) <= high):
        raise Refusal(
            f"rates from {values.min():g} to {values.max():g}: each lies in {low:g}..{high:g} "
            f"(counts must be divided by the number of answers)."
        )
    return values


def _check_trials(successes: Number, trials: int) -> None:
    if trials < 1 or not 0 <= successes <= trials:
        raise Refusal(f"{successes} successes of {trials} trials: give 0..trials, and trials >= 1.")


def _half_width_error(low: float, high: float, level: Number) -> float:
    """The standard error of which a normal interval would be this wide."""
    return (high - low) / 2 / float(special.ndtri((1 + level) / 2))
