"""The values of an axis, and the points that axes span: a grid, axes that move together, a draw.

    spread({"from": -2, "to": 2, "step": 0.5})              # nine strengths
    spread({"from": 0.1, "to": 10, "count": 3, "log": True})   # 0.1, 1, 10
    points(fixed, grid, zipped, budget=200, seed=0)            # one dict a point

Order is that of the file, the last axis fastest. A draw is without replacement, by a generator
keyed by its seed alone, so that a larger budget keeps the points of a smaller one.
"""

import itertools
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from probes.records import Refusal

Point = dict[str, Any]
"""A value for each axis."""

FORMS = (
    "a list; {from, to, step}; {from, to, count}, with log = true for equal ratios; and under "
    "[random] {uniform = [a, b]} or {loguniform = [a, b]}"
)
MOST = 1_000_000
"""Points that a file may span: beyond them it is a slip of a step, not a night's work."""


@dataclass(frozen=True)
class Continuous:
    """An axis that only a draw can take values from."""

    low: float
    high: float
    log: bool

    def at(self, u: float) -> float:
        """The value of which a share `u` lies below."""
        if self.log:
            return float(self.low * (self.high / self.low) ** u)
        return float(self.low + (self.high - self.low) * u)


def spread(given: Any, *, together: bool = False) -> list[Any] | Continuous:
    """The values of one axis.

    >>> spread({"from": -1, "to": 1, "step": 0.5})
    [-1.0, -0.5, 0.0, 0.5, 1.0]
    >>> spread({"from": 0.1, "to": 10, "count": 3, "log": True})
    [0.1, 1.0, 10.0]

    Args:
        given: as it stands in the file.
        together: it moves together with others, so that a value may come again.

    Raises:
        Refusal: none of the forms, no value, or one twice.
    """
    if isinstance(given, list):
        values = list(given)
    elif isinstance(given, Mapping):
        keys = set(given)
        if keys in ({"uniform"}, {"loguniform"}):
            return _continuous(given)
        if keys == {"from", "to", "step"}:
            values = _steps(*(_number(given, k) for k in ("from", "to", "step")))
        elif keys in ({"from", "to", "count"}, {"from", "to", "count", "log"}):
            values = _counted(given)
        else:
            raise Refusal(f"{dict(given)} is no axis; an axis is {FORMS}.")
    else:
        raise Refusal(f"{given!r} is no axis (a single value belongs under [fixed]): {FORMS}.")
    if not values:
        raise Refusal("it has no value: an empty axis makes an empty grid.")
    seen = [repr(float(v) + 0.0 if _is_number(v) else v) for v in values]
    if len(set(seen)) < len(seen) and not together:
        twice = next(v for i, v in enumerate(seen) if v in seen[:i])
        raise Refusal(f"{values[seen.index(twice)]!r} is there twice.")
    return values


def points(
    fixed: Mapping[str, Any],
    grid: Mapping[str, list[Any] | Continuous],
    zipped: Sequence[Mapping[str, list[Any]]],
    *,
    budget: int | None = None,
    seed: int = 0,
) -> Iterator[Point]:
    """Every point, or a draw of them.

    Args:
        fixed: one value of each.
        grid: axes whose product is taken.
        zipped: blocks of axes of equal length that move together; a block is one factor.
        budget: draw so many points instead; None takes all.
        seed: of the draw.

    Raises:
        Refusal: more points than `MOST`, a continuous axis without a budget, or a budget above the
            number of points there are.
    """
    factors: list[list[Point] | tuple[str, Continuous]] = []
    for name, values in grid.items():
        if isinstance(values, Continuous):
            factors.append((name, values))
        else:
            factors.append([{name: v} for v in values])
    for block in filter(None, zipped):
        length = min(map(len, block.values()))
        factors.append([{name: values[i] for name, values in block.items()} for i in range(length)])
    lengths = [len(f) for f in factors if isinstance(f, list)]
    total = math.prod(lengths)
    endless = len(lengths) < len(factors)
    if budget is None:
        if endless:
            raise Refusal("uniform and loguniform axes need a [random] budget: they have no end.")
        if total > MOST:
            raise Refusal(f"the axes span {total:,} points, above {MOST:,}: draw with [random].")
        for at in itertools.product(*map(range, lengths)):
            yield _merged(fixed, factors, at, ())
        return
    if budget > MOST:
        raise Refusal(f"a budget of {budget:,} draws is above {MOST:,}.")
    if not endless and budget > total:
        raise Refusal(f"a budget of {budget:,} draws, and the axes span {total:,} points.")
    if total:
        yield from _drawn(fixed, factors, lengths, budget, seed)


def _drawn(
    fixed: Mapping[str, Any], factors: list, lengths: list[int], budget: int, seed: int
) -> Iterator[Point]:
    rng = np.random.Generator(np.random.Philox(seed))
    ends = len(factors) - len(lengths)
    taken: set[tuple[int, ...]] = set()
    while budget:
        at = tuple(rng.integers(lengths).tolist())
        u = rng.random(ends).tolist()
        if not ends and at in taken:
            continue
        taken.add(at)
        budget -= 1
        yield _merged(fixed, factors, at, u)


def _merged(
    fixed: Mapping[str, Any], factors: list, at: Sequence[int], u: Sequence[float]
) -> Point:
    """The point of these places on the axes, and of these shares of the continuous ones."""
    point = dict(fixed)
    places, shares = iter(at), iter(u)
    for factor in factors:
        if isinstance(factor, list):
            point |= factor[next(places)]
        else:
            name, axis = factor
            point[name] = axis.at(next(shares))
    return point


def _continuous(given: Mapping[str, Any]) -> Continuous:
    ((name, ends),) = given.items()
    log = name == "loguniform"
    if not isinstance(ends, list) or len(ends) != 2 or not all(map(_is_number, ends)):
        raise Refusal(f"{name} = {ends!r}: give its two ends, as in [0.1, 10.0].")
    low, high = map(float, ends)
    if not low < high or (log and low <= 0):
        raise Refusal(f"{name} = {ends}: the first end is below the second, and above 0 for log.")
    return Continuous(low, high, log)


def _steps(low: float, high: float, step: float) -> list[float]:
    """`low` to `high`, both ends included; rounded, so that 0.1 * 3 is 0.3 and 0 is 0."""
    if step <= 0 or high < low:
        raise Refusal(f"from {low:g} to {high:g} in steps of {step:g}: it has no value.")
    steps = (high - low) / step * (1 + 1e-9) + 1e-9
    if steps >= MOST:
        raise Refusal(f"from {low:g} to {high:g} in steps of {step:g} are above {MOST:,} values.")
    count = math.floor(steps) + 1
    return [_round(low + i * step) for i in range(count)]


def _counted(given: Mapping[str, Any]) -> list[float]:
    low, high, count = (_number(given, k) for k in ("from", "to", "count"))
    log = given.get("log", False)
    if not isinstance(log, bool) or count != int(count) or not 1 <= count <= MOST:
        raise Refusal(f"{dict(given)}: count is a whole number from 1, log is true or false.")
    if log and not (low * high > 0):
        raise Refusal(f"from {low:g} to {high:g}: equal ratios need two ends of one sign, not 0.")
    values = np.geomspace(low, high, int(count)) if log else np.linspace(low, high, int(count))
    return [_round(v) for v in values.tolist()]


def _round(value: float) -> float:
    return float(f"{value:.12g}") + 0.0


def _number(given: Mapping[str, Any], key: str) -> float:
    if not _is_number(given[key]):
        raise Refusal(f"{key} = {given[key]!r} is not a number.")
    return float(given[key])


def _is_number(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max  # false for NaN, and for 10**400
