"""Numbers with intervals from two models along rollouts: by place, by rank, by first parting.

    mean_kl(parted)                       # KL(base || tuned) of a token, nats, over problems
    mean_kl(parted, "value", way=1)       # KL(tuned || base), where a value is worked out
    kl_share(parted, "check")             # the part of all KL that is at one place
    first_parting(parted, "double")       # rollouts that part there first

The KL at a decision counts as the decision's as far as it is about the option taken, and as
"word" as far as it is about which word takes it (the chain rule in `.kl`).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from probes.divergence.along import Parted, taken
from probes.intervals import FEW, Estimate, bootstrap, exact_rate, undefined

RANKS = {"0": (0, 0), "1": (1, 1), "2-4": (2, 4), "5+": (5, 1 << 62)}
"""Classes of ranks, both ends included; 0 is the likeliest token."""


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
        of = taken(one.of, order)
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
