"""What two models say of the same next tokens: KL both ways, and the ranks they give.

    token_kl(p, q)                          # (rows,), nats, of rows of logits
    compare(p, q, tokens)                   # the same, with ranks and log-probabilities
    compare(p, q, tokens, options, kinds)   # and the part of the KL that is about the option taken

All of it in float64, of whole distributions at temperature 1, in blocks of positions: memory is
bounded by a block and by the two tables of logits that are given, whatever the vocabulary.

**The chain rule of a choice.** Where the grammar leaves options open (check or not), the vocabulary
falls into groups of words, one an option, and KL(p || q) is exactly the KL between the two
distributions over options plus the mean, over p's options, of the KL between the words within.
`choice` is the first term; what is left is about which word, once the option is taken.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

CELLS = 1 << 22
"""Positions x vocabulary at a time: 32 MB for each of some five tables in float64."""


@dataclass(frozen=True)
class Compared:
    """Two models, p and q, at the positions of one text or several; row 0 is p's, row 1 q's."""

    kl: Float[np.ndarray, "2 positions"]
    """KL(p || q) and KL(q || p), nats."""
    choice: Float[np.ndarray, "2 positions"]
    """The part of each that is between options; 0 where nothing is decided."""
    logprob: Float[np.ndarray, "2 positions"]
    """Log p of the text's own token under each, nats."""
    rank: Int[np.ndarray, "2 positions"]
    """How many tokens each finds likelier than the text's own."""
    top: Int[np.ndarray, "2 positions"]
    """The rank that q gives p's likeliest token, and p gives q's."""


def token_kl(
    p: Float[Tensor, "*rows vocab"], q: Float[Tensor, "*rows vocab"]
) -> Float[Tensor, "*rows"]:
    """KL(p || q) of the distributions of two rows of logits, in nats and float64.

    A logit of minus infinity is a token that can't come: it adds nothing where p has it, and
    infinity where q alone does.
    """
    vocab = p.shape[-1]
    blocks = max(1, CELLS // vocab)
    pairs = zip(p.reshape(-1, vocab).split(blocks), q.reshape(-1, vocab).split(blocks), strict=True)
    found = [_kl(*(torch.log_softmax(x.double(), -1) for x in pair)) for pair in pairs]
    return (torch.cat(found) if found else p.new_zeros(0).double()).reshape(p.shape[:-1])


def compare(
    p: Float[Tensor, "positions vocab"],
    q: Float[Tensor, "positions vocab"],
    tokens: Int[Tensor, " positions"],
    options: Int[Tensor, "kinds vocab"] | None = None,
    kinds: Int[Tensor, " positions"] | None = None,
) -> Compared:
    """Both models at each position, from the logits that chose its token.

    Args:
        p: logits of one model.
        q: logits of the other, at the same positions.
        tokens: what the text has there.
        options: of each kind of decision, the group that each token of the vocabulary belongs to.
        kinds: which kind is decided at each position; -1 where none is.
    """
    size = max(1, CELLS // p.shape[1])
    blocks = []
    for start in range(0, len(tokens), size):
        at = slice(start, start + size)
        logs = [torch.log_softmax(x[at].double(), -1) for x in (p, q.to(p.device))]
        decided = None if kinds is None else kinds[at].to(p.device)
        blocks.append(_compare(logs[0], logs[1], tokens[at].to(p.device), options, decided))
    if not blocks:
        none, counts = np.empty((2, 0)), np.empty((2, 0), dtype=int)
        return Compared(none, none, none, counts, counts)
    joined = (torch.cat(parts, 1).cpu().numpy() for parts in zip(*blocks, strict=True))
    return Compared(*joined)


def _compare(
    p: Tensor, q: Tensor, tokens: Tensor, options: Tensor | None, kinds: Tensor | None
) -> tuple[Tensor, ...]:
    kl = torch.stack([_kl(p, q), _kl(q, p)])
    own = [log.gather(1, tokens[:, None]) for log in (p, q)]
    rank = [(log > of_own).sum(1) for log, of_own in zip((p, q), own, strict=True)]
    likeliest = [log.argmax(1, keepdim=True) for log in (p, q)]
    top = [(q > q.gather(1, likeliest[0])).sum(1), (p > p.gather(1, likeliest[1])).sum(1)]
    choice = torch.zeros_like(kl)
    if options is not None and kinds is not None:
        for kind in kinds[kinds >= 0].unique():
            at = kinds == kind
            pair = [_by_option(log[at], options[kind].to(p.device)) for log in (p, q)]
            choice[0, at], choice[1, at] = _kl(*pair), _kl(*reversed(pair))
    logprob = torch.cat(own, 1).T
    return kl, choice, logprob, torch.stack(rank), torch.stack(top)


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Of log-probabilities; rounding may put the sum of equal ones a hair below 0."""
    p = log_p.exp()
    return torch.where(p > 0, p * (log_p - log_q), 0.0).sum(-1).clamp_min(0)


def _by_option(log: Tensor, groups: Tensor) -> Tensor:
    """Log-probability of each group of tokens."""
    summed = [torch.logsumexp(log[:, groups == g], 1) for g in groups.unique()]
    return torch.stack(summed, 1)
