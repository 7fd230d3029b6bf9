"""What the base would say next if its newest residual were pushed, for many pushes at once.

    branches = Branches(base, "blocks.1.hook_resid_post")
    stepper = Stepper(base, [branches.keep])
    logits = stepper.forward(tokens)                      # unsteered; its keys and values stay
    steered = branches.logits(stepper, rows, pushes)      # (rows, candidates, vocab)

A candidate differs from the unsteered pass at one position and from the pushed block on. So the
blocks below don't run again, and the candidates of a row stand side by side as columns of one pass:
each attends to the row's past and to itself, and neither to the other candidates nor to the
unsteered newest column.

The cache holds unsteered keys and values and nothing else, before and after: the window -1 of
Venhoff et al. (arXiv:2510.07364, released code) pushes the last position of an uncached forward,
so at the next token that position is computed again without a push. What a candidate adds lives in
a cache of its own that is dropped with the pass.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from probes.generate import Pass, Request, Stepper
from probes.generate.cache import RowCache
from probes.generate.hooks import Taps
from probes.models import Model, architecture, blocks, layer_index
from probes.records import Refusal, parse_site, site_name

CELLS = 1 << 25
"""Logits of a pass (rows x candidates x vocabulary) at a time: 128 MB in float32."""


class Keep:
    """An observer that keeps every row's newest residual at some sites, and changes nothing."""

    def __init__(self, sites: Sequence[str]) -> None:
        """Read these sites, in full names."""
        self.sites = tuple(dict.fromkeys(sites))
        self.newest: dict[str, Tensor] = {}

    def seat(self, slots: Sequence[int], requests: Sequence[Request], rows: int) -> None:
        """Nothing is kept of a row."""

    def at(
        self, site: str, x: Float[Tensor, "rows width d"], now: Pass
    ) -> Float[Tensor, "rows width d"]:
        """Rows are right-aligned: the last column is the newest."""
        del now
        self.newest[site] = x[:, -1]
        return x


class Enter:
    """An observer through which a pass of the upper blocks gets its residuals and its pushes."""

    def __init__(self, first: str, site: str) -> None:
        """The pass begins at `first`; the pushes are added at `site`."""
        self.first, self.site = first, site
        self.sites = (first,) if first == site else (first, site)
        self.x: Tensor
        self.pushes: Tensor

    def seat(self, slots: Sequence[int], requests: Sequence[Request], rows: int) -> None:
        """Nothing is kept of a row."""

    def at(
        self, site: str, x: Float[Tensor, "rows width d"], now: Pass
    ) -> Float[Tensor, "rows width d"]:
        """The row's own residual in every column; where the site is, with each column's push."""
        del now
        if site == self.first:
            x = self.x[:, None].expand(-1, self.pushes.shape[1], -1)
        if site == self.site:
            # In float32 and then rounded, as `steering.interventions` adds.
            wide = torch.promote_types(x.dtype, torch.float32)
            x = (x.to(wide) + self.pushes.to(x.device, wide)).to(x.dtype)
        return x


class Branch(RowCache):
    """Some rows of a cache without their newest column, and behind it what one pass adds."""

    def __init__(self, source: RowCache, rows: Int[Tensor, " rows"]) -> None:
        """Of these rows; nothing is copied until a layer asks."""
        super().__init__(source.depth, len(rows), 0)
        self.source, self.at = source, rows
        self.low, self.end = source.low, source.end - 1

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """The row's past, then the candidates' columns; the source is only read."""
        assert self.source.buffer is not None, "a forward pass has written the newest column"
        past = self.source.buffer[layer_idx][:, :, :, self.low : self.end]
        if len(self.at) != past.shape[1]:
            past = past[:, self.at]
        return torch.cat([past[0], key_states], 2), torch.cat([past[1], value_states], 2)


class Branches:
    """The blocks of one model from a pushed site on."""

    def __init__(self, model: Model, site: str) -> None:
        """Find where the pass begins.

        Raises:
            Refusal: an unknown site, or a layer that the model doesn't have.
        """
        layer, kind = parse_site(site)
        layer = layer_index(layer, model.depth)
        self.model, self.site = model, site_name(layer, kind)
        # What leaves a block is what enters the next, so that block need not run again. Only the
        # last one has no next.
        if kind == "hook_resid_post" and layer + 1 < model.depth:
            self.first = layer + 1
            self.kept = self.site
            entry = site_name(self.first, "hook_resid_pre")
            self.enter = Enter(entry, entry)
        else:
            self.first = layer
            self.kept = site_name(layer, "hook_resid_pre")
            self.enter = Enter(self.kept, self.site)
        self.keep = Keep([self.kept, self.site])
        """Belongs to the observers of the base's stepper."""
        self.net = upper(model.net, self.first)
        self.taps = Taps(model, [self.enter])

    @torch.no_grad()
    def logits(
        self,
        stepper: Stepper,
        rows: Int[Tensor, " rows"],
        pushes: Float[Tensor, "rows candidates d"],
    ) -> Float[Tensor, "rows candidates vocab"]:
        """What follows the newest token of some rows, under each push.

        Args:
            stepper: has just made a forward pass with `keep` among its observers.
            rows: which of its rows.
            pushes: what is added to the residual of each at the site, one a candidate.

        Raises:
            Refusal: pushes of another width than the residual.
        """
        if pushes.shape[-1] != self.model.width:
            raise Refusal(
                f"vectors of width {pushes.shape[-1]} for residuals of width {self.model.width}: "
                f"they are of another model."
            )
        most = max(1, CELLS // (pushes.shape[1] * self.model.vocab))
        if len(rows) <= most:
            return self._block(stepper, rows, pushes)
        parts = zip(rows.split(most), pushes.split(most), strict=True)
        return torch.cat([self._block(stepper, *part) for part in parts])

    def _block(self, stepper: Stepper, rows: Tensor, pushes: Tensor) -> Tensor:
        kept, candidates = self.keep.newest[self.kept], pushes.shape[1]
        # All rows in their order need no gathering, which copies their past.
        every = len(rows) == len(kept)
        self.enter.x, self.enter.pushes = kept if every else kept[rows], pushes
        at = stepper.positions if every else stepper.positions[rows]
        now = Pass((), np.zeros(0, dtype=np.int64), candidates)
        with self.taps.on(now):
            return self.net(
                input_ids=rows.new_zeros(len(rows), candidates),  # `Enter` replaces what it embeds
                attention_mask=self._mask(stepper, rows, candidates, every),
                # The stepper has stepped past the newest token.
                position_ids=(at - 1).expand(-1, candidates),
                past_key_values=Branch(stepper.cache, rows),
                use_cache=True,
                logits_to_keep=0,
            ).logits

    def _mask(self, stepper: Stepper, rows: Tensor, candidates: int, every: bool) -> Any:
        """The row's past, and of the candidates itself."""
        masks, cache = stepper.masks, stepper.cache
        past = masks.past[: stepper.rows, cache.low : cache.end - 1]
        past = past if every else past[rows]
        lowest = torch.finfo(past.dtype).min
        own = torch.full((candidates, candidates), lowest, dtype=past.dtype, device=past.device)
        own.fill_diagonal_(0)
        shape = (len(rows), 1, candidates, -1)
        full = torch.cat(
            [past[:, None, None].expand(shape), own.expand(len(rows), 1, -1, -1)], dim=-1
        )
        if masks.window is None or masks.window > past.shape[1]:
            return masks.formed(full, full)
        sliding = full.clone()
        seen = masks.window - 1  # the candidate itself is one of those in the window
        sliding[..., : past.shape[1] - seen] = lowest
        return masks.formed(full, sliding)


def upper(net: nn.Module, first: int) -> Any:
    """The same causal LM without the blocks before `first`; modules and weights are shared.

    Only the containers between the model and its list of blocks are copied, and the config, whose
    number and kinds of layers the forward pass of some architectures goes by.
    """
    path = architecture(net).blocks.split(".")
    stack = blocks(net)
    parent: Any = _shallow(net)
    top = parent
    for name in path[:-1]:
        parent._modules[name] = _shallow(parent._modules[name])
        parent = parent._modules[name]
    parent._modules[path[-1]] = nn.ModuleList(stack[first:])
    config = copy.deepcopy(parent.config)
    config.num_hidden_layers = len(stack) - first
    if kinds := getattr(config, "layer_types", None):
        config.layer_types = list(kinds)[first:]
    parent.config = config
    return top


def _shallow(module: nn.Module) -> nn.Module:
    copied = copy.copy(module)
    copied._modules = dict(module._modules)
    return copied
