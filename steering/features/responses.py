"""What the answers of features and their controls come to, as rows.

One set of `Measurement`s for each feature and strength x:

    measure     right, valid (where the task checks traces), length (tokens of an answer), cut off
                (at the budget), option rate of KIND; and "right gain", "valid gain", "length gain"
    kind        "feature 17"; "" of the unsteered rows, which have no x either
    setting     feature, random feature, random direction, length-matched, unsteered; of a gain,
                "feature - random feature" and so on, paired by problem
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from probes.intervals import Estimate, bootstrap, difference, rate, undefined
from probes.measurements import row
from probes.records import Measurement
from probes.strategies import mark, shares
from probes.tasks import Task
from steering.evaluate import Judged
from steering.features.length import matched
from steering.interventions import Operation

FEATURE, ALIKE, RANDOM, LENGTH, PLAIN = (
    "feature",
    "random feature",
    "random direction",
    "length-matched",
    "unsteered",
)


@dataclass(frozen=True)
class Arm:
    """One setting that is sampled."""

    kind: str
    control: str
    x: float
    draw: int
    operations: tuple[Operation, ...]
    note: str = ""

    @property
    def name(self) -> str:
        """As `Rollout.setting` holds it."""
        return f"{self.kind}|{self.control}|{self.x:g}|{self.draw}"


@dataclass(frozen=True, eq=False)
class Columns:
    """Of each problem, the mean of an arm's answers; in the order of the problems."""

    rates: dict[str, Float[np.ndarray, " problems"]]
    """Of right answers, and of valid ones where the task checks traces."""
    length: Float[np.ndarray, " problems"]
    cut: Float[np.ndarray, " problems"]


def columns(draws: Sequence[Judged]) -> Columns:
    """The means of one arm, or over all draws of a control."""
    rates: dict[str, list] = {}
    tables = []
    for judged in draws:
        place = {p.id: i for i, p in enumerate(judged.problems)}
        total = np.zeros((3, len(place)))
        for rollout in judged.rollouts:
            total[:, place[rollout.problem]] += 1, len(rollout.tokens), rollout.stop == "length"
        for which in judged.ways:
            rates.setdefault(which, []).append(judged.rates(which))
        tables.append([total[1] / total[0], total[2] / total[0]])
    return Columns({w: np.mean(r, axis=0) for w, r in rates.items()}, *np.mean(tables, axis=0))


def measurements(
    task: Task, judged: Judged, arms: Sequence[Arm], *, seed: int, about: dict[str, str]
) -> list[Measurement]:
    """The rows of the module's docstring, of answers to every arm and to None."""
    plain = [judged.where(setting=None)]
    base = columns(plain)
    rows = _alone(task, plain, base, seed, {**about, "setting": PLAIN})
    biased = [arm.name for arm in arms if arm.control == LENGTH]
    lengths = [base, *(columns([judged.where(setting=name)]) for name in biased)]
    places = dict.fromkeys((arm.kind, arm.x) for arm in arms if arm.kind)
    for kind, x in places:
        here = [arm for arm in arms if (arm.kind, arm.x) == (kind, x)]
        found: dict[str, Columns] = {PLAIN: base}
        for control in (FEATURE, ALIKE, RANDOM):
            mine = [arm for arm in here if arm.control == control]
            draws = [judged.where(setting=arm.name) for arm in mine]
            found[control] = columns(draws)
            said: dict[str, Any] = {**about, "kind": kind, "x": x, "note": mine[0].note}
            rows += _alone(task, draws, found[control], seed, {**said, "setting": control})
        rows += _beside(found, lengths, seed, {**about, "kind": kind, "x": x})
    return rows


def _alone(
    task: Task, draws: Sequence[Judged], found: Columns, seed: int, about: dict[str, Any]
) -> list[Measurement]:
    """What one arm, or a control in all its draws, comes to."""
    measured = {
        **{which: rate(values, seed=seed) for which, values in found.rates.items()},
        "length": bootstrap(lambda mean: mean, found.length, seed=seed),
        "cut off": rate(found.cut, seed=seed),
    }
    marked = [one for j in draws for one in mark(task, j.problems, j.rollouts)]
    used = {kind: next(iter(options)) for kind, options in task.decision_kinds.items()}
    found_shares = shares(marked, task.decision_kinds, seed=seed)
    of_kind = {one.kind: one.estimate for one in found_shares if one.choice == used[one.kind]}
    for kind in used:
        never = undefined("this decision never came up", 0)
        measured[f"option rate of {kind}"] = of_kind.get(kind, never)
    return [row(measure, estimate, **about) for measure, estimate in measured.items()]


def _beside(
    found: dict[str, Columns], lengths: Sequence[Columns], seed: int, about: dict[str, Any]
) -> list[Measurement]:
    """How far the feature is from each control, paired by problem; and the control of length."""
    rows, own = [], found[FEATURE]
    for which, value in own.rates.items():
        for control, other in found.items():
            if control != FEATURE:
                gain = difference(value, other.rates[which], seed=seed)
                rows.append(_gain(which, control, gain, about))
        arms = [(one.length, one.rates[which]) for one in lengths]
        as_long, gain = matched(own.length, value, arms, seed=seed)
        rows.append(row(which, as_long, setting=LENGTH, **about))
        rows.append(_gain(which, LENGTH, gain, about))
    for control, other in found.items():
        if control != FEATURE:
            longer = bootstrap(lambda a, b: a - b, own.length, other.length, seed=seed)
            rows.append(_gain("length", control, longer, about))
    return rows


def _gain(which: str, control: str, gain: Estimate, about: dict[str, Any]) -> Measurement:
    return row(f"{which} gain", gain, setting=f"{FEATURE} - {control}", **about)
