"""Our loop against Hugging Face's `generate` on a real language model of 135M parameters."""

from probes.generate import Decoding, generate

from . import Line, alternate
from ._peers import hugging_face
from ._smollm2 import BATCH, asked, model


def run(small: bool = False) -> Line:
    requests = asked(*(1, 2, 2) if small else (8, 4, 32))
    stop = Decoding(stop=(model().tokenizer.eos_token_id,))

    def ours() -> int:
        return sum(len(r.tokens) for r in generate(model(), requests, stop, batch=BATCH))

    return alternate(
        "sampling-smollm2",
        ours,
        lambda: hugging_face(requests, BATCH, model()),
        unit="tokens/s",
        against="Hugging Face generate, same batch size",
        rounds=1 if small else 3,
    )
