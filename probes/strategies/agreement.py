"""How well two labellings of the same words agree: spans found against spans known to be true."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from probes.intervals import Estimate, bootstrap_weights, undefined
from probes.records import Refusal, Span


@dataclass(frozen=True)
class LabelAgreement:
    """How well one label was found."""

    label: str
    precision: float
    """Of the words given this label, the share that has it; NaN where none was given it."""
    recall: float
    """Of the words that have it, the share given it; NaN where none has it."""
    found: int
    true: int


@dataclass(frozen=True)
class Agreement:
    """Two labellings of the same words."""

    kappa: Estimate
    """Cohen's (1960): agreement beyond chance, 1 is complete, 0 is chance."""
    labels: tuple[LabelAgreement, ...]


def word_labels(spans: Sequence[Span], length: int) -> list[str]:
    """The strategy of each of `length` words; "" where there is none."""
    labels = [""] * length
    for span in spans:
        if not 0 <= span.start < span.stop <= length:
            raise Refusal(f"words {span.start} to {span.stop} are not in a text of {length} words.")
        if any(labels[span.start : span.stop]):
            raise Refusal(f"{span} overlaps another span: a word has one strategy.")
        labels[span.start : span.stop] = [span.strategy] * (span.stop - span.start)
    return labels


def agreement(
    found: Sequence[Sequence[str]], truth: Sequence[Sequence[str]], *, seed: int = 0
) -> Agreement:
    """Cohen's kappa, and precision and recall of each label, of labelled texts.

    The interval of kappa resamples texts. Kappa is undefined where both labellings use one and
    the same label throughout: there is nothing to agree on.

    Args:
        found: of each text, the label of each word (or span, or decision).
        truth: the same of the true labels.
        seed: of the resamples.
    """
    if [len(text) for text in found] != [len(text) for text in truth]:
        raise Refusal("the two labellings are not of the same texts: their lengths differ.")
    names = sorted({label for text in [*found, *truth] for label in text})
    index = {name: i for i, name in enumerate(names)}
    tables = np.zeros((len(found), len(names), len(names)))
    for text, (given, true) in enumerate(zip(found, truth, strict=True)):
        for one, other in zip(given, true, strict=True):
            tables[text, index[one], index[other]] += 1
    if len(names) < 2:
        kappa = undefined(
            f"every word is labelled {names[0]!r}" if names else "no words", len(found)
        )
    else:
        kappa = bootstrap_weights(kappas(tables), len(found), seed=seed)
    whole = tables.sum(axis=0)
    return Agreement(kappa, tuple(_label(name, whole, i) for name, i in index.items()))


def kappas(tables: Float[np.ndarray, "units k k"]) -> Callable[[np.ndarray], np.ndarray]:
    """Kappa of weighted sums of tables: what `probes.intervals.bootstrap_weights` takes.

    Args:
        tables: of each unit that is resampled, how many items have label i in one labelling and
            j in the other.
    """

    def of_weights(weights: np.ndarray) -> np.ndarray:
        table = np.einsum("rt,tij->rij", weights, tables)
        table /= table.sum(axis=(1, 2), keepdims=True)
        observed = np.trace(table, axis1=1, axis2=2)
        chance = (table.sum(axis=1) * table.sum(axis=2)).sum(axis=1)
        return (observed - chance) / (1 - chance)

    return of_weights


def _label(name: str, table: np.ndarray, i: int) -> LabelAgreement:
    both, found, true = table[i, i], table[i].sum(), table[:, i].sum()
    return LabelAgreement(
        label=name,
        precision=float(both / found) if found else float("nan"),
        recall=float(both / true) if true else float("nan"),
        found=int(found),
        true=int(true),
    )
