"""Two models along the same rollouts, token by token: where they part, and how far.

    parted = divergences(base, tuned, task, problems, rollouts)   # of either model's texts
    mean_kl(parted)                       # KL(base || tuned) of a token, nats, over problems
    mean_kl(parted, "value", way=1)       # KL(tuned || base), where a value is worked out
    kl_share(parted, "check")             # the part of all KL that is at one place
    first_parting(parted, "double")       # rollouts that part there first

Both models read the same text (teacher forcing), so what differs at a token is what they would
write next, never what they wrote before. Whose texts they are matters: report base's and tuned's
apart. The KL at a decision counts as the decision's as far as it is about the option taken, and as
"word" as far as it is about which word takes it (the chain rule in `.kl`).

To *part* is to have another likeliest token. The first parting is where greedy decoding of the two
would leave each other, had it come so far on this text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int

from probes.divergence.kl import Compared, compare
from probes.divergence.places import places
from probes.generate import replay
from probes.intervals import FEW, Estimate, bootstrap, exact_rate, undefined
from probes.models import Model, check_pair, encode
from probes.records import Problem, Refusal, Rollout
from probes.tasks import Task

LOGITS = 1 << 26
"""Most logits of a pass of one model: 256 MB in float32."""

RANKS = {"0": (0, 0), "1": (1, 1), "2-4": (2, 4), "5+": (5, 1 << 62)}
"""Classes of ranks, both ends included; 0 is the likeliest token."""


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
    options = torch.tensor(np.array([_options(one, task, kind) for kind in kinds]))
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
        compared = compare(logits[0], logits[1], tokens, options, decided)
        stop = 0
        for i, length in zip(first.rows, lengths, strict=True):
            start, stop = stop, stop + length
            words, at = read[i]
            decides = tuple(place in kinds for place in at)
            r = rollouts[i]
            of_it = _cut(compared, start, stop)
            found[i] = Parted(r.problem, r.sample, words, at, decides, of_it)
    return found  # type: ignore[return-value]


def mean_kl(parted: Sequence[Parted], place: str = "", *, way: int = 0, seed: int = 0) -> Estimate:
    """Mean KL of a token at a place, in nats; the interval is over problems.

    Args:
        parted: of one model's texts.
        place: its name; "decision" and "execution" for all tokens that do the one or the other
            (with the whole KL of a decision's token), "" for all.
        way: 0 for KL(one || other), 1 for KL(other || one).
        seed: of the resamples.
    """
    return pooled(parted, lambda p: _at(p, place, way), seed=seed)


def kl_share(parted: Sequence[Parted], place: str, *, way: int = 0, seed: int = 0) -> Estimate:
    """The share of all KL of the texts that is at a place; shares of all places sum to 1."""
    return pooled(parted, lambda p: (_at(p, place, way)[0], float(p.of.kl[way].sum())), seed=seed)


def first_parting(parted: Sequence[Parted], place: str, *, seed: int = 0) -> Estimate:
    """Share of rollouts whose first parting is at a place; "" for those that never part."""

    def here(one: Parted) -> tuple[float, float]:
        return float((one.first is None) if not place else _place_of_first(one) == place), 1.0

    return pooled(parted, here, share=True, seed=seed)


def parted_by(parted: Sequence[Parted], count: int, *, seed: int = 0) -> Estimate:
    """Share of rollouts that have parted within their first `count` tokens."""
    return pooled(
        parted,
        lambda p: (float(p.first is not None and p.first < count), 1.0),
        share=True,
        seed=seed,
    )


def rank_share(
    parted: Sequence[Parted],
    ranks: str,
    *,
    of: int,
    top: bool = False,
    place: str = "",
    seed: int = 0,
) -> Estimate:
    """Share of tokens to which a model gives a rank of a class of `RANKS`.

    Args:
        parted: of one model's texts.
        ranks: name of the class.
        of: 0 for the ranks that the first model gives, 1 for the second's.
        top: of the other model's likeliest tokens, in place of the text's own tokens.
        place: which tokens.
        seed: of the resamples.
    """
    low, high = RANKS[ranks]

    def counted(one: Parted) -> tuple[float, float]:
        # `Compared.top` begins with the rank that the second gives to the first's.
        given = one.of.top[1 - of] if top else one.of.rank[of]
        here = _mask(one, place)
        return float(((given >= low) & (given <= high) & here).sum()), float(here.sum())

    return pooled(parted, counted, share=True, seed=seed)


def shuffled(parted: Sequence[Parted], *, seed: int = 0) -> list[Parted]:
    """The same with the tokens of each rollout in another order, their places left where they are.

    The null of "where": KL then has no place, only a rollout. (A choice then counts as whole.)
    """
    rng = np.random.default_rng(seed)
    found = []
    for one in parted:
        order = rng.permutation(len(one.words))
        of = _taken(one.of, order)
        found.append(replace(one, of=replace(of, choice=of.kl * np.array(one.decides))))
    return found


def pooled(
    parted: Sequence[Parted],
    count: Callable[[Parted], tuple[float, float]],
    *,
    share: bool = False,
    seed: int = 0,
) -> Estimate:
    """A ratio of sums over rollouts; the interval resamples problems.

    Args:
        parted: of one model's texts.
        count: of a rollout, what goes above and what below.
        share: what is above is counted among what is below. The interval is then exact, with
            problems as trials, where too few of them lie off the edge of the range.
        seed: of the resamples.
    """
    sums: dict[str, np.ndarray] = {}
    for one in parted:
        sums[one.problem] = sums.get(one.problem, np.zeros(2)) + np.array(count(one))
    above, below = np.array(list(sums.values()), dtype=np.float64).reshape(-1, 2).T
    above, below = above[below > 0], below[below > 0]
    if len(below) < 2:
        return undefined(f"{len(below)} problem(s) have it, or any KL at all", len(below))
    if share and min((above > 0).sum(), (above < below).sum()) < FEW:
        n = len(below)
        return exact_rate(float(above.sum() / below.sum() * n), n)
    return bootstrap(lambda a, b: a / b, above, below, seed=seed)


def _at(one: Parted, place: str, way: int) -> tuple[float, float]:
    """Summed KL of the tokens of a place, and how many they are."""
    kl, choice, decides = one.of.kl[way], one.of.choice[way], np.array(one.decides)
    if place == "word":
        return float((kl - choice)[decides].sum()), float(decides.sum())
    here = _mask(one, place)
    what = choice if place and here.any() and decides[here].all() and place != "decision" else kl
    return float(what[here].sum()), float(here.sum())


def _mask(one: Parted, place: str) -> np.ndarray:
    decides = np.array(one.decides)
    named = {"": np.ones(len(decides), dtype=bool), "decision": decides, "execution": ~decides}
    if place in named:
        return named[place]
    return np.array([p == place for p in one.places])


def _place_of_first(one: Parted) -> str:
    return "" if one.first is None else one.places[one.first]


def _cut(compared: Compared, start: int, stop: int) -> Compared:
    return _taken(compared, slice(start, stop))


def _taken(compared: Compared, at: slice | Int[np.ndarray, " tokens"]) -> Compared:
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
    if " ".join(words).split() != words:
        raise Refusal(
            f"the tokens of a rollout to {problem.id} are not its words one by one: places are "
            f"found by words, so this needs a word-level tokenizer."
        )
    return tuple(words), tuple(places(task, problem, words))
