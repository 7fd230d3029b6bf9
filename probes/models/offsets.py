"""Which characters of a text its tokens stand for, where a token is no word.

    places = offsets(model, tokens)          # start and stop of each token in decode(model, tokens)
    covering(places, 10, 25)                 # the tokens that have a part of characters 10 to 24

Labels of text (`probes.strategies.sentences`) count characters and activations count tokens. The
tokens are those that were written: encoding their text again may give others.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from probes.models.loading import Model, decode

BROKEN = "\N{REPLACEMENT CHARACTER}"
BLOCK = 64
"""Tokens between two places where decoding may begin anew: it is of prefixes, so quadratic."""


def offsets(model: Model, tokens: Sequence[int]) -> Int[np.ndarray, "tokens 2"]:
    """Start and stop of each token in `decode(model, tokens)`; equal where it shows nothing.

    A character of several tokens belongs to the last of them; special tokens show nothing.
    """
    whole = decode(model, tokens)
    stops, start, at = [], 0, 0
    for i in range(len(tokens)):
        # What is broken off within a character counts when the rest of it comes.
        text = decode(model, tokens[start : i + 1]).rstrip(BROKEN)
        stops.append(max(at + len(text), stops[-1] if stops else 0))
        if i + 1 - start >= BLOCK and _joins(model, tokens, start, i + 1):
            start, at = i + 1, stops[-1]
    if stops:
        stops[-1] = len(whole)
    starts = [0, *stops[:-1]]
    return np.array([starts, stops], dtype=np.int64).reshape(2, -1).T


def covering(places: Int[np.ndarray, "tokens 2"], start: int, stop: int) -> list[int]:
    """The tokens that have a part of the characters from start to stop (exclusive)."""
    if start >= stop:
        return []
    has = (places[:, 0] < stop) & (places[:, 1] > start) & (places[:, 0] < places[:, 1])
    return np.flatnonzero(has).tolist()


def _joins(model: Model, tokens: Sequence[int], start: int, at: int) -> bool:
    """Whether the text can be decoded in two parts here: some tokenizers put blanks between."""
    left, right = decode(model, tokens[start:at]), decode(model, tokens[at : at + 8])
    return not left.endswith(BROKEN) and left + right == decode(model, tokens[start : at + 8])
