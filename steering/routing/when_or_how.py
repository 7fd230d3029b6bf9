"""Did tuning change when, or how? Four cells, three numbers, and the controls beside them.

With XY the accuracy when X decides and Y executes, B the base and T the tuned model:

    deployment    TB - BB     the tuned model's decisions, executed by the base
    execution     BT - BB     the base's decisions, executed by the tuned model
    interaction   TT - TB - BT + BB
    gain          TT - BB     the sum of the three

The interaction stands by itself: to halve it between the other two would call a gain that needs
both "half deployment". Each number is of answers that are right, right by a valid trace, and
readable at all (`parsed`); all share random numbers and are paired by problem.

The control of deployment gives the tuned model as many tokens, of the same problem, at random
places; that of execution gives it as many as it executed. A model that is better at everything
gains from either. What the decisions are worth beyond that is `decision tokens - random tokens`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from probes.generate import Decoding
from probes.intervals import FEW, LEVEL, Estimate, bootstrap, difference, rate, undefined
from probes.measurements import row
from probes.models import Model
from probes.records import Measurement, Problem, Refusal, unique
from probes.tasks import Task
from steering.evaluate import Judged, Which, evaluate, groups
from steering.routing.crossed import Crossed, at_decisions, at_random, by_setting, otherwise, shares

CELLS = ("base x base", "tuned x base", "base x tuned", "tuned x tuned")
"""Deciding x executing model; the names of the settings of a crossed record."""

CONTROLS = ("tuned at random x base", "base at random x tuned")
"""For "tuned x base": the tuned model writes as many tokens, at random places. For "base x tuned":
the base writes as many as it decided there, at random places, and the tuned model the others."""

DECISIONS, RANDOM = "decision tokens", "random tokens"

Rates = Float[np.ndarray, " problems"]


def cross(
    base: Model,
    tuned: Model,
    task: Task,
    problems: Sequence[Problem],
    *,
    samples: int,
    decoding: Decoding = Decoding(),  # noqa: B008 - frozen
    seed: int = 0,
    first_sample: int = 0,
    plain: tuple[Judged, Judged] | None = None,
    controls: bool = True,
    batch: int = 64,
    progress: Callable[[int], Any] | None = None,
) -> Judged:
    """Answers of all four cells and both controls, as settings of one record.

    Args:
        base: before tuning.
        tuned: after it.
        task: made the problems, and says which words decide.
        problems: each once.
        samples: answers for each problem and cell.
        decoding: of every token, whoever writes it.
        seed: of the random numbers that all cells share.
        first_sample: index of the first sample.
        plain: answers of base and tuned alone to (at least) these problems, where there are some;
            they are the cells BB and TT, which are sampled otherwise.
        controls: sample the controls too.
        batch: rows decoded together.
        progress: called with the number of answers finished since the last call.
    """
    how: dict[str, Any] = {"samples": samples, "decoding": decoding, "seed": seed, "batch": batch}
    how |= {"first_sample": first_sample, "progress": progress}
    if plain is None:
        alone = [evaluate(model, task, problems, **how) for model in (base, tuned)]
    else:
        alone = [_of(problems, judged) for judged in plain]
    decides = at_decisions(task, problems, tuned.tokenizer)
    writer = Crossed(tuned, base, by_setting({CELLS[1]: decides, CELLS[2]: otherwise(decides)}))
    crossed = evaluate(writer, task, problems, settings=CELLS[1:3], **how)
    whole = _named(alone[0], CELLS[0]) + crossed + _named(alone[1], CELLS[3])
    if not controls:
        return whole
    coins = {
        control: at_random(shares(writer.chosen, cell), seed=seed)
        for control, cell in zip(CONTROLS, CELLS[1:3], strict=True)
    }
    writer = Crossed(tuned, base, by_setting(coins))
    return whole + evaluate(writer, task, problems, settings=CONTROLS, **how)


def when_or_how(judged: Judged, *, seed: int = 0) -> list[Measurement]:
    """The cells and the numbers that they make, for each skill and part.

    Measures, for WHICH in right, valid, parsed: "WHICH" of each cell and control (`model` names
    it); "deployment WHICH", "execution WHICH", "interaction WHICH" and "gain WHICH", at the
    setting "decision tokens"; deployment and execution also at "random tokens", and as the paired
    difference of the two. "format" is a term of its own: the part of the gain in right answers
    that more readable ones would give at the base's accuracy, (parsed_T - parsed_B) right_B /
    parsed_B. It overlaps with the other terms and is not to be added to them.

    Args:
        judged: what `cross` gives; without controls their rows are left out.
        seed: of the resamples.
    """
    present = {r.setting for r in judged.rollouts}
    if missing := set(CELLS) - present:
        raise Refusal(f"the record lacks the cells {sorted(missing)}: `cross` samples them.")
    controls = set(CONTROLS) <= present
    rows = []
    for skill, part in groups(judged.problems):

        def rates(which: Which, cell: str, skill: str = skill, part: str = part) -> Rates:
            return judged.rates(which, setting=cell, skill=skill, part=part)

        found: list[tuple[str, Estimate, str, str]] = []
        for which in ("right", "valid", "parsed"):
            cells = {c: rates(which, c) for c in (*CELLS, *(CONTROLS if controls else ()))}
            for cell, values in cells.items():
                setting = RANDOM if cell in CONTROLS else DECISIONS
                found.append((which, _few(rate, values, seed=seed), cell, setting))
            found += [
                (f"{name} {which}", estimate, "tuned - base", setting)
                for name, estimate, setting in _terms(cells, seed)
            ]
        found.append(("format", _format(rates, seed), "tuned - base", ""))
        rows += [
            row(name, of, model=model, skill=skill, part=part, setting=setting)
            for name, of, model, setting in found
        ]
    return rows


def pooled(judged: Judged, *, seed: int = 0) -> list[Measurement]:
    """The numbers of valid answers over all skills, by half of the entries: skill is "".

    Args:
        judged: what `cross` gives, with controls.
        seed: of the resamples.
    """
    rows = []
    for part in unique([p.part for p in judged.problems]):
        about: dict[str, Any] = {"part": part, "model": "tuned - base"}
        bb, tb, bt, tt = (judged.rates("valid", setting=cell, part=part) for cell in CELLS)
        null, _ = (judged.rates("valid", setting=control, part=part) for control in CONTROLS)
        terms = [
            ("gain", difference(tt, bb, seed=seed), DECISIONS),
            ("deployment", difference(tb, bb, seed=seed), DECISIONS),
            ("execution", difference(bt, bb, seed=seed), DECISIONS),
            ("interaction", interaction(bb, tb, bt, tt, seed=seed), DECISIONS),
            ("deployment", difference(null, bb, seed=seed), RANDOM),
            ("deployment", difference(tb, null, seed=seed), f"{DECISIONS} - {RANDOM}"),
        ]
        rows += [row(f"{name} valid", e, setting=setting, **about) for name, e, setting in terms]
    return rows


def _terms(cells: dict[str, Rates], seed: int) -> list[tuple[str, Estimate, str]]:
    bb, tb, bt, tt = (cells[cell] for cell in CELLS)
    terms = [
        ("gain", _few(difference, tt, bb, seed=seed), DECISIONS),
        ("deployment", _few(difference, tb, bb, seed=seed), DECISIONS),
        ("execution", _few(difference, bt, bb, seed=seed), DECISIONS),
        ("interaction", _few(interaction, bb, tb, bt, tt, seed=seed), DECISIONS),
    ]
    for name, cell, control in zip(("deployment", "execution"), (tb, bt), CONTROLS, strict=True):
        if control in cells:
            null = cells[control]
            terms.append((name, _few(difference, null, bb, seed=seed), RANDOM))
            beyond = _few(difference, cell, null, seed=seed)
            terms.append((name, beyond, f"{DECISIONS} - {RANDOM}"))
    return terms


def interaction(bb: Rates, tb: Rates, bt: Rates, tt: Rates, *, seed: int = 0) -> Estimate:
    """TT - TB - BT + BB, paired by problem.

    Where fewer than ten problems have one, TT - TB and BT - BB are each bounded at half the error
    and the ends subtracted: wide, and never of width 0 because no problem happened to show it.
    """
    values = tt - tb - bt + bb
    # Rates are multiples of 1/n: what is smaller than that is rounding of the sum.
    values = np.where(abs(values) < 1e-9, 0.0, values)
    if (values != 0).sum() >= FEW:
        return bootstrap(lambda mean: mean, values, seed=seed)
    half = (1 + LEVEL) / 2
    up = difference(tt, tb, seed=seed, level=half)
    down = difference(bt, bb, seed=seed, level=half)
    low, high = up.low - down.high, up.high - down.low
    return Estimate(float(values.mean()), low, high, len(values), float(np.hypot(up.se, down.se)))


def _format(rates: Callable[[Which, str], Rates], seed: int) -> Estimate:
    """What readable answers alone would gain: a rate of its own, not a share of the others."""
    base, tuned = rates("parsed", CELLS[0]), rates("parsed", CELLS[3])
    if np.array_equal(base, tuned):
        return _few(difference, tuned, base, seed=seed)  # both 0, and not known better than that
    right = rates("right", CELLS[0])
    return _few(bootstrap, lambda t, b, r: (t - b) * r / b, tuned, base, right, seed=seed)


def _few(estimator: Callable[..., Estimate], *columns: Any, seed: int) -> Estimate:
    """The estimate, or the reason why so few problems have none."""
    problems = len(columns[-1])
    if problems < 2:
        return undefined(f"{problems} problem gives no interval", problems)
    return estimator(*columns, seed=seed)


def _of(problems: Sequence[Problem], judged: Judged) -> Judged:
    """The answers to these problems, in this order."""
    ids = {p.id for p in problems}
    if lost := ids - {r.problem for r in judged.rollouts}:
        raise Refusal(f"{len(lost)} of {len(ids)} problems have no plain answer, as {min(lost)}.")
    pairs = zip(judged.rollouts, judged.graded, strict=True)
    rollouts, graded = zip(*[(r, g) for r, g in pairs if r.problem in ids], strict=True)
    return Judged(tuple(problems), rollouts, graded)


def _named(judged: Judged, setting: str) -> Judged:
    if len(settings := {r.setting for r in judged.rollouts}) > 1:
        raise Refusal(f"plain answers are of one setting, not of {sorted(settings)}.")
    rollouts = tuple(replace(r, setting=setting) for r in judged.rollouts)
    return Judged(judged.problems, rollouts, judged.graded)
