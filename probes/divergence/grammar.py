"""Which words may come next, if a response of chain or countdown is to become a solution.

Of chain, every valid trace is one: double steps, checks, wrong claims that changed nothing, wrong
values that were repaired. Of countdown, only the answers given at once, `ans ( 7 * 4 ) - 9 .`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations, product
from typing import Any

from probes.records import Problem
from probes.tasks import END
from probes.tasks.countdown.expressions import write

NextWords = Callable[[Any, Problem, Sequence[str]], list[str]]
"""Of a prefix that can still become a solution: every next word that keeps it so; none where the
budget is spent."""


def chain_words(task: Any, problem: Problem, words: Sequence[str]) -> list[str]:
    """See `NextWords`: the mirror image of what `Chain.check` calls valid, budget included.

    A value may be wrong where a check that says `no` and a repair can still follow; a check's own
    claim may be any number, for the checker doesn't hold it against the answer.
    """
    if len(words) == task.budget(problem):
        return []
    state = _State(problem.parameters["start"], list(problem.parameters["functions"]))
    for word in words:
        state.read(task, word)
    return state.open(task)


@dataclass
class _State:
    """Where a valid prefix of a chain stands."""

    stands: int
    left: list[str]
    named: int = 0
    """Functions named in the step that is open."""
    truth: int = 0
    """What the step's value should be."""
    after: str = ";"
    """What was read last: a word of the grammar, or the role of a number."""

    def read(self, task: Any, word: str) -> None:
        if word in task.tables:
            start = self.truth if self.named else self.stands
            self.truth, self.named = task.tables[word][start], self.named + 1
            self.left, self.after = self.left[1:], "function"
        elif word.isdecimal() and self.after in ("=", "repair"):
            self.stands = int(word)
            self.after = "value" if self.after == "=" else "done"
        elif word.isdecimal():
            self.after = "claim" if self.after == "?" else "answer"
        elif word == "ok":
            self.after = "done"
        elif word == "=":
            self.after = "repair" if self.after == "no" else "="
        else:
            self.after = word
            self.named = 0 if word == ";" else self.named

    def open(self, task: Any) -> list[str]:
        if self.after in ("=", "?"):
            return [str(value) for value in range(task.modulus)]
        right = self.stands == self.truth
        return {
            ";": self.left[:1] or ["ans"],
            "function": ["=", *(self.left[:1] if self.named == 1 else [])],
            "value": [";", "?"] if right else ["?"],
            "claim": ["ok", "no"] if right else ["no"],
            "no": ["=", ";"] if right else ["="],
            "repair": [str(self.truth)],
            "done": [";"],
            "ans": [str(self.stands)],
            "answer": [END],
        }[self.after]


def countdown_words(task: Any, problem: Problem, words: Sequence[str]) -> list[str]:
    """See `NextWords`: the next words of the right answers that are given at once."""
    numbers, target = problem.parameters["numbers"], problem.parameters["target"]
    after = _direct(tuple(numbers), target, task.rules)
    return list(after.get(tuple(words), ())) if len(words) < task.budget(problem) else []


@lru_cache(maxsize=64)
def _direct(numbers: tuple[int, ...], target: int, rules: Any) -> dict[tuple[str, ...], list[str]]:
    """Of every beginning of an answer at once that reaches the target, the words that go on."""
    found: dict[tuple[str, ...], list[str]] = {}
    for order in sorted(set(permutations(numbers))):
        for tree in _trees(order, rules.operators):
            if rules.value(tree) == target:
                text = ("ans", *write(tree), ".", END)
                for i, word in enumerate(text):
                    on = found.setdefault(text[:i], [])
                    if word not in on:
                        on.append(word)
    return found


def _trees(numbers: Sequence[int], operators: Sequence[str]) -> list[Any]:
    """Every expression over numbers in this order."""
    if len(numbers) == 1:
        return [numbers[0]]
    return [
        (operator, left, right)
        for cut in range(1, len(numbers))
        for left, right in product(
            _trees(numbers[:cut], operators), _trees(numbers[cut:], operators)
        )
        for operator in operators
    ]


NEXT_WORDS: dict[str, NextWords] = {"chain": chain_words, "countdown": countdown_words}
"""The grammar of each family's solutions."""
