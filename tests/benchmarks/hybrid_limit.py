"""The hybrid of plain substitution, against both models decoding the same tokens alone.

Taking the tuned model's token wherever the two disagree costs a forward pass of each model a token
and nothing else that could not be saved. The peer is our own loop over each model by itself, made
to write those same tokens, and its two times added.
"""

import torch

from probes.generate import Choice, Stepper, generate
from steering.routing.hybrid import Hybrid
from steering.routing.routers import TAKE, Gated, disagree

from . import Line, alternate
from ._hybrid import GREEDY, TOKENS, asked, pair

ROWS = 32


class Forced:
    """A writer that feeds one model given tokens, and chooses like any greedy one meanwhile."""

    def __init__(self, model, texts):
        self.steppers = (Stepper(model),)
        self.texts = texts

    def next(self, tokens, turn):
        logits = self.steppers[0].forward(tokens)
        logits.argmax(-1)
        texts, at = self.texts, len(turn.written[0])
        chosen = torch.tensor([texts[r.problem][at] for r in turn.requests])
        logprobs = torch.log_softmax(logits, -1).gather(1, chosen[:, None])[:, 0]
        return Choice(chosen, logprobs)


def run(small: bool = False) -> Line:
    requests = asked(2 if small else ROWS, 4 if small else TOKENS)
    base, tuned, _, _ = pair()

    def hybrid():
        return generate(
            Hybrid(base, tuned, Gated(disagree, TAKE)), requests, GREEDY, batch=len(requests)
        )

    texts = {r.problem: r.tokens for r in hybrid()}

    def ours() -> int:
        return sum(len(r.tokens) for r in hybrid())

    def alone() -> int:
        for model in (base, tuned):
            again = generate(Forced(model, texts), requests, GREEDY, batch=len(requests))
            assert {r.problem: r.tokens for r in again} == texts
        return sum(map(len, texts.values()))

    return alternate(
        "hybrid-limit",
        ours,
        alone,
        unit="tokens/s",
        against="both models decoding these tokens alone, times added",
        rounds=1 if small else 7,
    )
