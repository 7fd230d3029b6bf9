"""The writer that holds two models in lockstep, and the rules for who writes which token.

    writer = Crossed(tuned, base, at_decisions(task, problems, tuned.tokenizer))
    judged = evaluate(writer, task, problems, samples=16)
    writer.chosen[problem.id, 0, None]          # True where the first model wrote the token

The token is drawn from the writing model's distribution with the row's own uniform number, so a
model crossed with itself writes, token for token, what it writes alone, and so does a model that
always writes.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from probes.generate import Choice, Request, Stepper, Turn, choose, uniforms
from probes.models import Model, check_pair
from probes.records import Problem, Refusal
from probes.tasks import Task

Chooser = Callable[[Request, Sequence[int]], bool]
"""Whether the first model writes the next token of this answer, after these tokens of it."""

Key = tuple[str, int, Hashable]
"""Problem, sample and setting of an answer."""


class Crossed:
    """A writer over two models of one vocabulary; both are fed every token."""

    def __init__(self, first: Model, second: Model, chooser: Chooser) -> None:
        """`first` writes where the chooser says so, `second` everywhere else.

        Raises:
            Refusal: models that are not a pair (`probes.models.check_pair`).
        """
        check_pair(first, second)
        self.steppers = (Stepper(first), Stepper(second))
        self.chooser = chooser
        self.chosen: dict[Key, list[bool]] = {}
        """Of each answer and token, whether the first model wrote it."""

    def next(self, tokens: Int[Tensor, " rows"], turn: Turn) -> Choice:
        """One token for each row, from the distribution of the model whose turn it is."""
        by_first = []
        for request, written in zip(turn.requests, turn.written, strict=True):
            by_first.append(self.chooser(request, written))
            key = (request.problem, request.sample, request.setting)
            if not written:
                self.chosen[key] = []
            self.chosen[key].append(by_first[-1])
        one, other = (s.forward(tokens) for s in self.steppers)
        rows = torch.tensor(by_first, device=one.device)[:, None]
        return choose(
            torch.where(rows, one.float(), other.float().to(one.device)),
            turn.uniforms,
            turn.decoding,
        )


def at_decisions(
    task: Task, problems: Sequence[Problem], tokenizer: PreTrainedTokenizerBase
) -> Chooser:
    """The first model writes the tokens at which the task's grammar leaves the strategy open.

    Raises:
        Refusal: the tokenizer cuts the task's words: a decision is taken by one whole word.
    """
    ids, words = tokenizer.get_vocab(), task.vocabulary()
    cut = tokenizer(" ".join(words), add_special_tokens=False)["input_ids"]
    if cut != [ids.get(word) for word in words]:
        raise Refusal(
            f"the tokenizer does not give each of the {len(words)} words of {task.name} its own "
            f"token, so no single token takes a decision: crossed decoding needs a word-level one."
        )
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    by_id = {problem.id: problem for problem in problems}

    def chooser(request: Request, written: Sequence[int]) -> bool:
        so_far = [names[token] for token in written]
        return task.next_decision(by_id[request.problem], so_far) is not None

    return chooser


def at_random(rates: Mapping[str, float], *, seed: int = 0) -> Chooser:
    """The first model writes each token with the chance `rates[problem]`, whatever it is.

    The null of any rule that gives it the same share of tokens. Its coins are a stream of their
    own, keyed by (seed, problem, sample, place), hence the same in every batch.
    """
    coins: dict[tuple[str, int], Any] = {}

    def chooser(request: Request, written: Sequence[int]) -> bool:
        key = (request.problem, request.sample)
        if key not in coins or len(coins[key]) < request.max_new:
            coins[key] = uniforms(seed, *key, "router", request.max_new)
        return bool(coins[key][len(written)] < rates[request.problem])

    return chooser


def recorded(chosen: Mapping[Key, Sequence[bool]]) -> Chooser:
    """Whoever wrote this token in a record (`Crossed.chosen`).

    Raises:
        Refusal: at an answer that the record lacks, or behind its end there.
    """

    def chooser(request: Request, written: Sequence[int]) -> bool:
        key = (request.problem, request.sample, request.setting)
        known = chosen.get(key, ())
        if len(written) >= len(known):
            raise Refusal(
                f"the record has {len(known)} tokens of answer {key}, and token {len(written)} is "
                f"asked for: it is of other requests, or other models wrote it."
            )
        return known[len(written)]

    return chooser


def otherwise(chooser: Chooser) -> Chooser:
    """The first model writes where `chooser` would not have it write."""
    return lambda request, written: not chooser(request, written)


def by_setting(choosers: Mapping[Any, Chooser]) -> Chooser:
    """Each answer by the rule of its own setting, so that one batch holds them all."""
    return lambda request, written: choosers[request.setting](request, written)


def shares(chosen: Mapping[Key, Sequence[bool]], setting: Hashable) -> dict[str, float]:
    """Of each problem, the share of tokens that the first model wrote under a setting."""
    counted: dict[str, list[int]] = {}
    for (problem, _, of), written in chosen.items():
        if of == setting:
            both = counted.setdefault(problem, [0, 0])
            both[0] += int(np.sum(written))
            both[1] += len(written)
    return {problem: first / total for problem, (first, total) in counted.items()}
