"""One model, its cache and its observers, advanced by one token a row at a time.

    stepper = Stepper(model, [observer])
    stepper.reset(rows=64)
    stepper.seat(range(64), requests)           # prefills positions 0..P-2 of each prompt
    logits = stepper.forward(newest_tokens)     # (rows, vocab): what follows the newest token

The native Hugging Face forward runs underneath. Attention spans the longest row alive and not the
buffer; what shorter rows don't have is masked.
"""

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.generate.cache import RowCache, causal_mask
from probes.generate.hooks import Taps
from probes.generate.seam import Observer, Pass, Request
from probes.models import Model, architecture

PREFILL_CELLS = 1 << 14
"""Tokens, padding included, of one prefill pass: bounds its memory."""

LONG = 1024
"""Columns from which on a pass holds rows of one length only. Without padding it needs no mask,
which would grow with the square of its width: 4,096 columns would take 64 MB a row."""


class Stepper:
    """`seat`, `copy`, `drop` and `rewind` belong to the loop, `forward` to the writer."""

    def __init__(self, model: Model, observers: Sequence[Observer] = (), rows: int = 0):
        self.model = model
        self.taps = Taps(model, observers)
        self.masks = Masks(model)
        self.reset(rows)

    def reset(self, rows: int) -> None:
        """Forget everything; make room for `rows` rows."""
        self.rows = rows
        self.device = self.model.device  # to ask the model at every token costs 2% of a small one
        self.cache = RowCache(self.model.depth, rows, 0)
        self.lengths = np.zeros(rows, dtype=np.int64)
        self.requests: list[Request | None] = [None] * rows
        self.prefixes: dict[Hashable, tuple[RowCache, int]] = {}
        self._synced = False

    def seat(
        self, slots: Sequence[int], requests: Sequence[Request], upcoming: Iterable[Request] = ()
    ) -> None:
        """Put requests into rows, with positions 0..P-2 of their prompts computed.

        Args:
            slots: rows, free or to be overwritten.
            requests: one for each slot.
            upcoming: what will be seated next; their prefixes are computed in the same pass where
                one is needed at all.
        """
        prefilled = self._prefill(requests, upcoming)
        for slot, request in zip(slots, requests, strict=True):
            self.requests[slot] = request
            self.lengths[slot] = len(request.prompt) - 1
        self._make_room()
        groups: dict[int, list[tuple[int, int]]] = {}
        found = [self.prefixes.get(prefix(r)) for r in requests]
        caches = {id(f[0]): f[0] for f in found if f}
        for slot, entry in zip(slots, found, strict=True):
            if entry:
                groups.setdefault(id(entry[0]), []).append((slot, entry[1]))
        for key, pairs in groups.items():
            into, rows = zip(*pairs, strict=True)
            width = int(max(self.lengths[list(into)]))
            self.cache.fill(into, caches[key], rows, width)
        if prefilled:
            slots = [i for i, r in enumerate(self.requests) if r is not None]
        self._tell(slots)
        self._synced = False

    def _tell(self, slots: Sequence[int]) -> None:
        seated = [r for r in (self.requests[s] for s in slots) if r is not None]
        for observer in self.taps.observers:
            observer.seat(list(slots), seated, self.rows)

    @torch.no_grad()
    def _prefill(self, requests: Sequence[Request], upcoming: Iterable[Request]) -> bool:
        """Compute the prefixes that are not there yet; whether a pass was needed."""
        wanted = {prefix(r): r for r in requests if len(r.prompt) > 1}
        missing = {k: r for k, r in wanted.items() if k not in self.prefixes}
        if not missing:
            return False
        self.prefixes = {k: v for k, v in self.prefixes.items() if k in wanted}
        widest = max(len(r.prompt) for r in missing.values()) - 1
        for request in upcoming:
            widest = max(widest, len(request.prompt) - 1)
            if len(missing) >= self.rows or (len(missing) + 1) * widest > PREFILL_CELLS:
                break
            if len(request.prompt) > 1 and prefix(request) not in self.prefixes:
                missing.setdefault(prefix(request), request)
        pending = sorted(missing.values(), key=lambda r: len(r.prompt))
        while pending:
            width = len(pending[-1].prompt) - 1
            count = max(1, PREFILL_CELLS // width)
            count = together([len(r.prompt) - 1 for r in pending[-count:]])
            self._prefill_block(pending[-count:])
            del pending[-count:]
        return True

    def _prefill_block(self, requests: list[Request]) -> None:
        lengths = np.array([len(r.prompt) - 1 for r in requests])
        width = int(lengths.max())
        tokens = torch.zeros((len(requests), width), dtype=torch.long)
        for row, request in enumerate(requests):
            tokens[row, width - lengths[row] :] = torch.tensor(request.prompt[:-1])
        for observer in self.taps.observers:
            observer.seat(range(len(requests)), requests, len(requests))
        cache = RowCache(self.model.depth, len(requests), width)
        now = Pass(tuple(requests), lengths - width, width)
        with self.taps.on(now):
            self.masks.run(tokens.to(self.device), now, self.masks.fresh(now), cache, keep=1)
        cache.end = width
        for row, request in enumerate(requests):
            self.prefixes[prefix(request)] = (cache, row)

    def _make_room(self, columns: int = 0) -> None:
        """Set the bounds of what is alive, shifting it where the next columns would not fit."""
        width = int(self.lengths.max(initial=0))
        cache = self.cache
        if cache.end < width or cache.end + columns > cache.capacity:
            cache.low = cache.end - min(width, cache.end)
            cache.shift(width)
            self._synced = False
        cache.low = cache.end - width

    def _sync(self) -> None:
        """Rebuild what depends on lengths only, after rows changed or moved."""
        self.masks.rebuild(self.lengths, self.cache.end, self.cache.capacity)
        self.positions = torch.from_numpy(self.lengths.copy()).to(self.device)[:, None]
        self._synced = True

    @torch.no_grad()
    def forward(self, tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows vocab"]:
        """Feed the newest token of each row; the logits of what comes after it."""
        self._make_room(columns=1)
        if not self._synced:
            self._sync()
        now = Pass(tuple(self.requests), self.lengths.copy(), 1)  # type: ignore[arg-type]
        mask = self.masks.decoding(self.cache.low, self.cache.end + 1)
        with self.taps.on(now):
            logits = self.masks.run(
                tokens.to(self.device)[:, None],
                now,
                mask,
                self.cache,
                keep=1,
                positions=self.positions,
            )
        self.cache.end += 1
        self.lengths += 1
        self.positions += 1
        return logits[:, -1]

    def copy(self, source: int, target: int) -> None:
        """Make one row a copy of another: a branch, or a row that moves."""
        self.cache.copy(source, target)
        self.lengths[target] = self.lengths[source]
        self.requests[target] = self.requests[source]
        self._tell([target])
        self._synced = False

    def clear(self, row: int) -> None:
        """Put zeros in place of all that is cached of a row.

        For a row whose numbers are no longer finite: who is seated there next reads what it left
        with weight 0, and 0 times NaN is NaN.
        """
        self.cache.clear(row)

    def drop(self, rows: int) -> None:
        """Keep the first `rows` rows only."""
        self.rows = self.cache.rows = rows
        self.lengths = self.lengths[:rows]
        self.requests = self.requests[:rows]
        self._tell(range(rows))
        self._synced = False

    def rewind(self, columns: int) -> None:
        """Take back the last tokens of every row."""
        self.cache.end -= columns
        self.lengths -= columns
        self._synced = False


def prefix(request: Request) -> Hashable:
    """What requests must agree in to share their prefill."""
    return request.prompt[:-1], request.prefix_key


def together(lengths: Sequence[int]) -> int:
    """How many of the last rows, sorted by length, share a pass: all, or the longest if `LONG`."""
    longest = lengths[-1]
    return len(lengths) if longest < LONG else sum(length == longest for length in lengths)


class Masks:
    """The attention masks of one model, in the form its forward takes, and that forward.

    They are additive and of the model's dtype: transformers passes a ready 4-D mask through
    (`masking_utils`), and SDPA would turn a boolean one into this at every layer.
    """

    def __init__(self, model: Model):
        self.model = model
        self.form = architecture(model.net).masks
        config = model.config
        kinds = set(getattr(config, "layer_types", None) or ())
        slides = "sliding_attention" in kinds if self.form == "by kind" else self.form == "window"
        self.window = getattr(config, "sliding_window", None) if slides else None

    def fresh(self, now: Pass) -> Any:
        """Of a pass without a past.

        None, for SDPA's own causal rule, where a long pass has no padding: linear in memory, but
        for layers whose window is shorter than the text. Eager attention (Gemma 2 has no other)
        takes None for no mask at all.
        """
        like = self._like()
        sdpa = self.model.config._attn_implementation == "sdpa"
        plain = sdpa and now.width >= LONG and not (now.start < 0).any()
        full = None if plain else causal_mask(now.start, now.width, None, like)
        if self.window is None or self.window >= now.width:
            return self.formed(full, full)
        return self.formed(full, causal_mask(now.start, now.width, self.window, like))

    def rebuild(self, lengths: Int[np.ndarray, " rows"], end: int, capacity: int) -> None:
        """Of decoding: cells before a row's first are masked; later ones only come to be read."""
        like = self._like()
        first = torch.from_numpy(end - lengths).to(like.device)[:, None]
        column = torch.arange(capacity, device=like.device)
        self.past = torch.zeros((len(lengths), capacity), dtype=like.dtype, device=like.device)
        self.past.masked_fill_(column < first, torch.finfo(like.dtype).min)

    def decoding(self, low: int, end: int) -> Any:
        """Of one step, whose token is in column `end - 1`."""
        full = self.past[:, None, None, low:end]
        if self.window is None or self.window >= end - low:
            return self.formed(full, full)
        sliding = full.clone()
        sliding[..., : -self.window] = torch.finfo(full.dtype).min
        return self.formed(full, sliding)

    def _like(self) -> Tensor:
        """Of the residual stream's dtype; weights may be of another, or elsewhere."""
        return torch.empty(0, dtype=self.model.dtype, device=self.model.device)

    def formed(self, full: Tensor | None, sliding: Tensor | None) -> Any:
        """The two masks as this model's forward takes them."""
        if self.form == "by kind":
            return {"full_attention": full, "sliding_attention": sliding}
        return sliding if self.form == "window" else full

    def run(
        self,
        tokens: Int[Tensor, "rows width"],
        now: Pass,
        mask: Any,
        cache: RowCache | None = None,
        *,
        keep: int = 0,
        positions: Int[Tensor, "rows width"] | None = None,
    ) -> Float[Tensor, "rows kept vocab"]:
        """The native forward; logits of the last `keep` columns (0: of all)."""
        if positions is None:
            positions = torch.from_numpy(now.positions.clip(0)).to(self.model.device)
        return self.model.net(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=keep,
        ).logits
