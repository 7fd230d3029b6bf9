"""A linear probe as a labeller: it learns another labeller's labels from mean residuals.

    read = SentenceMeans(model, "blocks.1.hook_resid_post")
    probe = fit_probe(read(texts), labels, problems, taught_by="lexicon reasonscore")
    probe.evidence                       # AUC of each label on problems it never met, and its null
    ByProbe(probe, read).label(others)

What it adds to its teacher: whether the label is in the activations at all (the AUC, beside that of
probes taught shuffled labels), and a labeller that reads no words. What it doesn't: a probe can do
no better than agree with its teacher, mistakes included. The mean runs over the sentence's own
words, so where a word list is the teacher an AUC of 1 says that its words can be read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from probes.directions import auc, auc_interval, thirds
from probes.directions.auc import FEWEST_PROBLEMS, REPORT
from probes.directions.fit import PENALTY
from probes.directions.search import NULLS
from probes.frames import card
from probes.intervals import Estimate, undefined
from probes.records import Refusal
from probes.strategies.labellers import Given, Passage

Reader = Callable[[Sequence[Passage]], Float[np.ndarray, "segments d"]]
"""From passages to one vector a segment, in order."""

RARE = "too rare: the problems of the fit, or the others, lack it"


@dataclass(frozen=True)
class LabelEvidence:
    """How well one label is told from the others on problems that the probe never met."""

    label: str
    auc: Estimate
    null_mean: float
    """Mean AUC of probes taught shuffled labels; near .5."""
    null_high: float
    """Their 95% quantile."""
    sentences: int
    """With this label, in all that was given."""


@dataclass(frozen=True, eq=False)
class SentenceProbe:
    """Logistic regression from a mean residual to a label."""

    labels: tuple[str, ...]
    weights: Float[np.ndarray, "labels d"]
    """Of raw activations; the label of the largest score is given."""
    bias: Float[np.ndarray, " labels"]
    taught_by: str
    """Name of the labeller that it learnt from."""
    fitted_on: frozenset[str]
    """Problems of the fit."""
    evidence: tuple[LabelEvidence, ...]
    """Of all labels that were given, those too rare to be learnt too: their AUC has a reason."""

    def _repr_html_(self) -> str:
        """AUC of each label beside its null, in a notebook."""
        title = f"probe of {self.taught_by}: AUC on problems it never met (shuffled labels, 95%)"
        told = {e.label or "(none)": f"{e.auc} ({e.null_high:.2f})" for e in self.evidence}
        return card(title, told)

    def scores(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n labels"]:
        """Log-odds of each label, up to a constant of the row.

        Raises:
            Refusal: activations of another width.
        """
        if x.shape[1] != self.weights.shape[1]:
            raise Refusal(
                f"activations of width {x.shape[1]} for a probe of width {self.weights.shape[1]}: "
                f"it is of another model."
            )
        return x.astype(np.float64) @ self.weights.T + self.bias


@dataclass(frozen=True)
class ByProbe:
    """The labeller of a probe."""

    probe: SentenceProbe
    read: Reader
    """The activations that it was fitted to: `residuals.SentenceMeans`."""

    @property
    def name(self) -> str:
        """Of its teacher."""
        return f"probe of {self.probe.taught_by}"

    @property
    def fitted_on(self) -> frozenset[str]:
        """The problems of the fit."""
        return self.probe.fitted_on

    def label(self, passages: Sequence[Passage]) -> list[list[Given]]:
        """The likeliest label of each segment."""
        best = self.probe.scores(self.read(passages)).argmax(axis=1)
        names = iter([self.probe.labels[i] for i in best])
        return [[next(names) for _ in one.segments] for one in passages]


def fit_probe(
    x: Float[np.ndarray, "n d"],
    labels: Sequence[str | None],
    problems: Sequence[str],
    *,
    taught_by: str,
    nulls: int = NULLS,
    seed: int = 0,
) -> SentenceProbe:
    """Learn labels on two thirds of the problems, and judge each label on the last.

    The thirds are those of `probes.directions`; nothing is chosen, so the middle one is fitted to.
    The penalty is that of `probes.directions.fit`, on activations of unit variance.

    Args:
        x: mean residual of each sentence.
        labels: the teacher's, one a sentence; None where it has none: such rows are left out.
        problems: of each sentence.
        taught_by: the teacher's name.
        nulls: probes that are taught shuffled labels.
        seed: of the thirds, the shuffles and the resamples.

    Raises:
        Refusal: arrays of unequal length, values that aren't finite, fewer than 12 problems, or
            fewer than two labels that occur both in the fit and outside of it.
    """
    if not len(x) == len(labels) == len(problems):
        raise Refusal(f"{len(x)} rows, {len(labels)} labels, {len(problems)} problems: one each.")
    kept = np.array([label is not None for label in labels], dtype=bool)
    x, y = x[kept].astype(np.float64), np.array([one for one in labels if one is not None])
    groups = np.array(list(problems))[kept]
    last, able = _parted(x, y, groups, seed)
    fitted, judged = ~last & np.isin(y, able), last & np.isin(y, able)
    weights, bias = _fit(x[fitted], y[fitted], able)
    rng = np.random.default_rng(seed)
    chance = []
    for _ in range(nulls):
        w, b = _fit(x[fitted], rng.permutation(y[fitted]), able)
        chance.append(_aucs(x[judged] @ w.T + b, y[judged], able))
    scores = x[judged] @ weights.T + bias
    evidence = []
    for label in sorted(set(y.tolist())):
        found, null = undefined(RARE, len(set(groups.tolist()))), np.array([])
        if label in able:
            i = able.index(label)
            found = auc_interval(scores[:, i], y[judged] == label, groups[judged], seed=seed)
            null = np.array([one[i] for one in chance])
        mean, high = (null.mean(), np.quantile(null, 0.95)) if len(null) else (np.nan, np.nan)
        count = int((y == label).sum())
        evidence.append(LabelEvidence(label, found, float(mean), float(high), count))
    return SentenceProbe(
        tuple(able), weights, bias, taught_by, frozenset(groups[~last].tolist()), tuple(evidence)
    )


def _parted(
    x: np.ndarray, y: np.ndarray, groups: np.ndarray, seed: int
) -> tuple[np.ndarray, list[str]]:
    """Which rows are kept to judge on, and the labels that can be learnt and judged."""
    if not np.isfinite(x).all():
        raise Refusal("some activations are NaN or infinite: they are broken.")
    if (count := len(set(groups.tolist()))) < FEWEST_PROBLEMS:
        raise Refusal(f"{count} problems to learn and to judge on; {FEWEST_PROBLEMS} is the least.")
    last = thirds(groups, seed) == REPORT
    known = sorted(set(y.tolist()))
    able = [one for one in known if one in y[last] and one in y[~last]]
    if len(able) < 2:
        raise Refusal(
            f"the labels {known} are not two that occur both among the problems of the fit and "
            f"among the others: there is nothing to tell apart. Label more problems."
        )
    return last, able


def _fit(x: np.ndarray, y: Shaped[np.ndarray, " n"], able: list[str]) -> tuple:
    """Weights (labels, d) and bias (labels,) of raw activations."""
    from sklearn.linear_model import LogisticRegression

    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale == 0] = 1.0
    model = LogisticRegression(C=PENALTY, max_iter=1000, tol=1e-5).fit((x - mean) / scale, y)
    assert list(model.classes_) == able, "scikit-learn sorts labels as sorted() does"
    weights, bias = model.coef_ / scale, model.intercept_
    if len(able) == 2:  # one row then, for the second label
        weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
    return weights, bias - weights @ mean


def _aucs(scores: np.ndarray, y: np.ndarray, able: list[str]) -> list[float]:
    return [auc(scores[:, i], y == label) for i, label in enumerate(able)]
