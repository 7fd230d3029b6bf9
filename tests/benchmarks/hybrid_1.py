"""One answer of the hybrid, against the released code's way of writing it.

The peer makes an uncached forward of the whole text for each model, and, where they disagree, one
for each coefficient (`steering.routing.reference`); ours keeps a cache and asks for all candidates
in one pass of the blocks above the push. Both choose the same tokens, which is checked.
"""

import torch

from probes.generate import generate
from steering.routing.reference import reference

from . import Line, alternate
from ._hybrid import COEFFICIENTS, GREEDY, TOKENS, asked, pair, writer


def run(small: bool = False) -> Line:
    requests = asked(1, 4 if small else TOKENS)
    base, tuned, taxonomy, vectors = pair()

    @torch.inference_mode()
    def peer() -> int:
        for request in requests:
            how = {"coefficients": COEFFICIENTS, "max_new": request.max_new}
            tokens, _ = reference(base, tuned, request.prompt, taxonomy, vectors, **how)
            written[request.problem] = tokens
        return sum(map(len, written.values()))

    def ours() -> int:
        answers = generate(writer(), requests, GREEDY, batch=len(requests))
        chosen.update({r.problem: r.tokens for r in answers})
        return sum(len(r.tokens) for r in answers)

    written: dict[str, tuple[int, ...]] = {}
    chosen: dict[str, tuple[int, ...]] = {}
    line = alternate(
        "hybrid-1",
        ours,
        peer,
        unit="tokens/s",
        against="uncached forwards, one a coefficient and row",
        rounds=1 if small else 5,
    )
    assert chosen == written
    return line
