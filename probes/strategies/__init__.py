"""Which strategies a model's traces use: at each decision, in what mix, and how well marked.

    marked = mark(task, problems, rollouts)        # one row a decision
    shares(marked)                                 # check yes 0.12 [0.10, 0.14] ...
    shifts(mark(task, problems, base), mark(task, problems, tuned))
    agreement(found, truth)                        # Cohen's kappa (`.agreement`)
    split(base_answers, tuned_answers)             # the gain by mix and accuracy (`.kitagawa`)

A decision is a point at which the task's grammar leaves the strategy open; `mark` reads them off
the text, so a transcript from anywhere will do. Rates are shares of decisions, pooled over
problems, and their intervals resample problems: decisions within a trace are not independent.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from probes.intervals import LEVEL, Estimate, bootstrap, undefined
from probes.records import Problem, Refusal, Rollout, unique
from probes.strategies.agreement import Agreement, LabelAgreement, agreement, word_labels
from probes.strategies.kitagawa import Answer, Split, split
from probes.strategies.pooled import pooled_share, too_few
from probes.tasks import Task, decisions

__all__ = [
    "Agreement",
    "Answer",
    "LabelAgreement",
    "Marked",
    "Share",
    "Shift",
    "Split",
    "agreement",
    "cell",
    "mark",
    "shares",
    "shifts",
    "split",
    "word_labels",
]


@dataclass(frozen=True)
class Marked:
    """One decision of one rollout; a row of the table that is written."""

    problem: str
    sample: int
    setting: str
    """What the rollout was made under, as in `Rollout`."""
    position: int
    """The word that takes it, counted from the first of the response."""
    kind: str
    choice: str


@dataclass(frozen=True)
class Share:
    """How often a kind of decision takes one option."""

    kind: str
    choice: str
    decisions: int
    """Of this kind, over all problems."""
    estimate: Estimate


@dataclass(frozen=True)
class Shift:
    """The share of one option before and after, and the paired difference."""

    kind: str
    choice: str
    before: Estimate
    after: Estimate
    difference: Estimate


def mark(task: Task, problems: Iterable[Problem], rollouts: Sequence[Rollout]) -> list[Marked]:
    """Every decision of every rollout."""
    by_id: Mapping[str, Problem] = {problem.id: problem for problem in problems}
    if unknown := {rollout.problem for rollout in rollouts} - set(by_id):
        raise Refusal(
            f"{len(unknown)} rollout problem(s) are not among the {len(by_id)} given, such as "
            f"{min(unknown)}: were they sampled from another task, split or version of it?"
        )
    return [
        Marked(r.problem, r.sample, r.setting, one.position, one.kind, one.choice)
        for r in rollouts
        for one in decisions(task, by_id[r.problem], r.text)
    ]


def cell(marked: Iterable[Marked], options: Mapping[str, Mapping[str, Sequence[str]]]) -> str:
    """The strategies that one rollout used at least once, as a name such as "check+double".

    Args:
        marked: the decisions of one rollout.
        options: `task.decision_kinds`; the first option of a kind is that strategy being used.
    """
    used = {one.kind for one in marked if one.choice == next(iter(options[one.kind]))}
    return "+".join(kind for kind in options if kind in used) or "none"


def shares(
    marked: Sequence[Marked],
    options: Mapping[str, Iterable[str]] | None = None,
    *,
    seed: int = 0,
) -> list[Share]:
    """Share of each option among the decisions of its kind, with intervals over problems.

    Problems in which a kind never came up say nothing about it and are left out of its interval.

    Args:
        marked: the decisions.
        options: `task.decision_kinds`, so that an option that was never taken has a share too (0,
            with what so many decisions can miss); without them it is not known of.
        seed: of the resamples.
    """
    found = []
    pairs = [(one.kind, one.choice) for one in marked]
    came = {kind for kind, _ in pairs}
    pairs += [(kind, choice) for kind in came & set(options or ()) for choice in options[kind]]  # type: ignore[index]
    for kind, choice in unique(pairs):
        asked, chosen = _tally(marked, kind, choice)
        problems = list(asked)
        estimate = pooled_share(*_columns(problems, chosen, asked), seed)
        found.append(Share(kind, choice, sum(asked.values()), estimate))
    return sorted(found, key=lambda share: (share.kind, share.choice))


def shifts(before: Sequence[Marked], after: Sequence[Marked], *, seed: int = 0) -> list[Shift]:
    """The mix before and after, and the difference, paired by problem.

    A kind that came up in only one of the two has a difference with a reason and no number.
    """
    found = []
    for kind, choice in sorted(unique((one.kind, one.choice) for one in [*before, *after])):
        asked, chosen = zip(
            *(_tally(of_it, kind, choice) for of_it in (before, after)), strict=True
        )
        problems = unique([*asked[0], *asked[1]])
        first, second = (_columns(problems, c, a) for c, a in zip(chosen, asked, strict=True))
        alone = [pooled_share(*_asked(columns), seed) for columns in (first, second)]
        change = _change(first, second, seed)
        found.append(Shift(kind, choice, alone[0], alone[1], change))
    return found


Columns = tuple[Float[np.ndarray, " problems"], Float[np.ndarray, " problems"]]
"""Of each problem: how often the option was taken, and how often it could have been."""


def _tally(marked: Sequence[Marked], kind: str, choice: str) -> tuple[dict, dict]:
    asked: dict[str, int] = defaultdict(int)
    chosen: dict[str, int] = defaultdict(int)
    for one in marked:
        if one.kind == kind:
            asked[one.problem] += 1
            chosen[one.problem] += one.choice == choice
    return asked, chosen


def _columns(problems: Sequence[str], chosen: Mapping, asked: Mapping) -> Columns:
    counted = [[counts.get(problem, 0) for problem in problems] for counts in (chosen, asked)]
    return np.array(counted[0], float), np.array(counted[1], float)


def _asked(columns: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The same of the problems in which the decision came up."""
    chosen, asked = columns
    return chosen[asked > 0], asked[asked > 0]


def _change(before: Columns, after: Columns, seed: int) -> Estimate:
    """Difference of two pooled shares; of intervals at half the error each, where few vary."""
    if not before[1].any() or not after[1].any():
        return undefined("this decision came up in one of the two only", len(before[1]))
    if not too_few(*_asked(before)) and not too_few(*_asked(after)):
        return bootstrap(lambda c, a, d, b: d / b - c / a, *before, *after, seed=seed)
    half = (1 + LEVEL) / 2
    first, second = (pooled_share(*_asked(columns), seed, half) for columns in (before, after))
    if not (first.defined and second.defined):
        return undefined(first.reason or second.reason, len(before[1]))
    low, high = second.low - first.high, second.high - first.low
    se = float(np.hypot(first.se, second.se))
    return Estimate(second.value - first.value, low, high, len(before[1]), se)
