"""What a stated budget of supervised updates brings out, and what no sampling is needed for.

Spent only on skills that sampling did not show in the base: whose valid mass has a lower bound at
or below the detection limit. The probability of one canonical valid trace is measured for all.
"""

from typing import Any

import numpy as np

from probes.divergence import gold_logprobs
from probes.intervals import rate
from probes.measurements import row
from probes.records import Measurement, read_table
from steering.elicitation import Budget, elicit
from steering.evaluate import groups
from steering.verdict.context import MODELS, Context
from steering.verdict.rules import limit_of, pick
from steering.verdict.running import Progress, table
from steering.verdict.stages.rollouts import BATCH

SAMPLES = 4
"""Answers to each problem, before and after."""


def run(context: Context, tick: Any) -> list[Measurement]:
    """Rows of the gold traces, and of each skill that the budget was spent on."""
    settings = context.settings
    rows = gold(context)
    skills = hidden(context)
    progress = Progress(tick, len(skills) * 4 * settings.elicitation_problems * SAMPLES)
    budget = Budget(
        updates=settings.elicitation_updates,
        examples=settings.elicitation_batch,
        margin=settings.margin,
        seed=settings.seed,
    )
    for skill in skills:
        tried = elicit(
            context.model("base"),
            context.task,
            skill,
            budget,
            problems=settings.elicitation_problems,
            samples=SAMPLES,
            seed=settings.seed,
            batch=BATCH,
            progress=progress,
        )
        rows += tried.rows()
    return rows


def gold(context: Context) -> list[Measurement]:
    """Mean probability of the canonical valid trace: it bounds the valid mass from below."""
    rows = []
    for which in MODELS:
        chances = np.exp(gold_logprobs(context.model(which), context.task, context.test))
        for skill, part in groups(context.test):
            of_cell = [(p.skill, p.part) == (skill, part) for p in context.test]
            mean = rate(chances[of_cell], seed=context.settings.seed)
            about: dict[str, Any] = {"model": which, "skill": skill, "part": part}
            rows.append(row("gold trace probability", mean, **about))
    return rows


def hidden(context: Context) -> list[str]:
    """Skills with divided entries that sampling the base leaves unshown on some half."""
    rows = read_table(table(context.settings.out, "boundary"), Measurement)[0]
    found: dict[str, bool] = {}
    for skill, part in groups(context.test):
        mass = pick(rows, "valid@k", x=1.0, model="base", skill=skill, part=part)
        if part and mass:
            limit = limit_of(rows, skill, part, context.settings.thresholds)
            found[skill] = found.get(skill, False) or not mass.low > limit
    return [skill for skill, unshown in found.items() if unshown]
