"""A tokenizer of our own: what the server should have read, and ids where it gives none."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Tokens:
    """The tokenizer of the model that is served."""

    of_prompt: Callable[[str], Sequence[int]]
    """The ids of a prompt, with the special ones that belong before it."""
    of_answer: Callable[[str], Sequence[int]]
    """The ids of an answer's text, without special ones."""
    text_of: Callable[[Sequence[int]], str]
    """The text of ids."""
    end: int | None
    """Id of the token that ends an answer, where there is one."""
    name: str
    """For messages."""
    digest: str = ""
    """Of the model that it belongs to, where its weights are here."""

    def spell(self, ids: Sequence[int], text: str) -> bool:
        """Whether there are ids, and these are the text's; a server may send anything."""
        try:
            return bool(ids) and self.text_of(ids).strip() == text.strip()
        except (IndexError, OverflowError, TypeError, ValueError):
            return False

    def anew(self, text: str, stop: str) -> tuple[int, ...]:
        """The canonical ids of a finished text, the stop token included where one was reached.

        Empty where they don't spell it again: a word that the tokenizer doesn't know, or one
        that changes what it reads.
        """
        ids = tuple(self.of_answer(text))
        if self.text_of(ids).strip() != text.strip():
            return ()
        return (*ids, self.end) if stop == "stop" and self.end is not None else ids


def tokens_of(model: Any) -> Tokens:
    """Those of a `probes.models.Model`; `probes.models.outline` gives one without weights."""
    from probes.models import decode, encode

    def of_answer(text: str) -> tuple[int, ...]:
        return tuple(model.tokenizer(text, add_special_tokens=False)["input_ids"])

    def of_prompt(text: str) -> tuple[int, ...]:
        return encode(model, text)

    def text_of(ids: Sequence[int]) -> str:
        return decode(model, ids)

    end = model.tokenizer.eos_token_id
    return Tokens(of_prompt, of_answer, text_of, end, model.name, model.digest)
