"""Three ways to a direction, each from marked activations to a unit vector.

All point towards y = 1. They differ in what they trust: the difference of means weighs every
coordinate by how far the classes lie apart; the logistic probe also by how noisy it is, and so
predicts best and steers worst, for it may lean on a quiet coordinate that does nothing; the
principal component of differences within problems ignores what varies between problems.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Shaped

from probes.records import Refusal

Method = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""From activations (n, d), labels (n,) and problems (n,) to a vector (d,) of any length."""

PENALTY = 1.0
"""scikit-learn's C of the logistic probe; coordinates have unit variance."""


def fit(
    x: Float[np.ndarray, "n d"],
    y: Shaped[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"],
    method: str,
) -> Float[np.ndarray, " d"]:
    """The direction of one method, at unit length.

    Args:
        x: activations, one row a marked position.
        y: 1 where the strategy was used, else 0.
        groups: the problem of each row.
        method: one of `METHODS`.

    Raises:
        Refusal: an unknown method, or no direction: the classes are alike in every coordinate.
    """
    if method not in METHODS:
        raise Refusal(f"method {method!r} is not known; there are {', '.join(METHODS)}.")
    vector = METHODS[method](x.astype(np.float64), y.astype(bool), groups)
    length = np.linalg.norm(vector)
    if not length > 0:
        raise Refusal(f"{method} finds no direction: the two classes have the same activations.")
    return vector / length


def difference(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> np.ndarray:  # noqa: ARG001
    """Mean with the strategy minus mean without (Marks and Tegmark 2310.06824, section 5)."""
    return x[y].mean(axis=0) - x[~y].mean(axis=0)


def pca(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """First principal component of the differences within problems (Zou et al. 2310.01405).

    A problem with both classes gives one difference of means; the component is of their second
    moments about 0 (centring them would remove the very shift that is looked for). Its sign, which
    a component doesn't have, is that of their mean.
    """
    both = [g for g in np.unique(groups) if len(np.unique(y[groups == g])) == 2]
    if len(both) < 2:
        raise Refusal(
            f"pca takes differences within problems, and {len(both)} problem(s) hold both the "
            f"strategy and its absence: sample more answers to each, or use another method."
        )
    apart = np.stack([difference(x[groups == g], y[groups == g], groups) for g in both])
    component = np.linalg.svd(apart, full_matrices=False)[2][0]
    return component * (1.0 if (apart @ component).sum() >= 0 else -1.0)


def logistic(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> np.ndarray:  # noqa: ARG001
    """Weights of a logistic probe on standardised activations, folded back to the raw space.

    Columns of zeros and ones (identities) keep their scale: at unit variance a token that was seen
    once would hardly be penalised.
    """
    from sklearn.linear_model import LogisticRegression

    binary = ((x == 0) | (x == 1)).all(axis=0)
    scale = np.where(binary, 1.0, x.std(axis=0))
    scale[scale == 0] = 1.0
    # Centring moves the intercept only, but unscaled offsets would slow the solver down.
    standard = (x - x.mean(axis=0)) / scale
    probe = LogisticRegression(C=PENALTY, max_iter=1000, tol=1e-5).fit(standard, y)
    return probe.coef_[0] / scale


METHODS: dict[str, Method] = {"difference": difference, "pca": pca, "logistic": logistic}
