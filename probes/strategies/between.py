"""Agreement between labellers of the same segments: said with every use of any of them.

    found = between(rows, "lexicon reasonscore", "judge qwen (venhoff)")
    found.kappa                                # 0.41 [0.33, 0.49], over problems
    agreements(renamed(rows, {"backtracking": "reflection"}))      # every pair, as rows

Cohen's (1960) kappa is agreement beyond what two labellers of these frequencies reach by chance. It
is taken over the segments that both could label and, where one of them learnt from labels, over the
problems that it did not learn from. Segments of a problem resemble each other, so problems are
resampled. High agreement is not truth: two labellers can share a mistake.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float

from probes.frames import card
from probes.intervals import FEW, LEVEL, Estimate, bootstrap_weights, exact_rate, undefined
from probes.measurements import row
from probes.records import Measurement, Refusal, unique
from probes.strategies.agreement import kappas
from probes.strategies.labellers import Labelled
from probes.strategies.pooled import pooled_share


@dataclass(frozen=True, eq=False)
class Pair:
    """Two labellers on the segments that both labelled."""

    one: str
    other: str
    kappa: Estimate
    agree: Estimate
    """Share of segments with one label: what kappa is corrected from."""
    both: Estimate
    """Of the segments that both were given, the share that both could label."""
    labels: tuple[str, ...]
    counts: Float[np.ndarray, "problems one other"]
    """Segments by problem and the labels of both, in the order of `labels`."""

    def frame(self) -> Any:
        """The segments by the labels of both, as a pandas table."""
        import pandas as pd

        names = [label or NONE for label in self.labels]
        index, columns = pd.Index(names, name=self.one), pd.Index(names, name=self.other)
        return pd.DataFrame(self.counts.sum(0).astype(int), index, columns)

    def _repr_html_(self) -> str:
        """Kappa, what it is corrected from, and where the two differ, in a notebook."""
        told = {"kappa": self.kappa, "same label": self.agree, "labelled by both": self.both}
        return card(f"{self.one} and {self.other}", told) + self.frame().to_html()


def between(rows: Sequence[Labelled], one: str, other: str, *, seed: int = 0) -> Pair:
    """Agreement of two labellers.

    Args:
        rows: of both, and perhaps of others.
        one: name of a labeller.
        other: of another.
        seed: of the resamples.

    Raises:
        Refusal: a labeller that isn't in the rows, one name twice, a segment that one labelled
            twice, no segment that both were given, or labels of other answers.
    """
    names = unique(r.labeller for r in rows)
    if missing := [name for name in (one, other) if name not in names]:
        raise Refusal(f"no row is by {missing[0]!r}; there are {', '.join(names) or 'none'}.")
    if one == other:
        raise Refusal(f"{one!r} agrees with itself: name two labellers.")
    mine, theirs = (_by_segment(rows, name) for name in (one, other))
    given = [place for place in mine if place in theirs]
    if not given:
        raise Refusal(
            f"{one!r} and {other!r} have no segment in common: they labelled other answers, or "
            f"cut them otherwise."
        )
    if strange := [p for p in given if mine[p].text != theirs[p].text]:
        raise Refusal(
            f"{one!r} and {other!r} labelled other answers: at sample {strange[0][1]} of problem "
            f"{strange[0][0]} one read {mine[strange[0]].text[:40]!r}, the other "
            f"{theirs[strange[0]].text[:40]!r}. Label the same rollouts."
        )
    # Where either was taught labels, on the problems of its lessons it only recites.
    held = [place for place in given if not (mine[place].fitted or theirs[place].fitted)]
    used = {x for p in held for x in (mine[p].label, theirs[p].label)}
    labels = tuple(sorted(x for x in used if x is not None))
    problems = unique(place[0] for place in held)
    counts = np.zeros((len(problems), len(labels), len(labels)))
    asked = np.zeros(len(problems))
    for place in held:
        problem = problems.index(place[0])
        asked[problem] += 1
        first, second = mine[place].label, theirs[place].label
        if first is not None and second is not None:
            counts[problem, labels.index(first), labels.index(second)] += 1
    done = counts.sum((1, 2))
    some = counts[done > 0]
    total, same = some.sum((1, 2)), np.trace(some, axis1=1, axis2=2)
    return Pair(
        one,
        other,
        kappa(some, (one, other), labels, seed=seed),
        pooled_share(same, total, seed, never="no segment has a label of both"),
        pooled_share(done, asked, seed, never="all problems were learnt from"),
        labels,
        some,
    )


def kappa(
    counts: Float[np.ndarray, "problems k k"],
    names: tuple[str, str],
    labels: tuple[str, ...],
    *,
    seed: int = 0,
) -> Estimate:
    """Cohen's kappa with its interval over problems, or why there is none.

    Where fewer than ten problems hold a disagreement (or an agreement), resamples say little of
    it: of none at all they would make an interval of width 0. There the share of disagreement is
    bounded by `exact_rate`, with problems as trials, and divided by that of chance as observed.

    Undefined where a labeller gives one label throughout (kappa is 0 then whatever the other says,
    or 0/0), and where the two have no label in common but "": they sort by other names.
    """
    n, whole = len(counts), counts.sum(0)
    if n < 2:
        return undefined(f"{n} problem(s) with labels of both; two is the least", n)
    for name, used in zip(names, (whole.sum(1), whole.sum(0)), strict=True):
        if (used > 0).sum() == 1:
            return undefined(f"{name} calls every segment {labels[int(used.argmax())]!r}", n)
    shared = [x for i, x in enumerate(labels) if x and whole[i].any() and whole[:, i].any()]
    if not shared:
        return undefined("no label in common: rename those that mean the same", n)
    apart = counts.sum((1, 2)) - np.trace(counts, axis1=1, axis2=2)
    if min((apart > 0).sum(), (apart < counts.sum((1, 2))).sum()) >= FEW:
        return bootstrap_weights(kappas(counts), n, seed=seed)
    share = whole / whole.sum()
    chance = 1 - float(share.sum(0) @ share.sum(1))
    off = exact_rate(float(apart.sum() / whole.sum()) * n, n)
    value, low, high = (1 - x / chance for x in (off.value, off.high, off.low))
    return Estimate(value, max(-1.0, low), min(1.0, high), n, off.se / chance, LEVEL)


def renamed(rows: Sequence[Labelled], names: Mapping[str, str]) -> list[Labelled]:
    """The rows with labels called otherwise, "" for none: so labellers of other words compare.

    Raises:
        Refusal: a name that no row has.
    """
    known = unique(r.label for r in rows if r.label is not None)
    if missing := [name for name in names if name not in known]:
        raise Refusal(f"no segment is labelled {missing[0]!r}; there are {sorted(known)}.")
    return [r if r.label is None else replace(r, label=names.get(r.label, r.label)) for r in rows]


def agreements(rows: Sequence[Labelled], *, seed: int = 0) -> list[Measurement]:
    """Every pair of labellers as rows, and the share of segments that each could not label.

    - "kappa", "agreement" and "labelled by both" of a pair: `model` and `setting` name the two;
    - "label given label": of the segments that `model` calls `skill`, the share that `setting`
      calls `kind`; `x` is how many segments that is, `n` how many problems hold one;
    - "label share" of a labeller (`model`) and a label (`kind`);
    - "unlabelled" of a labeller and a kind of failure (`kind`).
    """
    names = unique(r.labeller for r in rows)
    found = [line for name in names for line in _alone(rows, name, seed)]
    for one, other in combinations(names, 2):
        pair = between(rows, one, other, seed=seed)
        about: dict[str, Any] = {"model": one, "setting": other}
        found.append(row("kappa", pair.kappa, x=float(pair.counts.sum()), **about))
        found.append(row("agreement", pair.agree, x=float(pair.counts.sum()), **about))
        found.append(row("labelled by both", pair.both, **about))
        of_first = pair.counts.sum(2)
        for i, first in enumerate(pair.labels):
            has = of_first[:, i] > 0
            if not has.any():
                continue
            for j, second in enumerate(pair.labels):
                cell = pair.counts[has, i, j]
                share = pooled_share(cell, of_first[has, i], seed)
                labels: dict[str, Any] = {"skill": first or NONE, "kind": second or NONE}
                found.append(
                    row("label given label", share, x=float(cell.sum()), **labels, **about)
                )
    return found


NONE = "(none)"
"""What "" is called in tables and figures."""


def _alone(rows: Sequence[Labelled], name: str, seed: int) -> list[Measurement]:
    """What one labeller gives, and what it could not label, as shares of its segments."""
    mine = [r for r in rows if r.labeller == name]
    problems = unique(r.problem for r in mine)
    asked = _count(mine, problems)
    found = []
    for label in sorted({r.label for r in mine if r.label is not None}):
        has = _count([r for r in mine if r.label == label], problems)
        share = pooled_share(has, asked, seed)
        found.append(row("label share", share, model=name, kind=label or NONE, x=float(has.sum())))
    for failure in sorted({r.failure for r in mine if r.failure}):
        has = _count([r for r in mine if r.failure == failure], problems)
        found.append(row("unlabelled", pooled_share(has, asked, seed), model=name, kind=failure))
    return found


def _count(rows: Sequence[Labelled], problems: Sequence[str]) -> np.ndarray:
    place = {problem: i for i, problem in enumerate(problems)}
    return np.bincount([place[r.problem] for r in rows], minlength=len(problems)).astype(float)


def _by_segment(rows: Sequence[Labelled], name: str) -> dict[tuple, Labelled]:
    found: dict[tuple, Labelled] = {}
    for r in rows:
        if r.labeller == name:
            place = (r.problem, r.sample, r.setting, r.start, r.stop)
            if place in found:
                raise Refusal(
                    f"{name!r} labelled characters {r.start} to {r.stop} of one answer "
                    f"twice ({r.problem}/{r.sample}): two tables put together?"
                )
            found[place] = r
    return found
