"""Where two models part on the same text: log-probabilities and KL, teacher-forced.

    found = gold_logprobs(model, task, problems)        # (problems,), log p of the canonical trace
    parted = divergences(tuned, base, task, problems, rollouts)
    mean_kl(parted, "decision"), mean_kl(parted, "execution")

The probability of a valid trace needs no sampling: it bounds from below the mass that a model
puts on valid answers, far under the rate at which samples would show one. KL(p || q) is of whole
next-token distributions at temperature 1, in nats, at the positions that chose the generated
tokens; the text is taken from rollouts, of whichever model.

Not here: which positions decide (`probes.tasks`), activations before and after (`probes.drift`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from probes.generate import replay
from probes.intervals import Estimate, bootstrap, undefined
from probes.models import Model, check_pair, encode
from probes.records import Problem, Refusal, Rollout
from probes.tasks import Task, decisions

Place = Literal["decision", "execution"]


@dataclass(frozen=True)
class Parted:
    """KL of two models over one rollout, summed by what its tokens do."""

    problem: str
    sample: int
    decision: float
    """Sum over decision tokens, nats."""
    decisions: int
    execution: float
    """Sum over all other generated tokens, nats."""
    executions: int


def token_logprobs(
    model: Model,
    prompts: Sequence[tuple[int, ...]],
    completions: Sequence[tuple[int, ...]],
    *,
    batch: int = 64,
) -> list[Float[np.ndarray, " tokens"]]:
    """Log p of each token of each completion given all before it, at temperature 1 (nats).

    Raises:
        Refusal: an empty prompt or completion, another number of the two, or a text that is longer
            than the context.
    """
    if len(prompts) != len(completions) or not all(prompts) or not all(completions):
        raise Refusal(
            f"{len(prompts)} prompts and {len(completions)} completions: give one of each, with at "
            f"least one token."
        )
    texts = [(*p, *c) for p, c in zip(prompts, completions, strict=True)]
    found: list[np.ndarray] = [np.empty(0)] * len(texts)
    for rows, logits, _ in replay(model, texts, batch=batch):
        assert logits is not None, "a replay that isn't stopped has logits"
        for row, i in enumerate(rows):
            count = len(completions[i])
            # Rows are right-aligned: the column before a token's own holds what it is drawn from.
            logprobs = torch.log_softmax(logits[row, -count - 1 : -1].double(), -1)
            wanted = torch.tensor(completions[i], device=logprobs.device)[:, None]
            found[i] = logprobs.gather(1, wanted)[:, 0].cpu().numpy()
    return found


def gold_logprobs(
    model: Model,
    task: Task,
    problems: Sequence[Problem],
    *,
    traces: Callable[[Problem], Sequence[str]] | None = None,
    batch: int = 64,
) -> Float[np.ndarray, " problems"]:
    """Log of the summed probability of canonical valid traces, each with its end (nats).

    Args:
        model: what is asked.
        task: made the problems.
        problems: each once.
        traces: the distinct valid responses to sum over; the task's gold one alone by default.
            More of them only tighten the bound.
        batch: rows of a pass.

    Raises:
        Refusal: a trace twice (its probability would count twice) or one that is not valid, or
            longer than the task allows.
    """
    of_each = [list(traces(p)) if traces else [task.gold(p)] for p in problems]
    end = (model.tokenizer.eos_token_id,)
    prompts, completions, owners = [], [], []
    for i, (problem, texts) in enumerate(zip(problems, of_each, strict=True)):
        if len(set(texts)) < len(texts) or not texts:
            raise Refusal(f"the {len(texts)} traces of problem {problem.id} are not distinct.")
        for text in texts:
            tokens = encode(model, text) + end
            if not task.check(problem, text).valid or len(tokens) > task.budget(problem):
                raise Refusal(f"{text!r} is no valid answer to {problem.prompt!r} within budget.")
            prompts.append(encode(model, problem.prompt))
            completions.append(tokens)
            owners.append(i)
    summed = np.full(len(problems), -np.inf)
    found = token_logprobs(model, prompts, completions, batch=batch)
    for i, logprobs in zip(owners, found, strict=True):
        summed[i] = np.logaddexp(summed[i], logprobs.sum())
    return summed


def divergences(
    p: Model,
    q: Model,
    task: Task,
    problems: Sequence[Problem],
    rollouts: Sequence[Rollout],
    *,
    batch: int = 64,
) -> list[Parted]:
    """KL(p || q) along each rollout, apart for the tokens that decide and those that execute.

    Raises:
        Refusal: models that are no pair, a rollout of another problem, or one whose tokens are not
            its words one by one (the decisions are found by words).
    """
    check_pair(p, q)
    by_id = {problem.id: problem for problem in problems}
    if unknown := {r.problem for r in rollouts} - set(by_id):
        raise Refusal(f"{len(unknown)} rollout problem(s) are not given, such as {min(unknown)}.")
    texts = [(*encode(p, by_id[r.problem].prompt), *r.tokens) for r in rollouts]
    passes = zip(replay(p, texts, batch=batch), replay(q, texts, batch=batch), strict=True)
    found: list[Parted | None] = [None] * len(rollouts)
    for one, other in passes:
        assert one.rows == other.rows
        assert one.logits is not None
        assert other.logits is not None
        kl = token_kl(one.logits, other.logits.to(one.logits.device)).cpu().numpy()
        for row, i in enumerate(one.rows):
            rollout = rollouts[i]
            along = kl[row, -len(rollout.tokens) - 1 : -1]
            decides = _decides(p, task, by_id[rollout.problem], rollout)
            found[i] = Parted(
                rollout.problem,
                rollout.sample,
                float(along[decides].sum()),
                int(decides.sum()),
                float(along[~decides].sum()),
                int((~decides).sum()),
            )
    return found  # type: ignore[return-value]


def token_kl(
    p: Float[torch.Tensor, "*rows vocab"], q: Float[torch.Tensor, "*rows vocab"]
) -> Float[torch.Tensor, "*rows"]:
    """KL(p || q) of the distributions of two rows of logits, in nats."""
    log_p, log_q = (torch.log_softmax(logits.double(), -1) for logits in (p, q))
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def mean_kl(parted: Sequence[Parted], place: Place, *, seed: int = 0) -> Estimate:
    """Mean KL of a token that decides, or of one that executes; the interval is over problems."""
    sums: dict[str, np.ndarray] = {}
    for one in parted:
        pair = (
            (one.decision, one.decisions)
            if place == "decision"
            else (one.execution, one.executions)
        )
        sums[one.problem] = sums.get(one.problem, np.zeros(2)) + np.array(pair)
    if len(sums) < 2:
        return undefined(f"{len(sums)} problem gives no interval", len(sums))
    total, count = np.array(list(sums.values()), dtype=np.float64).T
    return bootstrap(lambda t, c: t / c, total, count, seed=seed)


def _decides(model: Model, task: Task, problem: Problem, rollout: Rollout) -> np.ndarray:
    words = model.tokenizer.convert_ids_to_tokens(list(rollout.tokens))
    text = " ".join(words)
    if text.split() != words:
        raise Refusal(
            f"the tokens of a rollout to {problem.id} are not its words one by one: decisions are "
            f"found by words, so this needs a word-level tokenizer."
        )
    decides = np.zeros(len(words), dtype=bool)
    decides[[d.position for d in decisions(task, problem, text)]] = True
    return decides
