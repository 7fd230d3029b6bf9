"""Counts of each problem, and pass@k of one model or two.

A text whose grader failed was not measured and is in no count; an answer that can't be parsed
was, and is not right. No missing sample is ever filled in (the evaluation code of Yue et al.
2504.13837 repeats the last score, which biases the curve).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from probes.intervals import Estimate, difference, rate
from probes.records import Grade, Refusal, unique
from probes.verify import UNCHECKED, Graded

Which = Literal["right", "valid"]


@dataclass(frozen=True)
class Counts:
    """What the answers to one problem came to."""

    problem: str
    """Id of the problem."""
    n: int
    """Answers that were graded; those whose grader failed are left out."""
    right: int
    valid: int | None
    """Right answers whose trace is a valid derivation; None where the task checks no traces."""
    unparsed: int
    """Answers that could not be read; never right."""

    def number(self, which: Which) -> int:
        """How many answers were right, or right by a valid trace.

        Raises:
            Refusal: valid ones are asked for and the traces were not checked.
        """
        if which == "right":
            return self.right
        if self.valid is None:
            raise Refusal(f"valid answers can't be counted: {UNCHECKED}.")
        return self.valid


@dataclass(frozen=True)
class Point:
    """pass@k, or the difference of two, at one k."""

    k: int
    estimate: Estimate


def counts(problems: Sequence[str], graded: Sequence[Graded]) -> list[Counts]:
    """Counts of each problem, from the problem id and the verdict of each answer.

    Problems keep the order of their first answer.
    """
    if len(problems) != len(graded):
        raise Refusal(f"{len(problems)} problem ids and {len(graded)} verdicts can't be paired.")
    grouped: dict[str, list[Graded]] = {problem: [] for problem in unique(problems)}
    for problem, one in zip(problems, graded, strict=True):
        if one.grade is not Grade.ERROR:
            grouped[problem].append(one)
    if lost := [problem for problem, of_it in grouped.items() if not of_it]:
        raise Refusal(f"no answer to {len(lost)} problem(s) could be graded, first {lost[0]}.")
    return [
        Counts(
            problem=problem,
            n=len(of_it),
            right=sum(one.grade is Grade.RIGHT for one in of_it),
            valid=None if any(o.valid is None for o in of_it) else sum(o.sound for o in of_it),
            unparsed=sum(one.grade is Grade.UNPARSED for one in of_it),
        )
        for problem, of_it in grouped.items()
    ]


def pass_at_k(
    correct: Int[np.ndarray, " problems"], n: int | Int[np.ndarray, " problems"], k: int
) -> Float[np.ndarray, " problems"]:
    """Chance that at least one of `k` answers is right, from `n` graded answers a problem.

    The unbiased estimator of Chen et al. (2021, arXiv:2107.03374, section 2.1),
    1 - C(n - c, k) / C(n, k): the share of the k-subsets of the n answers that hold a right
    one. Looking at the first k answers only has the same mean and more variance;
    1 - (1 - c/n)**k is biased low.

    >>> pass_at_k(np.array([0, 1, 2]), n=4, k=2).round(3).tolist()
    [0.0, 0.5, 0.833]

    Args:
        correct: right answers of each problem, 0..n.
        n: graded answers a problem, one number for all or one each.
        k: how many tries are allowed, 1..n.

    Returns:
        A probability for each problem; its mean is the benchmark's pass@k.

    Raises:
        Refusal: k is above n (no such budget was measured; extrapolating is a model, not an
            estimate), or a count lies outside 0..n.
    """
    answers = np.broadcast_to(np.asarray(n), correct.shape)
    if correct.size == 0:
        raise Refusal("there are no problems: nothing was measured.")
    if not 1 <= k <= answers.min():
        raise Refusal(
            f"k = {k} with {answers.min()} graded answers to a problem: k lies in "
            f"1..{answers.min()} (pass@k is estimated, not extrapolated). Sample at least {k} "
            f"answers a problem, better {4 * k}."
        )
    if correct.min() < 0 or (correct > answers).any():
        raise Refusal(
            f"counts of right answers from {correct.min()} to {correct.max()} of "
            f"{answers.min()} answers: a count lies in 0..n."
        )
    pairs = list(zip(answers.tolist(), correct.tolist(), strict=True))
    # Whole numbers throughout: exact for any n, and no cancellation where c is small.
    chance = {
        (m, c): (math.comb(m, k) - math.comb(m - c, k)) / math.comb(m, k) for m, c in set(pairs)
    }
    return np.array([chance[pair] for pair in pairs])


def curve(
    measured: Sequence[Counts],
    ks: Sequence[int] | None = None,
    *,
    which: Which = "right",
    seed: int = 0,
) -> list[Point]:
    """pass@k with its interval over problems, for each k.

    Args:
        measured: the counts of one model.
        ks: budgets; None for the powers of two up to the fewest answers of a problem.
        which: "right" for any right answer, "valid" for those with a valid trace only.
        seed: of the resamples.
    """
    return [Point(k, rate(solved(measured, k, which), seed=seed)) for k in _budgets(measured, ks)]


def compare(
    base: Sequence[Counts],
    tuned: Sequence[Counts],
    ks: Sequence[int] | None = None,
    *,
    which: Which = "right",
    seed: int = 0,
) -> list[Point]:
    """pass@k of `tuned` minus that of `base`, paired by problem, for each k.

    The two must have met the same problems; their order doesn't matter, nor need they have
    answered equally often.
    """
    tuned = paired(base, tuned)
    budgets = _budgets([*base, *tuned], ks)
    return [
        Point(k, difference(solved(tuned, k, which), solved(base, k, which), seed=seed))
        for k in budgets
    ]


def paired(base: Sequence[Counts], tuned: Sequence[Counts]) -> list[Counts]:
    """The tuned model's counts in the order of the base's problems."""
    by_problem: Mapping[str, Counts] = {of_it.problem: of_it for of_it in tuned}
    problems = [of_it.problem for of_it in base]
    if len(by_problem) != len(tuned) or len(set(problems)) != len(problems):
        raise Refusal("a problem is counted twice: merge the answers before counting them.")
    if apart := set(problems) ^ set(by_problem):
        raise Refusal(
            f"the two models met different problems ({len(problems)} and {len(tuned)}, "
            f"{len(apart)} of them met by one only, such as {min(apart)}): only a comparison on "
            f"the same problems is paired. Were they sampled with other splits or limits?"
        )
    return [by_problem[problem] for problem in problems]


def guessed(
    guess_rates: Float[np.ndarray, " problems"], ks: Sequence[int]
) -> list[tuple[int, float]]:
    """pass@k of a model that answers without any thought: 1 − (1 − g)^k, over problems."""
    return [(k, float(-np.expm1(k * np.log1p(-guess_rates)).mean())) for k in ks]


def solved(measured: Sequence[Counts], k: int, which: Which) -> Float[np.ndarray, " problems"]:
    """pass@k of each problem."""
    correct = np.array([of_it.number(which) for of_it in measured])
    return pass_at_k(correct, np.array([of_it.n for of_it in measured]), k)


def _budgets(measured: Sequence[Counts], ks: Sequence[int] | None) -> Sequence[int]:
    if not measured:
        raise Refusal("there are no problems: nothing was measured.")
    fewest = min(of_it.n for of_it in measured)
    return ks if ks is not None else [2**i for i in range(fewest.bit_length())]
