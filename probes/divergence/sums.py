"""Numbers with intervals from two models along rollouts: by place, by rank, by first parting.

    mean_kl(parted)                       # KL(base || tuned) of a token, nats, over problems
    mean_kl(parted, "value", way=1)       # KL(tuned || base), where a value is worked out
    mean_kl(parted, shuffled=True)        # their null: the tokens of each text in any order
    kl_share(parted, "check")             # the part of all KL that is at one place
    first_parting(parted, "double")       # rollouts that part there first

The KL at a decision counts as the decision's as far as it is about the option taken, and as
"word" as far as it is about which word takes it (the chain rule in `.kl`).

The null of "where" leaves the places of a text where they are and puts its tokens in every order,
so that KL has a text but no place in it. Like is compared with like: whole KL with the whole KL of
any token, the KL of a choice with that of any choice of the text, the KL within a choice with what
of any token's KL is no choice (all of it where nothing is decided). The mean over all orders has a
closed form, the mean of the text's tokens, so nothing is drawn.
"""

from collections.abc import Callable, Sequence

import numpy as np

from probes.divergence.along import Parted
from probes.intervals import FEW, Estimate, bootstrap, exact_rate, undefined

RANKS = {"0": (0, 0), "1": (1, 1), "2-4": (2, 4), "5+": (5, 1 << 62)}
"""Classes of ranks, both ends included; 0 is the likeliest token."""


def mean_kl(
    parted: Sequence[Parted],
    place: str = "",
    *,
    way: int = 0,
    shuffled: bool = False,
    seed: int = 0,
) -> Estimate:
    """Mean KL of a token at a place, in nats; the interval is over problems.

    Args:
        parted: of one model's texts.
        place: its name; "decision" and "execution" for all tokens that do the one or the other
            (with the whole KL of a decision's token), "" for all.
        way: 0 for KL(one || other), 1 for KL(other || one).
        shuffled: the null, of every order of each text's tokens.
        seed: of the resamples.
    """
    return pooled(parted, lambda p: _at(p, place, way, shuffled), seed=seed)


def kl_share(parted: Sequence[Parted], place: str, *, way: int = 0, seed: int = 0) -> Estimate:
    """The share of all KL of the texts that is at a place; shares of all places sum to 1."""

    def shared(one: Parted) -> tuple[float, float]:
        return _at(one, place, way, False)[0], float(one.of.kl[way].sum())

    return pooled(parted, shared, seed=seed)


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


def _at(one: Parted, place: str, way: int, shuffled: bool) -> tuple[float, float]:
    """Summed KL of the tokens of a place, and how many they are."""
    kl, choice, decides = one.of.kl[way], one.of.choice[way], np.array(one.decides, dtype=bool)
    here = decides if place == "word" else _mask(one, place)
    what, alike = kl, np.ones(len(decides), dtype=bool)
    if place == "word":
        what = kl - choice
    elif place not in ("", "decision") and here.any() and decides[here].all():
        what, alike = choice, decides
    count = float(here.sum())
    if shuffled and count:
        return float(what[alike].mean()) * count, count
    return float(what[here].sum()), count


def _mask(one: Parted, place: str) -> np.ndarray:
    decides = np.array(one.decides)
    named = {"": np.ones(len(decides), dtype=bool), "decision": decides, "execution": ~decides}
    if place in named:
        return named[place]
    return np.array([p == place for p in one.places])


def _place_of_first(one: Parted) -> str:
    return "" if one.first is None else one.places[one.first]
