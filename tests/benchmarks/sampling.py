"""Our loop against Hugging Face's `generate`: 512 answers, 64 rows at a time, in the same order.

How long an answer will be is not known beforehand, so a batch of `generate` runs until the longest
of its rows has ended, where ours is refilled. (Told to take the prompts sorted by length, it was
1.4 times as fast here, where short prompts ask for short answers.)
"""

from probes.generate import generate

from . import Line, alternate
from ._peers import hugging_face
from ._shipped import BATCH, asked, base, plain


def run(small: bool = False) -> Line:
    requests = asked(16 if small else 512)

    def ours() -> int:
        return sum(len(r.tokens) for r in generate(base(), requests, plain(), batch=BATCH))

    return alternate(
        "sampling",
        ours,
        lambda: hugging_face(requests),
        unit="tokens/s",
        against="Hugging Face generate, same batch size",
        rounds=1 if small else 7,
    )
