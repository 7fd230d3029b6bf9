"""How an RLVR run is set, and what is measured of each of its updates."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int

from probes.records import Refusal
from steering.objectives import ADVANTAGES, token_weights


@dataclass(frozen=True)
class RlvrSettings:
    """How to learn; what is rewarded is the reward's affair."""

    updates: int = 60
    """How often answers are sampled. A finished run can be continued with a larger number."""
    prompts: int = 24
    """Problems in an update; all are used once before one is used again."""
    samples: int = 16
    """Answers to each problem, the group that advantages compare."""
    rate: float = 2e-4
    """AdamW's learning rate, constant."""
    decay: float = 0.0
    """AdamW's weight decay, on matrices only."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    advantage: str = "grpo"
    """"grpo", "dr_grpo" or "rloo"."""
    mean: str = "token-mean"
    """"token-mean" or "sequence-mean": what counts alike in the loss."""
    low: float = 0.2
    """How far a token's probability ratio may fall below 1 before its gradient stops."""
    high: float = 0.2
    """How far it may rise above 1. Infinity, here and for `low`, is no clipping."""
    minibatches: int = 1
    """Into how many parts, by problem, an update's answers are split; each is one step."""
    epochs: int = 1
    """How often an update's answers are learned from. With one minibatch and one epoch every
    step is on-policy and nothing is ever clipped."""
    kl: float = 0.0
    """Weight of the k3 penalty towards the model that the run began with."""
    temperature: float = 1.0
    """At which answers are sampled, and of the distribution that learns."""
    seed: int = 0
    """Everything random follows from it."""
    batch: int = 192
    """Rows that are decoded together: a matter of speed only, up to rounding."""
    rows: int = 64
    """Answers in one forward and backward pass: likewise. Their prompts are one pass more."""
    save_every: int = 10
    """Updates between checkpoints, hence the most that a killed run loses."""

    def __post_init__(self) -> None:
        counts = (self.updates, self.prompts, self.minibatches, self.epochs, self.batch, self.rows)
        if min(*counts, self.save_every) < 1 or self.samples < 2 or not self.rate > 0:
            raise Refusal(f"{self}: every count must be positive, and a group needs two samples.")
        if self.advantage not in ADVANTAGES:
            raise Refusal(f"advantage {self.advantage!r}: there are {', '.join(ADVANTAGES)}.")
        if self.minibatches > self.prompts or not self.temperature > 0 or self.kl < 0:
            raise Refusal(
                f"{self.minibatches} minibatches of {self.prompts} prompts, temperature "
                f"{self.temperature}, kl {self.kl}: a minibatch holds whole groups, greedy answers "
                f"are all alike, and a penalty is not negative."
            )
        token_weights(torch.ones(1, 1, dtype=torch.bool), self.mean)


@dataclass(frozen=True)
class RlvrRow:
    """One update. Shares are of its answers, measured before it changes the weights."""

    update: int
    """Counted from 1."""
    reward: float
    """Mean over the answers that could be judged, as `right`, `sound` and `unparsed` are."""
    right: float
    sound: float
    """Right, and derived by a valid trace."""
    unparsed: float
    errors: int
    """Answers whose grader failed; left out of their groups."""
    entropy: float
    """Of the next token, in nats: the mean surprise of the sampled ones, which estimates it."""
    length: float
    """Mean number of tokens."""
    cut: float
    """Share of answers that the budget ended."""
    flat: float
    """Share of groups with equal rewards, which teach nothing."""
    mix: str
    """JSON: of each kind of decision, the share that took its first option ("check": yes)."""
    low: float
    """Share of tokens, over all steps of the update, stopped at the lower bound."""
    high: float
    """The same at the upper bound."""
    kl: float | None
    """Mean k3 estimate of the divergence from the first model; None without a penalty."""
    norm: float
    """Mean norm of the gradient before it is clipped; 0 where there was nothing to learn."""
    mismatch: float
    """Largest difference of a log-probability between sampler and trainer, same weights."""
    sampling: float
    """Seconds spent on answers and their grades."""
    learning: float
    """Seconds spent on the steps."""


def permutation(count: int, *key: int) -> Int[np.ndarray, " count"]:
    """A shuffled range(count) that depends on the key alone."""
    return np.random.default_rng([len(key), *key]).permutation(count)
