"""Label sentences by the words in them, with the papers' own lists.

    lexicon = load_lexicon("reasonscore")            # shipped: data/lexicons/, with its source
    by_lexicon(sentences(text), lexicon)             # ["reflection", "", ...]

A crude labeller, and one that anybody can repeat: say it with its agreement
(`probes.strategies.agreement`) to another one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from probes import DATA
from probes.records import Refusal, read_toml
from probes.strategies.sentences import Segment

SHIPPED = DATA / "lexicons"


@dataclass(frozen=True)
class Lexicon:
    """Words of each label, in the order in which labels are tried."""

    name: str
    source: str
    """Paper and place."""
    labels: dict[str, tuple[str, ...]]


def load_lexicon(source: str | Path) -> Lexicon:
    """A shipped lexicon by name, or one's own by the path of its TOML file.

    Raises:
        Refusal: no such file, one without a source, or a label without words.
    """
    path, given = read_toml(source, SHIPPED, "lexicon")
    labels, said = given.get("labels"), given.get("source")
    if not isinstance(said, str) or not said:
        raise Refusal(f"{path}: say where the words are from, as source = 'paper, place'.")
    if not isinstance(labels, dict) or not labels:
        raise Refusal(f"{path}: [labels] names each label with its list of words.")
    for label, words in labels.items():
        right = isinstance(words, list) and words and all(isinstance(w, str) and w for w in words)
        if not right:
            raise Refusal(f"{path}: label {label!r} = {words!r}; it is a list of words.")
    return Lexicon(path.stem, said, {k: tuple(v) for k, v in labels.items()})


def by_lexicon(segments: Sequence[Segment], lexicon: Lexicon) -> list[str]:
    """The label of each segment: the one whose word comes first in it; "" where none does.

    Words are found whole and whatever their case; several words stand for a phrase.

    >>> from probes.strategies.sentences import sentences
    >>> said = sentences("Wait, that is wrong. It is waiting there.")
    >>> by_lexicon(said, load_lexicon("reasonscore"))
    ['reflection', '']
    """
    patterns = {
        label: re.compile(rf"(?<!\w)(?:{'|'.join(map(_pattern, words))})(?!\w)", re.IGNORECASE)
        for label, words in lexicon.labels.items()
    }
    found = []
    for segment in segments:
        places = {
            label: match.start()
            for label, pattern in patterns.items()
            if (match := pattern.search(segment.text))
        }
        found.append(min(places, key=lambda label: places[label]) if places else "")
    return found


def _pattern(words: str) -> str:
    return r"\s+".join(re.escape(word) for word in words.split())
