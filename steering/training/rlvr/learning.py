"""From an update's answers to the gradient: the steps of one update.

Old log-probabilities are the sampler's, not recomputed: they cost nothing and are what the answer
was in truth drawn with. That sampler and trainer agree is no assumption but a column of the curve
(`mismatch`), and a difference of more than 0.01 nats stops the run: cached decoding and the forward
pass that learns are two computations, and a hook or a temperature in one of them alone would turn
the ratios into noise.

Answers whose group earned equal rewards have advantage 0: without a KL penalty their gradient is
exactly zero and they don't go through the model, though their tokens count in the mean. The others
go through it by length; the prompt that a group has in common goes once (`prompts`), and so do
answers that are alike, which are most of them once the entropy has fallen.
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
from steering.training.rlvr.prompts import Prompts
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

    prompts: tuple[tuple[int, ...], ...]
    """Of each text; a text is a prompt with an answer, once however often it was sampled."""
    ids: Int[Tensor, "texts width"]
    """Tokens of the answers; 0 behind their ends."""
    text: Int[Tensor, " rows"]
    """Which text each answer is."""
    weights: Float[Tensor, "rows width"]
    """Of each token in the loss; 0 behind their ends."""
    old: Float[Tensor, "rows width"]
    advantages: Float[Tensor, " rows"]

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
    tally: Counter[str] = Counter()
    mismatch = 0.0
    for epoch in range(settings.epochs):
        order = permutation(settings.prompts, settings.seed, update, epoch)
        for groups in np.array_split(order, settings.minibatches):
            mine = [a for a in answers if a.group in groups]
            tally["tokens"] += sum(len(a.tokens) for a in mine)
            optimiser.zero_grad(set_to_none=True)
            taught = gradient(net, reference, mine, settings)
            difference = taught.pop("mismatch", 0.0)
            if tally["steps"] == 0:  # later steps have other weights than the sampler had
                mismatch = max(mismatch, difference)
            tally.update(taught)  # type: ignore[arg-type]
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


def gradient(
    net: nn.Module, reference: nn.Module, answers: Sequence[Answer], settings: RlvrSettings
) -> dict[str, float]:
    """Add the gradient of one step to the weights'; returns sums over its tokens.

    Empty where the step has nothing to teach. "mismatch" is the largest difference, not a sum.
    """
    found: dict[str, float] = {}
    taught = parts(answers, settings, next(net.parameters()).device)
    if not taught:
        return found
    asked = [prompt for part in taught for prompt in part.prompts]
    prompts = Prompts(net, asked)
    with torch.no_grad():
        first = Prompts(reference, asked) if settings.kl else None
    for part in taught:
        for name, value in backward(prompts, first, part, settings).items():
            before = found.get(name, 0.0)
            found[name] = max(before, value) if name == "mismatch" else before + value
    prompts.backward()
    return found


def backward(
    prompts: Prompts, first: Prompts | None, part: Rows, settings: RlvrSettings
) -> dict[str, float]:
    """Add the gradient of one part of a step, up to the prompts; see `gradient`."""
    chosen, old, weights = part.chosen, part.old, part.weights
    new = answered(prompts, part, settings.temperature)
    surrogate = policy_loss(new, old, part.advantages, low=settings.low, high=settings.high)
    loss = (surrogate.loss * weights).sum()
    sums = {
        "low": float((surrogate.low & chosen).sum()),
        "high": float((surrogate.high & chosen).sum()),
        "mismatch": float((new.detach() - old)[chosen].abs().max()),
    }
    if first is not None:
        with torch.no_grad():
            penalised = answered(first, part, settings.temperature)
        penalty = k3_penalty(new, penalised)
        loss = loss + settings.kl * (penalty * weights).sum()
        sums["kl"] = float(penalty.detach()[chosen].sum())
    loss.backward()
    return sums


def answered(prompts: Prompts, part: Rows, temperature: float) -> Float[Tensor, "rows width"]:
    """Log-probabilities of each answer's tokens, each given those before it."""
    logits = prompts.answered(part.prompts, part.ids)
    return token_logprobs(logits, part.ids, temperature)[part.text]


def parts(answers: Sequence[Answer], settings: RlvrSettings, device: torch.device) -> list[Rows]:
    """The answers of a step that teach anything, by length, `settings.rows` texts at a time."""
    lengths = torch.tensor([len(a.tokens) for a in answers])
    mask = torch.arange(int(lengths.max()) if answers else 0) < lengths[:, None]
    weights = token_weights(mask, settings.mean)
    texts: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = {}
    for i, answer in enumerate(answers):
        if answer.advantage != 0 or settings.kl:
            texts.setdefault((answer.prompt, answer.tokens), []).append(i)
    ordered = sorted(texts, key=lambda text: len(text[1]))
    found = []
    for begin in range(0, len(ordered), settings.rows):
        here = ordered[begin : begin + settings.rows]
        width = len(here[-1][1])
        rows = [i for text in here for i in texts[text]]
        numbers = (
            _padded([tokens for _, tokens in here], width),
            torch.tensor([row for row, text in enumerate(here) for _ in texts[text]]),
            weights[rows, :width],
            _padded([answers[i].logprobs for i in rows], width),
            torch.tensor([answers[i].advantage for i in rows]),
        )
        prompts = tuple(prompt for prompt, _ in here)
        found.append(Rows(prompts, *(x.to(device) for x in numbers)))
    return found


def _padded(rows: Sequence[tuple], width: int) -> Tensor:
    return torch.tensor([(*row, *(0,) * (width - len(row))) for row in rows])
