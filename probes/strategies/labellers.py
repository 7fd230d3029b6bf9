"""One interface for whatever labels the sentences of answers, and the rows that come of it.

    texts = passages(problems, rollouts)                   # cut into sentences; `steps` into steps
    rows = labelled([ByLexicon(load_lexicon("reasonscore")), judge], texts)

A labeller says of every segment which label it has, "" for none of its labels, or `Unlabelled`
with the kind of failure: what could not be labelled is not without a label. There are four:

    ByLexicon                       by words (`probes.strategies.lexicon`)
    probing.ByProbe                 a linear probe taught by another labeller
    judge.ByJudge                   a judge model behind an OpenAI-compatible address
    probes.taxonomy.ByTaxonomy      the strongest latent of a taxonomy

No label is the truth: `probes.strategies.between` says how well labellers agree.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from probes.records import Problem, Refusal, Rollout
from probes.strategies.lexicon import Lexicon, by_lexicon
from probes.strategies.sentences import Segment, sentences


@dataclass(frozen=True)
class Passage:
    """One answer, cut into the segments that are to be labelled."""

    problem: str
    """Id of its problem: the unit of every interval."""
    sample: int
    setting: str
    prompt: str
    """What the writer read."""
    text: str
    tokens: tuple[int, ...]
    """As they were written; () where only the text is known."""
    segments: tuple[Segment, ...]
    """Counted in characters of the text."""


class Failure(StrEnum):
    """Why a segment has no label."""

    TIMEOUT = "timeout"
    """No whole answer within the tries."""
    REFUSED = "refused"
    """The judge, or its server, won't answer this."""
    UNPARSABLE = "unparsable"
    """What it answered names no label."""


@dataclass(frozen=True)
class Unlabelled:
    """In place of a label: what went wrong."""

    failure: Failure
    why: str


Given = str | Unlabelled
"""A label ("": none of the labeller's), or why there is none."""


@runtime_checkable
class Labeller(Protocol):
    """Whatever labels segments."""

    @property
    def name(self) -> str:
        """Says what labelled: figures and tables carry it."""
        ...

    @property
    def fitted_on(self) -> frozenset[str]:
        """Problems whose labels it was fitted to: its agreement there proves nothing."""
        ...

    def label(self, passages: Sequence[Passage]) -> list[list[Given]]:
        """What each segment of each passage is given."""
        ...


@dataclass(frozen=True)
class Labelled:
    """What one labeller says of one segment; a row of the table that is written."""

    problem: str
    sample: int
    setting: str
    start: int
    """First character of the segment in the answer."""
    stop: int
    """The one after the last."""
    text: str
    labeller: str
    label: str | None
    """"" for none of its labels; None where it could not be labelled."""
    failure: str
    """One of `Failure` where it could not, else ""."""
    why: str
    fitted: bool
    """Whether the labeller was fitted to labels of this problem."""


@dataclass(frozen=True)
class ByLexicon:
    """The labeller of a word list."""

    lexicon: Lexicon

    @property
    def name(self) -> str:
        """The list's own."""
        return f"lexicon {self.lexicon.name}"

    @property
    def fitted_on(self) -> frozenset[str]:
        """None."""
        return frozenset()

    def label(self, passages: Sequence[Passage]) -> list[list[Given]]:
        """By the word that comes first in each segment."""
        return [list(by_lexicon(one.segments, self.lexicon)) for one in passages]


def passages(
    problems: Sequence[Problem],
    rollouts: Sequence[Rollout],
    cut: Callable[[str], list[Segment]] = sentences,
) -> list[Passage]:
    """The answers, cut into segments; an empty answer has none.

    Args:
        problems: those that were answered.
        rollouts: the answers.
        cut: `sentences`, `steps`, or any function from a text to its segments.

    Raises:
        Refusal: a rollout answers a problem that isn't among those given.
    """
    prompts = {p.id: p.prompt for p in problems}
    if unknown := {r.problem for r in rollouts} - set(prompts):
        raise Refusal(
            f"{len(unknown)} rollout problem(s) are not among the {len(prompts)} given, such as "
            f"{min(unknown)}: were they sampled from another task, split or version of it?"
        )
    return [
        Passage(
            r.problem,
            r.sample,
            r.setting,
            prompts[r.problem],
            r.text,
            tuple(r.tokens),
            tuple(cut(r.text)),
        )
        for r in rollouts
    ]


def labelled(labellers: Sequence[Labeller], given: Sequence[Passage]) -> list[Labelled]:
    """Every segment as every labeller has it, labeller by labeller.

    Raises:
        Refusal: no segment, or two labellers of one name; what a labeller refuses.
    """
    names = [one.name for one in labellers]
    if len(set(names)) < len(names):
        raise Refusal(f"labellers are told apart by name, and these are {', '.join(names)}.")
    if not any(one.segments for one in given):
        raise Refusal(f"the {len(given)} answers have no sentence: there is nothing to label.")
    return [row for one in labellers for row in _rows(one, given)]


def _rows(labeller: Labeller, given: Sequence[Passage]) -> list[Labelled]:
    rows = []
    for passage, labels in zip(given, labeller.label(given), strict=True):
        for segment, said in zip(passage.segments, labels, strict=True):
            failed = isinstance(said, Unlabelled)
            rows.append(
                Labelled(
                    passage.problem,
                    passage.sample,
                    passage.setting,
                    segment.start,
                    segment.stop,
                    segment.text,
                    labeller.name,
                    None if failed else said,
                    said.failure.value if failed else "",
                    said.why if failed else "",
                    passage.problem in labeller.fitted_on,
                )
            )
    return rows
