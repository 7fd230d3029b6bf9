"""A gain in accuracy taken apart by the strategies used, within each problem.

Descriptive: that tuning moved the mix towards cells in which the base was right already fits
deployment, but a model may also choose better *within* a cell, and cells are chosen by the model,
not assigned to it. Crossed decoding (`steering.routing`) intervenes instead.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from probes.intervals import Estimate, bootstrap
from probes.records import Refusal


@dataclass(frozen=True)
class Answer:
    """One answer for `split`: its problem, the cell of its strategies, whether it was right."""

    problem: str
    cell: str
    right: bool


@dataclass(frozen=True)
class Split:
    """The gain in accuracy as four terms that add up to it; see `split`."""

    total: Estimate
    mix: Estimate
    within: Estimate
    interaction: Estimate
    alone: Estimate


Cells = dict[str, tuple[float, float]]
"""Of each cell, its share of a problem's answers and its accuracy."""


def _by_problem(answers: Sequence[Answer]) -> dict[str, Cells]:
    grouped: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for answer in answers:
        grouped[answer.problem][answer.cell].append(answer.right)
    cells = {}
    for problem, of_it in grouped.items():
        n = sum(map(len, of_it.values()))
        cells[problem] = {c: (len(r) / n, sum(r) / len(r)) for c, r in of_it.items()}
    return cells


def _terms(base: Cells, tuned: Cells) -> tuple[float, float, float, float]:
    mix = within = interaction = 0.0
    for name in base.keys() & tuned.keys():
        (w_base, a_base), (w_tuned, a_tuned) = base[name], tuned[name]
        mix += (w_tuned - w_base) * a_base
        within += w_base * (a_tuned - a_base)
        interaction += (w_tuned - w_base) * (a_tuned - a_base)
    gained = sum((w * a for name, (w, a) in tuned.items() if name not in base), 0.0)
    lost = sum((w * a for name, (w, a) in base.items() if name not in tuned), 0.0)
    return mix, within, interaction, gained - lost


def split(base: Sequence[Answer], tuned: Sequence[Answer], *, seed: int = 0) -> Split:
    """The gain in accuracy, taken apart within each problem by the strategies used.

    With w the share of a cell among a problem's answers and a its accuracy there, over the cells
    that both models used on the problem:

    - mix, Σ Δw · a_base: the base's accuracies under the tuned model's mix;
    - within, Σ w_base · Δa: the tuned model's accuracies under the base's mix;
    - interaction, Σ Δw · Δa: both at once. Kitagawa (1955, JASA 50:1168) gives half of it to each
      of the two; here it stands by itself;
    - alone, Σ w·a of cells that only the tuned model used, less that of those only the base did:
      the other's accuracy there was not observed, so it is no change of mix or of accuracy.

    Each is averaged over problems; the four add up to the total. With few answers a problem, rare
    cells fall under *alone* by chance: read it with the number of samples in mind.
    """
    parts = [_by_problem(answers) for answers in (base, tuned)]
    if not parts[0]:
        raise Refusal("there are no answers: nothing was measured.")
    if set(parts[0]) != set(parts[1]):
        apart = set(parts[0]) ^ set(parts[1])
        raise Refusal(
            f"the two models met different problems ({len(apart)} by one only, such as "
            f"{min(apart)}): a split within problems needs both on each."
        )
    terms = np.array([_terms(parts[0][problem], parts[1][problem]) for problem in parts[0]])
    terms = np.column_stack([terms.sum(axis=1), terms])
    return Split(*(bootstrap(lambda mean: mean, column, seed=seed) for column in terms.T))
