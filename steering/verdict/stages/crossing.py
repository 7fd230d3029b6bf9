"""When or how: one model takes the decisions, the other executes them."""

from typing import Any

from probes.records import Measurement
from steering.evaluate import Judged, save_judged
from steering.routing import CELLS, CONTROLS, cross, pooled, when_or_how
from steering.verdict.context import Context
from steering.verdict.running import Progress
from steering.verdict.stages.rollouts import BATCH


def run(context: Context, tick: Any) -> list[Measurement]:
    """The four cells, their controls and the three numbers, by skill and half, and over skills."""
    settings = context.settings
    total = len(context.test) * settings.crossed_samples * len((*CELLS[1:3], *CONTROLS))
    judged = cross(
        *context.pair,
        context.task,
        context.test,
        samples=settings.crossed_samples,
        seed=settings.seed,
        plain=(context.rollouts("base"), context.rollouts("tuned")),
        batch=BATCH,
        progress=Progress(tick, total),
    )
    crossed = [s for s in {r.setting for r in judged.rollouts} if s not in (CELLS[0], CELLS[3])]
    pairs = zip(judged.rollouts, judged.graded, strict=True)
    kept = [(r, g) for r, g in pairs if r.setting in crossed]
    rollouts, graded = zip(*kept, strict=True)
    save_judged(context.file("rollouts-crossed.parquet"), Judged(judged.problems, rollouts, graded))
    return when_or_how(judged, seed=settings.seed) + pooled(judged, seed=settings.seed)
