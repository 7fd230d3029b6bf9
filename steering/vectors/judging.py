"""How well trained vectors do at places of problems that nothing was fitted to or chosen on.

Measures: "vector loss", nats at the places of each category and of all (`kind` is "" there), and
"vector agreement", the share of places at which the pushed base chooses the tuned model's token
(it chooses another at every one without a push). Settings: "unsteered", "vectors", whatever
controls are given, and of each "vectors - CONTROL", paired by place. Intervals resample problems.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from probes.intervals import FEW, Estimate, bootstrap, exact_rate, undefined
from probes.measurements import row
from probes.models import Model
from probes.records import Measurement
from steering.vectors.places import Places
from steering.vectors.record import Vectors
from steering.vectors.steered import LOSSES, steered_logits

SHUFFLED, ONE_VECTOR = "shuffled categories", "one vector"
"""Controls: fitted to permuted categories; one vector for all places."""


def judge(
    base: Model,
    vectors: Vectors,
    places: Places,
    *,
    loss: str = "kl",
    controls: Mapping[str, Vectors] | None = None,
    seed: int = 0,
) -> list[Measurement]:
    """Loss and agreement of vectors and controls at test places, by category.

    Args:
        base: what is steered.
        vectors: trained.
        places: of problems that are in no fit.
        loss: "kl" or "ce".
        controls: other vectors, judged at the same places, each under its name; those of a single
            category are used at every place.
        seed: of the resamples.
    """
    arms: dict[str, Vectors | None] = {"unsteered": None, "vectors": vectors, **(controls or {})}
    found = {setting: _at_places(base, arm, places, loss) for setting, arm in arms.items()}
    for control in controls or {}:
        pairs = found["vectors"].items()
        found[f"vectors - {control}"] = {m: v - found[control][m] for m, v in pairs}
    groups = [("", -1), *((name, j) for j, name in enumerate(vectors.names))]
    rows = []
    for setting, per_place in found.items():
        for kind, category in groups:
            of_it = (places.category == category).numpy() if category >= 0 else slice(None)
            about = {"setting": setting, "kind": kind, "site": places.site, "x": float(category)}
            for measure, values in per_place.items():
                estimate = _mean(values[of_it], places.problems[of_it], seed)
                rows.append(row(measure, estimate, **about))
    return rows


def with_losses(vectors: Vectors, rows: list[Measurement]) -> Vectors:
    """The vectors with each category's test loss before and after, as `judge` found them."""
    found = {(r.setting, int(r.x)): r.value for r in rows if r.measure == "vector loss"}
    categories = range(len(vectors.names))
    losses = tuple((found["unsteered", j], found["vectors", j]) for j in categories)
    return replace(vectors, losses=losses)


def _at_places(
    base: Model, vectors: Vectors | None, places: Places, loss: str
) -> dict[str, Float[np.ndarray, " places"]]:
    pushes = None
    if vectors is not None:
        single = len(vectors.names) == 1
        category = torch.zeros_like(places.category) if single else places.category
        pushes = vectors.pushes(category, x=places.x)
    checked = vectors is None or vectors.network is None
    logits = steered_logits(base, places.sequences, places.site, pushes, checked=checked)
    agree = logits.argmax(-1).cpu() == places.top[:, 0]
    return {
        "vector loss": LOSSES[loss](logits, places.top, places.logprobs).cpu().double().numpy(),
        "vector agreement": agree.double().numpy(),
    }


def _mean(values: Float[np.ndarray, " places"], problems: np.ndarray, seed: int) -> Estimate:
    """Mean over places, its interval over problems: a ratio of two sums.

    Of a share that is off the edge in fewer than ten problems, the exact interval of as many trials
    as there are problems, as in `probes.intervals.rate`.
    """
    names, which = np.unique(problems, return_inverse=True)
    if len(names) < 2:
        return undefined(f"{len(names)} problem(s) have such a place", len(names))
    total, count = np.bincount(which, values), np.bincount(which).astype(float)
    share = bool(np.isin(values, (0.0, 1.0)).all())
    if share and min((total > 0).sum(), (total < count).sum()) < FEW:
        return exact_rate(float(values.mean()) * len(names), len(names))
    return bootstrap(lambda t, c: t / c, total, count, seed=seed)
