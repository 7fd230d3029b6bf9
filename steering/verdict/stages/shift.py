"""How far tuning moved the activations, on the texts of either model."""

from typing import Any

from probes.capture import from_rollouts
from probes.drift import drift
from probes.drift.rows import shift_rows
from probes.records import Measurement
from steering.verdict.context import MODELS, Context

TEXTS = 200
"""Of each model: enough for a mean."""


def run(context: Context, tick: Any) -> list[Measurement]:
    """Distance, cosine and norms, by layer and by whose texts they are."""
    base, tuned = context.pair
    rows = []
    for i, which in enumerate(MODELS):
        judged = context.selected(which)
        stride = max(1, len(judged.rollouts) // TEXTS)
        texts = from_rollouts(base, judged.problems, judged.rollouts[::stride])
        rows += shift_rows(
            drift(base, tuned, texts, seed=context.settings.seed), MODELS, f"{which}'s texts"
        )
        tick(i + 1, len(MODELS))
    return rows
