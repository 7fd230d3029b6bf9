"""The cells of a task: each skill, and each half of its entries where they are divided."""

from collections.abc import Sequence
from contextlib import suppress

from probes.records import Problem, Refusal, unique
from probes.tasks import Task

Cell = tuple[str | None, str | None]
"""Skill and half; None is any."""


def cells_of(task: Task) -> list[Cell]:
    """Skill and half of its entries; halves are found by looking at test problems."""
    found: list[Cell] = []
    for skill in task.skills or (None,):
        parts = unique([p.part for p in _some(task, skill)])
        found += [(skill, part) for part in sorted(parts)]
    return found


def _some(task: Task, skill: str | None) -> list[Problem]:
    """A few test problems of a skill; a small task may not have two dozen."""
    for count in (24, 12, 6, 3):
        with suppress(Refusal):
            return task.problems("test", count, skill=skill)
    return task.problems("test", 1, skill=skill)


def problems_of(task: Task, cells: Sequence[Cell], split: str, count: int) -> list[Problem]:
    """So many problems of each cell."""
    return [
        problem
        for skill, part in cells
        for problem in task.problems(split, count, skill=skill, part=part)
    ]
