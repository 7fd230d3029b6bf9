"""The loop itself: draw problems, sample, grade, learn, measure, keep."""

import copy
import json
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probes.generate import Decoding, Request, generate
from probes.models import Model, encode
from probes.records import Grade, Problem, Refusal, Rollout, content_hash
from probes.tasks import Task, decisions
from probes.verify import Graded, grade_all
from steering.training import progress_bar, training
from steering.training.checkpoints import new_optimiser, restore, save, weights_digest
from steering.training.rewards import Reward
from steering.training.rlvr.learning import compared, learn
from steering.training.rlvr.settings import RlvrRow, RlvrSettings, permutation


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
    named = [(p.id, encode(model, p.prompt), task.budget(p)) for p in problems]
    identity = {
        "settings": {
            k: v for k, v in asdict(settings).items() if k not in ("updates", "save_every")
        },
        "start": weights_digest(net),
        "task": content_hash(task.settings)[:16],
        "problems": content_hash([name for name, _, _ in named])[:16],
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
            drawn = draw(len(problems), settings, update)
            requests = [Request(named[i][0], sample, *named[i][1:]) for i, sample in drawn]
            decoding = Decoding(settings.temperature, stop=(model.tokenizer.eos_token_id,))  # type: ignore[arg-type]
            rollouts = generate(tuned, requests, decoding, batch=settings.batch, seed=settings.seed)
            asked = [problems[i] for i, _ in drawn]
            graded = grade_all(task, asked, [r.text for r in rollouts])
            rewards = rewarded(asked, rollouts, graded, reward).view(-1, settings.samples)
            sampled = time.perf_counter()
            answers = compared(requests, rollouts, rewards, settings.advantage)
            learned = learn(net, optimiser, model.net, answers, settings, update)
            done = time.perf_counter()
            seen: dict[str, Any] = measured(task, asked, rollouts, graded, rewards)
            spent = {"sampling": sampled - begun, "learning": done - sampled}
            curve.append(RlvrRow(update=update + 1, **seen, **learned, **spent))  # type: ignore[arg-type]
            if out and ((update + 1) % settings.save_every == 0 or update + 1 == settings.updates):
                save(out, update + 1, net, optimiser, curve, identity, RlvrRow)
            bar.set_postfix_str(told(curve[-1]), refresh=False)
            bar.update()
        bar.close()
    return tuned, curve


def told(row: RlvrRow) -> str:
    """The line of progress: reward, entropy, clipped tokens by side, strategies used."""
    mix = " ".join(f"{kind} {share:.2f}" for kind, share in json.loads(row.mix).items())
    clipped = f"clipped {row.low:.4f}/{row.high:.4f}"
    return f"reward {row.reward:.3f} entropy {row.entropy:.3f} {clipped} {mix}"


def draw(problems: int, settings: RlvrSettings, update: int) -> list[tuple[int, int]]:
    """Index of the problem, of so many, and of the sample, of each answer of an update, by group.

    Problems are taken in an order that is shuffled anew each time all were used. A place in that
    endless sequence fixes the sample indices, so no two answers of a run share random numbers,
    even where there is one problem only.
    """
    drawn = []
    for place in range(update * settings.prompts, (update + 1) * settings.prompts):
        epoch, index = divmod(place, problems)
        order = permutation(problems, settings.seed, epoch)
        first = place * settings.samples
        drawn += [(int(order[index]), first + i) for i in range(settings.samples)]
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


def measured(
    task: Task,
    asked: Sequence[Problem],
    rollouts: Sequence[Rollout],
    graded: Sequence[Graded],
    rewards: Float[Tensor, "groups size"],
) -> dict[str, int | float | str]:
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
        "sound": sum(g.sound for g in judged) / count if task.checks else math.nan,
        "unparsed": sum(g.grade is Grade.UNPARSED for g in judged) / count,
        "errors": len(graded) - len(judged),
        "entropy": -sum(sum(r.logprobs) for r in rollouts) / tokens,
        "length": tokens / len(rollouts),
        "cut": sum(r.stop == "length" for r in rollouts) / len(rollouts),
        "flat": 1 - float(spread.float().mean()),
        "mix": json.dumps({k: round(taken[k] / faced[k], 4) for k in sorted(faced)}),
    }
