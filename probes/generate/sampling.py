"""Choose tokens from logits with random numbers that were drawn beforehand.

Inverse-CDF sampling: token j is chosen where the cumulative probability, in vocabulary order,
first exceeds u. With u keyed by (seed, problem, sample, stream), two settings see common random
numbers, and a rollout doesn't depend on the batch it shared.
"""

import hashlib
import threading

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes.generate.seam import Choice, Decoding

_PHILOX = np.random.Philox(key=0)
_GENERATOR, _BEGIN, _LOCK = np.random.Generator(_PHILOX), _PHILOX.state, threading.Lock()


def uniforms(
    seed: int, problem: str, sample: int, stream: str, count: int
) -> Float[np.ndarray, " count"]:
    """Numbers in [0, 1), the same wherever and whenever they are asked for.

    A Philox generator keyed by the hash of the first four arguments, so that streams are
    independent and a longer request begins with the shorter one.
    """
    name = f"{seed}\0{problem}\0{sample}\0{stream}".encode()
    key = np.frombuffer(hashlib.blake2b(name, digest_size=16).digest(), "<u8").astype(np.uint64)
    with _LOCK:
        # What Philox(key=...) begins as; to make one for each answer takes five times as long.
        _PHILOX.state = {**_BEGIN, "state": {"counter": _BEGIN["state"]["counter"], "key": key}}
        return _GENERATOR.random(count)


def distribution(
    logits: Float[Tensor, "*rows vocab"], decoding: Decoding
) -> Float[Tensor, "*rows vocab"]:
    """Log-probabilities that tokens are drawn with; of greedy decoding, those at temperature 1.

    Top-p (Holtzman et al. 2020, arXiv:1904.09751, section 3.1) after the temperature: the likeliest
    tokens are kept until their mass reaches p; of equally likely ones the earlier token goes first.
    """
    temperature = decoding.temperature or 1.0
    logprobs = torch.log_softmax(logits.float() / temperature, dim=-1)
    if decoding.temperature == 0 or decoding.top_p == 1:
        return logprobs
    ordered, order = logprobs.sort(dim=-1, descending=True, stable=True)
    mass = ordered.double().exp()
    before = mass.cumsum(-1) - mass
    dropped = torch.empty_like(before, dtype=torch.bool)
    # 1e-6: a mass that reaches p exactly on paper may be a rounding of float32 below it here.
    beyond = (before >= decoding.top_p - 1e-6) & (before > 0)  # the likeliest always stays
    dropped.scatter_(-1, order, beyond)
    return torch.log_softmax(logprobs.masked_fill(dropped, float("-inf")), dim=-1)


def choose(
    logits: Float[Tensor, "rows vocab"], u: Float[np.ndarray, " rows"], decoding: Decoding
) -> Choice:
    """One token for each row, by its uniform number; the likeliest one if greedy."""
    logprobs = distribution(logits, decoding)
    if decoding.temperature == 0:
        tokens = logits.argmax(-1)  # of equal ones the first, as in Hugging Face
    else:
        reached = logprobs.double().exp().cumsum(-1)
        # u <= 1 - 2^-53, so the product stays below the total, and `right` steps over tokens of
        # probability 0: neither end can choose a token that is excluded.
        at = torch.as_tensor(u, dtype=torch.float64).to(logits.device)[:, None] * reached[:, -1:]
        tokens = torch.searchsorted(reached, at, right=True)[:, 0]
    return Choice(tokens, logprobs.gather(1, tokens[:, None])[:, 0])
