"""How likely each model finds the other's answers: perplexity, paired by problem and length.

    scored = score(base, tuned, problems, rollouts)           # of one model's valid answers
    cross = crossed(by_tuned, by_base, under=0)               # both under the base
    cross.ratio, cross.likelier                               # length-matched, with intervals

The perplexity analysis of Yue et al. (2504.13837) finds the base's perplexity of the tuned model's
answers in the lower part of that of its own, and reads it as: tuning wrote nothing that the base
would not have written. Perplexity there is per token, exp(-(1/T) sum log p), on two problems and on
all answers. Two things have to be held fixed for that reading:

- **Right answers.** Tuned answers are right more often, and right ones are likelier in the base
  whoever wrote them. So compare valid answers with valid answers.
- **Length.** A longer answer usually spends more of its tokens on what is forced (grammar,
  copying), so its perplexity per token is lower; and who takes other steps has another length. So
  compare answers to the same problem with the same number of tokens: a stratum with n and m of them
  counts as n m / (n + m) (Mantel and Haenszel 1959).

`likelier` is the chance that an answer of the one is likelier than an answer of the other, ties
half: 0.5 where they can't be told apart, and near 1 if the claim holds. What matching by length
leaves is how answers of one length differ: where writers differ by taking longer ways, that shows
only unmatched, so both are reported. The null of all this: a
model's own answers against its own others (`halves`).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from probes.divergence.logprobs import token_logprobs
from probes.intervals import Estimate, bootstrap, undefined
from probes.models import Model, check_pair, encode
from probes.records import Problem, Refusal, Rollout

TIE = 1e-5
"""Surprises this near are equal: the same text in another batch differs by less."""


@dataclass(frozen=True)
class Scored:
    """One answer under two models."""

    problem: str
    sample: int
    length: int
    """Tokens, the end included."""
    surprise: tuple[float, float]
    """Mean -log p of a token under each, nats; its exp is the perplexity."""


@dataclass(frozen=True)
class Crossed:
    """Answers of two writers under one model."""

    one: Estimate
    """Perplexity of the first's answers (geometric mean over matched strata)."""
    other: Estimate
    """Of the second's."""
    ratio: Estimate
    """The first's over the second's."""
    likelier: Estimate
    """Chance that an answer of the first is likelier than one of the second."""
    kept: tuple[float, float]
    """Share of the answers of each that are in a stratum with the other's."""


def score(
    one: Model,
    other: Model,
    problems: Sequence[Problem],
    rollouts: Sequence[Rollout],
    *,
    batch: int = 64,
) -> list[Scored]:
    """Answers under both models; which of them are valid, the caller has chosen.

    Raises:
        Refusal: models that are no pair, or an answer to a problem that isn't given.
    """
    check_pair(one, other)
    by_id = {problem.id: problem for problem in problems}
    if unknown := {r.problem for r in rollouts} - set(by_id):
        raise Refusal(f"{len(unknown)} rollout problem(s) are not given, such as {min(unknown)}.")
    prompts = [encode(one, by_id[r.problem].prompt) for r in rollouts]
    texts = [r.tokens for r in rollouts]
    under = [token_logprobs(m, prompts, texts, batch=batch) for m in (one, other)]
    return [
        Scored(r.problem, r.sample, len(r.tokens), (float(-a.mean()), float(-b.mean())))
        for r, a, b in zip(rollouts, *under, strict=True)
    ]


def crossed(
    one: Sequence[Scored],
    other: Sequence[Scored],
    *,
    under: int,
    by_length: bool = True,
    seed: int = 0,
) -> Crossed:
    """Two writers' answers to the same problems under one model.

    Args:
        one: answers of the first writer.
        other: of the second.
        under: 0 or 1, the model that judges, as in `Scored.surprise`.
        by_length: compare answers of the same number of tokens only.
        seed: of the resamples.
    """
    strata = [_strata(scored, under, by_length) for scored in (one, other)]
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(4))
    shared = strata[0].keys() & strata[1].keys()
    for stratum in sorted(shared):
        a, b = (np.array(of_it[stratum]) for of_it in strata)
        weight = len(a) * len(b) / (len(a) + len(b))
        gap = a[:, None] - b
        below = (gap < -TIE).mean() + (abs(gap) <= TIE).mean() / 2
        sums[stratum[0]] += weight * np.array([1.0, a.mean(), b.mean(), below])
    counts = [(sum(len(s[k]) for k in shared), sum(map(len, s.values()))) for s in strata]
    kept = tuple(n / total if total else 0.0 for n, total in counts)
    if len(sums) < 2:
        why = f"{len(sums)} problem(s) have answers of both writers of one length"
        return Crossed(*[undefined(why, len(sums))] * 4, kept)  # type: ignore[arg-type]
    weight, first, second, below = np.array(list(sums.values())).T
    return Crossed(
        bootstrap(lambda w, x: np.exp(x / w), weight, first, seed=seed),
        bootstrap(lambda w, x: np.exp(x / w), weight, second, seed=seed),
        bootstrap(lambda w, x, y: np.exp((x - y) / w), weight, first, second, seed=seed),
        bootstrap(lambda w, x: x / w, weight, below, seed=seed),
        kept,  # type: ignore[arg-type]
    )


def perplexity(
    scored: Sequence[Scored], *, under: int, length: int | None = None, seed: int = 0
) -> Estimate:
    """Perplexity of answers, all or of one length: exp of the mean surprise of an answer."""
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))
    for one in scored:
        if length in (None, one.length):
            sums[one.problem] += np.array([1.0, one.surprise[under]])
    if len(sums) < 2:
        return undefined(f"{len(sums)} problem(s) give no interval", len(sums))
    count, total = np.array(list(sums.values())).T
    return bootstrap(lambda n, x: np.exp(x / n), count, total, seed=seed)


def halves(scored: Sequence[Scored]) -> tuple[list[Scored], list[Scored]]:
    """Answers of even and of odd sample index: disjoint samples of one writer, for the null."""
    return [s for s in scored if s.sample % 2 == 0], [s for s in scored if s.sample % 2]


def _strata(
    scored: Sequence[Scored], under: int, by_length: bool
) -> dict[tuple[str, int], list[float]]:
    found: dict[tuple[str, int], list[float]] = defaultdict(list)
    for one in scored:
        found[one.problem, one.length if by_length else 0].append(one.surprise[under])
    return found
