"""What a task's file may say: every key known and there, every value of its kind and in its range.

The families check their files with these before a problem is made, so that a slip (`modulos = 7`)
is neither a traceback nor another task than was meant.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from probes.records import Refusal
from probes.tasks import Task

SPLITS = ("tune", "select", "test")
"""Those that every task must have."""


def check_keys(name: str, table: str, given: Any, keys: Sequence[str]) -> None:
    """A table with these keys and no other; `table` is "" for the file itself."""
    where = f"[{table}]" if table else "the file"
    if not isinstance(given, dict):
        raise Refusal(f"{name}: {table} = {given!r} must be a table, with {', '.join(keys)}.")
    if unknown := sorted(set(given) - set(keys)):
        raise Refusal(f"{name}: {where} knows no {', '.join(unknown)}; it has {', '.join(keys)}.")
    if missing := [key for key in keys if key not in given]:
        raise Refusal(f"{name}: {where} lacks {', '.join(missing)}; it has {', '.join(keys)}.")


def check_some_keys(
    name: str, given: dict[str, Any], required: Sequence[str], optional: Sequence[str]
) -> None:
    """A file with all of the keys that it must have, and no other than those that it may have."""
    known = (*required, *optional)
    if unknown := sorted(set(given) - set(known)):
        raise Refusal(f"{name}: the file knows no {', '.join(unknown)}; it has {', '.join(known)}.")
    if missing := [key for key in required if key not in given]:
        raise Refusal(f"{name}: the file lacks {', '.join(missing)}; it has {', '.join(known)}.")


def check_chance(name: str, key: str, value: Any) -> None:
    """A number from 0 to 1."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value <= 1:
        raise Refusal(f"{name}: {key} = {value!r} must be a chance, from 0 to 1.")


def check_whole(
    name: str, key: str, value: Any, low: int | None = None, high: int | None = None
) -> None:
    """A whole number, within bounds where there are any."""
    fits = _whole(value) and (low is None or value >= low) and (high is None or value <= high)
    if not fits:
        ends = [f"from {low}" if low is not None else "", f"to {high}" if high is not None else ""]
        bounds = " ".join(filter(None, ends))
        raise Refusal(f"{name}: {key} = {value!r} must be a whole number{bounds and ' ' + bounds}.")


def check_pair(name: str, key: str, value: Any, what: str) -> None:
    """Two whole numbers; `what` says which."""
    if not isinstance(value, list) or len(value) != 2 or not all(map(_whole, value)):
        raise Refusal(f"{name}: {key} = {value!r} must be two whole numbers, {what}.")


def check_range(name: str, key: str, value: Any, low: int) -> None:
    """The lowest and the highest of something, from `low` on."""
    check_pair(name, key, value, f"the lowest and the highest, from {low}")
    if not low <= value[0] <= value[1]:
        raise Refusal(
            f"{name}: {key} = {value} must be the lowest and the highest, rising, from {low}."
        )


def check_text(name: str, key: str, value: Any) -> None:
    """Some words."""
    if not isinstance(value, str) or not value.split():
        raise Refusal(f"{name}: {key} = {value!r} must be text, of at least one word.")


def check_list(name: str, key: str, value: Any, known: Iterable[str]) -> None:
    """At least one of what is known, none twice."""
    known = list(known)
    listed = isinstance(value, list) and all(isinstance(one, str) for one in value)
    if not listed or not value or len(set(value)) < len(value):
        raise Refusal(f"{name}: {key} = {value!r} must list some of {' '.join(known)}, each once.")
    if unknown := sorted(set(value) - set(known)):
        raise Refusal(f"{name}: {key} names {unknown}, which are none of {' '.join(known)}.")


def check_splits(name: str, key: str, given: Any) -> None:
    """A share of the problem space for every split, none of them empty."""
    if not isinstance(given, dict) or not set(SPLITS) <= set(given):
        raise Refusal(f"{name}: {key} = {given!r} must give shares to {', '.join(SPLITS)}.")
    for split, share in given.items():
        check_whole(name, f"{key}.{split}", share, 1)


def check_made(task: Task, difficulties: Iterable[int]) -> None:
    """Each split has a problem of each difficulty, and its canonical answer is within budget.

    Raises:
        Refusal: it hasn't, or isn't.
    """
    for split in SPLITS:
        for difficulty in difficulties:
            problem = task.problems(split, 1, difficulty=difficulty)[0]
            words = len(task.gold(problem).split()) + 1
            if task.budget(problem) < words:
                raise Refusal(
                    f"{task.name}: budget allows {task.budget(problem)} words where the difficulty "
                    f"is {difficulty}, but its canonical answer has {words}, END included."
                )


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
