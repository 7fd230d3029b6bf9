"""32 answers of the hybrid in one batch, against the released code's one after another.

The peer makes an uncached forward of the whole text for each model, and, where they disagree, one
for each coefficient (`steering.routing.reference`); ours keeps a cache and asks for all candidates
in one pass of the blocks above the push. Both choose the same tokens, which is checked.
"""

import torch

from probes.generate import generate
from steering.routing.reference import reference

from . import Line, alternate
from ._hybrid import COEFFICIENTS, GREEDY, TOKENS, asked, pair, writer

SOME = 2
"""Answers that the peer writes: one after another, its speed is the same for 2 as for 32."""


def run(small: bool = False) -> Line:
    requests = asked(2 if small else 32, 4 if small else TOKENS)
    base, tuned, taxonomy, vectors = pair()

    @torch.inference_mode()
    def peer() -> int:
        for request in requests[:SOME]:
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
        "hybrid-32",
        ours,
        peer,
        unit="tokens/s",
        against="uncached forwards, one a coefficient and row",
        rounds=1 if small else 3,
    )
    assert {problem: chosen[problem] for problem in written} == written
    return line
