"""What each kind of server is asked for.

The OpenAI protocol has temperature and top_p and nothing else of the distribution, while servers
cut it by default: llama.cpp to the 40 likeliest tokens and those above 0.05 of the likeliest, vLLM
to whatever the model's ``generation_config.json`` says, and transformers doesn't sample at all
unless that file says so. So each is told, in its own words, to leave it whole. A strict server
refuses words that it doesn't know; the first dialect that is accepted is the one spoken, and its
name is part of a run's identity.
"""

import json
from dataclasses import dataclass
from typing import Any

_IDS = {"return_token_ids": True, "return_tokens_as_token_ids": True}
DIALECTS: dict[str, dict[str, Any]] = {
    # vLLM and SGLang refuse top_k 0, llama-cpp-python -1; repeat_penalty is llama.cpp's word.
    "whole": {"logprobs": 1, "top_k": -1, "min_p": 0, "repetition_penalty": 1, "repeat_penalty": 1}
    | _IDS,
    "llama": {"logprobs": 1, "top_k": 0, "min_p": 0, "repeat_penalty": 1},
    # llama-cpp-python keeps no logits unless started with --logits_all.
    "llama-text": {"top_k": 0, "min_p": 0, "repeat_penalty": 1},
    # Its own file in full, as a string; what it doesn't name is the model's, as the stop tokens.
    "transformers": {
        "generation_config": json.dumps(
            {"do_sample": True, "top_k": 0, "repetition_penalty": 1.0, "min_p": 0.0}
        )
    },
    "openai": {"logprobs": 1},
    "openai-text": {},
}
"""From the one that says most to the one that says least."""

CUT = ("openai", "openai-text")
"""Those in which the distribution is whatever the server makes of temperature and top_p."""


@dataclass(frozen=True)
class Asked:
    """One answer asked for."""

    problem: str
    """Id of the problem."""
    sample: int
    prompt: str
    most: int
    """Tokens, the stop token included."""
    seed: int


def body(
    asked: Asked, model: str, temperature: float | int, top_p: float | int, dialect: str
) -> dict[str, Any]:
    """What is posted."""
    return {
        "model": model,
        "prompt": asked.prompt,
        "max_tokens": asked.most,
        "temperature": temperature,
        "top_p": top_p,
        "seed": asked.seed,
        "n": 1,
        "stream": False,
        **DIALECTS[dialect],
    }
