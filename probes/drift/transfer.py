"""A strategy's direction before tuning and after, and what each model's probe reads in the other.

    angle(base, tuned, used, problems).cosine       # 0.91 [0.88, 0.93], beside its null and ceiling
    transfer(base, tuned, used, problems).moved     # AUC of the base's probe on the tuned model

Both models read the same texts (`reading.marks`), so the labels are the same and only activations
differ. A cosine needs both of its ends: shuffled labels give directions that are far from
orthogonal (all of them point along whatever varies most), and two halves of the problems give
directions of one model that are far from parallel.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from probes.directions import auc, auc_interval, fit, thirds
from probes.directions.auc import FIT, REPORT, check_marks
from probes.intervals import Estimate, bootstrap_weights, undefined

SPLITS = 100
"""Random halves of the problems behind a ceiling."""
SHUFFLES = 200
"""Of the labels, behind the null of a cosine."""
NULLS = 20
"""Of the labels, behind the null of an AUC: each costs a probe."""
LEVEL = 0.95


@dataclass(frozen=True)
class Angle:
    """Cosine of two models' directions (difference of means) for one strategy at one site."""

    cosine: Estimate
    """All problems, both models on the same rows, so that their noise is in part the same."""
    halves: Estimate
    """The base's direction from one half of the problems, the tuned model's from the other; mean
    over splits, and the 95% of them that lie in the middle."""
    ceiling: Estimate
    """The same of the base with itself: what `halves` would be, had tuning done nothing."""
    turn: Estimate
    """`halves` − `ceiling`, paired by split: what tuning took away beyond noise."""
    shuffled: Estimate
    """The base's direction and one from shuffled labels; mean, and the middle 95%."""


@dataclass(frozen=True)
class Transfer:
    """AUCs on held-out problems of one strategy's probes at one site."""

    base: Estimate
    """The base's probe on the base."""
    moved: Estimate
    """The base's probe on the tuned model."""
    back: Estimate
    """The tuned model's probe on the base."""
    tuned: Estimate
    """The tuned model's probe on the tuned model."""
    change: Estimate
    """`tuned` − `base`, paired: the same rows and problems."""
    shuffled: Estimate
    """The base's activations with shuffled labels: mean, and the 95% quantile as `high`."""


def angle(
    before: Float[np.ndarray, "n d"],
    after: Float[np.ndarray, "n d"],
    y: Shaped[np.ndarray, " n"],
    problems: Shaped[np.ndarray, " n"],
    *,
    seed: int = 0,
) -> Angle:
    """How far tuning turned a direction, with its interval, ceiling and null.

    Args:
        before: activations of the base at the marked positions.
        after: of the tuned model, at the same.
        y: 1 where the strategy was used.
        problems: the problem of each row.
        seed: of resamples, splits and shuffles.

    Raises:
        Refusal: what no direction can be had from (`probes.directions`).
    """
    check_marks(before, y, problems, seed)
    x = np.stack([before, after]).astype(float)
    names, codes = np.unique(problems, return_inverse=True)
    sums = np.zeros((2, 2, len(names), x.shape[-1]))  # class, model, problem
    counts = np.zeros((2, len(names)))
    for taken in (0, 1):
        rows = y.astype(int) == taken
        np.add.at(counts[taken], codes[rows], 1)
        for model in (0, 1):
            np.add.at(sums[taken, model], codes[rows], x[model, rows])

    def direction(model: int, w: np.ndarray) -> np.ndarray:
        """(weightings, d): difference of means over weighted problems."""
        means = [w @ sums[taken, model] / (w @ counts[taken])[:, None] for taken in (0, 1)]
        return means[1] - means[0]

    def turned(w: np.ndarray) -> np.ndarray:
        return _cosines(direction(0, w), direction(1, w))

    rng = np.random.default_rng(seed)
    first = np.stack([rng.permutation(len(names)) % 2 for _ in range(SPLITS)]).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        one, two, other = direction(0, first), direction(0, 1 - first), direction(1, 1 - first)
    whole = direction(0, np.ones((1, len(names))))
    return Angle(
        cosine=bootstrap_weights(turned, len(names), seed=seed),
        halves=_middle(_cosines(one, other), len(names)),
        ceiling=_middle(_cosines(one, two), len(names)),
        turn=_middle(_cosines(one, other) - _cosines(one, two), len(names)),
        shuffled=_middle(_shuffled(x[0], y, whole, rng), len(names)),
    )


def _shuffled(
    x: np.ndarray, y: np.ndarray, vector: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    labels = np.stack([rng.permutation(y.astype(float)) for _ in range(SHUFFLES)])
    used = labels.sum(1, keepdims=True)
    nulls = labels @ x / used - (1 - labels) @ x / (len(y) - used)
    return _cosines(vector, nulls)


def _cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return (one * other).sum(-1) / lengths


def _middle(values: np.ndarray, n: int) -> Estimate:
    """Mean and middle 95% of repetitions; not an interval over problems."""
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return undefined("a half of the problems has one class only", n)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Estimate(float(values.mean()), float(low), float(high), n, float(values.std(ddof=1)))


def transfer(
    before: Float[np.ndarray, "n d"],
    after: Float[np.ndarray, "n d"],
    y: Shaped[np.ndarray, " n"],
    problems: Shaped[np.ndarray, " n"],
    *,
    method: str = "logistic",
    nulls: int = NULLS,
    seed: int = 0,
) -> Transfer:
    """AUC of each model's probe on itself and on the other, on problems that neither was fitted on.

    The thirds are those of `probes.directions.find`; nothing is chosen here, so the third that
    choices are made on is not used. The probe is a direction: what tuning added to every row
    (a shift) costs it nothing, and what it rotated does.

    Raises:
        Refusal: as `angle`.
    """
    check_marks(before, y, problems, seed)
    part = thirds(problems, seed)
    first, last = part == FIT, part == REPORT
    held = [x[last].astype(float) for x in (before, after)]
    probes = [fit(x[first], y[first], problems[first], method) for x in (before, after)]

    def of(probe: int, model: int) -> Estimate:
        return auc_interval(held[model] @ probes[probe], y[last], problems[last], seed=seed)

    rng = np.random.default_rng(seed)
    shuffled = [
        auc(held[0] @ fit(before[first], mixed, problems[first], method), y[last])
        for mixed in (rng.permutation(y[first]) for _ in range(nulls))
    ]
    return Transfer(
        base=of(0, 0),
        moved=of(0, 1),
        back=of(1, 0),
        tuned=of(1, 1),
        change=_change(held[1] @ probes[1], held[0] @ probes[0], y[last], problems[last], seed),
        shuffled=_null(shuffled, len(np.unique(problems[last]))),
    )


def _null(shuffled: list[float], n: int) -> Estimate:
    if not shuffled:
        return undefined("no labels were shuffled", n)
    nan = float("nan")
    return Estimate(float(np.mean(shuffled)), nan, float(np.quantile(shuffled, 0.95)), n)


def _change(
    scores: np.ndarray, others: np.ndarray, y: np.ndarray, problems: np.ndarray, seed: int
) -> Estimate:
    """AUC of `scores` minus AUC of `others` on the same rows, paired by problem."""
    names, codes = np.unique(problems, return_inverse=True)
    used = y.astype(bool)
    member = np.eye(len(names))[codes]

    def won(values: np.ndarray) -> np.ndarray:
        return (np.sign(values[used][:, None] - values[~used][None, :]) + 1) / 2

    wins = member[used].T @ (won(scores) - won(others)) @ member[~used]
    pairs = np.outer(member[used].sum(0), member[~used].sum(0))

    def of_weights(w: np.ndarray) -> np.ndarray:
        above, below = (((w @ table) * w).sum(1) for table in (wins, pairs))
        return above / below

    return bootstrap_weights(of_weights, len(names), seed=seed)
