"""The grammar of a chain's response: its words, and its moves as parsed from left to right."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from probes.tasks import END

WORDS = ("=", ";", "?", "ok", "no", "ans", ">")


@dataclass(frozen=True)
class Move:
    """One move of a response as parsed: its words, what it is, and the value that it states."""

    start: int
    stop: int
    kind: str
    """"step", "check", "repair", "answer", or "format" for words that fit no rule."""
    functions: tuple[str, ...] = ()
    value: int = -1
    agrees: bool = True
    """Of a check: whether it ended in `ok`."""


def parse(words: Sequence[str]) -> Iterator[Move]:
    """The moves of a response, left to right; from the first misfit on, one "format" move.

    >>> [m.kind for m in parse("n0 = 21 ? 2 no = 2 ; ans 2".split())]
    ['step', 'check', 'repair', 'answer']
    """
    words = [word for word in words if word != END]
    place, can_check, can_repair, closed = 0, False, False, True

    def number(at: int) -> int | None:
        return int(words[at]) if at < len(words) and words[at].isdecimal() else None

    while place < len(words):
        word = words[place]
        if word == ";" and not closed:
            place, can_check, can_repair, closed = place + 1, False, False, True
            continue
        if word == "?" and can_check and number(place + 1) is not None:
            if words[place + 2 : place + 3] in (["ok"], ["no"]):
                agrees = words[place + 2] == "ok"
                yield Move(place, place + 3, "check", value=int(words[place + 1]), agrees=agrees)
                place, can_check, can_repair = place + 3, False, not agrees
                continue
        elif word == "=" and can_repair and number(place + 1) is not None:
            yield Move(place, place + 2, "repair", value=int(words[place + 1]))
            place, can_repair = place + 2, False
            continue
        elif word == "ans" and closed and number(place + 1) is not None:
            yield Move(place, place + 2, "answer", value=int(words[place + 1]))
            place, closed = place + 2, False
            if place < len(words):
                yield Move(place, len(words), "format")
            return
        elif closed and word not in WORDS and not word.isdecimal():
            named = 2 if words[place + 1 : place + 2] != ["="] else 1
            value = number(place + named + 1)
            if words[place + named : place + named + 1] == ["="] and value is not None:
                functions = tuple(words[place : place + named])
                yield Move(place, place + named + 2, "step", functions, value)
                place, can_check, closed = place + named + 2, True, False
                continue
        yield Move(place, len(words), "format")
        return
