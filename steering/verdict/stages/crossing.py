"""When or how: one model takes the decisions, the other executes them."""

from typing import Any

from probes.intervals import difference
from probes.measurements import row
from probes.records import Measurement, unique
from steering.evaluate import Judged, save_judged
from steering.routing import CELLS, CONTROLS, cross, when_or_how
from steering.routing.when_or_how import DECISIONS, RANDOM, interaction
from steering.verdict.context import Context
from steering.verdict.stages.rollouts import BATCH


def run(context: Context, tick: Any) -> list[Measurement]:
    """The four cells, their controls and the three numbers, by skill and half, and over skills."""
    settings = context.settings
    total, done = len(context.test) * settings.crossed_samples * len((*CELLS[1:3], *CONTROLS)), 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        tick(done, total)

    judged = cross(
        *context.pair,
        context.task,
        context.test,
        samples=settings.crossed_samples,
        seed=settings.seed,
        plain=(context.rollouts("base"), context.rollouts("tuned")),
        batch=BATCH,
        progress=progress,
    )
    crossed = [s for s in {r.setting for r in judged.rollouts} if s not in (CELLS[0], CELLS[3])]
    pairs = zip(judged.rollouts, judged.graded, strict=True)
    kept = [(r, g) for r, g in pairs if r.setting in crossed]
    rollouts, graded = zip(*kept, strict=True)
    save_judged(context.file("rollouts-crossed.parquet"), Judged(judged.problems, rollouts, graded))
    return when_or_how(judged, seed=settings.seed) + pooled(judged, settings.seed)


def pooled(judged: Judged, seed: int) -> list[Measurement]:
    """The numbers of valid answers over all skills, by half of the entries: skill is ""."""
    rows = []
    for part in unique([p.part for p in judged.problems]):
        about: dict[str, Any] = {"part": part, "model": "tuned - base"}
        bb, tb, bt, tt = (judged.rates("valid", setting=cell, part=part) for cell in CELLS)
        null, _ = (judged.rates("valid", setting=control, part=part) for control in CONTROLS)
        terms = [
            ("gain", difference(tt, bb, seed=seed), DECISIONS),
            ("deployment", difference(tb, bb, seed=seed), DECISIONS),
            ("execution", difference(bt, bb, seed=seed), DECISIONS),
            ("interaction", interaction(bb, tb, bt, tt, seed=seed), DECISIONS),
            ("deployment", difference(null, bb, seed=seed), RANDOM),
            ("deployment", difference(tb, null, seed=seed), f"{DECISIONS} - {RANDOM}"),
        ]
        rows += [row(f"{name} valid", e, setting=setting, **about) for name, e, setting in terms]
    return rows
