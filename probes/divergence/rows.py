"""The measures of `probes.divergence` as tidy rows, for tables and figures.

    rows = text_rows(parted, ("base", "tuned"), "base")       # KL by place, ranks, first parting
    rows += strip_rows(typical(parted), prompt, ("base", "tuned"), "base")
    rows += perplexity_rows({"base": ..., "tuned": ...}, ("base", "tuned"))
    rows += bits_rows(found, problems)

A row's `model` says which way, as in "base || tuned" for KL(base || tuned), or who judges; its
`setting` whose texts they are; its `kind` the place.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from probes.divergence.along import Parted
from probes.divergence.bits import Bits
from probes.divergence.perplexity import Scored, crossed, perplexity
from probes.divergence.sums import (
    RANKS,
    first_parting,
    kl_share,
    mean_kl,
    parted_by,
    rank_share,
)
from probes.intervals import Estimate, bootstrap, undefined
from probes.measurements import point, row
from probes.records import Measurement, Problem, unique

FEWEST = 20
"""Answers of one length below which no perplexity of that length is given."""

Names = tuple[str, str]
"""What the two models are called, in the order in which they were compared."""


def ways(names: Names) -> tuple[str, str]:
    """Both directions of KL, as rows name them."""
    return f"{names[0]} || {names[1]}", f"{names[1]} || {names[0]}"


def text_rows(
    parted: Sequence[Parted], names: Names, texts: str, *, seed: int = 0
) -> list[Measurement]:
    """KL, ranks and first parting of two models on one writer's texts, all with intervals.

    Args:
        parted: the two models along the texts.
        names: of the models.
        texts: name of the writer.
        seed: of the resamples.
    """
    setting = f"{texts}'s texts"
    rows = kl_rows(parted, names, setting, seed=seed)
    for place in _places(parted):
        if place != "word":
            same = rank_share(parted, "0", of=1, top=True, place=place, seed=seed)
            about: dict[str, Any] = {"model": ways(names)[0], "setting": setting, "kind": place}
            rows.append(row("agreement", same, **about))
    for of, judge in enumerate(names):
        for at, ranks in enumerate(RANKS):
            about: dict[str, Any] = {"model": judge, "x": float(at), "note": ranks}
            own = rank_share(parted, ranks, of=of, seed=seed)
            rows.append(row("rank share", own, setting=setting, **about))
            top = rank_share(parted, ranks, of=of, top=True, seed=seed)
            rows.append(row("likeliest rank share", top, setting=setting, **about))
    for place in ("", *seen(parted)):
        if place != "word":
            first = first_parting(parted, place, seed=seed)
            about: dict[str, Any] = {"kind": place or "never", "model": " || ".join(names)}
            rows.append(row("first parting", first, setting=setting, **about))
    for count in range(1, max(len(one.words) for one in parted) + 1):
        so_far = parted_by(parted, count, seed=seed)
        rows.append(
            row("parted", so_far, setting=setting, x=float(count), model=" || ".join(names))
        )
    return rows


def kl_rows(
    parted: Sequence[Parted],
    names: Names,
    setting: str,
    *,
    places: Sequence[str] | None = None,
    shuffled: bool = False,
    seed: int = 0,
) -> list[Measurement]:
    """Mean KL of a token, and its share of all KL, by place and both ways.

    Args:
        parted: the two models along the texts.
        names: of the models; one name twice for a model against itself, given one way only.
        setting: whose texts, and what was done to them.
        places: which; all that the texts have, if absent.
        shuffled: the null of the means alone, each text's tokens in every order.
        seed: of the resamples.
    """
    rows = []
    there = _places(parted)
    wanted = there if places is None or there == [""] else places
    for way, model in enumerate(dict.fromkeys(ways(names))):
        for place in wanted:
            about: dict[str, Any] = {"model": model, "setting": setting, "kind": place}
            mean = mean_kl(parted, place, way=way, shuffled=shuffled, seed=seed)
            rows.append(row("kl", mean, **about))
            if place and not shuffled:
                share = kl_share(parted, place, way=way, seed=seed)
                rows.append(row("kl share", share, **about))
    return rows


def _places(parted: Sequence[Parted]) -> list[str]:
    """All text, what decides and what doesn't, and each place; of free text the first only."""
    known = seen(parted)
    return [""] if set(known) <= {"other"} else ["", "decision", "execution", *known]


def seen(parted: Sequence[Parted]) -> list[str]:
    """The places of these texts, those that decide first, and "word" between the two."""
    deciding = unique(
        p for one in parted for p, d in zip(one.places, one.decides, strict=True) if d
    )
    executing = unique(
        p for one in parted for p, d in zip(one.places, one.decides, strict=True) if not d
    )
    return [*sorted(deciding), *(["word"] if deciding else []), *sorted(executing)]


def typical(parted: Sequence[Parted]) -> Parted:
    """The text whose mean KL of a token is the median of all (the lower one of two)."""
    means = [float(one.of.kl[0].mean()) for one in parted]
    return parted[int(np.argsort(means, kind="stable")[(len(means) - 1) // 2])]


def strip_rows(one: Parted, problem: Problem, names: Names, texts: str) -> list[Measurement]:
    """One text, a row a token both ways: `x` counts its tokens, the prompt's below 0."""
    setting, rows = f"{texts}'s texts", []
    prompt, nan = problem.prompt.split(), float("nan")
    for x, word in enumerate(prompt, -len(prompt)):
        about: dict[str, Any] = {"model": ways(names)[0], "setting": setting, "x": float(x)}
        rows.append(point("token", nan, 1, note=word, **about))
    for way, model in enumerate(ways(names)):
        for x, (word, place) in enumerate(zip(one.words, one.places, strict=True)):
            kind = place if one.decides[x] else ""
            about = {"model": model, "setting": setting, "kind": kind, "x": float(x)}
            rows.append(point("token", float(one.of.kl[way, x]), 1, note=word, **about))
    return rows


def perplexity_rows(
    answers: Mapping[str, Sequence[Scored]], names: Names, *, seed: int = 0, tag: str = ""
) -> list[Measurement]:
    """Two writers' valid answers under each of two models, matched by length and not.

    Args:
        answers: of each writer, by name; both scored under the models of `names`, in that order.
        names: of the models that judge.
        seed: of the resamples.
        tag: put behind each setting, where a pair is the null of another; no lengths then.
    """
    (one, first), (other, second) = answers.items()
    rows = []
    for under, judge in enumerate(names):
        for by_length in (True, False):
            suffix = ("" if by_length else ", any length") + tag
            cross = crossed(second, first, under=under, by_length=by_length, seed=seed)
            for name, estimate, kept in (
                (other, cross.one, cross.kept[0]),
                (one, cross.other, cross.kept[1]),
            ):
                about: dict[str, Any] = {"model": judge, "setting": f"{name}'s answers{suffix}"}
                rows.append(row("perplexity", estimate, note=f"{kept:.2f} of them kept", **about))
            about: dict[str, Any] = {"model": judge, "setting": f"{other} over {one}{suffix}"}
            rows.append(row("perplexity ratio", cross.ratio, **about))
            rows.append(row("likelier", cross.likelier, **about))
        for name, scored in ({} if tag else answers).items():
            for length in sorted({s.length for s in scored}):
                if sum(s.length == length for s in scored) >= FEWEST:
                    of_it = perplexity(scored, under=under, length=length, seed=seed)
                    about: dict[str, Any] = {"model": judge, "setting": f"{name}'s answers"}
                    rows.append(row("perplexity by length", of_it, x=float(length), **about))
    return rows


def bits_rows(
    found: Sequence[Bits],
    problems: Sequence[Problem],
    names: Names = ("base", "tuned"),
    *,
    seed: int = 0,
) -> list[Measurement]:
    """Mean bits and masses by skill and half of its entries, and over all."""
    setting = " and ".join(names)
    cells = {p.id: (p.skill, p.part) for p in problems}
    groups = unique(cells[one.problem] for one in found)
    rows = []
    for group in unique([("", ""), *groups]):
        of_it = [one for one in found if group in (("", ""), cells[one.problem])]
        about: dict[str, Any] = {"skill": group[0], "part": group[1], "setting": setting}
        for term in ("selection", "reshaping", "gain", "price"):
            values = np.array([getattr(one, term) for one in of_it])
            rows.append(row(f"{term} bits", _mean(values[np.isfinite(values)], seed), **about))
        for i, model in enumerate(names):
            masses = np.array([one.mass[i] for one in of_it])
            rows.append(row("solved mass", _mean(masses, seed), model=model, **about))
            lost = max(one.missing[i] for one in of_it)
            rows.append(point("missing mass", lost, len(of_it), model=model, **about))
    return rows


def _mean(values: np.ndarray, seed: int) -> Estimate:
    if len(values) < 2:
        return undefined(f"{len(values)} problem(s) have a solution in both models", len(values))
    return bootstrap(lambda mean: mean, values, seed=seed)
