"""Our GRPO loop against what no loop can do without: decode, forward and backward of its answers.

The bare side decodes as `sampling-limit` does, in full batches of all 512 rows. Then it computes
prompt and answer of those answers whose group earned unequal rewards, which are all that teach, in
the loop's own batches by length, with the head on the answers only, and a loss that is their sum.
It doesn't read prompts before decoding, draw tokens, decode text, grade, compare, clip, or step.

A ratio above the loop's own share of time is no error: the bare pass computes every answer with its
prompt, where our model reads a group's prompt once and answers that are alike once (on this base
about 0.6 of the tokens). So it is a limit of the plain computation, and no measure of overhead.
"""

from collections.abc import Sequence

import torch

from probes.models import encode
from probes.records import Problem, Rollout
from steering.training import training
from steering.training.rlvr import rlvr

from . import Line, alternate, sampling_limit
from ._practice import practice
from ._shipped import base


def run(small: bool = False) -> Line:
    updates, prompts = (1, 2) if small else (4, 32)
    task, problems, paid, settings = practice(updates, prompts)
    answers: list[tuple[Problem, Rollout, float]] = []

    def noted(problem: Problem, rollout: Rollout, graded: object) -> float:
        answers.append((problem, rollout, paid(problem, rollout, graded)))  # type: ignore[arg-type]
        return answers[-1][2]

    rlvr(base(), task, problems, noted, settings, progress=False)
    size = prompts * settings.samples
    batches = [answers[i : i + size] for i in range(0, len(answers), size)]
    sequences = [taught(batch, settings.samples) for batch in batches]
    seen = [
        len(encode(base(), problem.prompt)) + i
        for problem, rollout, _ in answers
        for i in range(len(rollout.tokens))
    ]

    def ours() -> int:
        rlvr(base(), task, problems, paid, settings, progress=False)
        return updates

    def bare() -> int:
        sampling_limit.bare(len(seen), size, round(sum(seen) / len(seen)))
        with training(base().net):
            for batch in sequences:
                learned(batch, settings.rows)
        return updates

    return alternate(
        "grpo-limit",
        ours,
        bare,
        unit="updates/s",
        against="bare decode, forward and backward passes of the same answers",
        rounds=1 if small else 7,
    )


def taught(
    batch: Sequence[tuple[Problem, Rollout, float]], samples: int
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Prompt and answer of those whose group earned unequal rewards, by length."""
    found = []
    for i in range(0, len(batch), samples):
        group = batch[i : i + samples]
        if len({reward for _, _, reward in group}) > 1:
            found += [(encode(base(), p.prompt), tuple(r.tokens)) for p, r, _ in group]
    return sorted(found, key=lambda pair: sum(map(len, pair)))


def learned(sequences: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], rows: int) -> None:
    """Forward and backward, `rows` sequences at a time."""
    for i in range(0, len(sequences), rows):
        part = sequences[i : i + rows]
        width = max(len(prompt) + len(answer) for prompt, answer in part)
        ids = torch.zeros(len(part), width, dtype=torch.long)
        for row, (prompt, answer) in enumerate(part):
            ids[row, : len(prompt) + len(answer)] = torch.tensor([*prompt, *answer])
        keep = width - min(len(prompt) for prompt, _ in part)
        base().net(ids[:, :-1], logits_to_keep=keep, use_cache=False).logits.sum().backward()
