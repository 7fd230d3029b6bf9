"""What an edit reads of a residual before it decides how far to go along its vector.

An edit is x + (alpha + beta r) w. Of a direction, r is the component x.w. Of a dictionary's feature
it is the feature's activation, which is not linear in x: p = x.e + shift where that is above a
threshold, else 0. So one more vector, e, is gathered for each row, and no latent but the edited
ones is computed. Where the activations of a dictionary depend on one another (only the k largest of
a position count), all are computed, at the positions that are edited.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.models import Model
from steering.interventions.operations import Intervention, LogitBias, Window


@dataclass(frozen=True, eq=False)
class Reading:
    """How a feature's activation is read."""

    dictionary: object
    """What the feature is one of."""
    latent: int
    vector: Float[Tensor, " d"]
    """e, its row of the encoder."""
    shift: float
    threshold: float
    """0 for a rectifier."""
    encode: Callable[[Tensor], Tensor] | None = None
    """From (cells, d) to all activations (cells, latents), where they depend on one another."""

    def tensor(self, width: int) -> Float[Tensor, " d"]:
        """The row of the encoder; `FeatureOperation.fits` has seen to its length."""
        assert len(self.vector) == width, (len(self.vector), width)
        return self.vector


@runtime_checkable
class FeatureOperation(Protocol):
    """An operation whose size depends on a feature (`steering.features.FeatureEdit`)."""

    op: str
    """One of add, ablate, clamp."""
    strength: float | int
    window: Window

    @property
    def site(self) -> str: ...

    @property
    def norm(self) -> float:
        """The activation that a strength of 1 stands for."""
        ...

    @property
    def vector(self) -> Tensor:
        """What is written, (d,), for each unit of activation."""
        ...

    @property
    def reading(self) -> Reading: ...

    def tensor(self, width: int) -> Tensor:
        """`vector`, at least in float32."""
        ...

    def fits(self, model: Model) -> None:
        """Refuse a model that this was not made for."""
        ...


Operation = Intervention | LogitBias | FeatureOperation
"""What the list of a setting holds."""


@dataclass(frozen=True)
class Edit:
    """x + (alpha + beta r) w inside a window, w being a line of the site's bank of vectors."""

    line: int
    alpha: float
    beta: float
    window: Window
    reading: Reading | None = None
    """None: r is x.w."""
    encoder: int = 0
    """The line of the reading's vector."""
    together: bool = False
    """Whether r is of the x that the edit before read, which it then hasn't changed yet."""


class Readings:
    """What the edits of seated rows read; edit k of row i is at [k][i]."""

    def __init__(self, layers: Sequence[Sequence[Edit]], bank: Float[Tensor, "lines d"]) -> None:
        """Gather what each row needs; a layer of directions only needs nothing."""
        rows = len(layers[0]) if layers else 0
        shape = len(layers), rows
        self._of = [[edit.reading for edit in row] for row in layers]
        self.any = any(reading is not None for row in self._of for reading in row)
        together = np.array([[e.together for e in row] for row in layers], bool)
        edits = np.array([[e.line > 0 for e in row] for row in layers], bool)
        self._together, self._fresh = together.reshape(shape), (edits & ~together).reshape(shape)
        self._kept: tuple[Tensor, np.ndarray, object, Tensor] | None = None
        if not self.any:
            return
        device, dtype = bank.device, bank.dtype
        lines = [[e.encoder if e.reading else e.line for e in row] for row in layers]
        self._e = bank[torch.tensor(lines, device=device)]
        known = [[r or _LINEAR for r in row] for row in self._of]
        self._shift, self._threshold = (
            torch.tensor(numbers, device=device, dtype=dtype)
            for numbers in (
                [[r.shift for r in row] for row in known],
                [[r.threshold for r in row] for row in known],
            )
        )

    def source(self, k: int, x: Tensor, before: Tensor) -> Tensor:
        """What edit k reads: the residuals, or for some rows those that edit k - 1 read."""
        together = self._together[k]
        if not together.any():
            return x
        if not self._fresh[k].any():
            return before
        mask = torch.from_numpy(together).to(x.device, non_blocking=True)
        return torch.where(mask[:, None, None], before, x)

    def read(
        self, k: int, inside: Bool[np.ndarray, "rows width"], source: Float[Tensor, "rows width d"]
    ) -> Float[Tensor, "rows width"]:
        """What edit k reads, for the cells inside; whatever it is elsewhere is not used."""
        p = (source * self._e[k][:, None]).sum(-1) + self._shift[k][:, None]
        r = torch.where(p > self._threshold[k][:, None], p, 0.0)
        for dictionary in {id(one.dictionary): one for one in self._of[k] if _full(one)}.values():
            mine = np.array(
                [_full(one) and one.dictionary is dictionary.dictionary for one in self._of[k]]
            )
            latents = np.array([one.latent if one else 0 for one in self._of[k]])
            cells = np.argwhere(inside & mine[:, None])
            if len(cells):
                row, column = torch.from_numpy(cells.T).to(source.device, non_blocking=True)
                latent = torch.from_numpy(latents[cells[:, 0]]).to(source.device)
                all_of_them = self._encoded(dictionary, source, cells, row, column)
                found = all_of_them.gather(1, latent[:, None])[:, 0].to(r.dtype)
                r = r.index_put((row, column), found)
        if k + 1 == len(self._of) or not self._together[k + 1].any():
            self._kept = None  # as large as the dictionary times the cells
        return r

    def _encoded(
        self, reading: Reading, source: Tensor, cells: np.ndarray, row: Tensor, column: Tensor
    ) -> Float[Tensor, "cells latents"]:
        """All activations at the cells; kept for the next edit, which may read the same."""
        if self._kept is not None:
            of, where, dictionary, found = self._kept
            if of is source and dictionary is reading.dictionary and np.array_equal(where, cells):
                return found
        assert reading.encode is not None, "it is read as a whole"
        found = reading.encode(source[row, column])
        self._kept = source, cells, reading.dictionary, found
        return found


_LINEAR = Reading(None, 0, torch.zeros(0), 0.0, -float("inf"))
"""The reading of a direction: always its component."""


def _full(reading: Reading | None) -> bool:
    return reading is not None and reading.encode is not None
