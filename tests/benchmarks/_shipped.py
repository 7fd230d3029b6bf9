"""The base that ships and what is asked of it, which all benchmarks of decoding share."""

from functools import cache

from probes import DATA
from probes.generate import Decoding, Request
from probes.models import Model, encode, load
from probes.tasks import load_task
from steering.organisms import examples, load_recipe

BATCH = 64
MAX_NEW = 40
"""Above what the base's longest answers take, so that they end by themselves."""


@cache
def base() -> Model:
    return load(DATA / "organisms" / "chain" / "base-0")


def plain() -> Decoding:
    """Temperature 1, until the organism's END."""
    return Decoding(stop=(base().tokenizer.eos_token_id,))


def asked(count: int = 512) -> list[Request]:
    """Answers of the lengths that the base learnt: eight to each of `count` / 8 prompts.

    The prompts are the first of its pretraining: single entries, answered in three words, beside
    chains of one to four functions, answered in up to 27. In the order that they come in there.
    """
    texts = examples(load_task("chain"), load_recipe("chain-base"))(0)[: -(-count // 8)]
    prompts = [encode(base(), prompt) for prompt, _ in texts]
    return [
        Request(str(p), i, prompt, MAX_NEW) for p, prompt in enumerate(prompts) for i in range(8)
    ]
