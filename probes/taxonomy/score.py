"""How well categories agree with the known kinds of steps, with baselines and intervals.

    scores(found, steps.kinds, steps.problems)["ari"]       # 0.61 [0.57, 0.66]

    ari      Hubert and Arabie's (1985) adjusted Rand index: 1 the same partition, 0 chance
    nmi      mutual information over the mean of the two entropies
    purity   share of steps whose kind is the commonest of their category

Chance is not 0 for nmi and purity, and purity rises with the number of categories: read both beside
the random assignment, which has the same sizes. Intervals resample problems: a problem drawn
twice counts twice in the table of categories against kinds. That makes resamples agree by chance a
little more than the data do: near chance the interval of nmi can lie above its value.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from probes.intervals import Estimate, bootstrap_weights
from probes.records import Refusal
from probes.taxonomy.record import Taxonomy
from probes.taxonomy.steps import Steps

Table = Float[np.ndarray, "*resamples found known"]


def contingency(
    found: Int[np.ndarray, " steps"],
    kinds: Shaped[np.ndarray, " steps"],
    problems: Shaped[np.ndarray, " steps"],
) -> Float[np.ndarray, "problems found known"]:
    """How many steps of each problem are of each category and each known kind.

    Raises:
        Refusal: arrays of unequal length, or no step.
    """
    if not len(found) == len(kinds) == len(problems) or not len(found):
        raise Refusal(f"{len(found)} categories, {len(kinds)} kinds, {len(problems)} problems.")
    rows = [np.unique(a, return_inverse=True)[1] for a in (problems, found, kinds)]
    table = np.zeros([row.max() + 1 for row in rows])
    np.add.at(table, tuple(rows), 1.0)
    return table


def adjusted_rand(table: Table) -> Any:
    """Hubert and Arabie (1985), equation 5; nan where chance is the most that is possible."""
    cells = _pairs(table).sum((-2, -1))
    found, known = _pairs(table.sum(-1)).sum(-1), _pairs(table.sum(-2)).sum(-1)
    chance = found * known / _pairs(table.sum((-2, -1)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (cells - chance) / ((found + known) / 2 - chance)


def mutual_information(table: Table) -> Any:
    """Normalised by the arithmetic mean of the two entropies; nan where both are 0."""
    share = table / table.sum((-2, -1), keepdims=True)
    found, known = _entropy(share.sum(-1)), _entropy(share.sum(-2))
    joint = _entropy(share.reshape(*share.shape[:-2], -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return 2 * (found + known - joint) / (found + known)


def purity(table: Table) -> Any:
    """Share of steps whose known kind is the commonest of their category."""
    return table.max(-1).sum(-1) / table.sum((-2, -1))


SCORES: dict[str, Callable[[Table], Any]] = {
    "ari": adjusted_rand,
    "nmi": mutual_information,
    "purity": purity,
}


def scores(
    found: Int[np.ndarray, " steps"],
    kinds: Shaped[np.ndarray, " steps"],
    problems: Shaped[np.ndarray, " steps"],
    *,
    seed: int = 0,
) -> dict[str, Estimate]:
    """The three scores, each with its interval over problems."""
    table = contingency(found, kinds, problems)
    flat = table.reshape(len(table), -1)

    def of(score: Callable[[Table], Any]) -> Estimate:
        return bootstrap_weights(
            lambda weights: score((weights @ flat).reshape(-1, *table.shape[1:])),
            len(table),
            seed=seed,
        )

    return {name: of(score) for name, score in SCORES.items()}


def assignments(
    taxonomy: Taxonomy, fitted_to: Steps, steps: Steps, *, seed: int = 0
) -> dict[str, Int[np.ndarray, " steps"]]:
    """Categories of steps by the taxonomy, and by both baselines of the same number of categories.

    "k-means" is fitted to the same prepared activations as the taxonomy was; "random" permutes the
    taxonomy's own categories among the steps, so the sizes are the same.

    Args:
        taxonomy: fitted to `fitted_to`.
        fitted_to: what k-means is fitted to as well.
        steps: what is sorted.
        seed: of both baselines.
    """
    from sklearn.cluster import KMeans

    means = KMeans(len(taxonomy.encoder), n_init=10, random_state=seed)  # type: ignore[arg-type]
    means.fit(taxonomy.prepared(fitted_to.values[taxonomy.site]).numpy())
    x = steps.values[taxonomy.site]
    found = taxonomy.category(x).numpy()
    return {
        "taxonomy": found,
        "k-means": np.asarray(means.predict(taxonomy.prepared(x).numpy())),
        "random": np.random.default_rng(seed).permutation(found),
    }


def _pairs(count: Float[np.ndarray, "..."] | np.floating) -> Any:
    return count * (count - 1) / 2


def _entropy(share: Float[np.ndarray, "..."]) -> Any:
    return -(share * np.log(np.where(share > 0, share, 1.0))).sum(-1)
