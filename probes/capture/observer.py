"""The observer that reads: the very pass that writes an answer is the one captured."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.capture.positions import Mark
from probes.capture.writing import Activation, Writer
from probes.generate import Pass, Request
from probes.records import Refusal

HELD = 1024
"""Rows kept on the device before they are moved: one transfer, and one wait, for so many."""


@runtime_checkable
class Editor(Protocol):
    """Whoever changes the residual stream and can say where (`steering.interventions.Steer`)."""

    def edited(self, site: str, now: Pass) -> Bool[np.ndarray, "rows width"]:
        """The cells that it changes at this site in this pass."""
        ...


class Capture:
    """Writes what flows through the writer's sites, and changes nothing.

        with Writer(folder, sites) as writer:
            reading = Capture(writer, edits=[steer])
            generate(model, requests, observers=[steer, reading])
            reading.finish()

    Observers act in list order: put it behind those whose edits it should see, and name them in
    `edits`, so that the index says which rows were edited.

    A generation computes every token but the last one that it writes. A prefix that requests share
    is computed, and stored, once: under the request that was first to need it.
    """

    def __init__(
        self,
        writer: Writer,
        positions: str | Mapping[tuple, Sequence[Mark]] = "generated",
        *,
        edits: Sequence[Editor] | None = None,
    ) -> None:
        """Say what to keep.

        Args:
            writer: where to; its sites are read.
            positions: all; generated (from P-1); or the marks of each (problem, sample, setting).
            edits: the observers before this one that edit; () where none does. Requests with a
                setting are refused without it: an edited activation must not look like a plain one.
        """
        if isinstance(positions, str) and positions not in ("all", "generated"):
            raise Refusal(f"positions {positions!r} is not known: all, generated, or marks.")
        self.writer, self.positions, self.edits = writer, positions, edits
        self.sites = writer.sites
        self._last = self.sites[-1]
        self._pass: Pass | None = None
        self._rows: list[Activation] = []
        self._cells: Tensor = torch.empty(0, dtype=torch.long)
        self._held: dict[str, list[Tensor]] = {site: [] for site in self.sites}
        self._kept: list[Activation] = []
        self._prefilled: set[tuple] = set()

    def seat(self, slots: Sequence[int], requests: Sequence[Request], rows: int) -> None:
        """Refuse a setting whose edits would not be recorded."""
        del slots, rows  # what is kept follows from the pass alone
        for request in requests:
            if request.setting is not None and self.edits is None:
                raise Refusal(
                    f"a request has setting {request.setting!r}, and nothing says what it edits: "
                    f"Capture(..., edits=[steer]), or edits=() if no observer edits anything."
                )

    def at(
        self, site: str, x: Float[Tensor, "rows width d"], now: Pass
    ) -> Float[Tensor, "rows width d"]:
        """Keep the wanted cells; `x` itself is handed on."""
        if now is not self._pass:
            self._begin(now, x.device)
        if not self._rows:
            return x
        held = x.detach().reshape(-1, x.shape[-1]).index_select(0, self._cells)
        self._held[site].append(held.to(self.writer.dtype))
        if site == self._last:
            self._kept += self._rows
            if len(self._kept) >= HELD:
                self.finish()
        return x

    def finish(self) -> None:
        """Hand everything held to the writer. The writer's own end makes it a store."""
        if self._kept:
            values = {site: torch.cat(held) for site, held in self._held.items()}
            kept, self._kept = self._kept, []
            self._held = {site: [] for site in self.sites}
            self.writer.append(kept, values)

    def _begin(self, now: Pass, device: torch.device) -> None:
        """Which cells of this pass are wanted, and their lines of the index."""
        self._pass, self._rows, cells = now, [], []
        places = now.positions
        edited = np.zeros(places.shape, bool)
        for editor in self.edits or ():
            for site in self.sites:
                edited |= editor.edited(site, now)
        for row, request in enumerate(now.requests):
            first, was = int(places[row, 0]), edited[row].tolist()
            setting = "" if request.setting is None else str(request.setting)
            whose = (request.problem, request.sample)
            marked = self._columns(request, places[row])
            cells += [row * now.width + column for column, _ in marked]
            self._rows += [
                Activation(*whose, first + column, label, setting, was[column])
                for column, label in marked
            ]
        self._cells = torch.tensor(cells, dtype=torch.long).to(device, non_blocking=True)

    def _columns(
        self, request: Request, places: Int[np.ndarray, " width"]
    ) -> list[tuple[int, str]]:
        """Column and label of the wanted cells of one row."""
        key = (request.problem, request.sample, request.setting)
        first, last = int(places[0]), int(places[-1])
        if not isinstance(self.positions, str):
            marks = self.positions.get(key, ())
            return [(at - first, label) for at, label in marks if first <= at <= last]
        if last < len(request.prompt) - 1:  # a prefill
            if key in self._prefilled:
                return []
            self._prefilled.add(key)
        wanted = len(request.prompt) - 1 if self.positions == "generated" else 0
        return [(at - first, "") for at in range(max(first, wanted), last + 1)]
