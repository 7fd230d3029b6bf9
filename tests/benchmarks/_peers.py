"""How others write the same answers: whole batches, none of whose rows is refilled.

Both are given what makes them fast: the cache, no top-k (Hugging Face's is on unless it is turned
off), nothing but tokens to return, and a batch ends when all of its rows have. Rows are padded on
the left. What is written beyond a row's END is not counted.
"""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from probes.generate import Request
from probes.models import Model, submodule
from probes.records import parse_site
from steering.interventions import Intervention

from ._shipped import BATCH, base


def hugging_face(
    requests: Sequence[Request], batch: int = BATCH, model: Model | None = None
) -> int:
    """Tokens of answers by `generate`, at temperature 1, in batches of the order given."""
    model = model or base()

    def write(ids: Tensor, mask: Tensor, most: int) -> Tensor:
        return model.net.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=most,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            eos_token_id=model.tokenizer.eos_token_id,
            pad_token_id=0,
            use_cache=True,
        )

    return _in_batches(write, requests, batch, model)


def transformer_lens(lens: Any, requests: Sequence[Request], batch: int = BATCH) -> int:
    """The same by the bridge's own `generate`."""

    def write(ids: Tensor, mask: Tensor, most: int) -> Tensor:
        return lens.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=most,
            do_sample=True,
            temperature=1.0,
            eos_token_id=base().tokenizer.eos_token_id,
            use_past_kv_cache=True,
            return_type="tokens",
            verbose=False,
        )

    return _in_batches(write, requests, batch, base())


def pushed(push: Intervention) -> Callable[[Tensor], Tensor]:
    """The edit of residuals at the last position of a pass, which chooses a generated token."""
    vector = torch.as_tensor(push.vector) * (push.strength * (push.norm or 1.0))

    def edit(x: Tensor) -> Tensor:
        return x + vector if x.shape[1] == 1 else torch.cat([x[:, :-1], x[:, -1:] + vector], 1)

    return edit


@contextmanager
def hooked(push: Intervention):
    """A plain forward hook for one setting."""
    layer, kind = parse_site(push.site)
    module, _ = submodule(base(), layer, kind)
    edit = pushed(push)
    handle = module.register_forward_hook(
        lambda _, __, out: (edit(out[0]), *out[1:]) if isinstance(out, tuple) else edit(out)
    )
    try:
        yield
    finally:
        handle.remove()


def _in_batches(
    write: Callable[[Tensor, Tensor, int], Tensor],
    requests: Sequence[Request],
    batch: int,
    model: Model,
) -> int:
    stop, tokens = model.tokenizer.eos_token_id, 0
    for begin in range(0, len(requests), batch):
        rows = requests[begin : begin + batch]
        width = max(len(r.prompt) for r in rows)
        ids = torch.zeros((len(rows), width), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, request in enumerate(rows):
            ids[i, width - len(request.prompt) :] = torch.tensor(request.prompt)
            mask[i, width - len(request.prompt) :] = 1
        for row in write(ids, mask, max(r.max_new for r in rows))[:, width:].tolist():
            tokens += row.index(stop) + 1 if stop in row else len(row)
    return tokens
