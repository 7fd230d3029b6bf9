"""What sharper decoding of the base alone would gain."""

from typing import Any

from probes.intervals import difference, rate
from probes.measurements import row
from probes.records import Measurement
from steering.decoding import TEMPERATURES, Sharpened, sharpen, sharpening, votes
from steering.verdict.context import Context
from steering.verdict.running import Progress
from steering.verdict.stages.rollouts import BATCH


def run(context: Context, tick: Any) -> list[Measurement]:
    """Valid and right answers of every decoding, by skill and half, and over all."""
    settings = context.settings
    select = len(context.select) * 2 * len(TEMPERATURES)
    total = select + len(context.test) * (2 * settings.crossed_samples + 1)
    answers = sharpen(
        *context.pair,
        context.task,
        context.select,
        context.test,
        samples=settings.crossed_samples,
        plain=(context.rollouts("base"), context.rollouts("tuned")),
        select_samples=2,
        seed=settings.seed,
        batch=BATCH,
        progress=Progress(tick, total),
    )
    return sharpening(answers, seed=settings.seed) + pooled(answers, settings.seed)


def pooled(answers: Sharpened, seed: int) -> list[Measurement]:
    """Valid answers over all skills under each decoding, and the tuned model's lead: skill "".

    A vote is over final answers and has no trace, so it is compared on right ones.
    """
    arms = {
        ("base", "greedy"): answers.greedy,
        ("base", "best temperature"): answers.best,
        ("tuned", "matched entropy"): answers.matched,
    }
    rows = []
    tuned = answers.tuned.rates("valid")
    for (model, setting), judged in arms.items():
        values = judged.rates("valid")
        lead = difference(tuned, values, seed=seed)
        rows.append(row("sharpened valid", rate(values, seed=seed), model=model, setting=setting))
        rows.append(row("sharpened valid", lead, model=f"tuned - {model}", setting=setting))
    voted, right = votes(answers.base), answers.tuned.rates("right")
    vote, lead = rate(voted, seed=seed), difference(right, voted, seed=seed)
    rows.append(row("sharpened right", vote, model="base", setting="majority vote"))
    rows.append(row("sharpened right", lead, model="tuned - base", setting="majority vote"))
    return rows
