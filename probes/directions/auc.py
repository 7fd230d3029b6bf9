"""How well a score tells two classes apart on problems that it was not fitted on."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int, Shaped

from probes.directions.fit import fit
from probes.intervals import Estimate, bootstrap_weights
from probes.records import Refusal, content_hash

FIT, CHOOSE, REPORT = 0, 1, 2
"""What each third of the problems is for."""

FEWEST_PROBLEMS = 12
"""Four a third: with fewer, an AUC is an anecdote."""


def auc(scores: Float[np.ndarray, " n"], y: Shaped[np.ndarray, " n"]) -> float:
    """Chance that a row with the strategy scores above one without; a tie counts half.

    >>> auc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([0, 0, 1, 1]))
    0.875
    """
    return float(_of_weights(_wins(scores, y, np.zeros(len(y), int)))(np.ones((1, 1)))[0])


def auc_interval(
    scores: Float[np.ndarray, " n"],
    y: Shaped[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"],
    *,
    seed: int = 0,
) -> Estimate:
    """The AUC of given scores, pooled over problems, with its interval over problems."""
    names, codes = np.unique(groups, return_inverse=True)
    return bootstrap_weights(_of_weights(_wins(scores, y, codes)), len(names), seed=seed)


def auc_by_problem(
    x: Float[np.ndarray, "n d"],
    y: Shaped[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"],
    *,
    method: str = "logistic",
    seed: int = 0,
) -> Estimate:
    """AUC of any features: fitted on one third of the problems, reported on another.

    The thirds are those of `search.find` with the same seed, so that a direction and what stands
    beside it (identities, the decision logit as a single column, another model's activations)
    are fitted and judged on the same rows.
    """
    check_marks(x, y, groups, seed)
    part = thirds(groups, seed)
    vector = fit(x[part == FIT], y[part == FIT], groups[part == FIT], method)
    last = part == REPORT
    return auc_interval(x[last].astype(float) @ vector, y[last], groups[last], seed=seed)


def identities(tokens: Int[np.ndarray, "n last"]) -> Float[np.ndarray, "n features"]:
    """One-hot columns of the token at each of the last places before the decision."""
    columns = [place[:, None] == np.unique(place)[None, :] for place in tokens.T]
    return np.concatenate(columns, axis=1).astype(np.float32)


def thirds(groups: Shaped[np.ndarray, " n"], seed: int = 0) -> Int[np.ndarray, " n"]:
    """Which third each row's problem is in: `FIT`, `CHOOSE` or `REPORT`.

    By the rank of the hash of (seed, problem): the same for every site, method and model, and the
    thirds differ by at most one problem.
    """
    names, codes = np.unique(groups, return_inverse=True)
    rank = np.argsort(np.argsort([content_hash([seed, str(name)]) for name in names]))
    return (rank % 3)[codes]


def check_marks(
    x: Float[np.ndarray, "n d"],
    y: Shaped[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"],
    seed: int = 0,
) -> None:
    """Refuse what no direction can be had from."""
    if not len(x) == len(y) == len(groups):
        raise Refusal(f"{len(x)} rows, {len(y)} labels, {len(groups)} problems: one a row of each.")
    if not len(y):
        raise Refusal("there are no marked positions: the decision never came up.")
    if not np.isin(y, (0, 1)).all():
        raise Refusal(f"labels are 0 or 1, not {np.unique(y)[:5].tolist()}.")
    bad = int((~np.isfinite(x)).any(axis=1).sum())
    if bad:
        raise Refusal(f"{bad} of {len(x)} rows hold NaN or infinity: the activations are broken.")
    used = int(y.astype(bool).sum())
    if used in (0, len(y)):
        raise Refusal(
            f"all {len(y)} labels are {int(used > 0)}: the strategy was "
            f"{'always' if used else 'never'} used, so nothing tells it from its absence. Sample "
            f"more, or another task."
        )
    problems = len(np.unique(groups))
    if problems < FEWEST_PROBLEMS:
        raise Refusal(
            f"{problems} problems: a third each to fit, to choose and to report needs at least "
            f"{FEWEST_PROBLEMS}. Rows of one problem can't stand on two sides."
        )
    part = thirds(groups, seed)
    for name, third in (("fit", FIT), ("choose", CHOOSE), ("report", REPORT)):
        if len(np.unique(y[part == third])) < 2:
            raise Refusal(
                f"the third of the problems to {name} on has one class only ({used} of {len(y)} "
                f"rows use the strategy): too rare here, sample more problems."
            )


def _wins(scores: np.ndarray, y: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """(problems, problems): row-problem's positives over column-problem's negatives, and pairs.

    The first slice counts wins, ties as halves; the second the pairs. An AUC over any weighting of
    the problems is a quotient of two quadratic forms in them, so a resample costs no sorting.
    """
    y = y.astype(bool)
    if y.all() or not y.any():
        raise Refusal(
            f"all {len(y)} labels are {int(y.all()) if len(y) else '?'}: an AUC needs both classes."
        )
    n = int(codes.max()) + 1
    wins = np.zeros((n, n))
    for column in range(n):
        below = np.sort(scores[~y & (codes == column)])
        won = np.searchsorted(below, scores[y], "left") + np.searchsorted(below, scores[y], "right")
        wins[:, column] = np.bincount(codes[y], weights=won / 2, minlength=n)
    pairs = np.outer(np.bincount(codes[y], minlength=n), np.bincount(codes[~y], minlength=n))
    return np.stack([wins, pairs.astype(float)])


def _of_weights(tables: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    def of_weights(weights: np.ndarray) -> np.ndarray:
        won, pairs = (((weights @ table) * weights).sum(axis=1) for table in tables)
        return won / pairs

    return of_weights
