"""Problems with checkable answers: what a task is, and how one is loaded.

    task = load_task("chain")                       # shipped: data/tasks/chain.toml
    task = load_task("my_chain.toml")               # your own, with its own vocabulary
    problems = task.problems("test", 100)
    task.grade(problems[0], "b1 = 18 ; ans 18")     # Grade.RIGHT or WRONG or ...

A task is a TOML file whose `family` names the module that reads it: `probes.tasks.chain` and
`probes.tasks.countdown`, the organisms', `probes.tasks.gym` (reasoning-gym) and
`probes.tasks.maths` (GSM8K, MATH-500 and other benchmarks). The file says what there is to know
about the problems (tables, difficulty, prompt format, split seeds); which of it a model was taught
is no business of the task and stands in the organism's recipe (`steering.organisms`).

A response is read as words separated by blanks, and so is every position in a `Trace`, a `Span`
or a `Decision`. The organisms' tokenizer has one token a word, so there word i is token i.

The last two are for real models: their prompts are text in a template (`probes.tasks.templates`),
they judge final answers and no traces, and have no decisions or strategies.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from probes import DATA
from probes.records import Decision, Grade, Problem, Refusal, Span, Trace, read_toml

FAMILIES = {
    "chain": "probes.tasks.chain",
    "countdown": "probes.tasks.countdown",
    "gym": "probes.tasks.gym",
    "maths": "probes.tasks.maths",
}
"""Module of each family; it has a `load(name, settings) -> Task`."""

SHIPPED = DATA / "tasks"
END = "END"
"""The word that ends a response; the tokenizer's end-of-sequence token."""


@runtime_checkable
class Task(Protocol):
    """Problems, their grader, and the exact checker of their traces."""

    name: str
    settings: dict[str, Any]
    """The parsed file: what `content_hash` identifies the task by."""
    skills: tuple[str, ...]
    """What a problem can be about (`Problem.skill`), in the file's order."""
    decision_kinds: dict[str, dict[str, tuple[str, ...]]]
    """Of each kind of decision, its options, and the words that choose each. The first option is
    the strategy of that name being used (`check`: yes, no)."""
    strategies: tuple[str, ...]
    """Names that `spans` gives, in a fixed order."""
    checks: bool
    """Whether it can tell a valid trace; where it can't, nothing but the answer is judged."""

    def vocabulary(self) -> list[str]:
        """Every word of prompts and responses, `END` included, in a fixed order.

        Raises:
            Refusal: it is text for a model with a tokenizer of its own.
        """
        ...

    def problems(
        self,
        split: str,
        count: int,
        *,
        skill: str | None = None,
        part: str | None = None,
        difficulty: int | None = None,
    ) -> list[Problem]:
        """`count` distinct problems of a split, the same at every call; a longer list extends a
        shorter one. Splits ("tune", "select", "test") never share a problem.
        """
        ...

    def gold(self, problem: Problem) -> str:
        """A canonical valid response, `END` left out."""
        ...

    def grade(self, problem: Problem, response: str) -> Grade:
        """RIGHT, WRONG or UNPARSED; of several final answers the last counts."""
        ...

    def check(self, problem: Problem, response: str) -> Trace:
        """Every step judged, and whether the whole is a valid derivation of its answer.

        Raises:
            Refusal: it checks no traces (`checks`).
        """
        ...

    def spans(self, problem: Problem, response: str) -> list[Span]:
        """Where each strategy is used."""
        ...

    def next_decision(self, problem: Problem, words: Sequence[str]) -> str | None:
        """Kind of the decision that the next word takes after these words of a response, or None
        where the grammar forces the next word or it executes what was decided.
        """
        ...

    def budget(self, problem: Problem) -> int:
        """The most words that a response may have, `END` included; tokens, of a real model."""
        ...

    def guess_rate(self, problem: Problem) -> float:
        """Chance that an answer drawn without any thought is right; nan where nobody knows it."""
        ...


def decisions(task: Task, problem: Problem, response: str) -> list[Decision]:
    """Every decision of a response, with the option that was taken."""
    words = response.split()
    found = []
    for position, word in enumerate(words):
        kind = task.next_decision(problem, words[:position])
        if kind is not None:
            options = task.decision_kinds[kind].items()
            choice = next((name for name, chosen in options if word in chosen), "other")
            found.append(Decision(position, kind, choice))
    return found


def load_task(source: str | Path) -> Task:
    """A shipped task by name, or a user's own by the path of its TOML file.

    Raises:
        Refusal: no such task or file, unreadable TOML, an unknown family, a setting that is
            missing, wrong or unknown.
    """
    path, settings = read_toml(source, SHIPPED, "task")
    family = settings.get("family")
    if not isinstance(family, str) or family not in FAMILIES:
        raise Refusal(f"{path}: family = {family!r} is not known; there are {', '.join(FAMILIES)}.")
    return importlib.import_module(FAMILIES[family]).load(path.stem, settings)
