"""The gym family: any of reasoning-gym's procedural tasks, its own scorer as judge.

    task = load_task("gym-basic-arithmetic")       # data/tasks/gym-basic-arithmetic.toml
    task.grade(problem, "<answer>12</answer>")

A task's file names the dataset, and either its config or `levels` of its curriculum; with levels a
problem's skill is "level 2" and its difficulty 2. Every dataset of the registry will do but
`composite`, which is a mixture of others: give each its file.

An answer is RIGHT where the scorer gives it 1, the most; partial credit (for a prefix, for the
format) is WRONG. An answer on which the scorer raises is UNPARSED: it could not be read. Where
reasoning-gym's scorer is mistaken or runs the answer as code, `probes.tasks.gym.scoring` stands
before it.

Splits are by the hash of the question, so no two share one, whatever the seed. Items come in the
order of reasoning-gym's own stream: item i is made from seed + i. A problem keeps its place in
that stream and not its solution; the item is made again to be scored, and if it has become
another, since another version of reasoning-gym made it, that is an error and no verdict.

Only the answer is judged: nobody knows whether the way to it was valid (`checks` is False).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from probes.records import Grade, Problem, Refusal, content_hash
from probes.tasks.answers import mark_answer
from probes.tasks.free_text import FreeText
from probes.tasks.gym import scoring
from probes.tasks.gym.items import check_dataset, item, version
from probes.tasks.settings import check_chance, check_some_keys, check_splits, check_whole
from probes.tasks.splits import split_of
from probes.tasks.templates import read_template

REQUIRED = ("family", "dataset", "seed", "splits", "template", "budget")
OPTIONAL = ("config", "levels", "shots", "chat", "guess_rate")

BARREN = 2000
"""Items in a row that bring no new question: the split is taken to hold no more."""


@dataclass(frozen=True)
class Gym(FreeText):
    """Problems of one of reasoning-gym's datasets; its version is among the settings."""

    @property
    def skills(self) -> tuple[str, ...]:
        """The levels, where there are any."""
        return tuple(f"level {level}" for level in self.settings.get("levels", ()))

    def problems(
        self,
        split: str,
        count: int,
        *,
        skill: str | None = None,
        part: str | None = None,
        difficulty: int | None = None,
    ) -> list[Problem]:
        """`count` distinct problems of a split; without a level, each in turn.

        Raises:
            Refusal: an unknown split or level, a part (there are none), or more problems than the
                dataset seems to hold.
        """
        if split not in self.settings["splits"]:
            raise Refusal(f"split {split!r} is none of {', '.join(self.settings['splits'])}.")
        if part:
            raise Refusal(f"{self.name} is not divided into parts; asked for {part!r}.")
        levels: list[int | None] = list(self.settings.get("levels", [None]))
        chosen = [
            level
            for level in levels
            if skill in (None, "" if level is None else f"level {level}")
            and difficulty in (None, level or 0)
        ]
        if not chosen:
            raise Refusal(
                f"{self.name} has no problems of skill {skill!r} and difficulty {difficulty!r}; "
                f"there are {', '.join(self.skills) or 'none: its file names no levels'}."
            )
        each = -(-count // len(chosen))
        drawn = [list(islice(self._stream(split, level), each)) for level in chosen]
        return [drawn[i % len(chosen)][i // len(chosen)] for i in range(count)]

    def _stream(self, split: str, level: int | None) -> Iterator[Problem]:
        seen: set[str] = set()
        index, barren = 0, 0
        while barren < BARREN:
            made = item(self.identity, level, index)
            key = content_hash(" ".join(made["question"].split()))
            barren += 1
            if key not in seen and self.split_of(key) == split:
                seen.add(key)
                barren = 0
                yield self._problem(made, level, index)
            index += 1
        raise Refusal(
            f"{self.name}: the {split} split seems to hold no more than {len(seen)} problems"
            f"{'' if level is None else f' of level {level}'}: ask for fewer, or widen its config."
        )

    @property
    def identity(self) -> str:
        """What determines the items: dataset, config and seed, as JSON."""
        of = {key: self.settings[key] for key in ("dataset", "config", "seed")}
        return json.dumps(of, sort_keys=True)

    def split_of(self, key: str) -> str:
        """The split of the question of a hash, whichever item brought it."""
        return split_of(key, self.settings["splits"])

    def _problem(self, made: dict[str, Any], level: int | None, index: int) -> Problem:
        return Problem(
            task=self.name,
            prompt=self.template.prompt(made["question"]),
            answer=scoring.solution(self.settings["dataset"], made) or "",
            skill="" if level is None else f"level {level}",
            part="",
            difficulty=level or 0,
            spec=json.dumps(
                {"index": index, "level": level, "question": made["question"]}, ensure_ascii=False
            ),
        )

    def gold(self, problem: Problem) -> str:
        """A right answer as the template asks for it; no derivation.

        Raises:
            Refusal: the dataset keeps none, as those whose answers are judged by simulation.
        """
        if not problem.answer:
            raise Refusal(f"{self.settings['dataset']} keeps no solution of its problems.")
        return mark_answer(problem.answer, self.template.marks[0])

    def grade(self, problem: Problem, response: str) -> Grade:
        """By the last final answer of the response, and the dataset's scorer."""
        answer = self.template.answer(response)
        if answer is None:
            return Grade.UNPARSED
        of = problem.parameters
        made = item(self.identity, of["level"], of["index"])
        if made["question"] != of["question"]:
            raise RuntimeError(
                f"item {of['index']} of {self.settings['dataset']} is another one in "
                f"reasoning-gym {version()}: grade with the version that made the problem"
            )
        return scoring.score(self.identity, of["level"], of["index"], answer)

    def warm(self) -> None:
        """Import what the grader needs, so that no text pays for it (`probes.verify`)."""
        version()


def load(name: str, settings: dict[str, Any]) -> Gym:
    """The gym task of a parsed file; see `probes.tasks.load_task`.

    Raises:
        Refusal: a setting that is missing, unknown or wrong, a dataset or a config that
            reasoning-gym doesn't know, or a reasoning-gym that isn't installed.
    """
    check_some_keys(name, settings, REQUIRED, OPTIONAL)
    check_whole(name, "seed", settings["seed"], 0)
    check_whole(name, "budget", settings["budget"], 1)
    check_splits(name, "splits", settings["splits"])
    check_chance(name, "guess_rate", settings.get("guess_rate", 0.0))
    said = {"config": {}, "chat": ""} | settings
    check_dataset(name, said)
    template = read_template(name, said["template"], said.get("shots"), said["chat"])
    return Gym(name, said | {"template": template.record(), "version": version()}, template)
