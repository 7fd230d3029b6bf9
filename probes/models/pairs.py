"""Pairs: the published ones, and whether two models can be compared position by position.

    pair = find_pair("orz-0.5b")                  # of data/pairs.toml
    base, tuned = (outline(m, weights=False) for m in (pair.base, pair.tuned))
    differences(base, tuned)                      # what stands against it: [] is nothing

Two models can be compared where the same numbers are the same tokens and the same layer has the
same shape. Distilled models often rename tokens that their base never used; such a pair can be
compared on texts without them, which the caller has to see to: `check_pair` refuses it unless told.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from probes import DATA
from probes.models.loading import Model
from probes.records import Refusal, read_toml

SHIPPED, TEMPLATES = DATA / "pairs.toml", DATA / "templates.toml"
KINDS = ("rl", "distilled", "distilled, then rl", "instruct")
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Pair:
    """A base and what was made of it; data/pairs.toml says what each field holds."""

    name: str
    base: str
    tuned: str
    kind: str
    done: str
    template: str
    thinking: tuple[str, ...] | None
    """What opens and closes a thought; () where there is nothing of the kind, None: unknown."""
    used_by: tuple[str, ...]
    sources: tuple[str, ...]
    base_template: str = ""
    """"" where base and tuned are asked alike."""


TEXTS = ("name", "base", "tuned", "kind", "done", "template")
LISTS = ("used_by", "sources", "thinking")


@cache
def read_pairs(file: Path = SHIPPED) -> tuple[Pair, ...]:
    """The pairs of a file, in its order.

    Raises:
        Refusal: a field that is missing, unknown or of the wrong kind, or a name twice.
    """
    given = read_toml(file, file.parent, "file of pairs")[1]
    known = {*read_toml(TEMPLATES, DATA, "templates")[1], "chat", UNKNOWN}
    pairs = tuple(_pair(file, table, known) for table in given.get("pair", ()))
    names = [pair.name for pair in pairs]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise Refusal(f"{file} has {', '.join(twice)} twice.")
    return pairs


def find_pair(name: str) -> Pair:
    """The published pair of that name.

    Raises:
        Refusal: there is none.
    """
    pairs = {pair.name: pair for pair in read_pairs()}
    if name not in pairs:
        raise Refusal(
            f"{name!r} is no published pair; there are {', '.join(pairs)}. Two folders or hub "
            f"names make a pair of your own."
        )
    return pairs[name]


def _pair(file: Path, table: dict[str, Any], templates: set[str]) -> Pair:
    """One table, checked."""

    def refused(key: str, rule: str) -> Refusal:
        name = table.get("name", "a pair")
        return Refusal(f"{file}: {name}: {key} = {table.get(key)!r} must be {rule}.")

    if unknown := sorted(set(table) - {*TEXTS, *LISTS, "base_template"}):
        raise Refusal(f"{file}: {table.get('name', 'a pair')} has no field {', '.join(unknown)}.")
    values = dict(table)
    for key in TEXTS:
        if not isinstance(table.get(key), str) or not table[key]:
            raise refused(key, "text")
    for key in LISTS:
        given = [] if key == "thinking" and table.get(key) == UNKNOWN else table.get(key)
        if not isinstance(given, list) or not all(isinstance(v, str) and v for v in given):
            raise refused(key, "a list of texts")
        values[key] = tuple(given)
    if table["thinking"] == UNKNOWN:
        values["thinking"] = None
    elif len(table["thinking"]) not in (0, 2):
        raise refused("thinking", f"what opens and what closes, [], or {UNKNOWN}")
    if table["kind"] not in KINDS:
        raise refused("kind", f"one of {', '.join(KINDS)}")
    for key in ("template", "base_template"):
        if table.get(key, UNKNOWN) not in templates:
            raise refused(key, f"one of {', '.join(sorted(templates))}")
    if not table["sources"] or not all(s.startswith("https://") for s in table["sources"]):
        raise refused("sources", "addresses, at least one")
    return Pair(**values)


def differing_tokens(base: Model, tuned: Model) -> tuple[list[str], list[str]]:
    """Tokens that only one has, or that have another number: ordinary ones, and added ones.

    Added are those that a tokenizer holds beside what it learnt: of templates, thinking, padding.
    """
    one: Any = base.tokenizer
    other: Any = tuned.tokenizer
    ours, theirs = one.get_vocab(), other.get_vocab()
    beside = {**one.get_added_vocab(), **other.get_added_vocab()}
    differing = sorted(k for k in {**ours, **theirs} if ours.get(k) != theirs.get(k))
    return [t for t in differing if t not in beside], [t for t in differing if t in beside]


def differences(base: Model, tuned: Model, *, added: bool = True) -> list[str]:
    """What stands against comparing two models position by position, a sentence each.

    Args:
        base: one.
        tuned: the other.
        added: whether added tokens count.
    """
    found = []
    ordinary, beside = differing_tokens(base, tuned)
    if differing := sorted(ordinary + (beside if added else [])):
        only = "" if ordinary else ", all of them added ones: of templates, thinking or padding"
        found.append(
            f"{base.name} and {tuned.name} have different tokenizers ({len(differing)} tokens "
            f"differ, such as {differing[0]!r}{only}): a pair must be one model before and after "
            f"tuning."
        )
    for what in ("depth", "width", "vocab"):
        a, b = getattr(base, what), getattr(tuned, what)
        if a != b:
            found.append(
                f"{base.name} has {what} {a} and {tuned.name} {b}: a pair must be one model before "
                f"and after tuning."
            )
    if type(base.net) is not type(tuned.net):
        a, b = (type(m.net).__name__ for m in (base, tuned))
        found.append(f"{base.name} is {a} and {tuned.name} is {b}: a pair must be of one kind.")
    return found


def check_pair(base: Model, tuned: Model, *, added: bool = True) -> None:
    """Refuse two models that can't be compared position by position.

    Args:
        base: one.
        tuned: the other.
        added: whether their added tokens must agree too. A text that has one which doesn't would
            be read by one of the models as a token that it never saw.

    Raises:
        Refusal: they differ in tokenizer, in the number of blocks, in the residual's length or in
            the number of logits.
    """
    if found := differences(base, tuned, added=added):
        raise Refusal(found[0])


def spelt(model: Model, marks: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The tokens of each text: one where the model has the text as a token of its own."""
    encode: Any = model.tokenizer
    return {mark: tuple(encode(mark, add_special_tokens=False)["input_ids"]) for mark in marks}
