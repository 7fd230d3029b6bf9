"""How far tuning moved the activations, on the texts of either model."""

from typing import Any

from probes.capture import from_rollouts
from probes.drift import drift
from probes.records import Measurement, parse_site
from steering.verdict.context import MODELS, Context
from steering.verdict.rows import row

TEXTS = 200
"""Of each model: enough for a mean."""


def run(context: Context, tick: Any) -> list[Measurement]:
    """Relative norm of the difference and cosine, by layer and by whose texts they are."""
    base, tuned = context.pair
    rows = []
    for i, which in enumerate(MODELS):
        judged = context.selected(which)
        stride = max(1, len(judged.rollouts) // TEXTS)
        texts = from_rollouts(base, judged.problems, judged.rollouts[::stride])
        for shift in drift(base, tuned, texts, seed=context.settings.seed):
            about: dict[str, Any] = {
                "model": "tuned - base",
                "site": shift.site,
                "setting": f"{which}'s texts",
                "x": float(parse_site(shift.site)[0]),
            }
            rows.append(row("activation shift", shift.relative, **about))
            rows.append(row("activation cosine", shift.cosine, **about))
        tick(i + 1, len(MODELS))
    return rows
