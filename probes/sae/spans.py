"""Which latents tell a strategy, by AUC, with shuffled labels and false discovery control.

Latents are looked for on one half of the problems and reported on the other: the best of 512 on
the rows that chose it would look good whatever they are. The p-value of a latent is where its AUC
stands among all latents' AUCs under shuffled labels, each in units of its own spread there; q is
Benjamini and Hochberg's (1995) over the latents that fire in ten problems or more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy.sparse import coo_matrix, csc_matrix
from scipy.stats import false_discovery_control, rankdata

from probes.directions import auc_interval
from probes.intervals import FEW, Estimate, exact_rate, ratio, undefined
from probes.records import Refusal, content_hash
from probes.sae.active import Active, shuffles, sums_by_problem

LEVEL = 0.05
"""Share of false ones among what is called a discovery."""


@dataclass(frozen=True)
class Top:
    """A latent chosen on one half of the problems, measured on the other."""

    latent: int
    q: float
    auc: Estimate
    precision: Estimate
    """Share of the rows it fires in that have the label."""
    recall: Estimate
    """Share of the rows with the label that it fires in."""


@dataclass(frozen=True, eq=False)
class Told:
    """Which latents tell a label."""

    auc: Float[np.ndarray, " latents"]
    """On the half that chooses; nan of a latent that is too rare there."""
    q: Float[np.ndarray, " latents"]
    """Of firing with the label more than shuffled labels allow; nan likewise."""
    discoveries: int
    """q below 5%."""
    shuffled_discoveries: float
    """The same with shuffled labels in the place of the true ones, on average."""
    top: tuple[Top, ...]
    best_of_shuffled: Estimate
    """AUC on the half that reports of the best latent of shuffled labels: mean, and as the upper
    end what one in twenty reaches."""
    rate: Estimate
    """Share of rows with the label: what a latent's precision is to be held against."""


def told(
    rows: Active,
    label: Bool[np.ndarray, " rows"],
    *,
    top: int = 5,
    count: int = 200,
    seed: int = 0,
) -> Told:
    """Look for latents of a label on half of the problems and measure the best on the other.

    Args:
        rows: activations, by text.
        label: what is to be told, row by row.
        top: how many are measured.
        count: shuffles of the labels.
        seed: of halves, shuffles and intervals.

    Raises:
        Refusal: a half of the problems without a row of either kind, or with fewer than ten.
    """
    first = halves(rows.problems, seed)
    for half in (first, ~first):
        few, both = len(np.unique(rows.problems[half])) < FEW, len(np.unique(label[half])) == 2
        if few or not both:
            raise Refusal(
                f"a half of the problems has {len(np.unique(rows.problems[half]))} problems, and "
                f"{int(label[half].sum())} of {int(half.sum())} rows with the label: both kinds "
                f"are needed in each half, of ten problems at least. Give more problems."
            )
    choose, report = rows.rows(first), rows.rows(~first)
    y, z = label[first], label[~first]
    known = often(choose)
    own, null = nulls(choose, y, count, seed)
    p, null_p = p_values(own, null, known)
    q = np.full(len(own), np.nan)
    if known.any():
        q[known] = false_discovery_control(p[known])
    false = [int((false_discovery_control(one) < LEVEL).sum()) for one in null_p if len(one)]
    order = sorted(np.flatnonzero(known), key=lambda i: (p[i], -own[i], i))[:top]
    shown = tuple(measured(report, z, int(i), float(q[i]), seed) for i in order)
    best = best_of(null, known, nulls(report, z, count, seed + 1)[1])
    return Told(
        np.where(known, own, np.nan),
        q,
        int(np.nansum(q < LEVEL)),
        float(np.mean(false)) if false else 0.0,
        shown,
        Estimate(float(best.mean()), np.nan, float(np.quantile(best, 0.95)), len(best)),
        share(z, np.ones_like(z), report.problems, seed),
    )


def halves(problems: Shaped[np.ndarray, " rows"], seed: int = 0) -> Bool[np.ndarray, " rows"]:
    """Whether each row's problem is in the first half, by the rank of its hash."""
    names, codes = np.unique(problems, return_inverse=True)
    rank = np.argsort(np.argsort([content_hash(["half", seed, str(name)]) for name in names]))
    return (rank % 2 == 0)[codes]


def often(rows: Active) -> Bool[np.ndarray, " latents"]:
    """Latents that fire in as many problems as an interval needs."""
    codes = np.unique(rows.problems, return_inverse=True)[1].astype(np.int64)
    a = coo_matrix(rows.a)
    seen = np.unique(codes[a.row] * rows.latents + a.col) % rows.latents
    return np.bincount(seen, minlength=rows.latents) >= FEW


def aucs(a: csc_matrix, labels: Bool[np.ndarray, "rows n"]) -> Float[np.ndarray, "latents n"]:
    """AUC of every latent for every column of labels; nan where a column has one kind only.

    By ranks (Mann and Whitney 1947), ties as halves. The many zeros of a latent share one rank,
    which is taken off all, so that what is left is as sparse as the activations.
    """
    ranks = a.astype(np.float64).copy()
    ranks.eliminate_zeros()
    rows = len(labels)
    fires = np.diff(ranks.indptr)
    zero = (rows - fires + 1) / 2
    for i, (start, stop) in enumerate(zip(ranks.indptr[:-1], ranks.indptr[1:], strict=True)):
        ranks.data[start:stop] = rankdata(ranks.data[start:stop]) + (rows - fires[i]) - zero[i]
    yes = labels.sum(0).astype(float)
    won = np.asarray(ranks.T @ labels.astype(np.float64)) + zero[:, None] * yes
    with np.errstate(divide="ignore", invalid="ignore"):
        return (won - yes * (yes + 1) / 2) / (yes * (rows - yes))


def nulls(
    rows: Active, label: Bool[np.ndarray, " rows"], count: int, seed: int
) -> tuple[Float[np.ndarray, " latents"], Float[np.ndarray, "shuffles latents"]]:
    """AUCs of the labels, and of the labels shuffled."""
    takes = shuffles(rows.problems, rows.samples, count, seed)
    found = aucs(rows.a, np.column_stack([label, *(label[take] for take in takes)])).T
    return found[0], found[1:]


def p_values(
    own: Float[np.ndarray, " latents"],
    null: Float[np.ndarray, "shuffles latents"],
    known: Bool[np.ndarray, " latents"],
) -> tuple[Float[np.ndarray, " latents"], list[Float[np.ndarray, " known"]]]:
    """One-sided p of each latent, nan where it isn't known, and those of each shuffle.

    Latents are pooled after each was put in units of its own null: so p reaches below one over the
    number of shuffles, which control over hundreds of latents needs.
    """
    with np.errstate(invalid="ignore"):
        mean, spread = np.nanmean(null, 0), np.nanstd(null, 0)
    usable = known & (spread > 0)
    units = np.where(usable, spread, 1)
    pooled = np.sort(((null - mean) / units)[:, usable].ravel())
    pooled = pooled[np.isfinite(pooled)]

    def p_of(values: np.ndarray) -> np.ndarray:
        above = len(pooled) - np.searchsorted(pooled, (values - mean) / units - 1e-12, "left")
        return np.where(usable, (1 + above) / (1 + len(pooled)), 1.0)

    p = np.where(known, p_of(own), np.nan)
    return p, [p_of(one)[known] for one in null if np.isfinite(one[usable]).all() and usable.any()]


def best_of(
    choosing: Float[np.ndarray, "shuffles latents"],
    known: Bool[np.ndarray, " latents"],
    reporting: Float[np.ndarray, "shuffles latents"],
) -> Float[np.ndarray, " shuffles"]:
    """What the latent that looks best on one half's shuffled labels has on the other's."""
    best = np.argmax(np.where(known & np.isfinite(choosing), choosing, -1), axis=1)
    return reporting[np.arange(len(best)), best]


def measured(
    rows: Active, label: Bool[np.ndarray, " rows"], latent: int, q: float, seed: int
) -> Top:
    """AUC, precision and recall of one latent, with intervals over problems."""
    a = rows.a[:, [latent]].toarray()[:, 0]
    fires = a > 0
    return Top(
        latent,
        q,
        auc_interval(a, label, rows.problems, seed=seed),
        share(label, fires, rows.problems, seed),
        share(fires, label, rows.problems, seed),
    )


def share(
    which: Bool[np.ndarray, " rows"],
    among: Bool[np.ndarray, " rows"],
    problems: Shaped[np.ndarray, " rows"],
    seed: int,
) -> Estimate:
    """Share of some rows that are `which`, with its interval over problems."""
    if not among.any():
        return undefined("it never happens", len(np.unique(problems)))
    table = sums_by_problem(np.column_stack([which & among, among]).astype(float), problems)
    yes, all_ = table[table[:, 1] > 0].T
    # Where few problems vary a bootstrap has no spread: then by problems as trials, as in
    # `probes.strategies`.
    if min((yes > 0).sum(), (yes < all_).sum()) < FEW:
        return exact_rate(float(yes.sum() / all_.sum() * len(yes)), len(yes))
    return ratio(yes, all_, seed=seed)


def labels_of(
    rows: Active, marks: Mapping[tuple[str, int], Sequence[tuple[int, str]]], label: str
) -> Bool[np.ndarray, " rows"]:
    """Rows whose position is marked so; `marks` has (position, label) by problem and sample."""
    wanted = {
        (*key, position) for key, listed in marks.items() for position, at in listed if at == label
    }
    places = zip(
        rows.problems.tolist(), rows.samples.tolist(), rows.positions.tolist(), strict=True
    )
    return np.array([place in wanted for place in places], dtype=bool)
