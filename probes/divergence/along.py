"""Two models along the same rollouts, token by token: where they part, and how far.

    parted = divergences(base, tuned, task, problems, rollouts)   # of either model's texts
    parted[0].of.kl[0], parted[0].places, parted[0].first

Both models read the same text (teacher forcing), so what differs at a token is what they would
write next, never what they wrote before. Whose texts they are matters: report base's and tuned's
apart.

To *part* is to have another likeliest token. The first parting is where greedy decoding of the two
would leave each other, had it come so far on this text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int

from probes.divergence.kl import Compared, compare
from probes.divergence.places import places
from probes.generate import replay
from probes.models import Model, check_pair, encode
from probes.records import Problem, Refusal, Rollout
from probes.tasks import Task

LOGITS = 1 << 26
"""Most logits of a pass of one model: 256 MB in float32."""


@dataclass(frozen=True)
class Parted:
    """Two models along one rollout; row 0 is the first's side, row 1 the second's."""

    problem: str
    sample: int
    words: tuple[str, ...]
    places: tuple[str, ...]
    decides: tuple[bool, ...]
    of: Compared

    @property
    def first(self) -> int | None:
        """The first token at which the likeliest tokens differ; None where there is none."""
        apart = np.flatnonzero(self.of.top[0] > 0)
        return int(apart[0]) if len(apart) else None


def divergences(
    one: Model,
    other: Model,
    task: Task,
    problems: Sequence[Problem],
    rollouts: Sequence[Rollout],
    *,
    batch: int = 64,
) -> list[Parted]:
    """Both models along each rollout, in the order given.

    Raises:
        Refusal: models that are no pair, a rollout of another problem, or one whose tokens are not
            its words one by one (places are found by words).
    """
    check_pair(one, other)
    by_id = {problem.id: problem for problem in problems}
    if unknown := {r.problem for r in rollouts} - set(by_id):
        raise Refusal(f"{len(unknown)} rollout problem(s) are not given, such as {min(unknown)}.")
    kinds = list(task.decision_kinds)
    options = torch.tensor(np.array([_options(one, task, k) for k in kinds])) if kinds else None
    read = [_read(one, task, by_id[r.problem], r) for r in rollouts]
    texts = [(*encode(one, by_id[r.problem].prompt), *r.tokens) for r in rollouts]
    batch = max(1, min(batch, LOGITS // (one.vocab * max(map(len, texts), default=1))))
    passes = zip(replay(one, texts, batch=batch), replay(other, texts, batch=batch), strict=True)
    found: list[Parted | None] = [None] * len(rollouts)
    for first, second in passes:
        assert first.rows == second.rows
        assert first.logits is not None
        assert second.logits is not None
        lengths = [len(rollouts[i].tokens) for i in first.rows]
        # Rows are right-aligned: the column before a token's own holds what it is drawn from.
        logits = [
            torch.cat([x[row, -n - 1 : -1] for row, n in enumerate(lengths)])
            for x in (first.logits, second.logits)
        ]
        tokens = torch.tensor([t for i in first.rows for t in rollouts[i].tokens])
        decided = torch.tensor(
            [kinds.index(p) if p in kinds else -1 for i in first.rows for p in read[i][1]]
        )
        where = (options, decided) if kinds else ()
        compared = compare(logits[0], logits[1], tokens, *where)
        stop = 0
        for i, length in zip(first.rows, lengths, strict=True):
            start, stop = stop, stop + length
            words, at = read[i]
            decides = tuple(place in kinds for place in at)
            r = rollouts[i]
            of_it = taken(compared, slice(start, stop))
            found[i] = Parted(r.problem, r.sample, words, at, decides, of_it)
    return found  # type: ignore[return-value]


def taken(compared: Compared, at: slice) -> Compared:
    """Some of the positions."""
    fields = ("kl", "choice", "logprob", "rank", "top")
    return Compared(*(getattr(compared, name)[:, at] for name in fields))


def _options(model: Model, task: Task, kind: str) -> Int[np.ndarray, " vocab"]:
    """The option that each token of the vocabulary takes; 0 for none."""
    group = np.zeros(model.vocab, dtype=int)
    for number, words in enumerate(task.decision_kinds[kind].values(), 1):
        group[model.tokenizer.convert_tokens_to_ids(list(words))] = number
    return group


def _read(
    model: Model, task: Task, problem: Problem, rollout: Rollout
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    words = model.tokenizer.convert_ids_to_tokens(list(rollout.tokens))
    if not task.decision_kinds:  # free text: no grammar says what a token does
        return tuple(words), ("other",) * len(words)
    if " ".join(words).split() != words:
        raise Refusal(
            f"the tokens of a rollout to {problem.id} are not its words one by one: places are "
            f"found by words, so this needs a word-level tokenizer."
        )
    return tuple(words), tuple(places(task, problem, words))
