"""How unsure a model is as it writes, and the temperature that makes it as unsure as another.

Entropy is the mean over generated tokens of the entropy of the distribution each was drawn from,
at the temperature it was drawn at, in nats: on the model's own text, so the text moves with it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from probes.generate import Decoding, distribution, replay
from probes.models import Model, encode
from probes.records import Problem, Refusal, Rollout
from probes.tasks import Task
from steering.evaluate import evaluate


@dataclass(frozen=True)
class Matched:
    """The temperature at which a model is as unsure as it should be."""

    temperature: float
    entropy: float
    """Reached, in nats a token."""
    target: float
    tried: tuple[tuple[float, float], ...]
    """Every (temperature, entropy) measured, by temperature."""


def entropy(
    model: Model,
    problems: Sequence[Problem],
    rollouts: Sequence[Rollout],
    decoding: Decoding,
    *,
    batch: int = 64,
) -> float:
    """Mean entropy of the distributions that the rollouts' tokens were drawn from, nats a token.

    From whole distributions, not from the drawn tokens' log-probabilities, which have the same
    mean and a far larger spread.
    """
    prompts = {p.id: encode(model, p.prompt) for p in problems}
    texts = [(*prompts[r.problem], *r.tokens) for r in rollouts]
    total = 0.0
    for rows, logits, _ in replay(model, texts, batch=batch):
        assert logits is not None, "a replay that isn't stopped has logits"
        logprobs = distribution(logits, decoding).double()
        each = -(logprobs.exp() * logprobs.clamp_min(torch.finfo(torch.float64).min)).sum(-1)
        for row, i in enumerate(rows):
            total += float(each[row, -len(rollouts[i].tokens) - 1 : -1].sum())
    return total / sum(len(r.tokens) for r in rollouts)


def match_entropy(
    model: Model,
    like: Model,
    task: Task,
    problems: Sequence[Problem],
    *,
    samples: int = 1,
    seed: int = 0,
    low: float = 0.05,
    high: float = 16.0,
    tolerance: float = 0.02,
    batch: int = 64,
) -> Matched:
    """The temperature at which `model` is as unsure, per token, as `like` is at temperature 1.

    Bisection of log T; the random numbers are the same at every temperature.

    Args:
        model: what is heated or cooled.
        like: what it should be like.
        task: made the problems.
        problems: on which both write.
        samples: answers a problem and temperature.
        seed: of the random numbers.
        low: the lowest temperature tried.
        high: the highest.
        tolerance: share of the target that is near enough.
        batch: rows decoded together.

    Raises:
        Refusal: the target is not reached between `low` and `high`.
    """

    def unsure(of: Model, temperature: float) -> float:
        decoding = Decoding(temperature)
        judged = evaluate(
            of, task, problems, samples=samples, decoding=decoding, seed=seed, batch=batch
        )
        return entropy(of, problems, judged.rollouts, decoding, batch=batch)

    target = unsure(like, 1.0)
    tried = {1.0: unsure(model, 1.0)}
    if abs(tried[1.0] - target) > tolerance * target:
        low, high = (1.0, high) if tried[1.0] < target else (low, 1.0)
        for end in {low, high} - {1.0}:
            tried[end] = unsure(model, end)
        if not min(tried.values()) <= target <= max(tried.values()):
            raise Refusal(
                f"at temperatures {low:g} to {high:g} {model.name} has an entropy of "
                f"{min(tried.values()):.3g} to {max(tried.values()):.3g} nats a token, and never "
                f"the {target:.3g} of {like.name}."
            )
        for _ in range(12):
            middle = math.sqrt(low * high)
            tried[middle] = unsure(model, middle)
            if abs(tried[middle] - target) <= tolerance * target:
                break
            low, high = (middle, high) if tried[middle] < target else (low, middle)
    near = min(tried, key=lambda t: abs(tried[t] - target))
    return Matched(near, tried[near], target, tuple(sorted(tried.items())))
