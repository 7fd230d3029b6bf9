"""Which positions of a text are wanted, and under which label.

A text is a prompt of P tokens and an answer; its positions are the row's own, so word i of the
answer of a word-level model is at position P + i, and is chosen at position P + i - 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from probes.models import Model, encode
from probes.records import Decision, Problem, Refusal, Rollout, Span, Trace


@dataclass(frozen=True)
class Text:
    """A finished sequence of tokens, of which the first ones are a prompt."""

    problem: str
    sample: int
    prompt: tuple[int, ...]
    answer: tuple[int, ...] = ()
    setting: str | None = None
    """What observers look up to know what to do with this row; None for the plain model."""

    @property
    def tokens(self) -> tuple[int, ...]:
        """Prompt and answer."""
        return self.prompt + self.answer


class Mark(NamedTuple):
    """A wanted position and what it is marked as."""

    position: int
    label: str = ""


Positions = str | Sequence[Sequence[Mark | int]]
""""all": every position; "generated": those at which a token of the answer was
chosen, P-1 to the last but one; or the wanted ones of each text."""


def from_strings(model: Model, strings: Sequence[str]) -> list[Text]:
    """Texts without an answer, numbered."""
    return [Text(str(i), 0, encode(model, string)) for i, string in enumerate(strings)]


def from_rollouts(
    model: Model, problems: Sequence[Problem], rollouts: Sequence[Rollout]
) -> list[Text]:
    """The prompt of each rollout's problem, with the tokens that were written to it.

    Raises:
        Refusal: a rollout answers a problem that isn't among those given.
    """
    prompts = {p.id: encode(model, p.prompt) for p in problems}
    if missing := {r.problem for r in rollouts} - set(prompts):
        raise Refusal(
            f"{len(missing)} rollouts' problems ({min(missing)}, ...) are not among the "
            f"{len(prompts)} given: are these the rollouts of another task or split?"
        )
    return [Text(r.problem, r.sample, prompts[r.problem], tuple(r.tokens)) for r in rollouts]


def step_ends(text: Text, trace: Trace) -> list[Mark]:
    """The last token of each step, marked with the step's verdict."""
    return [Mark(len(text.prompt) + step.stop - 1, step.verdict) for step in trace.steps]


def spans(text: Text, marked: Sequence[Span]) -> list[Mark]:
    """Every token of each span, marked with its strategy."""
    zero = len(text.prompt)
    return [Mark(zero + word, s.strategy) for s in marked for word in range(s.start, s.stop)]


def before_decisions(text: Text, taken: Sequence[Decision]) -> list[Mark]:
    """The last position before each decision's word, marked "kind:choice".

    The word itself is not visible there: what is read is what the choice was made from.
    """
    zero = len(text.prompt)
    return [Mark(zero + d.position - 1, f"{d.kind}:{d.choice}") for d in taken]


def wanted(texts: Sequence[Text], positions: Positions) -> list[list[Mark]]:
    """The marks of each text.

    Raises:
        Refusal: another number of lists than texts, or a position that a text doesn't have.
    """
    if positions == "all":
        return [[Mark(p) for p in range(len(t.tokens))] for t in texts]
    if positions == "generated":
        return [[Mark(p) for p in range(len(t.prompt) - 1, len(t.tokens) - 1)] for t in texts]
    if isinstance(positions, str):
        raise Refusal(f"positions {positions!r} is not known: all, generated, or a list a text.")
    if len(positions) != len(texts):
        raise Refusal(f"{len(positions)} lists of positions were given for {len(texts)} texts.")
    marks = [[m if isinstance(m, Mark) else Mark(m) for m in listed] for listed in positions]
    for text, listed in zip(texts, marks, strict=True):
        for mark in listed:
            if not 0 <= mark.position < len(text.tokens):
                raise Refusal(
                    f"position {mark.position} is not in text {text.problem}/{text.sample}, which"
                    f" has 0..{len(text.tokens) - 1}; {len(text.prompt)} are the prompt's."
                )
    return marks


def by_text(texts: Sequence[Text], marks: Sequence[list[Mark]]) -> Mapping[tuple, list[Mark]]:
    """The marks by (problem, sample, setting), in order of position.

    Raises:
        Refusal: two texts have the same of all three, and their lines could not be told apart.
    """
    keys = [(t.problem, t.sample, t.setting) for t in texts]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise Refusal(f"problem {twice[0]}, sample {twice[1]} is there twice with one setting.")
    return {k: sorted(m) for k, m in zip(keys, marks, strict=True)}
