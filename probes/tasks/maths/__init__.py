"""The maths family: a benchmark's problems, answers judged by math-verify.

    task = load_task("math-500")                   # data/tasks/math-500.toml, from the hub
    task = load_task("my_task.toml")               # source = "my_problems.jsonl"

A task's file says where the problems are (`source`, `config`, `revision`; see
`probes.tasks.maths.sources`), which columns hold what, how the gold answer stands in its column
(`gold`: "whole", "boxed" in a solution, or behind "hashes"), the template, and the most tokens of
an answer. What math-verify says is in `probes.tasks.maths.judging`, with what had to be put right.

Splits. `splits` gives each of "tune", "select", "test" a split of the source (`of`) and, where
several share one, their shares by the hash of the question. A question that stands in two splits
of the source belongs to the later of tune, select, test, so no problem is in two of ours. A
benchmark may leave out tune or select; asking for it is refused. Problems come in the order of
their hash, not of the file, so a few are a fair sample.

Only the answer is judged: nobody knows whether the way to it was valid (`checks` is False).
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from probes.records import Grade, Problem, Refusal, content_hash, unique
from probes.tasks.answers import boxed, hashed, mark_answer
from probes.tasks.free_text import FreeText
from probes.tasks.maths import judging
from probes.tasks.maths.sources import is_file, rows
from probes.tasks.settings import (
    SPLITS,
    check_chance,
    check_some_keys,
    check_text,
    check_whole,
)
from probes.tasks.splits import split_of
from probes.tasks.templates import Template, read_template

REQUIRED = ("family", "source", "columns", "splits", "template", "budget")
OPTIONAL = ("config", "revision", "gold", "shots", "chat", "guess_rate")
COLUMNS = ("question", "answer", "skill", "difficulty")
GOLD = ("whole", "boxed", "hashes")


@dataclass(frozen=True)
class Maths(FreeText):
    """Problems of one benchmark."""

    skills: tuple[str, ...] = ()
    """What the skill column holds among the test problems; none where no column is named."""

    def problems(
        self,
        split: str,
        count: int,
        *,
        skill: str | None = None,
        part: str | None = None,
        difficulty: int | None = None,
    ) -> list[Problem]:
        """`count` distinct problems of a split, by the order of their hash.

        Raises:
            Refusal: the task has no such split, part, skill or difficulty, fewer problems than
                that, or a source that can't be read.
        """
        if split not in self.settings["splits"]:
            raise Refusal(
                f"{self.name} has no split {split!r}; it has {', '.join(self.settings['splits'])}."
            )
        if part:
            raise Refusal(f"{self.name} is not divided into parts; asked for {part!r}.")
        found = _problems(self, split)
        fit = [p for p in found if skill in (None, p.skill) and difficulty in (None, p.difficulty)]
        if len(fit) < count:
            of = [f"skill {skill!r}" if skill else "", f"difficulty {difficulty}"]
            of = " and ".join(filter(None, of if difficulty is not None else of[:1]))
            skills, levels = unique(p.skill for p in found), unique(p.difficulty for p in found)
            raise Refusal(
                f"{self.name}: the {split} split has {len(fit)} problems"
                f"{of and f' of {of}'}, and {count} were asked for. There are skills "
                f"{sorted(skills)} and difficulties {sorted(levels)}."
            )
        return fit[:count]

    def gold(self, problem: Problem) -> str:
        """The gold answer as the template asks for it; no derivation."""
        return mark_answer(problem.answer, self.template.marks[0])

    def grade(self, problem: Problem, response: str) -> Grade:
        """By the last final answer of the response, and math-verify."""
        answer = self.template.answer(response)
        return Grade.UNPARSED if answer is None else judging.judge(problem.answer, answer)

    def warm(self) -> None:
        """Import what the grader needs, so that no text pays for it (`probes.verify`)."""
        judging.library()


def _problems(task: Maths, split: str) -> tuple[Problem, ...]:
    """All problems of a split; kept by content, as a task is sent to workers without them."""
    return _read(task.name, json.dumps(task.settings), task.template, split)


@lru_cache(maxsize=32)
def _read(name: str, settings: str, template: Template, split: str) -> tuple[Problem, ...]:
    said = json.loads(settings)
    splits, later = said["splits"], SPLITS[SPLITS.index(split) + 1 :]
    mine = splits[split]
    taken: set[str] = set()
    for other in later:
        if other in splits and splits[other]["of"] != mine["of"]:
            taken |= {key for key, _ in _questions(name, said, splits[other]["of"])}
    found: dict[str, Problem] = {}
    for key, row in _questions(name, said, mine["of"]):
        if key in taken or _split_of(key, splits, mine["of"]) != split:
            continue
        problem = _problem(name, said["columns"], template, row)
        if key in found and found[key].answer != problem.answer:
            raise Refusal(
                f"{name}: the question {row['question'][:60]!r} is there twice, with the answers "
                f"{found[key].answer!r} and {problem.answer!r}: which is right?"
            )
        found.setdefault(key, problem)
    if not found:
        raise Refusal(f"{name}: the {split} split is empty: no question of {mine['of']} is in it.")
    return tuple(found[key] for key in sorted(found))


def _questions(name: str, said: dict[str, Any], of: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Hash and row of every question, its gold answer read."""
    columns = said["columns"]
    source = said["source"]
    for number, row in enumerate(rows(source, said["config"], said["revision"], of), 1):
        if missing := [c for c in columns.values() if c not in row]:
            raise Refusal(
                f"{name}: {source} has no column {', '.join(missing)} (row {number} of {of}); it "
                f"has {', '.join(row)}. Name them in [columns]."
            )
        question = row[columns["question"]]
        answer = _gold(row[columns["answer"]], said["gold"])
        if not isinstance(question, str) or not question.strip() or not answer:
            raise Refusal(
                f"{name}: row {number} of {of} has no question or no answer (gold = "
                f"{said['gold']!r}): {str(question)[:60]!r}, {str(row[columns['answer']])[-60:]!r}."
            )
        key = content_hash(" ".join(question.split()).casefold())
        yield (
            key,
            {"question": question.strip(), "answer": answer}
            | {what: row[columns[what]] for what in ("skill", "difficulty") if what in columns},
        )


def _gold(value: Any, how: str) -> str:
    """The gold answer of a column's value; "" where there is none."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    read = {"whole": str, "boxed": boxed, "hashes": hashed}[how]
    return (read(str(value)) or "").strip()


def _split_of(key: str, splits: dict[str, dict[str, Any]], of: str) -> str:
    """Which of the splits that share a split of the source a question is in."""
    sharing = {name: said["share"] for name, said in splits.items() if said["of"] == of}
    return split_of(key, sharing)


def _problem(
    name: str, columns: dict[str, str], template: Template, row: dict[str, Any]
) -> Problem:
    skill, level = row.get("skill", ""), str(row.get("difficulty", 0))
    number = re.search(r"\d+", level)
    if number is None:
        raise Refusal(f"{name}: {columns['difficulty']} = {level!r} has no number in it.")
    return Problem(
        task=name,
        prompt=template.prompt(row["question"]),
        answer=row["answer"],
        skill=str(skill[0] if isinstance(skill, list) and skill else skill),
        part="",
        difficulty=int(number[0]),
        spec=json.dumps({"question": row["question"]}, ensure_ascii=False),
    )


def load(name: str, settings: dict[str, Any]) -> Maths:
    """The benchmark of a parsed file; see `probes.tasks.load_task`.

    Problems are read when they are asked for, but where a column names their skills: then those of
    the test split are read here.

    Raises:
        Refusal: a setting that is missing, unknown or wrong, or a template that is.
    """
    check_some_keys(name, settings, REQUIRED, OPTIONAL)
    said = {"config": "", "revision": "", "gold": "whole", "chat": ""} | settings
    check_text(name, "source", said["source"])
    for key in ("config", "revision"):
        if not isinstance(said[key], str):
            raise Refusal(f"{name}: {key} = {said[key]!r} must be text.")
    if said["gold"] not in GOLD:
        raise Refusal(f"{name}: gold = {said['gold']!r} is none of {', '.join(GOLD)}.")
    check_whole(name, "budget", said["budget"], 1)
    check_chance(name, "guess_rate", said.get("guess_rate", 0.0))
    judging.check_installed()
    _check_columns(name, said["columns"])
    said["splits"] = _splits(name, said["splits"], said["source"])
    template = read_template(name, said["template"], said.get("shots"), said["chat"])
    task = Maths(name, said | {"template": template.record()}, template)
    if "skill" not in said["columns"]:
        return task
    split = "test" if "test" in said["splits"] else next(iter(said["splits"]))
    return replace(task, skills=tuple(sorted({p.skill for p in _problems(task, split)})))


def _check_columns(name: str, columns: Any) -> None:
    if (
        not isinstance(columns, dict)
        or not {"question", "answer"} <= set(columns) <= set(COLUMNS)
        or not all(isinstance(column, str) for column in columns.values())
    ):
        raise Refusal(
            f"{name}: columns = {columns!r} must name the columns of question and answer, and may "
            f"name those of skill and difficulty."
        )


def _splits(name: str, given: Any, source: str) -> dict[str, dict[str, Any]]:
    """Of each split the source's own that it is from, and its share of it."""
    told = f"{name}: splits = {given!r} must give to some of {', '.join(SPLITS)} "
    if not isinstance(given, dict) or not given or not set(given) <= set(SPLITS):
        raise Refusal(f'{told}a table such as {{ of = "train", share = 9 }}.')
    found = {}
    for split, said in given.items():
        if not isinstance(said, dict) or not set(said) <= {"of", "share"} or "of" not in said:
            raise Refusal(f'{told}a table such as {{ of = "train", share = 9 }}.')
        check_text(name, f"splits.{split}.of", said["of"])
        check_whole(name, f"splits.{split}.share", said.get("share", 1), 1)
        found[split] = {"of": said["of"], "share": said.get("share", 1)}
    of = unique(said["of"] for said in found.values())
    if is_file(source) and len(of) > 1:
        raise Refusal(
            f"{name}: splits are of {', '.join(of)}, but {source} is one file, hence one split: "
            f"give all the same `of` and shares, or a folder with a file a split."
        )
    return found
