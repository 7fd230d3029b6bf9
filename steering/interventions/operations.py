"""One operation on one site, and the window of own positions it acts at."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes.records import Refusal, parse_site

OPERATIONS = ("add", "ablate", "clamp", "project", "none")
FOREVER = 2**62


@dataclass(frozen=True)
class Window:
    """The own positions, `start` to `stop` (exclusive), at which an intervention acts.

    An edit at position p changes the choice of token p + 1. A row of P prompt tokens has its last
    prompt token, and the choice of its first generated one, at position P - 1.

    >>> Window(2, 5).bounds(prompt=4), GENERATED.bounds(prompt=4), PROMPT.bounds(prompt=4)
    ((2, 5), (3, 4611686018427387904), (0, 4))
    """

    start: int | None = 0
    """None: from the row's first token."""
    stop: int | None = None
    """None: to the row's end."""
    origin: Literal["row", "generated"] = "row"
    """What start and stop count from: the row's first token, or position P - 1."""
    after: frozenset[int] | None = None
    """Only where the token at the position is one of these ids; None: wherever it is."""

    def bounds(self, prompt: int) -> tuple[int, int]:
        """First own position, and the one after the last, for a prompt of so many tokens."""
        zero = prompt - 1 if self.origin == "generated" else 0
        start = 0 if self.start is None else max(0, self.start + zero)
        return start, FOREVER if self.stop is None else self.stop + zero


ALL = Window()
PROMPT = Window(None, 1, "generated")
"""Positions 0..P-1. The last one chooses the first generated token: it is in `GENERATED` too."""
GENERATED = Window(0, None, "generated")
"""Positions from P-1: every generated token, the first too, is chosen under the edit."""


def decisions(after: Sequence[int]) -> Window:
    """`GENERATED`, at positions whose token is one of these: those that the decision follows."""
    return Window(0, None, "generated", frozenset(after))


@dataclass(frozen=True, eq=False)
class Intervention:
    """One operation at one site; the module docstring has the formulas."""

    op: str
    site: str
    """Full name; layer -1 is the last."""
    vector: Float[Tensor | np.ndarray, "..."] | Sequence[float] | None = None
    """(d,), or (k, d) for project; it may require a gradient. None for none."""
    strength: float | int = 1.0
    norm: float | int | None = None
    """Mean residual norm at the site: the unit of strength for add and clamp."""
    window: Window = ALL

    def __post_init__(self) -> None:
        """Refuse what can never work."""
        if self.op not in OPERATIONS:
            raise Refusal(f"operation {self.op!r} is not known; there are {', '.join(OPERATIONS)}.")
        parse_site(self.site)
        if self.op == "none":
            return
        if self.vector is None:
            raise Refusal(f"{self.op} at {self.site} needs a vector.")
        rows = _float(self.vector)
        if rows.ndim != 1 and (self.op != "project" or rows.ndim != 2):
            raise Refusal(f"{self.op} takes one vector (d,), not {tuple(rows.shape)}.")
        lengths = rows.detach().norm(dim=-1)
        if not torch.isfinite(lengths).all() or not (lengths > 0).all():
            raise Refusal(f"the vector of {self.op} at {self.site} is zero or not finite.")
        if not math.isfinite(self.strength) or not (self.norm is None or 0 < self.norm < math.inf):
            raise Refusal(
                f"strength {self.strength}, norm {self.norm}: both must be finite, norm > 0."
            )
        if self.op == "add" and self.norm is not None and abs(float(lengths) - 1) > 1e-3:
            raise Refusal(
                f"the vector of add at {self.site} has length {float(lengths):.4g}, and a strength "
                f"in multiples of the residual norm needs length 1: divide by it, or leave norm "
                f"out to add strength x vector as it is."
            )
        if self.op == "project":
            if self.strength != 1:
                raise Refusal("project has no strength: it removes a subspace. ablate has one.")
            rank = int(torch.linalg.matrix_rank(torch.atleast_2d(rows.detach())))
            if rank < rows.numel() // rows.shape[-1]:
                raise Refusal(f"the {len(rows)} vectors of project span {rank} dimensions only.")

    def tensor(self, width: int) -> Float[Tensor, "*k d"]:
        """The vector, (d,) or for project (k, d), at least in float32, its gradient kept.

        Raises:
            Refusal: it has another length than the residual.
        """
        value = _float(self.vector)
        if value.shape[-1] != width:
            raise Refusal(
                f"a vector of length {value.shape[-1]} can't be used at {self.site}, where "
                f"residuals have length {width}: is it of another model?"
            )
        return torch.atleast_2d(value) if self.op == "project" else value


@dataclass(frozen=True, eq=False)
class LogitBias:
    """Adds to the logits of tokens, as a control for adding to the residual that makes them.

    It acts where the writer chooses, at window positions, and on nothing that is cached: later
    tokens see the choice and not the bias. Position p is the choice of token p + 1.
    """

    vector: Mapping[int, float | int]
    """Nats to add to the logit of each token id, at strength 1."""
    strength: float | int = 1.0
    window: Window = GENERATED
    op: Literal["add"] = "add"

    def __post_init__(self) -> None:
        """Refuse what can never work."""
        finite = all(map(math.isfinite, [self.strength, *self.vector.values()]))
        if not self.vector or not finite or not any(self.vector.values()):
            raise Refusal(f"a bias of {dict(self.vector)} x {self.strength} on the logits.")

    def tensor(self, width: int) -> Float[Tensor, " vocab"]:
        """The bias of every token of the vocabulary.

        Raises:
            Refusal: a token that isn't in it.
        """
        if not all(0 <= token < width for token in self.vector):
            raise Refusal(f"tokens {sorted(self.vector)}: the vocabulary has 0..{width - 1}.")
        dense = torch.zeros(width)
        dense[list(self.vector)] = torch.tensor(list(self.vector.values()))
        return dense


def _float(vector: Tensor | np.ndarray | Sequence[float] | None) -> Tensor:
    value = torch.as_tensor(vector)
    return value.to(torch.promote_types(value.dtype, torch.float32))
