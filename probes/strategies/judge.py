"""Label segments by asking a judge model, each question once, whatever ends the run.

    judge = ByJudge(Chat(address, model), model, load_rubric("venhoff"), Path("runs/judged"))
    judge.label(passages(problems, rollouts))

Answers are kept on disk, a file each, under the hash of the model, the rubric and the texts that it
was asked about: a second run asks what the first one didn't reach. What is kept is the judge's
words; they are read anew each time, and never run. Failures are not kept.
"""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from probes.records import Refusal, content_hash, write_json
from probes.strategies.chat import Ask, Refused, TimedOut
from probes.strategies.labellers import Failure, Given, Passage, Unlabelled
from probes.strategies.rubric import Rubric

PATIENCE = 3
"""Questions in a row without an answer, after which the server is taken to be away."""
AT_ONCE = 8

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class ByJudge:
    """The labeller that asks."""

    ask: Ask
    """Messages in, text out: `chat.Chat`, or any function."""
    model: str
    """The judge's name: part of every key, for another model may say otherwise."""
    rubric: Rubric
    kept: Path
    """Folder of the answers; may be shared by many runs and judges."""
    at_once: int = AT_ONCE
    """Questions in flight."""
    progress: Callable[[int], Any] | None = field(default=None, compare=False)
    """Called with 1 after each answer."""

    @property
    def name(self) -> str:
        """Of the judge and its rubric."""
        return f"judge {self.model} ({self.rubric.name})"

    @property
    def fitted_on(self) -> frozenset[str]:
        """None."""
        return frozenset()

    def label(self, passages: Sequence[Passage]) -> list[list[Given]]:
        """What it says of each segment, shown with the question and what stands before it.

        Raises:
            OtherModel: the answers are by another model: not one more is asked for.
            TimedOut: no answer to several questions in a row; what was answered is kept.
            Refusal: the server refuses every question.
        """
        asked: dict[str, Messages] = {}
        keys: list[list[str]] = []
        for one in passages:
            keys.append([])
            for segment in one.segments:
                said = self.rubric.messages(one.prompt, one.text[: segment.start], segment.text)
                key = content_hash([self.model, self.rubric.digest, said])
                asked[key] = said
                keys[-1].append(key)
        answers = self._answers(asked)
        return [[answers[key] for key in of_passage] for of_passage in keys]

    def _answers(self, asked: dict[str, Messages]) -> dict[str, Given]:
        """One answer for each key; those on disk are not asked for."""
        found = {key: self._found(key) for key in asked}
        answers = {key: self._read(said) for key, said in found.items() if said is not None}
        away = _Away()
        with ThreadPoolExecutor(self.at_once) as pool:
            waiting = {
                key: pool.submit(self._asked, key, messages, away)
                for key, messages in asked.items()
                if key not in answers
            }
            try:
                for key, future in waiting.items():
                    answers[key] = future.result()
                    if self.progress:
                        self.progress(1)
            finally:
                pool.shutdown(cancel_futures=True)  # else an error waits for every open question
        return answers

    def _asked(self, key: str, messages: Messages, away: "_Away") -> Given:
        away.check()
        try:
            said = self.ask(messages)
        except Refused as refused:
            away.answered()
            return Unlabelled(Failure.REFUSED, str(refused))
        except TimedOut as late:
            away.late(late)
            return Unlabelled(Failure.TIMEOUT, str(late))
        away.answered()
        about = {"model": self.model, "rubric": self.rubric.digest, "messages": messages}
        write_json(self._file(key), {**about, "said": said})
        return self._read(said)

    def _found(self, key: str) -> str | None:
        """An answer that is on disk, whole and to this question; None where there is none."""
        try:
            kept = json.loads(self._file(key).read_text())
            same = content_hash([kept["model"], kept["rubric"], kept["messages"]]) == key
            said = kept["said"]
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError):
            return None  # damaged: asked again, and written over
        except OSError as error:
            raise Refusal(f"the judge's answers in {self.kept} can't be read: {error}.") from None
        return said if same and isinstance(said, str) else None

    def _file(self, key: str) -> Path:
        return self.kept / key[:2] / f"{key}.json"

    def _read(self, said: str) -> Given:
        label = self.rubric.read(said)
        if label is None:
            return Unlabelled(Failure.UNPARSABLE, f"it said {said[:200]!r}")
        return label


class _Away:
    """Counts questions in a row that nobody answered, over all threads.

    It is counted where they are asked: by the time that results are looked at in order, a server
    that refuses connections has been asked everything.
    """

    def __init__(self) -> None:
        self._lock, self._lost = Lock(), 0
        self._last: TimedOut | None = None

    def answered(self) -> None:
        """The server is there."""
        with self._lock:
            self._lost = 0

    def late(self, why: TimedOut) -> None:
        """One more, which is raised if it is one too many."""
        with self._lock:
            self._lost, self._last = self._lost + 1, why
        self.check()

    def check(self) -> None:
        """Raise what was raised last, once the server is taken to be away."""
        if self._lost >= PATIENCE and self._last is not None:
            raise self._last
