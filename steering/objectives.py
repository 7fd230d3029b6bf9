"""What reinforcement learning maximises: advantages, losses and penalties, as functions of tensors.

Shapes: `groups size` are the rewards of several answers to each of several prompts; `rows width`
are tokens, one answer a row, with a mask that is True at the tokens that the model chose. All
log-probabilities are in nats.

Sources: PPO (Schulman et al. 2017, arXiv:1707.06347), GRPO (Shao et al. 2024, DeepSeekMath,
arXiv:2402.03300), Dr. GRPO (Liu et al. 2025, arXiv:2503.20783), RLOO (Ahmadian et al. 2024,
arXiv:2402.14740), DAPO (Yu et al. 2025, arXiv:2503.14476); where a paper leaves a constant open, it
is verl's. Not here: how a batch is made and when the weights move (`steering.training.rlvr`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.records import Refusal

EPSILON = 1e-6
"""Added to the standard deviation by verl; with rewards of 0 and 1 it matters to no digit."""


def grpo_advantages(
    rewards: Float[Tensor, "groups size"], counted: Bool[Tensor, "groups size"]
) -> Float[Tensor, "groups size"]:
    """(R - mean) / (std + 1e-6) within each group; GRPO, section 4.1.2, outcome supervision.

    The deviation is the sample's (n - 1), as in verl and TRL: one right answer of 4 gets 1.5 and
    the others -0.5. It makes a group's weight largest where almost all answers agree.

    >>> grpo_advantages(torch.tensor([[1.0, 0, 0, 0]]), torch.ones(1, 4).bool()).round(decimals=4)
    tensor([[ 1.5000, -0.5000, -0.5000, -0.5000]])

    Args:
        rewards: one row for each prompt.
        counted: False where an answer could not be judged; it enters no mean and gets 0.

    Returns:
        Advantages that sum to 0 in each group; all 0 where the rewards are equal.
    """
    centred, count = _centred(rewards, counted)
    variance = centred.square().sum(1, keepdim=True) / (count - 1).clamp(min=1)
    return centred / (variance.sqrt() + EPSILON)


def dr_grpo_advantages(
    rewards: Float[Tensor, "groups size"], counted: Bool[Tensor, "groups size"]
) -> Float[Tensor, "groups size"]:
    """R - mean within each group; Dr. GRPO, section 3.2: no division, so no bias by difficulty.

    >>> dr_grpo_advantages(torch.tensor([[1.0, 0, 0, 0]]), torch.ones(1, 4).bool())
    tensor([[ 0.7500, -0.2500, -0.2500, -0.2500]])
    """
    return _centred(rewards, counted)[0]


def rloo_advantages(
    rewards: Float[Tensor, "groups size"], counted: Bool[Tensor, "groups size"]
) -> Float[Tensor, "groups size"]:
    """R - mean of the other answers' R: REINFORCE with a leave-one-out baseline, RLOO.

    It equals n/(n - 1) times Dr. GRPO's, and unlike that is unbiased for the gradient.

    >>> rloo_advantages(torch.tensor([[1.0, 0, 0, 0]]), torch.ones(1, 4).bool()).round(decimals=4)
    tensor([[ 1.0000, -0.3333, -0.3333, -0.3333]])
    """
    centred, count = _centred(rewards, counted)
    return centred * count / (count - 1).clamp(min=1)


Advantages = Callable[
    [Float[Tensor, "groups size"], Bool[Tensor, "groups size"]], Float[Tensor, "groups size"]
]

ADVANTAGES: dict[str, Advantages] = {
    "grpo": grpo_advantages,
    "dr_grpo": dr_grpo_advantages,
    "rloo": rloo_advantages,
}


@dataclass(frozen=True)
class PolicyLoss:
    """The surrogate loss of each token, and where clipping switched its gradient off."""

    loss: Float[Tensor, "rows width"]
    low: Bool[Tensor, "rows width"]
    """The token was to become rarer (negative advantage), and already is by more than the bound."""
    high: Bool[Tensor, "rows width"]
    """The token was to become commoner (positive advantage), and already is beyond the bound."""


def policy_loss(
    new: Float[Tensor, "rows width"],
    old: Float[Tensor, "rows width"],
    advantages: Float[Tensor, " rows"],
    *,
    low: float = 0.2,
    high: float = 0.2,
) -> PolicyLoss:
    """max(-A r, -A clip(r, 1 - low, 1 + high)) with r = exp(new - old), token by token.

    PPO, equation 7 (negated), with an advantage for each answer as in GRPO, equation 3; unequal
    bounds are DAPO's clip-higher, section 3.1. Where new = old, the gradient is that of -A new,
    the plain policy gradient, and nothing is clipped. `float("inf")` as a bound is no bound.

    The two sides are told apart because clipping is not neutral: a token whose old probability is
    above 1/(1 + high) can never meet the upper bound, only the lower one (arXiv:2506.10947),
    so likely tokens are favoured even by a reward without information.

    Args:
        new: log-probability of each token under the model that learns.
        old: the same under the model that sampled; no gradient flows through it.
        advantages: one for each row.
        low: how far a ratio may fall before its gradient stops.
        high: how far it may rise.
    """
    old, advantage = old.detach(), advantages[:, None]
    ratio = torch.exp(new - old)
    free = -advantage * ratio
    clipped = -advantage * ratio.clamp(1 - low, 1 + high)
    stopped = clipped > free
    return PolicyLoss(
        torch.maximum(free, clipped),
        low=stopped & (advantage < 0),
        high=stopped & (advantage > 0),
    )


def k3_penalty(
    new: Float[Tensor, "rows width"], reference: Float[Tensor, "rows width"]
) -> Float[Tensor, "rows width"]:
    """exp(d) - d - 1 with d = reference - new: Schulman's k3 estimate of KL(new || reference).

    GRPO, equation 4; verl calls it low_var_kl and bounds d by 20 and the result by 10, as here.
    It is never negative, and its mean over tokens sampled from the new model is the divergence.
    Its mean gradient over them, though, is that of KL(reference || new), the other direction.
    """
    difference = (reference.detach() - new).clamp(-20.0, 20.0)
    return (difference.exp() - difference - 1).clamp(max=10.0)


def entropy(logits: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch"]:
    """Entropy in nats of the next token at each position."""
    logprobs = logits.log_softmax(-1)
    return -(logprobs.exp() * logprobs).sum(-1)


def token_logprobs(
    logits: Float[Tensor, "rows width vocab"],
    tokens: Int[Tensor, "rows width"],
    temperature: float = 1.0,
) -> Float[Tensor, "rows width"]:
    """Log-probability of each token under logits / temperature, the logits that chose it."""
    scaled = logits / temperature if temperature != 1.0 else logits
    return scaled.gather(-1, tokens[..., None])[..., 0] - scaled.logsumexp(-1)


def token_weights(mask: Bool[Tensor, "rows width"], how: str) -> Float[Tensor, "rows width"]:
    """The weight of each token in the batch's loss; a loss is the sum of value times weight.

    - "token-mean": 1 / tokens of the batch; every token counts alike (DAPO, section 3.3).
    - "sequence-mean": 1 / (rows x tokens of the row); every answer counts alike, so the tokens of
      a long wrong answer are punished less (GRPO, equation 3; the bias that Dr. GRPO removes).

    Weights rather than a mean, since a batch goes through the model in parts. Rows without a token
    count as no row.

    >>> mask = torch.tensor([[True, False, False], [True, True, True]])
    >>> token_weights(mask, "sequence-mean")[:, 0]
    tensor([0.5000, 0.1667])
    """
    if how == "token-mean":
        return mask / mask.sum().clamp(min=1)
    if how == "sequence-mean":
        rows = mask.any(1).sum().clamp(min=1)
        return mask / (rows * mask.sum(1, keepdim=True).clamp(min=1))
    raise Refusal(f"aggregation {how!r} is not known; there are token-mean and sequence-mean.")


def _centred(rewards: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Rewards minus the mean of their group's counted ones (0 where not counted), and how many.

    Groups of equal rewards are set to exact zeros: the rounding error of a mean, divided by a
    deviation of 1e-6, would be a gradient out of nothing.
    """
    count = counted.sum(1, keepdim=True)
    mean = (rewards * counted).sum(1, keepdim=True) / count.clamp(min=1)
    top = rewards.masked_fill(~counted, -torch.inf).amax(1, keepdim=True)
    bottom = rewards.masked_fill(~counted, torch.inf).amin(1, keepdim=True)
    return torch.where(counted & (top > bottom), rewards - mean, 0.0), count
