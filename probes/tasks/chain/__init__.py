"""The chain family: named functions on Z_m, applied from left to right.

    Q 9 b1 k1 n0 > b1 = 18 ; k1 = 23 ; n0 = 21 ? 2 no = 2 ; ans 2 END

A step names the next function, or the next two (composed in the head), and their value; `?` checks
the value just written and `ok` or `no` says how that came out; after `no` the value is repaired or
left. `ans` states the last value, or jumps to the end in the head. So the decisions that recur are
*jump*, *double*, *check* and *repair*, and everything between them is execution.

The function tables are the skills: which of them a model has met, and how, is its history. Each
entry (function, input) lies in one of two halves; tuning may touch one of them only, so that what
was deployed shows on the other half.

Surprise: an answer that was reached by a jump is right or wrong, but its trace is never a valid
derivation, for what happened in the head can't be told from luck.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from probes.records import Grade, Problem, Refusal, Span, Step, Trace, content_hash
from probes.tasks import END
from probes.tasks.chain.moves import WORDS, parse
from probes.tasks.settings import (
    check_keys,
    check_list,
    check_made,
    check_pair,
    check_range,
    check_splits,
    check_text,
    check_whole,
)
from probes.tasks.splits import split_of

PARTS = ("touched", "untouched")
KEYS = ("family", "modulus", "seed", "common", "functions", "skills", "problems", "prompt")
"""Of the file."""


@dataclass(frozen=True)
class Chain:
    """Problems over the function tables of one file."""

    name: str
    settings: dict[str, Any]

    checks = True

    @cached_property
    def tables(self) -> dict[str, tuple[int, ...]]:
        """The true value table of every function: a random permutation of 0..m-1."""
        tables = {}
        for family, count in self.settings["functions"].items():
            for index in range(count):
                draw = random.Random(f"{self.settings['seed']} table {family}{index}")
                tables[f"{family}{index}"] = tuple(draw.sample(range(self.modulus), self.modulus))
        return tables

    @property
    def modulus(self) -> int:
        """Size of the value space; answers are 0..modulus-1."""
        return self.settings["modulus"]

    @property
    def skills(self) -> tuple[str, ...]:
        """The families that a problem can be about."""
        return tuple(self.settings["skills"])

    @property
    def strategies(self) -> tuple[str, ...]:
        """The ways in which a stretch of a response can proceed."""
        return ("step", "double", "check", "repair", "jump")

    @cached_property
    def decision_kinds(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """The four recurring decisions and the words that take them."""
        functions = tuple(self.tables)
        return {
            "jump": {"yes": ("ans",), "no": functions},
            "double": {"yes": functions, "no": ("=",)},
            "check": {"yes": ("?",), "no": (";",)},
            "repair": {"yes": ("=",), "no": (";",)},
        }

    def vocabulary(self) -> list[str]:
        """Prompt words, grammar, functions, numbers."""
        numbers = [str(value) for value in range(self.modulus)]
        return [END, *self.settings["prompt"].values(), *WORDS, *self.tables, *numbers]

    # ------------------------------------------------------------------ problems

    @cached_property
    def touched(self) -> dict[str, tuple[bool, ...]]:
        """Of every entry, whether tuning may use it: by a fair coin of its own."""
        seed = self.settings["seed"]
        return {
            f: tuple(
                random.Random(f"{seed} half {f} {x}").random() < 0.5 for x in range(len(table))
            )
            for f, table in self.tables.items()
        }

    def split_of(self, start: int, functions: Sequence[str]) -> str:
        """The split that a problem belongs to, by the hash of its content."""
        return split_of(content_hash([start, *functions]), self.settings["problems"]["splits"])

    def problem(self, start: int, functions: Sequence[str], skill: str) -> Problem | None:
        """The problem, or None where its special entries lie in both halves."""
        value, halves = start, set()
        for function in functions:
            if function[0] == skill and skill not in self.settings["common"]:
                halves.add(self.touched[function][value])
            value = self.tables[function][value]
        if len(halves) > 1:
            return None
        part = "" if not halves else PARTS[0] if halves.pop() else PARTS[1]
        question = self.settings["prompt"]["question"]
        return Problem(
            task=self.name,
            prompt=f"{question} {start} {' '.join(functions)} >",
            answer=str(value),
            skill=skill,
            part=part,
            difficulty=len(functions),
            spec=json.dumps({"start": start, "functions": list(functions)}),
        )

    def problems(
        self,
        split: str,
        count: int,
        *,
        skill: str | None = None,
        part: str | None = None,
        difficulty: int | None = None,
    ) -> list[Problem]:
        """See `probes.tasks.Task.problems`; without `skill` the skills take turns."""
        settings = self.settings["problems"]
        if split not in settings["splits"]:
            raise Refusal(f"split {split!r} is not one of {', '.join(settings['splits'])}.")
        if skill is not None and skill not in self.skills:
            raise Refusal(f"skill {skill!r} is not one of {', '.join(self.skills)}.")
        if part not in (None, "", *PARTS):
            raise Refusal(f"part {part!r} is not one of {', '.join(PARTS)}.")
        low, high = settings["depth"]
        if difficulty is not None and difficulty < 1:
            raise Refusal(f"difficulty {difficulty}: a chain has a depth of at least 1.")
        draw = random.Random(f"{self.settings['seed']} {split} {skill} {part} {difficulty}")
        found: dict[str, Problem] = {}
        misses = 0
        while len(found) < count:
            about = skill or self.skills[len(found) % len(self.skills)]
            depth = difficulty or draw.randint(low, high)
            start, functions = draw.randrange(self.modulus), self._draw_chain(draw, about, depth)
            problem = self.problem(start, functions, about)
            fits = problem is not None and self.split_of(start, functions) == split
            if problem and fits and part in (None, problem.part) and problem.prompt not in found:
                found[problem.prompt] = problem
                misses = 0
            elif (misses := misses + 1) == 10_000:
                raise Refusal(
                    f"the task {self.name} has no {count} distinct problems with split={split}, "
                    f"skill={skill}, part={part}, difficulty={difficulty}: only {len(found)} were "
                    f"found."
                )
        return list(found.values())

    def _draw_chain(self, draw: random.Random, skill: str, depth: int) -> list[str]:
        """`depth` functions, of which the skill's own number stand at random places."""
        low, high = self.settings["skills"][skill]
        special = min(draw.randint(low, high), depth)
        common = [f for f in self.tables if f[0] in self.settings["common"]]
        chain = draw.choices(common, k=depth)
        for place in draw.sample(range(depth), special):
            count = self.settings["functions"][skill]
            chain[place] = f"{skill}{draw.randrange(count)}"
        return chain

    def budget(self, problem: Problem) -> int:
        """Words allowed: so many a function, and a few, so that not everything can be checked."""
        slope, constant = self.settings["problems"]["budget"]
        return slope * problem.difficulty + constant

    def guess_rate(self, problem: Problem) -> float:  # noqa: ARG002 (the same for every problem)
        """One in m: every function is a permutation, so no value is likelier than another."""
        return 1 / self.modulus

    def gold(self, problem: Problem) -> str:
        """One function a step, nothing checked."""
        value, words = problem.parameters["start"], []
        for function in problem.parameters["functions"]:
            value = self.tables[function][value]
            words += [function, "=", str(value), ";"]
        return " ".join([*words, "ans", str(value)])

    # ------------------------------------------------------------------ judging

    def grade(self, problem: Problem, response: str) -> Grade:
        """By the value after the last `ans`."""
        words = response.split()
        places = [i for i, word in enumerate(words[:-1]) if word == "ans"]
        if not places or not words[places[-1] + 1].isdecimal():
            return Grade.UNPARSED
        return Grade.RIGHT if words[places[-1] + 1] == problem.answer else Grade.WRONG

    def check(self, problem: Problem, response: str) -> Trace:
        """Judge every move against the value that stands when it is made.

        A value is a *calculator* error if it is not the function of the standing value, unless it
        is the function of the value that was just retracted (*premise*). A function out of turn,
        an answer before the last function, and a check that ends in the wrong word of `ok` and
        `no` are *rule* errors; an answer other than the standing value is a *premise* error.
        """
        left = list(problem.parameters["functions"])
        stands = problem.parameters["start"]
        truth, claim, in_turn, answered = -1, -1, True, False
        retracted: int | None = None
        standing: list[bool] = []  # of every step that was not retracted: whether it is right
        steps = []
        for move in parse(response.split()):
            verdict = "valid"
            if move.kind == "step":
                in_turn = left[: len(move.functions)] == list(move.functions)
                truth = self._apply(move.functions, stands)
                if not in_turn:
                    verdict = "rule"
                elif move.value != truth:
                    stale = retracted is not None and move.value == self._apply(
                        move.functions, retracted
                    )
                    verdict = "premise" if stale else "calculator"
                left = left[len(move.functions) :] if in_turn else left
                stands, retracted = move.value, None
                standing.append(verdict == "valid")
            elif move.kind == "check":
                claim = move.value
                if claim != truth:
                    verdict = "calculator"
                elif move.agrees != (claim == stands):
                    verdict = "rule"
            elif move.kind == "repair":
                if move.value != truth:
                    verdict = "calculator" if move.value == claim else "premise"
                stands, retracted = move.value, stands
                standing[-1] = in_turn and verdict == "valid"
            elif move.kind == "answer":
                answered = True
                verdict = "rule" if left else "valid" if move.value == stands else "premise"
                standing.append(verdict == "valid")
            else:
                verdict = "format"
                standing.append(False)
            steps.append(Step(move.start, move.stop, verdict))
        return Trace(tuple(steps), valid=answered and all(standing))

    def _apply(self, functions: Sequence[str], value: int) -> int:
        """Value of the composition; -1 where a word is no function or a value is out of range."""
        for function in functions:
            if function not in self.tables or not 0 <= value < self.modulus:
                return -1
            value = self.tables[function][value]
        return value

    # ------------------------------------------------------------------ strategies

    def spans(self, problem: Problem, response: str) -> list[Span]:
        """Every move under the name of its strategy; the closing answer is none."""
        left, found = len(problem.parameters["functions"]), []
        for move in parse(response.split()):
            if move.kind == "step":
                left -= len(move.functions)
                found.append(
                    Span(move.start, move.stop, "double" if move.functions[1:] else "step")
                )
            elif move.kind in ("check", "repair"):
                found.append(Span(move.start, move.stop, move.kind))
            elif move.kind == "answer" and left > 0:
                found.append(Span(move.start, move.stop, "jump"))
        return found

    def next_decision(self, problem: Problem, words: Sequence[str]) -> str | None:
        """By the last words, and by how many functions have been named so far."""
        left = len(problem.parameters["functions"]) - sum(word in self.tables for word in words)
        last, before = [None, None, *words][-1], [None, None, *words][-2]
        if last in (None, ";"):
            return "jump" if left > 0 and "ans" not in words else None
        if last in self.tables and before not in self.tables:
            return "double" if left > 0 else None
        if last == "no":
            return "repair"
        if last.isdecimal() and before == "=":
            # A value after `no =` is a repair, and the grammar closes the step behind it.
            return "check" if [None, *words][-3] != "no" else None
        return None


def load(name: str, settings: dict[str, Any]) -> Chain:
    """The chain task of a parsed file; see `probes.tasks.load_task`.

    Raises:
        Refusal: a setting that is missing, unknown or wrong, no problem in a split, a budget that
            no whole answer fits, or a word that would mean two things.
    """
    check_keys(name, "", settings, KEYS)
    check_whole(name, "modulus", settings["modulus"], 2)
    check_whole(name, "seed", settings["seed"])
    families = settings["functions"]
    if not isinstance(families, dict) or any(len(f) != 1 or not f.isalpha() for f in families):
        raise Refusal(f"{name}: functions = {families!r}: a family is one letter, with a number.")
    for family, count in families.items():
        check_whole(name, f"functions.{family}", count, 1)
    check_list(name, "common", settings["common"], families)
    if not isinstance(settings["skills"], dict):
        raise Refusal(f"{name}: skills = {settings['skills']!r} must be a table.")
    check_list(name, "skills", list(settings["skills"]), families)
    for skill, count in settings["skills"].items():
        check_range(name, f"skills.{skill}", count, 1)
    check_keys(name, "problems", settings["problems"], ("depth", "budget", "splits"))
    low_and_high, budget, splits = (settings["problems"][k] for k in ("depth", "budget", "splits"))
    check_range(name, "problems.depth", low_and_high, 1)
    check_pair(name, "problems.budget", budget, "words a function and words beside")
    check_splits(name, "problems.splits", splits)
    check_keys(name, "prompt", settings["prompt"], ("question", "key", "drill"))
    for key, word in settings["prompt"].items():
        check_text(name, f"prompt.{key}", word)
        if len(word.split()) > 1:
            raise Refusal(f"{name}: prompt.{key} = {word!r} must be one word.")
    task = Chain(name, settings)
    words = task.vocabulary()
    if len(set(words)) < len(words):
        raise Refusal(f"{name}: a word of the vocabulary means two things; rename a prompt word.")
    low, high = low_and_high
    check_made(task, sorted({low, high}))  # type: ignore[arg-type]  # cached properties
    return task
