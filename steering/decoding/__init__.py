"""Would sharper decoding alone have done it? The base under other decodings, against the tuned.

    answers = sharpen(base, tuned, task, select, test, samples=16)
    rows = sharpening(answers)

Tuning by reward also makes a model surer of itself. So the tuned model at temperature 1 stands
beside the base at greedy, at the temperature that suits it best, and under a majority vote; and
the tuned model is also sampled hot enough to be as unsure as the base was. The temperature is
chosen for each skill on problems of another split, and reported on these.

Not here: entropy and the temperature that matches it (`.entropy`), the vote (`probes.boundary`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from probes.boundary import majority
from probes.generate import Decoding
from probes.intervals import Estimate, difference, rate
from probes.measurements import row
from probes.models import Model
from probes.records import Grade, Measurement, Problem, Refusal, unique
from probes.tasks import Task
from steering.decoding.entropy import Matched, entropy, match_entropy
from steering.evaluate import Judged, evaluate, groups

__all__ = [
    "Matched",
    "Sharpened",
    "best_temperatures",
    "entropy",
    "final_answer",
    "match_entropy",
    "sharpen",
    "sharpening",
    "votes",
]

TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0)
"""The grid for the base. Greedy has a line of its own."""

CUTS = ("?", ";", ".", "back")
"""What may follow a final answer and is no part of it."""


@dataclass(frozen=True)
class Sharpened:
    """Answers of base and tuned model under each decoding, to the same problems."""

    base: Judged
    """At temperature 1."""
    tuned: Judged
    """At temperature 1."""
    greedy: Judged
    """The base's likeliest words; one answer a problem."""
    best: Judged
    """The base, each skill at its own temperature."""
    matched: Judged
    """The tuned model, as unsure as the base."""
    temperatures: Mapping[str, float]
    """Of each skill, the base's best."""
    matching: Matched


def sharpen(
    base: Model,
    tuned: Model,
    task: Task,
    select: Sequence[Problem],
    test: Sequence[Problem],
    *,
    samples: int,
    temperatures: Sequence[float] = TEMPERATURES,
    plain: tuple[Judged, Judged] | None = None,
    select_samples: int = 4,
    seed: int = 0,
    batch: int = 64,
    progress: Callable[[int], Any] | None = None,
) -> Sharpened:
    """Sample the base and the tuned model under all decodings.

    Args:
        base: before tuning.
        tuned: after it.
        task: made the problems.
        select: problems on which temperatures are chosen; none of them in `test`.
        test: problems that are reported.
        samples: answers for each test problem and decoding.
        temperatures: the grid.
        plain: answers of base and tuned at temperature 1 to the test problems, where there are.
        select_samples: answers for each problem of `select` and temperature.
        seed: of the random numbers, which all decodings share.
        batch: rows decoded together.
        progress: called with the number of answers finished since the last call.

    Raises:
        Refusal: a problem in both splits, or a skill of `test` that `select` lacks.
    """
    if shared := {p.id for p in select} & {p.id for p in test}:
        raise Refusal(f"{len(shared)} problems are in both splits: nothing would be held out.")
    how: dict[str, Any] = {"seed": seed, "batch": batch, "progress": progress}
    if plain is None:
        plain = tuple(evaluate(m, task, test, samples=samples, **how) for m in (base, tuned))  # type: ignore[assignment]
    assert plain is not None
    grid = {
        t: evaluate(base, task, select, samples=select_samples, decoding=Decoding(t), **how)
        for t in temperatures
    }
    chosen = best_temperatures(grid)
    if lost := {p.skill for p in test} - set(chosen):
        raise Refusal(f"no temperature was chosen for {sorted(lost)}: `select` has no such skill.")
    best = None
    for temperature in unique(chosen.values()):
        of_it = [p for p in test if chosen[p.skill] == temperature]
        if of_it:
            decoding = Decoding(temperature)
            more = evaluate(base, task, of_it, samples=samples, decoding=decoding, **how)
            best = more if best is None else best + more
    assert best is not None
    matching = match_entropy(tuned, base, task, select, seed=seed, batch=batch)
    hot = Decoding(matching.temperature)
    return Sharpened(
        base=plain[0],
        tuned=plain[1],
        greedy=evaluate(base, task, test, samples=1, decoding=Decoding(0), **how),
        best=Judged(tuple(test), best.rollouts, best.graded),
        matched=evaluate(tuned, task, test, samples=samples, decoding=hot, **how),
        temperatures=chosen,
        matching=matching,
    )


def best_temperatures(grid: Mapping[float, Judged]) -> dict[str, float]:
    """Of each skill, the temperature with most right answers; of equal ones the highest.

    A skill at its own temperature is a stronger control than one temperature for all.
    """
    skills = unique(p.skill for judged in grid.values() for p in judged.problems)
    return {
        skill: max(grid, key=lambda t: (float(grid[t].rates("right", skill=skill).mean()), t))
        for skill in skills
    }


def sharpening(answers: Sharpened, *, seed: int = 0) -> list[Measurement]:
    """Right and valid answers under each decoding, and each against the tuned model at T = 1.

    Measures, for each skill and part: "right" and "valid" of each arm (`setting`: "T = 1",
    "greedy", "best temperature", "majority vote", "matched entropy"; `x`: its temperature), and
    "right" and "valid" of the model "tuned - base" ("tuned - tuned" for matched entropy), the tuned
    model at T = 1 less the arm, paired.
    A vote is over final answers, so it has no valid trace.
    """
    arms = {
        ("base", "T = 1"): answers.base,
        ("base", "greedy"): answers.greedy,
        ("base", "best temperature"): answers.best,
        ("tuned", "T = 1"): answers.tuned,
        ("tuned", "matched entropy"): answers.matched,
    }
    reached = answers.matching
    notes = {"matched entropy": f"{reached.entropy:.3f} nats a token, base {reached.target:.3f}"}
    rows = []
    for skill, part in groups(answers.tuned.problems):
        heat = {"T = 1": 1.0, "greedy": 0.0, "matched entropy": answers.matching.temperature}
        heat["best temperature"] = answers.temperatures[skill]
        for which in ("right", "valid"):
            tuned = answers.tuned.rates(which, skill=skill, part=part)
            found = {arm: of.rates(which, skill=skill, part=part) for arm, of in arms.items()}
            if which == "right":
                found["base", "majority vote"] = votes(answers.base.where(skill=skill, part=part))
            for (model, setting), values in found.items():
                pair: list[tuple[str, Estimate]] = [(model, rate(values, seed=seed))]
                if (model, setting) != ("tuned", "T = 1"):
                    pair.append((f"tuned - {model}", difference(tuned, values, seed=seed)))
                rows += [
                    row(
                        which,
                        estimate,
                        model=name,
                        skill=skill,
                        part=part,
                        setting=setting,
                        x=heat.get(setting, 1.0),
                        note=notes.get(setting, ""),
                    )
                    for name, estimate in pair
                ]
    return rows


def votes(judged: Judged) -> Float[np.ndarray, " problems"]:
    """Of each problem, the chance that a vote over its answers is right (`boundary.majority`)."""
    ballots: dict[str, list[tuple[str | None, bool]]] = {p.id: [] for p in judged.problems}
    for rollout, graded in zip(judged.rollouts, judged.graded, strict=True):
        if graded.grade is not Grade.ERROR:
            read = None if graded.grade is Grade.UNPARSED else final_answer(rollout.text)
            ballots[rollout.problem].append((read, graded.grade is Grade.RIGHT))
    return np.array([majority(*zip(*cast, strict=True)) for cast in ballots.values()])


def final_answer(response: str) -> str:
    """The words of the last answer.

    >>> final_answer("ans 3 ; ans 7 - 2 ? 5")
    '7 - 2'
    """
    words = response.split()
    last = words[len(words) - words[::-1].index("ans") :] if "ans" in words else []
    end = next((i for i, word in enumerate(last) if word in CUTS), len(last))
    return " ".join(last[:end])
