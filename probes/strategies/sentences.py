"""Sentences and steps of a text in a natural language, by where they stand in it.

    sentences("First, 3.5 is odd. So add 1; then stop.")     # three of them
    steps(answer)                                            # its paragraphs

A sentence ends at ``. ! ? ;`` or at a line's end, but not inside a number or behind a short
abbreviation; what has fewer than three words is joined to the one before (Venhoff et al.,
arXiv:2510.07364, split alike and drop those; here every character stays in some sentence, so that
labels cover the text). A step is a paragraph. Both take time linear in the text.
"""

import re
from dataclasses import dataclass

LEAST = 3
"""Words of a sentence (arXiv:2510.07364)."""

# Possessive, and of a run of marks the first only: shorter or later ones end no sentence either.
_END = re.compile(r"(?:(?<![!?;])[!?;]++|(?<!\.)\.++(?!\d))[\"')\]}*]*+(?=\s|$)|\n+")
_FARTHEST = len("approx.\n")
"""Characters before a sentence's end that an abbreviation there may take."""
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|cf|vs|Eq|Fig|Dr|Mr|Mrs|No|approx|resp|etc)\.$")


@dataclass(frozen=True)
class Segment:
    """A stretch of a text."""

    start: int
    """First character."""
    stop: int
    """The one after the last."""
    text: str


def sentences(text: str, *, least: int = LEAST) -> list[Segment]:
    """The sentences of a text, in order; together they are all of it but the blanks between.

    >>> [s.text for s in sentences("First, 3.5 is odd. So add 1 to it; then we stop. Done.")]
    ['First, 3.5 is odd.', 'So add 1 to it;', 'then we stop. Done.']

    Args:
        text: any.
        least: words below which a sentence is part of the one before it; the first of a text is
            joined to the next.
    """
    ends = [m.end() for m in _END.finditer(text)]
    ends = [e for e in ends if not _ABBREVIATION.search(text, max(0, e - _FARTHEST), e)]
    return _joined(text, [*ends, len(text)], least)


def steps(text: str) -> list[Segment]:
    """The paragraphs of a text: what empty lines divide."""
    return _joined(text, [*(m.end() for m in re.finditer(r"\n\s*\n", text)), len(text)], 1)


def _joined(text: str, ends: list[int], least: int) -> list[Segment]:
    spans: list[tuple[int, int, int]] = []  # start, stop, words: ends are between words
    begin = 0
    for end in ends:
        piece, start = text[begin:end], begin
        begin = end
        words = len(piece.split())
        if not words:
            continue
        start += len(piece) - len(piece.lstrip())
        stop = start + len(piece.strip())
        if spans and (words < least or spans[-1][2] < least):
            first, _, before = spans.pop()
            spans.append((first, stop, before + words))
        else:
            spans.append((start, stop, words))
    return [Segment(start, stop, text[start:stop]) for start, stop, _ in spans]
