"""Paths and names by what tells them apart."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from os.path import commonprefix
from typing import Any

ENDING = re.compile(r"\.(safetensors|toml|json|gguf)(?=#|$)")
SITE = re.compile(r"[-._]?blocks\.\{\w+\}\.hook_\w+")
"""Of a template: its layer is an axis of its own."""
WINDOWS = {"": "all", "origin generated": "generated", "origin generated, stop 1": "prompt"}
"""What sweep files call them."""
PIECE = re.compile(r"(?=[-_/#]|\.(?!\d))")
"""Where a name may be cut; 0.5 is one piece, and so is blocks.0."""
NUMBER = re.compile(r"[-_/#.]?\d")
"""A piece that means nothing without the one before it."""


def short_names(values: Iterable[str]) -> dict[str, str]:
    """A name for each value: without the folders, endings and tails that all of its kind share.

    Different values keep different names, and none gets longer or is left empty. A number never
    goes without the word before it.

    >>> short_names(["../base-0", "../rl-0-0"])
    {'../base-0': 'base-0', '../rl-0-0': 'rl-0-0'}
    >>> list(short_names(["d/jump-blocks.2.hook_mlp_out.safetensors",
    ...                   "d/check-blocks.2.hook_mlp_out.safetensors"]).values())
    ['jump', 'check']

    Args:
        values: of one axis; windows may be the JSON that the table has.
    """
    wanted = list(dict.fromkeys(values))
    names = wanted
    for step in STEPS:
        shorter = step(names)
        emptied = any(long and not short for long, short in zip(names, shorter, strict=True))
        if len(set(shorter)) == len(wanted) and not emptied:
            names = shorter
    return dict(zip(wanted, names, strict=True))


def _without_brackets(names: Sequence[str]) -> list[str]:
    return [_window(n) if n.startswith("{") else n for n in names]


def _window(text: str) -> str:
    """A window, which a table has as JSON, in words; any other text as it is."""
    try:
        given = json.loads(text)
    except ValueError:  # a template may begin with a brace
        return text
    if given.get("origin") == "generated" and given.get("start") == 0:
        del given["start"]  # where that begins anyway
    said = ", ".join(f"{k} {_listed(v)}" for k, v in sorted(given.items()) if v is not None)
    return WINDOWS.get(said, said)


def _listed(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _without_endings(names: Sequence[str]) -> list[str]:
    return [ENDING.sub("", n) for n in names]


def _without_sites(names: Sequence[str]) -> list[str]:
    return [SITE.sub("", n) for n in names]


def _without_folders(names: Sequence[str]) -> list[str]:
    """The fewest last parts of a path that are different in all."""
    split = [n.partition("#") for n in names]
    paths = [[part for part in path.split("/") if part] for path, *_ in split]
    for count in range(1, max(map(len, paths), default=0) + 1):
        shorter = [
            "/".join(path[-count:]) + mark + part
            for path, (_, mark, part) in zip(paths, split, strict=True)
        ]
        if len(set(shorter)) == len(names):
            return shorter
    return list(names)


def _without_tails(names: Sequence[str]) -> list[str]:
    """What the names that end in one word all end in, as long as it begins with no number."""
    pieces = [[p for p in PIECE.split(n) if p] for n in names]
    kinds: dict[str, list[list[str]]] = {}
    for of_it in pieces:
        kinds.setdefault(of_it[-1] if of_it else "", []).append(of_it)
    cut = {last: _tail(of_kind) for last, of_kind in kinds.items()}
    return ["".join(p[: len(p) - cut[p[-1]]]) if p else "" for p in pieces]


def _tail(names: Sequence[Sequence[str]]) -> int:
    """How many pieces."""
    if len(names) < 2:
        return 0
    shared = commonprefix([list(reversed(pieces[1:])) for pieces in names])
    while shared and NUMBER.match(shared[-1]):
        shared = shared[:-1]
    return len(shared)


STEPS: tuple[Callable[[Sequence[str]], list[str]], ...] = (
    _without_brackets,
    _without_endings,
    _without_sites,
    _without_folders,
    _without_tails,
)
"""Each is taken back where it makes two names alike."""
