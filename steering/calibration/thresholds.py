"""From scores to words: a threshold from other pretraining seeds, and what a measure then says.

A score lies somewhere on a scale of its own; what makes it say "deployed" is a threshold, and that
is fixed on copies of *other* pretraining seeds, where the truth is known. What is to be judged has
no part in it. Whether a score is above its threshold is decided by its whole interval: one that
holds the threshold is undecided.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from probes.intervals import Estimate, exact_rate

DEPLOYED = ("deployed", "recombined")
"""Truths for which "deployed" is the right word: no measure here tells a whole from its parts."""

GAINS = (*DEPLOYED, "created")
SAYS = ("deployed", "created", "no gain", "lost", "undecided")
"""All that a measure may say."""

VERDICT = {
    "deployed": "deployed",
    "latent": "deployed",
    "created": "created",
    "no gain": "no gain",
    "lost": "lost",
}
"""What a label of the verdict claims; every other label claims nothing."""


@dataclass(frozen=True)
class Cell:
    """What one measure says of one skill of one copy, and what is true."""

    copy: str
    method: str
    """Of tuning."""
    organism: str
    """The pretraining."""
    seed: int
    """Of the pretraining."""
    skill: str
    regime: str
    truth: str
    measure: str
    gain: float
    """Tuned less base, valid answers on the touched half."""
    gain_low: float
    gain_high: float
    score: float
    """NaN where it is undefined, or nothing was gained."""
    low: float
    high: float
    threshold: float = math.nan
    """NaN where the other seeds gave none."""
    said: str = "undecided"
    """One of `SAYS`."""
    note: str = ""
    """Why the score is undefined."""

    @property
    def outcome(self) -> str:
        """One of "right", "wrong" and "undecided"."""
        if self.truth == "unknown" or self.said == "undecided":
            return "undecided"
        told = "deployed" if self.truth in DEPLOYED else self.truth
        return "right" if self.said == told else "wrong"


def judged(cells: Sequence[Cell]) -> list[Cell]:
    """Every cell with what its score says under the threshold of the other seeds.

    Cells of the verdict, which has rules of its own, are left as they are.
    """
    found = []
    for cell in cells:
        if cell.measure == "verdict":
            found.append(cell)
            continue
        others = [c for c in cells if c.measure == cell.measure and c.seed != cell.seed]
        limit = threshold(others)
        found.append(replace(cell, threshold=limit, said=says(cell, limit)))
    return found


def threshold(cells: Sequence[Cell]) -> float:
    """Where scores of deployed and created skills part best; NaN where one of them is missing.

    Of cells that gained for certain, as only those are ever asked. The largest mean of the two
    shares that are right; of equal ones the middle of the widest gap
    between neighbouring scores.
    """
    scored = [c for c in cells if c.truth in GAINS and c.gain_low > 0 and not math.isnan(c.score)]
    scores = np.array([c.score for c in scored])
    deployed = np.array([c.truth in DEPLOYED for c in scored], dtype=bool)
    if not deployed.any() or deployed.all():
        return math.nan
    order = np.unique(scores)
    if len(order) == 1:
        return math.nan
    cuts = (order[1:] + order[:-1]) / 2
    above = (scores[None] > cuts[:, None]) == deployed[None]
    balanced = (above[:, deployed].mean(1) + above[:, ~deployed].mean(1)) / 2
    best = np.isclose(balanced, balanced.max())
    return float(cuts[best][np.argmax(np.diff(order)[best])])


def says(cell: Cell, limit: float) -> str:
    """What a score says: of the gain first, then of where it came from."""
    if cell.gain_high < 0:
        return "lost"
    if not cell.gain_low > 0:
        return "no gain" if max(abs(cell.gain_low), abs(cell.gain_high)) < MARGIN else "undecided"
    if math.isnan(limit) or math.isnan(cell.score):
        return "undecided"
    if cell.low > limit:
        return "deployed"
    return "created" if cell.high < limit else "undecided"


MARGIN = 0.05
"""A gain that is surely smaller is none, as in the verdict's own rules."""


def agreement(cells: Sequence[Cell], *, gains: bool = False) -> Estimate | None:
    """Share of the decided cells that are right; its interval counts organisms, not cells.

    Skills of a copy and copies of a base share what the pretraining came to know. So each
    organism counts as one trial, with the share of its decided cells that are right, and the
    interval is the exact one of so few: wide, and honest about how many worlds were looked at.

    Args:
        cells: of one measure.
        gains: those only where something was gained in truth; to say "no gain" of nothing is easy.
    """
    decided: dict[str, list[bool]] = {}
    for cell in cells:
        if cell.outcome != "undecided" and (cell.truth in GAINS or not gains):
            decided.setdefault(cell.organism, []).append(cell.outcome == "right")
    if not decided:
        return None
    shares = [sum(right) / len(right) for right in decided.values()]
    found = exact_rate(float(sum(shares)), len(shares))
    everything = [right for rights in decided.values() for right in rights]
    pooled = sum(everything) / len(everything)
    low, high = min(found.low, pooled), max(found.high, pooled)
    return replace(found, value=pooled, low=low, high=high)
