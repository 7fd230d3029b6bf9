"""Directions at every site and by every method, and the one to use."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from probes.directions.auc import CHOOSE, FIT, REPORT, auc, auc_interval, check_marks, thirds
from probes.directions.fit import METHODS, fit
from probes.directions.vectors import Direction, Source
from probes.records import Refusal, parse_site

NULLS = 20
"""Shuffles of the labels behind each null: their 95% quantile is then about the largest but one."""


def find(
    activations: Mapping[str, Float[np.ndarray, "n _"]],
    y: Shaped[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"],
    *,
    strategy: str,
    source: Source,
    methods: Iterable[str] = tuple(METHODS),
    norms: Mapping[str, float] | None = None,
    nulls: int = NULLS,
    seed: int = 0,
) -> list[Direction]:
    """A direction for each site and method, each judged on problems it never met.

    Args:
        activations: of each full site name, the activations at the marked positions; read one
            at a time, so the mapping may load them on demand.
        y: 1 where the decision used the strategy.
        groups: the problem of each row.
        strategy: its name.
        source: which model and task.
        methods: some of `fit.METHODS`.
        norms: the mean norm at each site, if measured on more than these rows.
        nulls: how many shuffles of the labels.
        seed: of the thirds, the shuffles and the resamples.
    """
    found = []
    for place, x in activations.items():
        layer, site = parse_site(place)
        check_marks(x, y, groups, seed)
        norm = norms[place] if norms else float(np.linalg.norm(x.astype(float), axis=1).mean())
        data = _data_hash(x, y, groups)
        for method in methods:
            vector, evidence = _judged(x, y, groups, method, nulls, seed)
            direction = Direction(
                vector=vector.astype(np.float32),
                layer=layer,
                site=site,
                strategy=strategy,
                method=method,
                norm=norm,
                **evidence,
                rows=len(y),
                positives=int(y.astype(bool).sum()),
                problems=len(np.unique(groups)),
                model=source.model,
                task=source.task,
                data=data,
                seed=seed,
            )
            found.append(direction)
    return found


def choose(directions: Sequence[Direction]) -> Direction:
    """The one that is best on the third kept for choosing; the first of equals."""
    if not directions:
        raise Refusal("there are no directions to choose from.")
    return max(directions, key=lambda direction: direction.auc_choice)


def _judged(
    x: np.ndarray, y: np.ndarray, groups: np.ndarray, method: str, nulls: int, seed: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """The direction fitted on the first third, and its AUCs on the other two."""
    part = thirds(groups, seed)
    first, second, last = (part == third for third in (FIT, CHOOSE, REPORT))
    vector = fit(x[first], y[first], groups[first], method)
    report = auc_interval(x[last].astype(float) @ vector, y[last], groups[last], seed=seed)
    rng = np.random.default_rng(seed)
    shuffled = []
    for _ in range(nulls):
        labels = rng.permutation(y[first])
        try:
            null = fit(x[first], labels, groups[first], method)
        except Refusal:
            continue  # pca, where the shuffle left hardly a problem with both classes
        shuffled.append(auc(x[last].astype(float) @ null, y[last]))
    return vector, {
        "reason": report.reason,
        "auc": report.value,
        "auc_low": report.low,
        "auc_high": report.high,
        "auc_choice": auc(x[second].astype(float) @ vector, y[second]),
        "null_mean": float(np.mean(shuffled)) if shuffled else float("nan"),
        "null_high": float(np.quantile(shuffled, 0.95)) if shuffled else float("nan"),
    }


def _data_hash(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in (x, y.astype(np.uint8)):
        digest.update(f"{part.dtype} {part.shape}".encode())
        digest.update(np.ascontiguousarray(part).tobytes())
    digest.update("\n".join(map(str, groups)).encode())
    return digest.hexdigest()
