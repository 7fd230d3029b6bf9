"""All solutions of a problem, as far as either model can find them, with their exact probability.

    found = solutions(base, tuned, task, problems)      # one Solved a problem
    found[0].logprob                                    # (2, solutions), nats, under each model

A solution is a response whose trace the checker accepts, its end included, within the budget. They
are enumerated by growing prefixes: from a prefix that can still become valid the task's grammar
gives every next word that keeps it so (`.grammar`), and a prefix is given up where *both* models
find it rarer than `floor`. So what is listed is exact, and what was given up bounds from above what
is missing (`Solved.missing`): mass(listed) <= p(solved) <= mass(listed) + missing.

Of chain, every valid trace counts: double steps, checks, wrong claims that changed nothing, wrong
values that were repaired. Of countdown, only the answers given at once, `ans ( 7 * 4 ) - 9 .`: its
searches are too many to list, so its bits are about those answers alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from probes.divergence.grammar import NEXT_WORDS, NextWords
from probes.generate import replay
from probes.models import Model, check_pair, encode
from probes.records import Problem, Refusal
from probes.tasks import END, Task


@dataclass(frozen=True)
class Solved:
    """The solutions of one problem."""

    problem: str
    texts: tuple[str, ...]
    """Without the end."""
    logprob: Float[np.ndarray, "2 solutions"]
    """Of each, with its end, under the first model and under the second (nats)."""
    missing: tuple[float, float]
    """Probability of the prefixes that were given up, under each: at most so much is missing."""


@dataclass
class _Prefix:
    words: list[str]
    scored: int
    """How many of the words have their probability counted."""
    logprob: np.ndarray
    """(2,), of the scored words."""


def enumerable(task: Task) -> bool:
    """Whether a grammar says what may come next in a solution of this task."""
    return _grammar(task) is not None


def _grammar(task: Task) -> NextWords | None:
    return NEXT_WORDS.get(task.settings.get("family", ""))


def solutions(
    one: Model,
    other: Model,
    task: Task,
    problems: Sequence[Problem],
    *,
    floor: float = 1e-5,
    batch: int = 128,
    progress: Callable[[int], Any] = lambda _: None,
) -> list[Solved]:
    """The solutions that at least one of two models gives a probability of `floor` or more.

    Args:
        one: the first model.
        other: the second.
        task: made the problems.
        problems: each once.
        floor: a prefix rarer than this in both models is given up.
        batch: rows of a pass.
        progress: told how many problems are done.

    Raises:
        Refusal: models that are no pair, a family without enumerable solutions, a floor out of
            range.
    """
    check_pair(one, other)
    grammar = _grammar(task)
    if grammar is None:
        raise Refusal(f"solutions of {task.name} can't be enumerated; {', '.join(NEXT_WORDS)} can.")
    if not 0 < floor < 1:
        raise Refusal(f"floor {floor}: a probability below which a prefix is given up, in (0, 1).")
    found = []
    for problem in problems:  # one at a time: what is alive of one problem bounds the memory
        found.append(_solve((one, other), task, problem, grammar, floor, batch))
        progress(1)
    return found


def _solve(
    models: tuple[Model, Model],
    task: Task,
    problem: Problem,
    grammar: NextWords,
    floor: float,
    batch: int,
) -> Solved:
    prompt = encode(models[0], problem.prompt)
    vocab = models[0].tokenizer.get_vocab()

    def ids(words: Sequence[str]) -> list[int]:
        return [vocab[word] for word in words]

    missing, texts, logprobs = np.zeros(2), [], []
    alive = [_Prefix([], 0, np.zeros(2))]
    while alive:
        forced = [_run_on(task, problem, prefix, grammar) for prefix in alive]
        rows = [(*prompt, *ids(p.words)) for p, _ in forced]
        steps = [_score(model, rows, [p for p, _ in forced], batch) for model in models]
        grown = []
        for i, (prefix, choices) in enumerate(forced):
            so_far = prefix.logprob + np.array([own[i][0] for own in steps])
            if prefix.words[-1:] == [END]:
                texts.append(" ".join(prefix.words[:-1]))
                logprobs.append(so_far)
                continue
            if not choices:  # out of budget: no solution, so nothing is missing either
                continue
            after = so_far + np.array([own[i][1][ids(choices)] for own in steps]).T
            scored = len(prefix.words)
            for word, value in zip(choices, after, strict=True):
                if np.exp(value).max() < floor:
                    missing += np.exp(value)
                else:
                    grown.append(_Prefix([*prefix.words, word], scored + 1, value))
        alive = grown
    table = np.array(logprobs).T if logprobs else np.empty((2, 0))
    return Solved(problem.id, tuple(texts), table, (float(missing[0]), float(missing[1])))


def _run_on(
    task: Task, problem: Problem, prefix: _Prefix, grammar: NextWords
) -> tuple[_Prefix, list[str]]:
    """The prefix with every word that could not be otherwise, and what is open then."""
    words = list(prefix.words)
    while words[-1:] != [END]:
        choices = grammar(task, problem, words)
        if len(choices) != 1:
            return _Prefix(words, prefix.scored, prefix.logprob), choices
        words += choices
    return _Prefix(words, prefix.scored, prefix.logprob), []


def _score(
    model: Model, rows: Sequence[tuple[int, ...]], prefixes: Sequence[_Prefix], batch: int
) -> list[tuple[float, np.ndarray]]:
    """Of each row, log p of its words that weren't scored yet, and of every next word."""
    found: list[Any] = [None] * len(rows)
    for at, logits, _ in replay(model, rows, batch=batch):
        assert logits is not None
        width = logits.shape[1]
        for row, i in enumerate(at):
            new = len(prefixes[i].words) - prefixes[i].scored
            logs = torch.log_softmax(logits[row, width - new - 1 :].double(), -1)
            own = torch.tensor(rows[i][len(rows[i]) - new :], device=logs.device)[:, None]
            found[i] = (float(logs[:-1].gather(1, own).sum()), logs[-1].cpu().numpy())
    return found
