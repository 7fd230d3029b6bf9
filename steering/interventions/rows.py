"""What each row of a batch has done to it at one site, as tensors gathered when it is seated."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.generate import Request
from steering.interventions.operations import Window
from steering.interventions.readings import Edit, FeatureOperation, Operation, Reading, Readings

NOWHERE = Window(0, 0)
"""Of a row that has fewer edits than another."""


class NotFired(RuntimeError):
    """An intervention edited another number of positions than its window says."""


class Bank:
    """The distinct vectors of one site; line 0 is zero, for rows without an edit."""

    def __init__(self, width: int) -> None:
        """An empty bank for values of this length."""
        self.width = width
        self._of: dict[tuple[int, str], tuple[Operation | Reading, range]] = {}
        self._count = 1
        self._learnt = False
        self._held: Tensor | None = None

    def lines(self, intervention: Operation | Reading) -> range:
        """The lines that an intervention's vectors take; the same vector takes them once."""
        if isinstance(intervention, (Reading, FeatureOperation)):
            form = "raw"  # a dictionary's vectors have the lengths they have
        else:
            form = {"add": "raw", "project": "basis"}.get(intervention.op, "unit")
        vector = intervention.tensor(self.width)
        key = (id(intervention.vector), form)
        if key not in self._of:
            count = len(vector) if form == "basis" else 1
            self._of[key] = (intervention, range(self._count, self._count + count))
            self._count += count
            self._learnt |= vector.requires_grad
        return self._of[key][1]

    def tensor(self, like: Tensor) -> Float[Tensor, "lines d"]:
        """All lines, on the device of `like`; at least in float32.

        They are made anew at each call if one requires a gradient: it may have been learning, and
        a graph serves one backward pass only.
        """
        if self._held is not None and self._held.device == like.device and not self._learnt:
            return self._held
        dtype = torch.promote_types(like.dtype, torch.float32)
        parts = [torch.zeros(1, self.width, dtype=dtype, device=like.device)]
        for (_, form), (intervention, _) in self._of.items():
            rows = torch.atleast_2d(intervention.tensor(self.width)).to(like.device, dtype)
            if form == "unit":
                rows = rows / rows.norm(dim=-1, keepdim=True)
            elif form == "basis":
                rows = torch.linalg.qr(rows.T).Q.T
            parts.append(rows)
        self._held = torch.cat(parts)
        return self._held


class Windows:
    """Where edit k of each row acts, decided on the host by position and token."""

    def __init__(
        self,
        requests: Sequence[Request | None],
        windows: Sequence[Sequence[Window]],
        texts: Sequence[tuple[int, ...]],
        vocab: int,
    ) -> None:
        """Gather the bounds of each row; `texts` are the tokens of each that are known already."""
        tables: dict[frozenset[int] | None, int] = {None: 0}
        prompts = [len(r.prompt) if r else 1 for r in requests]
        layers = list(zip_longest(*windows, fillvalue=NOWHERE))
        cells = [
            (*w.bounds(prompt), 0 if w.after is None else tables.setdefault(w.after, len(tables)))
            for layer in layers
            for w, prompt in zip(layer, prompts, strict=True)
        ]
        table = np.array(cells, np.int64).reshape(len(layers), len(requests), 3)
        self._start, self._stop, self._after = np.moveaxis(table, 2, 0)[..., None]
        self._reading = len(tables) > 1
        if not self._reading:
            return
        self._allowed = np.zeros((len(tables), vocab), bool)
        for tokens, table in tables.items():
            self._allowed[table, slice(None) if tokens is None else list(tokens)] = True
        self._known = np.array([len(t) for t in texts])
        self._text = np.zeros((len(texts), self._known.max()), np.int64)
        for row, text in enumerate(texts):
            self._text[row, : len(text)] = text

    def inside(
        self, at: Int[np.ndarray, "rows width"], newest: Int[np.ndarray, " rows"] | None
    ) -> Bool[np.ndarray, "edits rows width"]:
        """Which cells of a pass each edit acts on.

        Args:
            at: own positions of the cells.
            newest: the token of each row in a pass of one column, where it is known.

        Raises:
            RuntimeError: an edit depends on a token that nobody told.
        """
        inside = (at >= self._start) & (at < self._stop)  # no start is below 0, as padding is
        if not self._reading or not inside.any():
            return inside
        token = np.take_along_axis(self._text, at.clip(0, self._text.shape[1] - 1), axis=1)
        unknown = at >= self._known[:, None]
        if newest is not None and at.shape == (len(newest), 1):
            token = np.where(unknown, newest[:, None], token)
        elif (inside & (self._after > 0) & unknown).any():
            raise RuntimeError(
                "an intervention acts after certain tokens only, and the token of this pass is not "
                "known: write with `Steered`, or replay with `replayed`."
            )
        return inside & self._allowed[self._after, token]


@dataclass(frozen=True)
class Tally:
    """Positions edited at one site: expected from the windows, and counted where it happened."""

    site: str
    requests: tuple[Request | None, ...]
    expected: Int[np.ndarray, "edits rows"]
    fired: Int[Tensor, "edits rows"]
    """On the device; reading it waits for it, so it is read at the end."""

    def read(self) -> tuple[Counter[Hashable], dict[Hashable, str]]:
        """Positions edited by setting, each edit counted, and of settings that missed some, what
        happened; then counts anew.
        """
        fired = self.fired.cpu().numpy()
        missed: dict[Hashable, str] = {}
        for k, row in np.argwhere(fired != self.expected):
            request = self.requests[row]
            assert request is not None, "an empty slot has no edits"
            missed.setdefault(
                request.setting,
                f"{self.site}: edit {k} of setting {request.setting!r} changed {fired[k, row]} "
                f"positions of row {row} (problem {request.problem}, sample {request.sample}), its "
                f"window says {self.expected[k, row]}. Either the edit is below the precision of "
                f"the residual (a larger strength or a wider dtype), or the site did not run.",
            )
        edited: Counter[Hashable] = Counter()
        for request, count in zip(self.requests, fired.sum(0).tolist(), strict=True):
            if count and request is not None:
                edited[request.setting] += count
        with torch.inference_mode(self.fired.is_inference()):  # where `generate` made it
            self.fired.zero_()
        self.expected[:] = 0
        return edited, missed


class Seated:
    """The edits of the rows of one batch at one site, until another row is seated.

    Edit k of every row is one tensor operation, so a pass costs as many of them as the row with
    the most edits has, however many settings there are.
    """

    def __init__(
        self,
        site: str,
        requests: Sequence[Request | None],
        edits: Sequence[Sequence[Edit]],
        bank: Float[Tensor, "lines d"],
    ) -> None:
        """Gather what each row needs; rows without a k-th edit get one that is nowhere."""
        layers = list(zip_longest(*edits, fillvalue=Edit(0, 0.0, 0.0, NOWHERE)))
        shape = len(layers), len(requests)
        line = np.array([[e.line for e in row] for row in layers], np.int64).reshape(shape)
        alpha = np.array([[e.alpha for e in row] for row in layers]).reshape(shape)
        beta = np.array([[e.beta for e in row] for row in layers]).reshape(shape)
        self._adds = [not row.any() for row in beta]
        device, dtype = bank.device, bank.dtype
        # One tensor for each edit, so that a pass takes no views.
        self._u = bank[torch.from_numpy(line).to(device)][:, :, None].unbind()
        alpha, beta = (torch.from_numpy(a).to(device, dtype)[..., None] for a in (alpha, beta))
        self._alpha, self._beta = alpha.unbind(), beta.unbind()
        self._length = [u.detach().norm(dim=-1) for u in self._u]
        self.readings = Readings(layers, bank)
        expected, fired = np.zeros(shape, np.int64), torch.zeros(shape, dtype=torch.int64)
        self.tally = Tally(site, tuple(requests), expected, fired.to(device))

    def edit(
        self,
        k: int,
        inside: Bool[np.ndarray, "rows width"],
        x: Float[Tensor, "rows width d"],
        source: Float[Tensor, "rows width d"],
    ) -> Float[Tensor, "rows width d"]:
        """The residuals after edit k, computed in the bank's precision and counted.

        `source` is what it reads (`Readings.source`): for a direction x itself.
        """
        u, alpha, beta = self._u[k], self._alpha[k], self._beta[k]
        wide, size = x.to(u.dtype), alpha
        if not self._adds[k]:
            seen = wide if source is x else source.to(u.dtype)
            read = self.readings.read(k, inside, seen) if self.readings.any else (seen * u).sum(-1)
            size = torch.addcmul(alpha, beta, read)
        edited = torch.addcmul(wide, size[..., None], u).to(x.dtype)
        on = None
        if not inside.all():
            on = torch.from_numpy(inside).to(x.device, non_blocking=True)
            edited = torch.where(on[..., None], edited, x)
        self.tally.expected[k] += inside.sum(1)
        with torch.no_grad():
            self._count(k, x, wide, edited, size, on)
        return edited

    def _count(
        self, k: int, x: Tensor, wide: Tensor, edited: Tensor, size: Tensor, on: Tensor | None
    ) -> None:
        """Count where the edit was made: the values changed, or already were what it makes them."""
        done = (edited != x).any(-1)
        if on is None and x.device.type == "cpu" and done.all():  # elsewhere, this would wait
            self.tally.fired[k].add_(x.shape[1])
            return
        if not self._adds[k]:
            # An ablation of what is already ablated changes no bit. It counts as done if what was
            # left to do is below the rounding of x; an add that rounds to nothing does not.
            little = torch.finfo(x.dtype).eps * wide.norm(dim=-1)
            done |= (self._beta[k] != 0) & (size.abs() * self._length[k] <= little)
        self.tally.fired[k].add_((done if on is None else on & done).sum(1))
