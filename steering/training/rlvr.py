"""Reinforcement learning with verifiable rewards: sample, grade, compare within the group, update.

    settings = RlvrSettings(updates=60)
    tuned, curve = rlvr(base, task, task.problems("tune", 2000), right, settings, Path("runs/rl"))

Group-relative policy optimisation (GRPO) and its variants (`steering.objectives`), on one device,
for models that sample 24 x 16 answers in seconds. The model that is given stays as it is: a copy
learns, and a KL penalty, where there is one, is towards the original.

Everything random follows from (seed, update): which problems, which sample indices (never used
twice in a run), which minibatches. With `steering.training.checkpoints` a resumed run is the
uninterrupted one, bit for bit.

Old log-probabilities are the sampler's, not recomputed: they cost nothing and are what the answer
was in truth drawn with. That sampler and trainer agree is no assumption but a column of the curve
(`mismatch`), and a difference of more than 0.01 nats stops the run: cached decoding and the forward
pass that learns are two computations, and a hook or a temperature in one of them alone would turn
the ratios into noise.

Answers whose group earned equal rewards have advantage 0: without a KL penalty their gradient is
exactly zero and they don't go through the model, though their tokens count in the mean.
"""

import copy
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from probes.generate import Decoding, Request, generate
from probes.models import Model, encode
from probes.records import Grade, Problem, Refusal, Rollout, content_hash
from probes.tasks import Task, decisions
from probes.verify import Graded, grade_all
from steering.objectives import ADVANTAGES, k3_penalty, policy_loss, token_logprobs, token_weights
from steering.training import progress_bar, training
from steering.training.checkpoints import new_optimiser, restore, save, weights_digest
from steering.training.rewards import Reward

MISMATCH = 1e-2
"""Nats by which sampler and trainer may differ on a token; in float32 they do by about 1e-5."""


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
    """Answers in one forward and backward pass: likewise."""
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


def rlvr(
    model: Model,
    task: Task,
    problems: Sequence[Problem],
    reward: Reward,
    settings: RlvrSettings,
    out: Path | None = None,
    *,
    progress: bool = True,
) -> tuple[Model, list[RlvrRow]]:
    """Train a copy of `model` on its own answers; return it with the curve, one row an update.

    Args:
        model: in float32; it is not changed.
        task: made the problems, and grades them; the model's end-of-sequence token ends an answer.
        problems: what to practise on, in any order.
        reward: of each judged answer.
        settings: see there.
        out: folder of checkpoints and of the curve; a run found there is continued. None keeps
            nothing.
        progress: show one line of progress on standard error.

    Raises:
        Refusal: no problems, a model that isn't float32, or `out` holds another run.
        GraderFailure: more than 1% of an update's answers could not be judged.
    """
    if not problems:
        raise Refusal("there are no problems to practise on.")
    net = copy.deepcopy(model.net)
    tuned = Model(net, model.tokenizer, f"{model.name}+rlvr")
    prompts = {p.id: encode(model, p.prompt) for p in problems}
    identity = {
        "settings": {
            k: v for k, v in asdict(settings).items() if k not in ("updates", "save_every")
        },
        "start": weights_digest(net),
        "task": content_hash(task.settings)[:16],
        "problems": content_hash(list(prompts))[:16],
        "reward": getattr(reward, "__qualname__", repr(reward)),
    }
    with training(net):
        net.eval()  # no dropout: what learns must be the function that sampled
        optimiser = new_optimiser(net, rate=settings.rate, decay=settings.decay)
        start, curve = restore(out, net, optimiser, identity, RlvrRow) if out else (0, [])
        if start > settings.updates:
            raise Refusal(
                f"{out} holds {start} updates already, {settings.updates} were asked for."
            )
        bar = progress_bar(start, settings.updates, progress)
        for update in range(start, settings.updates):
            begun = time.perf_counter()
            drawn = draw(problems, settings, update)
            requests = [Request(p.id, sample, prompts[p.id], task.budget(p)) for p, sample in drawn]
            decoding = Decoding(settings.temperature, stop=(model.tokenizer.eos_token_id,))
            rollouts = generate(tuned, requests, decoding, batch=settings.batch, seed=settings.seed)
            asked = [problem for problem, _ in drawn]
            graded = grade_all(task, asked, [r.text for r in rollouts])
            rewards = rewarded(asked, rollouts, graded, reward).view(-1, settings.samples)
            sampled = time.perf_counter()
            answers = compared(requests, rollouts, rewards, settings.advantage)
            learned = learn(net, optimiser, model.net, answers, settings, update)
            done = time.perf_counter()
            seen = measured(task, asked, rollouts, graded, rewards)
            spent = {"sampling": sampled - begun, "learning": done - sampled}
            curve.append(RlvrRow(update=update + 1, **seen, **learned, **spent))
            if out and ((update + 1) % settings.save_every == 0 or update + 1 == settings.updates):
                save(out, update + 1, net, optimiser, curve, identity, RlvrRow)
            bar.set_postfix_str(f"reward {curve[-1].reward:.3f}", refresh=False)
            bar.update()
        bar.close()
    return tuned, curve


def draw(
    problems: Sequence[Problem], settings: RlvrSettings, update: int
) -> list[tuple[Problem, int]]:
    """Problem and sample index of each answer of an update, a group after the other.

    Problems are taken in an order that is shuffled anew each time all were used. A place in that
    endless sequence fixes the sample indices, so no two answers of a run share random numbers,
    even where there is one problem only.
    """
    drawn = []
    for place in range(update * settings.prompts, (update + 1) * settings.prompts):
        epoch, index = divmod(place, len(problems))
        order = _permutation(len(problems), settings.seed, epoch)
        first = place * settings.samples
        drawn += [(problems[order[index]], first + i) for i in range(settings.samples)]
    return drawn


def rewarded(
    asked: Sequence[Problem],
    rollouts: Sequence[Rollout],
    graded: Sequence[Graded],
    reward: Reward,
) -> Float[Tensor, " answers"]:
    """The reward of each answer; nan where it could not be judged."""
    return torch.tensor(
        [
            reward(p, r, g) if g.grade is not Grade.ERROR else float("nan")
            for p, r, g in zip(asked, rollouts, graded, strict=True)
        ]
    )


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
        order = _permutation(settings.prompts, settings.seed, update, epoch)
        for groups in np.array_split(order, settings.minibatches):
            mine = [a for a in answers if a.group in groups]
            tally["tokens"] += sum(len(a.tokens) for a in mine)
            optimiser.zero_grad(set_to_none=True)
            taught = 0
            for part in parts(mine, settings, device):
                found = backward(net, reference, part, settings)
                if tally["steps"] == 0:
                    mismatch = max(mismatch, found.pop("mismatch"))
                tally.update(found)
                taught += 1
            if mismatch > MISMATCH:
                raise RuntimeError(
                    f"update {update + 1}: the sampler's log-probability of a token differs from "
                    f"the trainer's by {mismatch:.3f} nats with the same weights."
                )
            if taught:
                norm = nn.utils.clip_grad_norm_(net.parameters(), settings.clip)
                optimiser.step()
                tally.update(steps=1, norm=float(norm))
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
        "low": int((surrogate.low & chosen).sum()),
        "high": int((surrogate.high & chosen).sum()),
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
        block = (x[rows, :widest].to(device) for x in (ids, weights, old))
        found.append(Rows(*block, advantages[rows].to(device), first))
    return found


def measured(
    task: Task,
    asked: Sequence[Problem],
    rollouts: Sequence[Rollout],
    graded: Sequence[Graded],
    rewards: Float[Tensor, "groups size"],
) -> dict[str, float | str]:
    """The columns of the curve that describe an update's answers."""
    judged = [g for g in graded if g.grade is not Grade.ERROR]
    count, tokens = max(len(judged), 1), sum(len(r.tokens) for r in rollouts)
    taken: Counter[str] = Counter()
    faced: Counter[str] = Counter()
    for problem, rollout in zip(asked, rollouts, strict=True):
        for decision in decisions(task, problem, rollout.text):
            faced[decision.kind] += 1
            taken[decision.kind] += decision.choice == next(
                iter(task.decision_kinds[decision.kind])
            )
    spread = rewards.nan_to_num(nan=-torch.inf).amax(1) > rewards.nan_to_num(nan=torch.inf).amin(1)
    return {
        "reward": float(rewards.nanmean()),
        "right": sum(g.grade is Grade.RIGHT for g in judged) / count,
        "sound": sum(g.sound for g in judged) / count,
        "unparsed": sum(g.grade is Grade.UNPARSED for g in judged) / count,
        "errors": len(graded) - len(judged),
        "entropy": -sum(sum(r.logprobs) for r in rollouts) / tokens,
        "length": tokens / len(rollouts),
        "cut": sum(r.stop == "length" for r in rollouts) / len(rollouts),
        "flat": 1 - float(spread.float().mean()),
        "mix": json.dumps({k: round(taken[k] / faced[k], 4) for k in sorted(faced)}),
    }


def _permutation(count: int, *key: int) -> Int[np.ndarray, " count"]:
    """A shuffled range(count) that depends on the key alone."""
    return np.random.default_rng([len(key), *key]).permutation(count)
