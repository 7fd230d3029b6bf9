"""Where base and tuned part in what they say, on the texts of either: descriptive, no verdict line.

The stage reads one answer to each problem with both models and keeps KL of what decides and of what
executes, both ways. `whenhow divergence` asks for more of it, and for the base against itself.
"""

from collections.abc import Mapping
from typing import Any

from probes.divergence import (
    Parted,
    divergences,
    halves,
    kl_rows,
    perplexity_rows,
    score,
    strip_rows,
    text_rows,
    typical,
)
from probes.records import Grade, Measurement, unique
from steering.evaluate import Judged
from steering.verdict.context import MODELS, Context
from steering.verdict.stages.rollouts import BATCH

ITSELF = 100
"""Texts on which the base meets itself: what isn't exactly 0 there shows at once."""
COARSE = ("", "decision", "execution")

Names = tuple[str, str]
"""Of the two models of a context, and of the writers of the texts."""


def run(context: Context, tick: Any) -> list[Measurement]:
    """KL of a token both ways, on both models' texts: all, what decides, what executes."""
    rows, judged = [], {which: context.rollouts(which) for which in MODELS}
    for i, (which, of_it) in enumerate(judged.items()):
        parted = along(context, of_it, 1)
        seed = context.settings.seed
        rows += kl_rows(parted, MODELS, f"{which}'s texts", places=COARSE, seed=seed)
        tick(i + 1, len(MODELS))
    return rows


def texts(
    context: Context, judged: Mapping[str, Judged], names: Names, count: int
) -> list[Measurement]:
    """KL, ranks and first parting on `count` answers to each problem, with shuffled places.

    Args:
        context: of the pair.
        judged: the answers of each writer.
        names: of the pair.
        count: answers to each problem that are read.
    """
    rows, by_id = [], {p.id: p for p in context.test}
    seed = context.settings.seed
    for writer, of_it in judged.items():
        parted = along(context, of_it, count)
        rows += text_rows(parted, names, writer, seed=seed)
        one = typical(parted)
        rows += strip_rows(one, by_id[one.problem], names, writer)
        setting = f"{writer}'s texts, shuffled places"
        rows += kl_rows(parted, names, setting, shuffled=True, seed=seed)
    return rows


def along(context: Context, judged: Judged, count: int) -> list[Parted]:
    """Both models along the first answers to every problem."""
    kept = unique(r.sample for r in judged.rollouts)[:count]
    rollouts = [r for r in judged.rollouts if r.sample in kept]
    return divergences(*context.pair, context.task, judged.problems, rollouts, batch=BATCH)


def itself(context: Context, judged: Judged) -> list[Measurement]:
    """The base against itself, token by token: exactly 0, or something is broken."""
    base = context.pair[0]
    rollouts = judged.rollouts[:: max(1, len(judged.rollouts) // ITSELF)]
    parted = divergences(base, base, context.task, judged.problems, rollouts)
    return kl_rows(parted, ("base", "base"), "base's texts", places=COARSE)


def perplexities(context: Context, judged: Mapping[str, Judged], names: Names) -> list[Measurement]:
    """Valid answers of both under both; of base and tuned, also against their own others."""
    scored, seed = {}, context.settings.seed
    for writer, of_it in judged.items():
        pairs = zip(of_it.rollouts, of_it.graded, strict=True)
        strict = of_it.ways[-1]  # valid answers; where no traces are checked, right ones
        kept = [r for r, g in pairs if (g.valid if strict == "valid" else g.grade is Grade.RIGHT)]
        scored[writer] = score(*context.pair, of_it.problems, kept, batch=BATCH)
    rows = perplexity_rows(scored, names, seed=seed)
    for writer, of_it in scored.items() if names == MODELS else ():
        even, odd = halves(of_it)
        pair = {f"{writer}, even": even, f"{writer}, odd": odd}
        rows += perplexity_rows(pair, names, seed=seed, tag=" (null)")
    return rows
