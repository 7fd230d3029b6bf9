"""The key-value cache: one buffer, written in place, rows right-aligned.

All rows end at the same column, `end`, whatever their length, so one step writes one column. A
row is filled by copying a prefill into the columns before `end`, and moved by copying it; when the
buffer is full, what is alive moves to the beginning of another. (Concatenation, as transformers'
DynamicCache does it, copies the whole cache at every step.)

A buffer holds what is alive and few columns more. One with room for the longest possible answer was
tried: its rows lie so far apart that attention over 38 columns of 100 took 1.7 times as long.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

SPARE = 16
"""Fewest columns of a new buffer that are free: with a quarter of those alive, if that is more, the
moves copy at most a few times what the steps between them read."""


class Rows(CacheLayerMixin):
    """One layer of a `RowCache`, as transformers wants to see it."""

    is_sliding = False

    def __init__(self, cache: "RowCache", layer: int):
        super().__init__()
        self.cache, self.layer, self.is_initialized = cache, layer, True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the buffer belongs to the whole cache."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        """Write the new columns; all that is alive, the new ones included."""
        return self.cache.update(key_states, value_states, self.layer)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cache.end - self.cache.low + query_length, 0

    def get_seq_length(self) -> int:
        return self.cache.end - self.cache.low

    def get_max_length(self) -> int:
        return self.cache.capacity


class RowCache(Cache):
    """Keys and values of all layers, `(layer, key or value, row, head, column, d)`.

    `low` and `end` bound the columns that are alive. The owner sets them; a forward pass writes
    from `end` on and reads from `low`.
    """

    def __init__(self, depth: int, rows: int, capacity: int):
        super().__init__(layers=[Rows(self, i) for i in range(depth)])
        self.depth, self.rows, self.capacity = depth, rows, capacity
        self.low = self.end = 0
        self.buffer: Tensor | None = None

    def allocate(self, heads: int, d: int, like: Tensor) -> Tensor:
        """The buffer, made when the first keys show what it must hold.

        Zeros: a masked cell has weight 0, and 0 times an uninitialised NaN would be NaN.
        """
        if self.buffer is None:
            shape = (self.depth, 2, self.rows, heads, self.capacity, d)
            self.buffer = torch.zeros(shape, dtype=like.dtype, device=like.device)
        return self.buffer

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the new columns of one layer; all that is alive, the new ones included."""
        rows, heads, width, d = key_states.shape
        layer = self.allocate(heads, d, key_states)[layer_idx]
        end = self.end + width
        layer[0, :rows, :, self.end : end] = key_states
        layer[1, :rows, :, self.end : end] = value_states
        return layer[0, :rows, :, self.low : end], layer[1, :rows, :, self.low : end]

    def fill(
        self, slots: Sequence[int], source: "RowCache", rows: Sequence[int], width: int
    ) -> None:
        """Copy the last `width` columns of `source`'s rows before `end` of our slots."""
        if width == 0:
            return
        assert source.buffer is not None
        *_, heads, _, d = source.buffer.shape
        into = self.allocate(heads, d, source.buffer)
        there = slice(source.end - width, source.end)
        into[:, :, list(slots), :, self.end - width : self.end] = source.buffer[
            :, :, list(rows), :, there
        ]

    def copy(self, source: int, target: int) -> None:
        """Copy what is alive of one row into another."""
        if self.buffer is not None:
            alive = slice(self.low, self.end)
            self.buffer[:, :, target, :, alive] = self.buffer[:, :, source, :, alive]

    def clear(self, row: int) -> None:
        """Put zeros in place of a row's keys and values."""
        if self.buffer is not None:
            self.buffer[:, :, row] = 0

    def shift(self, end: int) -> None:
        """Move what is alive of the rows in use so that it ends at another column.

        The buffer that takes it has `SPARE` columns behind that, or a quarter of what is alive.
        """
        low = self.low + end - self.end
        self.capacity = end + max(SPARE, end // 4)
        if self.buffer is not None:
            alive = self.buffer[:, :, : self.rows, :, self.low : self.end]
            self.buffer = alive.new_empty((*alive.shape[:4], self.capacity, alive.shape[5]))
            self.buffer[..., :low, :] = 0  # read, with weight 0, once a longer row is seated
            self.buffer[..., low:end, :] = alive
        self.low, self.end = low, end


def causal_mask(
    start: Int[np.ndarray, " rows"], width: int, window: int | None, like: Tensor
) -> Float[Tensor, "rows 1 width width"]:
    """What each column may attend to in a pass without a past, as numbers to add to the scores.

    Args:
        start: own position of each row's first column; negative means padding.
        width: columns.
        window: how many positions back a sliding layer sees, itself included; None is all.
        like: a tensor of the model's dtype and device.
    """
    column = torch.arange(width, device=like.device)
    seen = column[:, None] >= column
    if window is not None:
        seen &= column[:, None] < column + window
    first = torch.from_numpy(-start.clip(max=0)).to(like.device)
    allowed = seen & (column >= first[:, None, None])
    lowest = torch.finfo(like.dtype).min  # -inf would make a padded row, all masked, NaN
    mask = torch.zeros(allowed.shape, dtype=like.dtype, device=like.device)
    return mask.masked_fill_(~allowed, lowest)[:, None]
