"""Our loop against the forward passes alone: as many row-steps, each with its token and no more.

The bare passes are full batches of 64 rows over a past of the mean width, all of it seen, in
which each writes the same column: no mask to build, no row to seat, no prompt to read, no token to
choose, no answer to keep.
"""

from functools import partial

import torch

from probes.generate import generate
from probes.generate.cache import RowCache

from . import Line, alternate
from ._shipped import BATCH, asked, base, plain


def run(small: bool = False) -> Line:
    requests = asked(16 if small else 512)
    answers = generate(base(), requests, plain(), batch=BATCH)
    seen = [
        len(request.prompt) + i
        for request, answer in zip(requests, answers, strict=True)
        for i in range(len(answer.tokens))
    ]

    def ours() -> int:
        return sum(len(r.tokens) for r in generate(base(), requests, plain(), batch=BATCH))

    return alternate(
        "sampling-limit",
        ours,
        partial(bare, len(seen), min(BATCH, len(requests)), round(sum(seen) / len(seen))),
        unit="tokens/s",
        against="bare forward passes of as many row-steps",
        rounds=1 if small else 7,
    )


@torch.inference_mode()
def bare(steps: int, rows: int, width: int) -> int:
    """Forward passes of `rows` tokens until `steps` row-steps are done, each reading `width`."""
    model = base()
    tokens, positions = (torch.full((rows, 1), value) for value in (5, width - 1))
    mask = torch.zeros((rows, 1, 1, width), dtype=model.dtype)
    cache = RowCache(model.depth, rows, width)
    cache.end = width - 1
    for _ in range(-(-steps // rows)):
        model.net(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    return -(-steps // rows) * rows
