"""A pair of random weights, of the shipped organisms' size with a longer context, and its vectors.

Two random models disagree at nearly every token, so nearly every token is steered: the case in
which candidates cost most, both ours and the peer's. Nothing stops an answer before its 128 tokens.
"""

from functools import cache
from typing import NamedTuple

import torch

from probes.generate import Decoding, Request
from probes.models import Model, new_llama, new_tokenizer
from probes.tasks import load_task
from probes.taxonomy.record import Taxonomy
from steering.routing.hybrid import Hybrid, Pushes
from steering.routing.routers import Gated, Steer, by_taxonomy, disagree
from steering.vectors.record import Vectors

TOKENS = 128
COEFFICIENTS = tuple(i / 10 for i in range(1, 11))
"""Those of the released code for its smaller models."""
SITE = "blocks.1.hook_resid_post"
"""About 37% of the depth, as there."""
KINDS = 8
GREEDY = Decoding(0)


class Pair(NamedTuple):
    base: Model
    tuned: Model
    taxonomy: Taxonomy
    vectors: Vectors


@cache
def pair() -> Pair:
    tokenizer = new_tokenizer(load_task("chain").vocabulary())
    size = {"width": 128, "depth": 3, "heads": 4, "mlp": 320, "context": 160}
    nets = [new_llama(len(tokenizer), **size, seed=s).requires_grad_(False) for s in range(2)]
    for net in nets:
        for name, weight in net.named_parameters():
            if weight.ndim == 2 and "embed" not in name:
                weight.mul_(6)  # else the tied embeddings have both say the newest token again
    base, tuned = (Model(net, tokenizer, f"random {i}") for i, net in enumerate(nets))
    draw = torch.Generator().manual_seed(0)
    rows, pushes = (torch.randn(KINDS, 128, generator=draw) for _ in range(2))
    names = tuple(f"latent {i}" for i in range(KINDS))
    zero, flat = torch.zeros(KINDS), torch.zeros(128)
    unit = rows / rows.norm(dim=1, keepdim=True)
    taxonomy = Taxonomy(SITE, flat, rows, zero, unit, flat, 1, names, "", "", "")
    counts, factors = (1,) * KINDS, torch.ones(KINDS)
    vectors = Vectors(
        SITE, pushes, factors, flat, names, "first", pushes.numel(), "", "", "", "", counts
    )
    return Pair(base, tuned, taxonomy, vectors)


def writer() -> Hybrid:
    base, tuned, taxonomy, vectors = pair()
    return Hybrid(
        base,
        tuned,
        Gated(disagree, Steer(by_taxonomy(taxonomy, vectors), COEFFICIENTS)),
        Pushes(vectors),
        reads=[("tuned", taxonomy.site)],
    )


def asked(rows: int, tokens: int = TOKENS) -> list[Request]:
    """Prompts of 32 tokens, one a row; the longer they are, the more an uncached pass costs."""
    draw = torch.Generator().manual_seed(1)
    prompts = torch.randint(3, 70, (rows, 32), generator=draw)
    return [Request(str(i), 0, tuple(p), tokens) for i, p in enumerate(prompts.tolist())]
