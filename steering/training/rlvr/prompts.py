"""The prompts of a step: one pass over each, however many answers it has.

    prompts = Prompts(net, [a.prompt for a in answers])
    for part in parts:
        loss(prompts.answered(part.prompts, part.ids)).backward()
    prompts.backward()

As in decoding, the shared pass covers positions 0..P-2, and the last token of a prompt is the first
that an answer computes; so the model's head runs on the tokens that were chosen and on no other.

The keys and values of the prompts are leaves of the graph of each part: its backward pass adds to
their gradients, and `backward` sends the sum through the prompts once. That is the chain rule,
and the gradient is that of whole sequences up to rounding. What is held in memory beside a part
is the graph of the prompts' pass.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache


class Prompts:
    """The distinct prompts of some answers, under one model with the weights of now."""

    def __init__(self, net: nn.Module, prompts: Sequence[tuple[int, ...]]) -> None:
        """Compute them. Under `torch.no_grad()` there will be nothing to send back."""
        self.net, self.device = net, next(net.parameters()).device
        heads = list(dict.fromkeys(p[:-1] for p in prompts))
        self.row = {head: i for i, head in enumerate(heads)}
        self.width = max(map(len, heads), default=0)
        self.computed: list[Tensor] = []
        """Keys and values of each layer, `(prompt, head, column, d)`, right-aligned."""
        if not self.width:  # every prompt is a single token
            self.leaves: list[Tensor] = []
            return
        ids = torch.zeros(len(heads), self.width, dtype=torch.long)
        real = torch.zeros(len(heads), self.width, dtype=torch.long)
        for row, head in enumerate(heads):
            if head:
                ids[row, -len(head) :] = torch.tensor(head)
                real[row, -len(head) :] = 1
        self.real = real.to(self.device)
        cache = DynamicCache()
        net(
            input_ids=ids.to(self.device),
            attention_mask=self.real,
            position_ids=(self.real.cumsum(1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.computed = [x for layer in cache.layers for x in (layer.keys, layer.values)]  # type: ignore[misc]
        self.leaves = [x.detach().requires_grad_(x.requires_grad) for x in self.computed]

    def answered(
        self, prompts: Sequence[tuple[int, ...]], tokens: Int[Tensor, "rows width"]
    ) -> Float[Tensor, "rows width vocab"]:
        """Logits that each token was chosen from.

        Args:
            prompts: of each row, among those given before.
            tokens: of the answers, padded on the right with anything.
        """
        heads = [p[:-1] for p in prompts]
        lengths = torch.tensor([len(head) for head in heads]).to(self.device)
        last = torch.tensor([p[-1] for p in prompts]).to(self.device)
        past = max(map(len, heads))
        mask, cache = None, None
        if past:
            rows = torch.tensor([self.row[head] for head in heads]).to(self.device)
            held = [x[:, :, -past:].index_select(0, rows) for x in self.leaves]
            cache = DynamicCache(list(zip(held[::2], held[1::2], strict=True)))
            # Padding on the right is behind all that counts, and needs no mask.
            mask = torch.cat([self.real[rows, -past:], torch.ones_like(tokens)], 1)
        return self.net(
            input_ids=torch.cat([last[:, None], tokens[:, :-1]], 1),
            attention_mask=mask,
            position_ids=lengths[:, None] + torch.arange(tokens.shape[1], device=self.device),
            past_key_values=cache,
            use_cache=cache is not None,
        ).logits

    def backward(self) -> None:
        """Send what the parts left at keys and values through the prompts' own pass."""
        sent = [(x, leaf.grad) for x, leaf in zip(self.computed, self.leaves, strict=True)]
        used = [(x, grad) for x, grad in sent if grad is not None]
        torch.autograd.backward([x for x, _ in used], [grad for _, grad in used])
