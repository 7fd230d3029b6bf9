"""Answers of a model behind an OpenAI-compatible server: vLLM, SGLang, llama.cpp, transformers.

    server = Server("http://127.0.0.1:8000/v1", "Qwen/Qwen2.5-1.5B")
    server.write(task, problems, range(32), temperature=1.0)    # [Rollout], in order

    failures    what a server can do to us, by type
    dialects    what each kind of server is asked for, the distribution whole
    answers     what comes back: text, token ids, log-probabilities
    tokens      a tokenizer of our own, where the server gives no ids
    fetching    one request: which failures may pass, and how long to wait
    opening     is the model there, and which dialect is understood
    draws       a seed for each answer, and whether the server heeds it
    client      Server: many requests at once, retried, each answered once

Four promises, each held by a test:

- the prompt is ``Problem.prompt`` to the last character: ``/completions``, no chat, no template;
- every answer asked for is there once, whatever the network does: half an answer is none;
- each request has a seed of its own, a function of (seed, problem, sample) alone;
- what a server doesn't serve (token ids, log-probabilities) is empty, never made up. With a
  tokenizer of the model (`tokens_of`), ids that aren't served are those of the text, tokenised
  anew: the canonical ones, which a model nearly always writes; log-probabilities stay empty unless
  their number agrees.

A server is believed about the one thing it can't be asked: that the weights behind the name are
those of the name. It is held to the name itself, before every shard and in every answer; with a
tokenizer, to having read as many tokens as that makes of the prompt; and to answers that are not
all alike (`draws.check_varied`), which tells one that ignores temperature and seed.

Sharded, resumed and judged answers: `steering.shards.sample_shards`, which takes a `Server` where
it takes a model. Imports no torch, and httpx and tenacity only when a server is asked.
"""

from probes.served.client import Server
from probes.served.failures import (
    AnotherModel,
    NoLogprobs,
    ServerRefused,
    ServerUnavailable,
    WrongKey,
)
from probes.served.tokens import Tokens, tokens_of

__all__ = [
    "AnotherModel",
    "NoLogprobs",
    "Server",
    "ServerRefused",
    "ServerUnavailable",
    "Tokens",
    "WrongKey",
    "tokens_of",
]
