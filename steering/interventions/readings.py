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
from jaxtyping import Bool, Float, Int
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

    @property
    def op(self) -> str:
        """One of add, ablate, clamp."""
        ...

    @property
    def strength(self) -> float | int: ...

    @property
    def window(self) -> Window: ...

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
        together = [np.array([e.together for e in row], bool) for row in layers]
        fresh = [any(e.line > 0 and not e.together for e in row) for row in layers]
        self._later = [None if not row.any() else row for row in together]
        """Of each edit, the rows that read what the edit before it read; None: no row."""
        self._none_fresh = [not one for one in fresh]
        self._kept: tuple[Tensor, np.ndarray, object, Tensor] | None = None
        self._of = [[edit.reading for edit in row] for row in layers]
        self.any = any(reading is not None for row in self._of for reading in row)
        if not self.any:
            return
        device, dtype = bank.device, bank.dtype
        lines = [[e.encoder if e.reading else e.line for e in row] for row in layers]
        known = [[reading or _LINEAR for reading in row] for row in self._of]
        shifts = torch.tensor([[r.shift for r in row] for row in known], dtype=dtype, device=device)
        above = [[r.threshold for r in row] for row in known]
        thresholds = torch.tensor(above, dtype=dtype, device=device)
        # One tensor for each edit, so that a pass takes no views.
        self._e = bank[torch.tensor(lines, device=device)][:, :, None].unbind()
        self._shift, self._threshold = (t[..., None].unbind() for t in (shifts, thresholds))
        self._whole = [_wholes(row) for row in self._of]

    def source(self, k: int, x: Tensor, before: Tensor) -> Tensor:
        """What edit k reads: the residuals, or for some rows those that edit k - 1 read."""
        later = self._later[k]
        if later is None:
            return x
        if self._none_fresh[k]:
            return before
        mask = torch.from_numpy(later).to(x.device, non_blocking=True)
        return torch.where(mask[:, None, None], before, x)

    def read(
        self, k: int, inside: Bool[np.ndarray, "rows width"], source: Float[Tensor, "rows width d"]
    ) -> Float[Tensor, "rows width"]:
        """What edit k reads, for the cells inside; whatever it is elsewhere is not used."""
        p = torch.linalg.vecdot(source, self._e[k]) + self._shift[k]
        r = p * (p > self._threshold[k])
        for reading, mine, latents in self._whole[k]:
            cells = np.argwhere(inside & mine[:, None])
            if len(cells):
                row, column = torch.from_numpy(cells.T).to(source.device, non_blocking=True)
                latent = torch.from_numpy(latents[cells[:, 0]]).to(source.device)
                every = self._encoded(reading, source, cells, row, column)
                found = every.gather(1, latent[:, None])[:, 0].to(r.dtype)
                r = r.index_put((row, column), found)
        if k + 1 == len(self._of) or self._later[k + 1] is None:
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


def _wholes(
    row: Sequence[Reading | None],
) -> list[tuple[Reading, Bool[np.ndarray, " rows"], Int[np.ndarray, " rows"]]]:
    """Dictionaries that are encoded whole: a reading of each, its rows, and every row's latent."""
    whole = [one if one is not None and one.encode is not None else None for one in row]
    latents = np.array([one.latent if one else 0 for one in whole], np.int64)
    found = []
    for reading in {id(one.dictionary): one for one in whole if one}.values():
        mine = [one is not None and one.dictionary is reading.dictionary for one in whole]
        found.append((reading, np.array(mine, bool), latents))
    return found


_LINEAR = Reading(None, 0, torch.zeros(0), 0.0, -float("inf"))
"""The reading of a direction: always its component."""
