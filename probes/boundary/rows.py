"""Every measure of the boundary as tidy rows, which figures and the verdict's page read.

    rows = [*of_cover(base, "base"), *of_cover(tuned, "tuned"), *of_pair(base, tuned, k=8)]
    rows += of_pair(*relabelled(base, tuned), k=8, about={"setting": SHUFFLED})

What they are called, with WHICH one of "right" and "valid":

- ``pass@k``, ``valid@k``: model base, tuned, "tuned - base" or guessing, x = k;
- ``crossing WHICH``: the probability, x = the largest k; ``crossing k WHICH``: where, with an
  infinite value (or end of the interval) for "not by x";
- ``solvable WHICH``: model = the cell, x = answers a problem; ``solvable again WHICH``: the share
  of the cell that was in it again;
- ``cover WHICH``: x = tau; ``accuracy WHICH``: x = middle of the bin;
- ``efficiency gap WHICH``: x = k;
- ``below limit WHICH``: x = the limit; ``never WHICH``: the point mass at 0, not identified;
- ``solved later WHICH``: of the problems unsolved at first, the share solved on fresh samples; with
  setting "fit" what the beta-binomial says of it.

Nulls carry their name as setting: guessing, `ITSELF`, `SHUFFLED`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from probes.boundary.beta_binomial import estimates, fit_counts
from probes.boundary.coverage import (
    TAUS,
    compare_cover,
    cover,
    guessed_cover,
    guessed_histogram,
    histogram,
)
from probes.boundary.crossing import crossing
from probes.boundary.curves import Counts, Which, compare, curve, guessed, paired
from probes.boundary.efficiency import efficiency_gap, guessed_gap
from probes.boundary.solvable import CELLS, Again, solvable
from probes.intervals import FEW, Estimate, detection_limit, exact_rate, undefined
from probes.measurements import point, row
from probes.records import Measurement
from probes.verify import UNCHECKED

WHICH: tuple[Which, ...] = ("right", "valid")
CURVES = {"right": "pass@k", "valid": "valid@k"}
"""Measure of pass@k by what counts."""
ITSELF = "against itself"
SHUFFLED = "shuffled labels"
NOT_IDENTIFIED = "no exact zero can be told from a rate far below the limit"

About = Mapping[str, Any]


def budgets(samples: int) -> list[int]:
    """Powers of two up to the number of samples, and that number."""
    return sorted({2**i for i in range(samples.bit_length())} | {samples})


def ways(measured: Sequence[Counts]) -> tuple[Which, ...]:
    """What can be counted of these answers: "valid" only where every trace was checked."""
    checked = all(one.valid is not None for one in measured)
    return WHICH if checked else ("right",)


def _unchecked(measured: Sequence[Counts], measure: str, said: About) -> list[Measurement]:
    """A row that says why the measure has no number, where nobody checked the traces."""
    if "valid" in ways(measured):
        return []
    return [row(measure, undefined(UNCHECKED, len(measured)), **said)]


def of_curves(
    base: Sequence[Counts],
    tuned: Sequence[Counts],
    *,
    k: int,
    about: About | None = None,
    seed: int = 0,
) -> list[Measurement]:
    """Both curves of pass@k, and their difference at the ends and at `k`, fixed beforehand."""
    said = dict(about or {})
    most = min(one.n for one in [*base, *tuned])
    found = _unchecked([*base, *tuned], CURVES["valid"], said)
    for which in ways([*base, *tuned]):
        measure = CURVES[which]
        for model, counted in (("base", base), ("tuned", tuned)):
            for at in curve(counted, budgets(most), which=which, seed=seed):
                found.append(row(measure, at.estimate, model=model, x=float(at.k), **said))
        for at in compare(base, tuned, sorted({1, k, most}), which=which, seed=seed):
            found.append(row(measure, at.estimate, model="tuned - base", x=float(at.k), **said))
    return found


def of_cover(
    measured: Sequence[Counts],
    model: str,
    *,
    taus: Sequence[float] = TAUS,
    about: About | None = None,
    seed: int = 0,
) -> list[Measurement]:
    """Cover@tau of one model."""
    said = {"model": model, **(about or {})}
    return _unchecked(measured, "cover valid", said) + [
        row(f"cover {which}", at.estimate, x=at.tau, **said)
        for which in ways(measured)
        for at in cover(measured, taus, which=which, seed=seed)
    ]


def of_accuracy(
    measured: Sequence[Counts], model: str, *, about: About | None = None, seed: int = 0
) -> list[Measurement]:
    """The histogram of accuracies of one model."""
    said = {"model": model, **(about or {})}
    return _unchecked(measured, "accuracy valid", said) + [
        row(f"accuracy {which}", one.estimate, x=one.middle, **said)
        for which in ways(measured)
        for one in histogram(measured, which=which, seed=seed)
    ]


def seen(measured: Sequence[Counts], guess_rates: Float[np.ndarray, " problems"]) -> float:
    """The rate below which a problem does not count as solved: the detection limit, or guessing.

    The larger of the two: with a thousand answers luck writes a valid trace to nearly everything
    once (a base did so on all of 198 problems, of a skill absent from it too). Where nobody knows
    the chance of guessing (nan) it is the first.
    """
    limit = detection_limit(min(one.n for one in measured))
    return limit if np.isnan(guess_rates).any() else max(limit, float(guess_rates.mean()))


def of_fit(
    measured: Sequence[Counts],
    model: str,
    *,
    limit: float | None = None,
    which: Which = "valid",
    about: About | None = None,
    seed: int = 0,
    resamples: int = 400,
) -> list[Measurement]:
    """Mass below the detection limit, the point mass in it, and what further answers would solve.

    Args:
        measured: the counts of one model.
        model: whose they are.
        limit: None for the rate that the fewest answers of a problem could have missed.
        which: right answers, or those with a valid trace.
        about: columns of the rows.
        seed: of the resamples.
        resamples: how many, a fit each.
    """
    said = {"model": model, **(about or {})}
    n = min(one.n for one in measured)
    limit = detection_limit(n) if limit is None else limit
    solved = any(one.number(which) for one in measured)
    fit = fit_counts(measured, which=which) if solved else None
    found = estimates(
        measured,
        {
            "below limit": lambda fit: fit.below(limit),
            "never": lambda fit: fit.zero,
            "solved later": lambda fit: fit.again(n, n),
        },
        which=which,
        fit=fit,
        seed=seed,
        resamples=resamples,
    )
    below, never = (_share(found[name]) for name in ("below limit", "never"))
    gain = [point(f"zero gain {which}", fit.gain, len(measured), **said)] if fit else []
    return [
        row(f"below limit {which}", below, x=limit, note=NOT_IDENTIFIED, **said),
        row(f"never {which}", never, x=limit, note=NOT_IDENTIFIED, **said),
        row(f"solved later {which}", found["solved later"], x=float(n), setting="fit", **said),
        *gain,
    ]


def _share(found: Estimate) -> Estimate:
    """With the exact interval of as many problems where few are off the edge.

    A fit that puts all of 60 problems on one side does so in every resample; the interval would
    have no width.
    """
    if not found.defined or min(found.value, 1 - found.value) * found.n >= FEW:
        return found
    exact = exact_rate(found.value * found.n, found.n, level=found.level)
    return replace(found, low=min(found.low, exact.low), high=max(found.high, exact.high))


def of_pair(
    base: Sequence[Counts],
    tuned: Sequence[Counts],
    *,
    k: int,
    taus: Sequence[float] = TAUS,
    about: About | None = None,
    seed: int = 0,
) -> list[Measurement]:
    """What two models, or two samples of one, show beside each other."""
    said = dict(about or {})
    n = min(one.n for one in [*base, *tuned])
    found: list[Measurement] = []
    for measure in ("crossing", "solvable", "cover", "efficiency gap"):
        found += _unchecked([*base, *tuned], f"{measure} valid", said)
    for which in ways([*base, *tuned]):
        if n >= 2:
            found += _of_crossing(base, tuned, which, said, seed)
        for cell, share in solvable(base, tuned, which=which, seed=seed).items():
            found.append(row(f"solvable {which}", share, model=cell, x=float(n), **said))
        for at in compare_cover(base, tuned, taus, which=which, seed=seed):
            found.append(row(f"cover {which}", at.estimate, model="tuned - base", x=at.tau, **said))
        gap = efficiency_gap(base, tuned, k, which=which, seed=seed)
        found.append(row(f"efficiency gap {which}", gap, x=float(k), **said))
    return found


def _of_crossing(
    base: Sequence[Counts], tuned: Sequence[Counts], which: Which, said: About, seed: int
) -> list[Measurement]:
    found = crossing(base, tuned, which=which, seed=seed)
    most, ahead = float(found.k_max), f"tuned ahead at k = 1 in {found.ahead:.3f} of the resamples"
    place = Measurement(
        f"crossing k {which}", found.k, found.low, found.high, found.n, x=most, **said
    )
    return [
        point(f"crossing {which}", found.probability, found.n, x=most, note=ahead, **said),
        point(f"ahead {which}", found.ahead, found.n, x=1.0, **said),
        place,
    ]


def of_guessing(
    guess_rates: Float[np.ndarray, " problems"],
    n: int,
    *,
    k: int,
    taus: Sequence[float] = TAUS,
    about: About | None = None,
) -> list[Measurement]:
    """What right answers without any thought reach; no trace of theirs is valid but by luck too.

    Nothing, where the chance of guessing some problem is unknown (nan).
    """
    if np.isnan(guess_rates).any():
        return []
    said, problems = dict(about or {}), len(guess_rates)
    by_guess = {"model": "guessing", **said}
    found = [
        point("pass@k", value, problems, x=float(at), **by_guess)
        for at, value in guessed(guess_rates, budgets(n))
    ]
    for tau, value in guessed_cover(guess_rates, n, taus):
        found.append(point("cover right", value, problems, x=tau, **by_guess))
    for middle, value in guessed_histogram(guess_rates, n):
        found.append(point("accuracy right", value, problems, x=middle, **by_guess))
    reach = -np.expm1(n * np.log1p(-guess_rates))
    shares = (reach**2, reach * (1 - reach), reach * (1 - reach), (1 - reach) ** 2)
    for cell, share in zip(CELLS, shares, strict=True):
        where = {"model": cell, **said, "setting": "guessing"}
        found.append(point("solvable right", float(share.mean()), problems, x=float(n), **where))
    gap = guessed_gap(guess_rates, k)
    return [*found, point("efficiency gap right", gap, problems, x=float(k), **by_guess)]


def of_retest(
    again: Sequence[Again], *, samples: int, which: Which, about: About | None = None
) -> list[Measurement]:
    """How much of each cell stayed in it on fresh samples, and how many unsolved were solved."""
    said = dict(about or {})
    found = []
    for one in again:
        moved = ", ".join(f"{count} {to}" for to, count in one.moved.items() if count)
        note = f"{one.tested} of {one.found} tested again: {moved or 'none'}"
        found.append(
            row(
                f"solvable again {which}",
                one.stayed,
                model=one.cell,
                x=float(samples),
                note=note,
                **said,
            )
        )
    return found


def of_later(
    measured: Sequence[Counts],
    fresh: Sequence[Counts],
    model: str,
    *,
    which: Which = "valid",
    about: About | None = None,
) -> list[Measurement]:
    """Of the problems unsolved at first, the share that as many fresh samples solve."""
    pairs = zip(measured, paired(measured, fresh), strict=True)
    solved = [new.number(which) > 0 for old, new in pairs if old.number(which) == 0]
    if not solved:
        return []
    share = exact_rate(sum(solved), len(solved))
    n = float(min(one.n for one in fresh))
    return [row(f"solved later {which}", share, model=model, x=n, **(about or {}))]
