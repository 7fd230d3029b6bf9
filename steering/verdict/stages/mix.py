"""Which option is taken at each decision, before and after; and the gain split by strategy mix."""

from collections import defaultdict
from typing import Any

from probes.measurements import row
from probes.records import Measurement, Rollout, write_table
from probes.strategies import Answer, Marked, agreement, cell, mark, shares, shifts, split
from probes.tasks import Task
from steering.evaluate import Judged
from steering.verdict.context import MODELS, Context

CHECKED = 300
"""Answers of each model on which two readings of the strategies are compared."""


def run(context: Context, tick: Any) -> list[Measurement]:
    """Option rates with the paired shift, the Kitagawa terms, the consistency of the marks."""
    seed, task = context.settings.seed, context.task
    judged = {which: context.rollouts(which) for which in MODELS}
    marked = {}
    for i, which in enumerate(MODELS):
        marked[which] = mark(task, judged[which].problems, judged[which].rollouts)
        write_table(context.file(f"decisions-{which}.parquet"), marked[which], Marked)
        tick(i + 1, 4)
    rows = [
        row("option rate", estimate, model=model, kind=shift.kind, setting=shift.choice)
        for shift in shifts(marked["base"], marked["tuned"], seed=seed)
        for model, estimate in (
            ("base", shift.before),
            ("tuned", shift.after),
            ("tuned - base", shift.difference),
        )
    ]
    rows += by_skill(context, marked, judged["base"])
    tick(3, 4)
    answers = {which: cells(task, judged[which], marked[which]) for which in MODELS}
    parts = split(answers["base"], answers["tuned"], seed=seed)
    for name in ("total", "mix", "within", "interaction", "alone"):
        rows.append(row("kitagawa", getattr(parts, name), setting=name))
    for which in MODELS:
        rows.append(consistency(context, which, judged[which]))
    tick(4, 4)
    return rows


def by_skill(
    context: Context, marked: dict[str, list[Marked]], judged: Judged
) -> list[Measurement]:
    """How often each strategy is used, by skill."""
    skill_of = {p.id: p.skill for p in judged.problems}
    options = context.task.decision_kinds
    yes = {kind: next(iter(of_it)) for kind, of_it in options.items()}
    rows = []
    for skill in context.task.skills:
        for which in MODELS:
            of_it = [m for m in marked[which] if skill_of[m.problem] == skill]
            rows += [
                row(
                    "option rate",
                    share.estimate,
                    model=which,
                    skill=skill,
                    kind=share.kind,
                    setting=share.choice,
                )
                for share in shares(of_it, options, seed=context.settings.seed)
                if share.choice == yes[share.kind]
            ]
    return rows


def cells(task: Task, judged: Judged, marked: list[Marked]) -> list[Answer]:
    """Each answer with the strategies it used and whether it is right by a valid trace."""
    of_answer: dict[tuple[str, int], list[Marked]] = defaultdict(list)
    for one in marked:
        of_answer[one.problem, one.sample].append(one)
    return [
        Answer(r.problem, cell(of_answer[r.problem, r.sample], task.decision_kinds), g.sound)
        for r, g in zip(judged.rollouts, judged.graded, strict=True)
    ]


def consistency(context: Context, which: str, judged: Judged) -> Measurement:
    """Kappa of two readings of the same text: decisions word by word, and the parser's spans.

    Both follow the task's grammar: it shows that they fit each other, not that either is true.
    """
    by_id = {p.id: p for p in judged.problems}
    stride = max(1, len(judged.rollouts) // CHECKED)
    words, spans = [], []
    for rollout in judged.rollouts[::stride]:
        one, other = labels(context.task, by_id[rollout.problem], rollout)
        words.append(one)
        spans.append(other)
    kappa = agreement(words, spans, seed=context.settings.seed).kappa
    return row("consistency of two readings", kappa, model=which)


def labels(task: Task, problem: Any, rollout: Rollout) -> tuple[list[str], list[str]]:
    """At each decision: the strategy by its word, and by the span that holds the word."""
    spans = task.spans(problem, rollout.text)
    words, parsed = [], []
    for one in mark(task, [problem], [rollout]):
        yes = next(iter(task.decision_kinds[one.kind]))
        words.append(one.kind if one.choice == yes else "")
        held = {s.strategy for s in spans if s.start <= one.position < s.stop}
        parsed.append(one.kind if one.kind in held else "")
    return words, parsed
