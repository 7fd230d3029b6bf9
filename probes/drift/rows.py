"""The measures of `probes.drift` as tidy rows, for tables and figures.

    rows = shift_rows(drift(base, tuned, texts), ("base", "tuned"), "base's texts")
    rows += similarity_rows({"base": x, "tuned": y}, spots, pairs, "base's texts")
    rows += transfer_rows({"base": a, "tuned": b}, marked, "base's texts")
    rows += subspace_rows(changes, 5, vectors, "base's texts")
    rows += lens_rows(lens(base), {"base": a, "tuned": b}, marked, "base's texts")

A row's `setting` says whose texts were read, `x` is the layer, `site` its full name. `model` says
which two: "tuned - base" (a change), "base x tuned" (symmetric), "base on tuned" (whose probe on
whose activations). Of the subspace, `kind` is what it is held against, and of its angles `x` counts
them from 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from probes.directions import fit
from probes.drift.lens import Lens, promoted
from probes.drift.reading import Spots
from probes.drift.shift import Shift
from probes.drift.similarity import cka, without_means
from probes.drift.subspace import Moved, random_cosines, random_overlap
from probes.drift.transfer import angle, transfer
from probes.intervals import Estimate, undefined
from probes.measurements import row
from probes.records import Measurement, Refusal, parse_site

Activations = Mapping[str, Mapping[str, Float[np.ndarray, "..."]]]
"""Of each model by name, at each site."""

HALVES, OWN, RANDOM = "halves", "base's activations", "random subspaces"
"""What a moved subspace is held against, beside other copies, directions and readouts."""


@dataclass(frozen=True, eq=False)
class Marked:
    """The decisions of one kind, as lines of what was read at all decisions."""

    kind: str
    lines: Int[np.ndarray, " n"]
    used: Shaped[np.ndarray, " n"]
    """1 where the strategy was taken."""
    problems: Shaped[np.ndarray, " n"]


def shift_rows(moved: Sequence[Shift], names: tuple[str, str], setting: str) -> list[Measurement]:
    """Distance, cosine and norms of two models at each site."""
    rows = []
    for one in moved:
        about = _at(one.site, setting)
        rows += [
            row("activation shift", one.relative, model=f"{names[1]} - {names[0]}", **about),
            row("activation cosine", one.cosine, model=f"{names[1]} - {names[0]}", **about),
            row("activation norm", one.before, model=names[0], **about),
            row("activation norm", one.after, model=names[1], **about),
            row("norm ratio", one.growth, model=f"{names[1]} / {names[0]}", **about),
        ]
    return rows


def similarity_rows(
    read: Activations,
    spots: Spots,
    pairs: Sequence[tuple[str, str]],
    setting: str,
    *,
    seed: int = 0,
) -> list[Measurement]:
    """Debiased CKA of each pair of models at each site, token and position taken out."""
    rows = []
    for site in next(iter(read.values())):
        left = {
            name: without_means(sites[site], spots.tokens, spots.places)
            for name, sites in read.items()
        }
        for one, other in pairs:
            alike = cka(left[one], left[other], seed=seed)
            rows.append(row("cka", alike, model=f"{one} x {other}", **_at(site, setting)))
    return rows


def transfer_rows(
    read: Activations, marked: Sequence[Marked], setting: str, *, seed: int = 0
) -> list[Measurement]:
    """Each strategy's direction in both models, and what each model's probe reads in the other.

    Args:
        read: of exactly two models, "base" and another; (n, d) at the decisions.
        marked: which of these lines are of which kind.
        setting: whose texts.
        seed: of resamples, thirds and shuffles.
    """
    (one, before), (other, after) = read.items()
    rows = []
    for of_kind in marked:
        for site in before:
            x, y = (sites[site][of_kind.lines] for sites in (before, after))
            about = {"kind": of_kind.kind, **_at(site, setting)}
            given = (x, y, of_kind.used, of_kind.problems)
            try:
                turned, aucs = angle(*given, seed=seed), transfer(*given, seed=seed)
            except Refusal as refusal:
                none = undefined(str(refusal), len(np.unique(of_kind.problems)))
                rows.append(row("direction cosine", none, model=f"{one} x {other}", **about))
                rows.append(row("probe auc", none, model=f"{one} on {other}", **about))
                continue
            note = f"{len(of_kind.used)} decisions, {int(of_kind.used.sum())} taken"
            for measure, estimate in (
                ("direction cosine", turned.cosine),
                ("direction cosine, halves", turned.halves),
                ("direction cosine, ceiling", turned.ceiling),
                ("direction cosine, halves - ceiling", turned.turn),
                ("direction cosine, shuffled labels", turned.shuffled),
            ):
                rows.append(row(measure, estimate, model=f"{one} x {other}", note=note, **about))
            for model, estimate in (
                (f"{one} on {one}", aucs.base),
                (f"{one} on {other}", aucs.moved),
                (f"{other} on {one}", aucs.back),
                (f"{other} on {other}", aucs.tuned),
            ):
                rows.append(row("probe auc", estimate, model=model, note=note, **about))
            rows.append(row("probe auc change", aucs.change, model=f"{other} - {one}", **about))
            rows.append(row("probe auc, shuffled labels", aucs.shuffled, model=one, **about))
    return rows


def subspace_rows(
    read: Activations,
    rank: int,
    vectors: Mapping[str, Mapping[str, Float[np.ndarray, " d"]]],
    setting: str,
    *,
    seed: int = 0,
) -> list[Measurement]:
    """What the second model moved against the first: dimension, shares, overlaps, angles.

    Args:
        read: base first, then tuned, then whatever copies are to stand beside it; each
            (problems, rows, d).
        rank: dimension of the subspace.
        vectors: named directions at each site, each held against the subspace by itself.
        setting: whose texts.
        seed: of resamples and halves.
    """
    base, tuned, *copies = read
    rows = []
    for site, before in read[base].items():
        about = {"model": f"{tuned} - {base}", **_at(site, setting)}
        try:
            moved = Moved(read[tuned][site] - before, rank, seed)
        except Refusal as refusal:
            none = undefined(str(refusal), len(before))
            rows.append(row("moved overlap", none, kind=HALVES, **about))
            continue
        for measure, estimate in (
            ("moved dimension", moved.dimension()),
            (f"moved share of {rank}", moved.share()),
            ("moved steady", moved.steady()),
        ):
            rows.append(row(measure, estimate, **about))
        others = {OWN: Moved(before, rank, seed)}
        for name in copies:
            change = read[name][site] - before
            if change.any():
                others[f"{name} - {base}"] = Moved(change, rank, seed)
            else:
                none = undefined(f"{name} has the base's activations", len(before))
                rows.append(row("moved overlap", none, kind=f"{name} - {base}", **about))
        rows.append(row("moved overlap", moved.halves(moved), kind=HALVES, **about))
        for against, other in others.items():
            rows.append(row("moved overlap", moved.overlap(other), kind=against, **about))
            for i, degrees in enumerate(moved.angles(other), 1):
                rows.append(row("moved angle", degrees, kind=against, **_nth(about, i)))
        for against, vector in vectors.get(site, {}).items():
            rows.append(row("moved overlap", moved.overlap(vector[:, None]), kind=against, **about))
        rows += _random(rank, before.shape[-1], about)
    return rows


def directions_of(
    activations: Mapping[str, Float[np.ndarray, "n d"]], marked: Sequence[Marked]
) -> dict[str, dict[str, np.ndarray]]:
    """Of each site, the difference of means of each strategy that these decisions tell apart."""
    found: dict[str, dict[str, np.ndarray]] = {site: {} for site in activations}
    for site, x in activations.items():
        for one in marked:
            if 0 < one.used.sum() < len(one.used):
                vector = fit(x[one.lines], one.used, one.problems, "difference")
                found[site][f"direction {one.kind}"] = vector
    return found


def lens_rows(
    see: Lens,
    read: Activations,
    marked: Sequence[Marked],
    setting: str,
    *,
    count: int = 5,
    seed: int = 0,
) -> list[Measurement]:
    """The tokens that the change at each kind of decision promotes and demotes, in that order.

    The same tokens are read in the change of each further copy, so that what random rewards do to
    them stands beside.
    """
    base, tuned, *copies = read
    rows = []
    for one in marked:
        for site, before in read[base].items():
            x = before[one.lines]
            about: dict[str, Any] = {"kind": one.kind, **_at(site, setting)}
            y = read[tuned][site][one.lines]
            try:
                found = promoted(see, x, y, one.problems, count=count, seed=seed)
            except Refusal as refusal:  # of a kind that came up in one problem only
                none = undefined(str(refusal), len(np.unique(one.problems)))
                rows.append(row("lens", none, model=f"{tuned} - {base}", **about))
                continue
            for token in found:
                named = {"model": f"{tuned} - {base}", "note": token.word, **about}
                rows.append(row("lens", token.change, **named))
            for name in copies:
                wanted = [token.token for token in found]
                y = read[name][site][one.lines]
                for token in promoted(see, x, y, one.problems, tokens=wanted, seed=seed):
                    named = {"model": f"{name} - {base}", "note": token.word, **about}
                    rows.append(row("lens", token.change, **named))
    return rows


def _at(site: str, setting: str) -> dict[str, Any]:
    return {"site": site, "setting": setting, "x": float(parse_site(site)[0])}


def _nth(about: dict[str, Any], i: int) -> dict[str, Any]:
    """The columns of an angle: x counts angles, where it else is the layer."""
    return {**about, "x": float(i)}


def _random(rank: int, d: int, about: dict[str, Any]) -> list[Measurement]:
    """What subspaces and single vectors drawn at random give: mean, and the middle 95%."""
    rows = [
        row("moved overlap", random_overlap(rank, rank, d), kind=RANDOM, **about),
        row("moved overlap", random_overlap(rank, 1, d), kind="random directions", **about),
    ]
    degrees = np.degrees(np.arccos(random_cosines(rank, rank, d)))
    for i, drawn in enumerate(degrees.T, 1):
        low, high = np.quantile(drawn, [0.025, 0.975])
        estimate = Estimate(float(drawn.mean()), float(low), float(high), len(drawn))
        rows.append(row("moved angle", estimate, kind=RANDOM, **_nth(about, i)))
    return rows
