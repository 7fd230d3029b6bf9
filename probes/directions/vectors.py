"""A direction and where it came from; the angle of two."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from probes.frames import card
from probes.records import Refusal, site_name


@dataclass(frozen=True)
class Source:
    """Which model's activations, on which task."""

    model: str
    """Content hash of the weights."""
    task: str
    """Content hash of the task's settings."""


@dataclass(frozen=True, eq=False)
class Direction:
    """A unit vector that points towards a strategy being used, and the evidence for it."""

    vector: Float[np.ndarray, " d"]
    layer: int
    site: str
    """One of `records.SITES`."""
    strategy: str
    method: str
    """One of `fit.METHODS`, or where it was imported from (`exchange`)."""
    norm: float
    """Mean norm of the activations at this site: the unit of a strength."""
    auc: float
    """On the third of the problems that chose nothing; .5 is chance."""
    auc_low: float
    auc_high: float
    """The 95% interval over problems."""
    auc_choice: float
    """On the third that layer and method are chosen on; too good for the one that was chosen."""
    null_mean: float
    """Mean AUC on the last third of directions fitted to shuffled labels; near .5."""
    null_high: float
    """Their 95% quantile: what no label at all reaches one time in twenty."""
    rows: int
    positives: int
    """Rows in which the strategy was used."""
    problems: int
    model: str
    task: str
    data: str
    """Hash of the activations, labels and problems that it was fitted and judged on."""
    seed: int
    reason: str = ""
    """Why there is no AUC (its numbers are NaN then); "" where there is one."""

    @property
    def place(self) -> str:
        """The full name of its site."""
        return site_name(self.layer, self.site)

    def _repr_html_(self) -> str:
        """What is known of it, in a notebook."""
        ends = f"{self.auc:.3f} [{self.auc_low:.3f}, {self.auc_high:.3f}]"
        null = f"{self.null_mean:.3f}, 95%: {self.null_high:.3f}"
        told = {
            "strategy": self.strategy,
            "at": self.place,
            "method": self.method,
            "AUC on held-out problems": f"undefined ({self.reason})" if self.reason else ends,
            "AUC of shuffled labels": "undefined" if self.reason else null,
            "rows, with it, problems": f"{self.rows}, {self.positives}, {self.problems}",
            "norm (the unit of strength)": self.norm,
            "width": len(self.vector),
            "model": self.model[:12],
        }
        return card("Direction", told)

    def __post_init__(self) -> None:
        length = float(np.linalg.norm(self.vector.astype(float)))
        if not abs(length - 1) < 1e-3:  # false for NaN as well
            raise Refusal(f"a direction is a unit vector; this one has length {length:g}.")


def cosine(one: Float[np.ndarray, " d"], other: Float[np.ndarray, " e"]) -> float:
    """Cosine of the angle between two vectors of one width."""
    if one.shape != other.shape:
        raise Refusal(
            f"vectors of width {one.shape[0]} and {other.shape[0]} have no angle: they come from "
            f"models of different width."
        )
    one, other = one.astype(float), other.astype(float)
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    if not length > 0:
        raise Refusal("a vector of length 0 (or NaN) has no direction.")
    return float(one @ other) / length
