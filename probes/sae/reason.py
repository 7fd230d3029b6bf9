"""ReasonScore: which latents fire around the tokens of reasoning, and around many kinds of them.

Galichin et al. 2503.18878, section 3.2:

    score_i = mu+_i / sum_j mu+_j * H_i^alpha  -  mu-_i / sum_j mu-_j

mu+ is a latent's mean activation in windows around reasoning tokens (one before, two behind), mu-
its mean elsewhere, and H the entropy of its means around each group of tokens, over log(groups):
a latent of a single word is no latent of reasoning. alpha = 0.7.

Their tokens are ten words (wait, however, ...), a group each. The organisms have words that take a
strategy, a group a strategy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csc_matrix

from probes.intervals import Estimate, bootstrap_weights
from probes.records import Refusal
from probes.sae.active import Active, sums_by_problem, texts_of

ALPHA = 0.7
LEFT, RIGHT = 1, 2
"""Rows before and behind a reasoning token that count as around it."""


@dataclass(frozen=True, eq=False)
class ReasonScore:
    """Of every latent."""

    score: Float[np.ndarray, " latents"]
    entropy: Float[np.ndarray, " latents"]
    """H, from 0 (one group) to 1 (all alike)."""
    near: Float[np.ndarray, " latents"]
    """mu+ over its sum."""
    elsewhere: Float[np.ndarray, " latents"]
    """mu- over its sum."""


def windows(
    rows: Active,
    marks: Mapping[tuple[str, int], Sequence[tuple[int, int]]],
    groups: int,
    *,
    left: int = LEFT,
    right: int = RIGHT,
) -> Bool[np.ndarray, "rows groups"]:
    """Which rows are around a token of which group.

    Args:
        rows: with the positions of their texts.
        marks: of each (problem, sample) the position and the group of each reasoning token.
        groups: how many there are.
        left: positions before the token that count.
        right: positions behind it that count.
    """
    found = np.zeros((len(rows.problems), groups), dtype=bool)
    for lines in texts_of(rows.problems, rows.samples):
        key = (str(rows.problems[lines[0]]), int(rows.samples[lines[0]]))
        at = rows.positions[lines]
        for position, group in marks.get(key, ()):
            found[lines[(position - left <= at) & (at <= position + right)], group] = True
    return found


def reason_score(
    a: csc_matrix, around: Bool[np.ndarray, "rows groups"], *, alpha: float = ALPHA
) -> ReasonScore:
    """The score of every latent.

    Args:
        a: activations, (rows, latents).
        around: which rows are around a token of which group (`windows`); two groups at least.
        alpha: weight of the entropy; 0 leaves it out.

    Raises:
        Refusal: fewer than two groups, or no row around a token, or none elsewhere.
    """
    rows, groups = around.shape
    near = around.any(1)
    if groups < 2:
        raise Refusal(f"{groups} group of reasoning tokens has no entropy: two are the least.")
    if not near.any() or near.all():
        raise Refusal(
            f"{int(near.sum())} of {rows} rows are around a reasoning token: there must be some, "
            f"and some elsewhere. Are the words in these texts?"
        )
    masks = np.column_stack([near, ~near, around]).astype(float)
    counts = np.maximum(masks.sum(0), 1)
    means = np.asarray(a.T @ masks) / counts
    plus, minus, of_group = means[:, 0], means[:, 1], means[:, 2:]
    shares = [m / total if (total := m.sum()) > 0 else m for m in (plus, minus)]
    entropy = entropies(of_group)
    return ReasonScore(shares[0] * entropy**alpha - shares[1], entropy, *shares)


def entropies(means: Float[np.ndarray, "*n groups"]) -> Float[np.ndarray, "*n"]:
    """Entropy of each line as shares, over log(groups); 0 of a line of zeros."""
    total = means.sum(-1, keepdims=True)
    p = means / np.where(total > 0, total, 1)
    return -(p * np.log(np.where(p > 0, p, 1))).sum(-1) / np.log(means.shape[-1])


def reason_interval(
    rows: Active,
    around: Bool[np.ndarray, "rows groups"],
    latent: int,
    *,
    alpha: float = ALPHA,
    seed: int = 0,
) -> Estimate:
    """One latent's score with its interval over problems."""
    near = around.any(1)
    own = rows.a[:, [latent]].toarray()
    total = np.asarray(rows.a.sum(1))
    masks = np.column_stack([near, ~near, around]).astype(float)
    table = sums_by_problem(
        np.column_stack([masks, own * masks, total * masks[:, :2]]), rows.problems
    )
    kinds = masks.shape[1]

    def statistic(weights: Float[np.ndarray, "draws problems"]) -> Float[np.ndarray, " draws"]:
        counts, sums, totals = np.split(weights @ table, [kinds, 2 * kinds], axis=1)
        shares = sums[:, :2] / totals  # the counts of rows cancel
        means = sums[:, 2:] / np.maximum(counts[:, 2:], 1)
        return shares[:, 0] * entropies(means) ** alpha - shares[:, 1]

    return bootstrap_weights(statistic, len(table), seed=seed)


def reason_null(
    rows: Active,
    around: Bool[np.ndarray, "rows groups"],
    takes: Sequence[Int[np.ndarray, " rows"]],
    *,
    alpha: float = ALPHA,
) -> Float[np.ndarray, "shuffles latents"]:
    """Scores with the windows of other problems' texts (`active.shuffles`)."""
    return np.array([reason_score(rows.a, around[take], alpha=alpha).score for take in takes])


def word_marks(
    words: Sequence[str],
    texts: Mapping[tuple[str, int], Sequence[str]],
    start: Mapping[tuple[str, int], int],
) -> dict[tuple[str, int], list[tuple[int, int]]]:
    """Positions of given words in the answers, a group each; case and blanks don't count.

    Args:
        words: the reasoning tokens.
        texts: the decoded tokens of each answer.
        start: position of each answer's first token.

    Raises:
        Refusal: none of the words is in any text.
    """
    group = {word.strip().lower(): i for i, word in enumerate(words)}
    found = {
        key: [
            (start[key] + i, group[token.strip().lower()])
            for i, token in enumerate(tokens)
            if token.strip().lower() in group
        ]
        for key, tokens in texts.items()
    }
    if not any(found.values()):
        raise Refusal(f"none of the words {', '.join(words)} is a token of these texts.")
    return found
