"""Log-probabilities of given text under a model, teacher-forced.

    found = token_logprobs(model, prompts, completions)    # one array of nats a text
    gold_logprobs(model, task, problems)                   # (problems,), of the canonical trace

The probability of a valid trace needs no sampling: it bounds from below the mass that a model
puts on valid answers, far under the rate at which samples would show one.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float

from probes.generate import replay_answers
from probes.models import Model, encode
from probes.records import Problem, Refusal
from probes.tasks import Task


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
    for i, _, _, logits in replay_answers(model, texts, list(map(len, completions)), batch=batch):
        logprobs = torch.log_softmax(logits.double(), -1)
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
