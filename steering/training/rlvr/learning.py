"""From an update's answers to the gradient: the steps of one update.

Old log-probabilities are the sampler's, not recomputed: they cost nothing and are what the answer
was in truth drawn with. That sampler and trainer agree is no assumption but a column of the curve
(`mismatch`), and a difference of more than 0.01 nats stops the run: cached decoding and the forward
pass that learns are two computations, and a hook or a temperature in one of them alone would turn
the ratios into noise.

Answers whose group earned equal rewards have advantage 0: without a KL penalty their gradient is
exactly zero and they don't go through the model, though their tokens count in the mean.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from probes.generate import Request
from probes.records import Rollout
from steering.objectives import ADVANTAGES, k3_penalty, policy_loss, token_logprobs, token_weights
from steering.training.rlvr.settings import RlvrSettings, permutation

MISMATCH = 1e-2
"""Nats by which sampler and trainer may differ on a token; in float32 they do by about 1e-5."""


class Answer(NamedTuple):
    """An answer as the loss sees it."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    advantage: float
    group: int


@dataclass(frozen=True)
class Rows:
    """Answers of one step by length, padded on the right."""

    ids: Int[Tensor, "rows width"]
    weights: Float[Tensor, "rows width"]
    """Of each token in the loss; 0 on prompts and padding."""
    old: Float[Tensor, "rows width"]
    advantages: Float[Tensor, " rows"]
    first: int
    """Column of the first chosen token of any row."""

    @property
    def chosen(self) -> Bool[Tensor, "rows width"]:
        """True at tokens that the model chose."""
        return self.weights > 0


def compared(
    requests: Sequence[Request],
    rollouts: Sequence[Rollout],
    rewards: Float[Tensor, "groups size"],
    advantage: str,
) -> list[Answer]:
    """The answers that could be judged, each with its advantage over its group."""
    counted = ~rewards.isnan()
    advantages = ADVANTAGES[advantage](rewards.nan_to_num(), counted).flatten().tolist()
    return [
        Answer(q.prompt, r.tokens, r.logprobs, a, i // rewards.shape[1])
        for i, (q, r, a) in enumerate(zip(requests, rollouts, advantages, strict=True))
        if counted.flatten()[i]
    ]


def learn(
    net: nn.Module,
    optimiser: torch.optim.Optimizer,
    reference: nn.Module,
    answers: Sequence[Answer],
    settings: RlvrSettings,
    update: int,
) -> dict[str, float | None]:
    """All steps of an update; returns the columns of the curve that describe them.

    A step whose answers all have advantage 0 and that has no penalty is left out: AdamW would
    otherwise move the weights by its momentum without any evidence.
    """
    device = next(net.parameters()).device
    tally: Counter[str] = Counter()
    mismatch = 0.0
    for epoch in range(settings.epochs):
        order = permutation(settings.prompts, settings.seed, update, epoch)
        for groups in np.array_split(order, settings.minibatches):
            mine = [a for a in answers if a.group in groups]
            tally["tokens"] += sum(len(a.tokens) for a in mine)
            optimiser.zero_grad(set_to_none=True)
            taught = 0
            for part in parts(mine, settings, device):
                found = backward(net, reference, part, settings)
                difference = found.pop("mismatch")
                if tally["steps"] == 0:  # later steps have other weights than the sampler had
                    mismatch = max(mismatch, difference)
                tally.update(found)
                taught += 1
            if mismatch > MISMATCH:
                raise RuntimeError(
                    f"update {update + 1}: the sampler's log-probability of a token differs from "
                    f"the trainer's by {mismatch:.3f} nats with the same weights."
                )
            if taught:
                norm = float(nn.utils.clip_grad_norm_(net.parameters(), settings.clip))
                if not norm < float("inf"):
                    raise FloatingPointError(
                        f"the gradient of update {update + 1} is {norm}: try a lower rate than "
                        f"{settings.rate}."
                    )
                optimiser.step()
                tally.update(steps=1, norm=norm)  # type: ignore[arg-type]
    tokens, steps = max(tally["tokens"], 1), max(tally["steps"], 1)
    return {
        "low": tally["low"] / tokens,
        "high": tally["high"] / tokens,
        "kl": tally["kl"] / tokens if settings.kl else None,
        "norm": tally["norm"] / steps,
        "mismatch": mismatch,
    }


def backward(
    net: nn.Module, reference: nn.Module, part: Rows, settings: RlvrSettings
) -> dict[str, float]:
    """Add the gradient of one part of a step; returns sums over its tokens."""
    chosen = part.chosen[:, part.first :]
    old, weights = part.old[:, part.first :], part.weights[:, part.first :]
    new = chosen_logprobs(net, part, settings.temperature)
    surrogate = policy_loss(new, old, part.advantages, low=settings.low, high=settings.high)
    loss = (surrogate.loss * weights).sum()
    sums = {
        "low": float((surrogate.low & chosen).sum()),
        "high": float((surrogate.high & chosen).sum()),
        "mismatch": float((new.detach() - old)[chosen].abs().max()),
    }
    if settings.kl:
        with torch.no_grad():
            first = chosen_logprobs(reference, part, settings.temperature)
        penalty = k3_penalty(new, first)
        loss = loss + settings.kl * (penalty * weights).sum()
        sums["kl"] = float(penalty.detach()[chosen].sum())
    loss.backward()
    return sums


def chosen_logprobs(net: nn.Module, part: Rows, temperature: float) -> Float[Tensor, "rows answer"]:
    """Log-probabilities of the tokens from column `first` on, each given those before it."""
    keep = part.ids.shape[1] - part.first
    logits = net(input_ids=part.ids[:, :-1], logits_to_keep=keep, use_cache=False).logits
    return token_logprobs(logits, part.ids[:, part.first :], temperature)


def parts(answers: Sequence[Answer], settings: RlvrSettings, device: torch.device) -> list[Rows]:
    """A step's answers by length, `settings.rows` at a time, those that teach nothing left out."""
    ordered = sorted(answers, key=lambda a: len(a.prompt) + len(a.tokens))
    lengths = [len(a.prompt) + len(a.tokens) for a in ordered]
    width = max(lengths, default=0)
    ids = torch.zeros(len(ordered), width, dtype=torch.long)
    chosen = torch.zeros(len(ordered), width, dtype=torch.bool)
    old = torch.zeros(len(ordered), width)
    for row, (answer, length) in enumerate(zip(ordered, lengths, strict=True)):
        ids[row, :length] = torch.tensor([*answer.prompt, *answer.tokens])
        chosen[row, len(answer.prompt) : length] = True
        old[row, len(answer.prompt) : length] = torch.tensor(answer.logprobs)
    weights = token_weights(chosen, settings.mean)
    advantages = torch.tensor([a.advantage for a in ordered])
    teaching = [i for i, a in enumerate(ordered) if a.advantage != 0 or settings.kl]
    found = []
    for i in range(0, len(teaching), settings.rows):
        rows = teaching[i : i + settings.rows]
        widest = lengths[rows[-1]]
        first = min(len(ordered[row].prompt) for row in rows)
        here, weighed, before = (x[rows, :widest].to(device) for x in (ids, weights, old))
        found.append(Rows(here, weighed, before, advantages[rows].to(device), first))
    return found
