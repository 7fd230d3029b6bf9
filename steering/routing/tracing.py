"""Answers of a hybrid as rows of a trace page: who chose each token, and what else was likely.

    rows = traced(done, base, tuned, problems[:4], vectors.names)
    trace_page(rows, out / "trace.html", "Who chose which token")

The choosers are those of the record; what each model found likeliest is read anew, both of them
unsteered along the finished text, as the record keeps one token of each only.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from probes.generate import replay_answers
from probes.models import Model, encode
from probes.records import Problem, Refusal
from probes.report import TracedRow, TracedToken
from steering.routing.hybrid import CHOOSERS, FIELDS
from steering.routing.running import Done

SHOWN = 3
"""Likeliest tokens of each model."""

Likely = tuple[Int[np.ndarray, "tokens top"], Float[np.ndarray, "tokens top"]]


def traced(
    done: Done, base: Model, tuned: Model, problems: Sequence[Problem], names: Sequence[str]
) -> list[TracedRow]:
    """The arm's answers to these problems, token by token.

    Args:
        done: an arm that was routed.
        base: read along its answers.
        tuned: likewise.
        problems: some of those it was asked.
        names: of the categories.

    Raises:
        Refusal: the arm has no record of who chose (a plain model, or none of these problems): a
            trace with no steps.
    """
    asked = {p.id: p for p in problems}
    judged = done.judged
    pairs = zip(judged.rollouts, judged.graded, strict=True) if judged else ()
    kept = [(r, g) for r, g in pairs if r.problem in asked and done.answers]
    if not kept:
        raise Refusal(
            f"the arm {done.arm.name!r} has no record of who chose the tokens of its answers to "
            f"these {len(problems)} problems: a page of them would be traces with no steps."
        )
    prompts = [encode(base, asked[r.problem].prompt) for r, _ in kept]
    texts = [p + r.tokens for p, (r, _) in zip(prompts, kept, strict=True)]
    counts = [len(r.tokens) for r, _ in kept]
    likely = [_likely(model, texts, counts) for model in (base, tuned)]
    rows = []
    for i, (rollout, graded) in enumerate(kept):
        table = done.answers[rollout.problem, rollout.sample, done.arm.name]
        tokens = tuple(
            _token(base, dict(zip(FIELDS, line, strict=True)), names, [of[i] for of in likely], at)
            for at, line in enumerate(table.tolist())
        )
        prompt = asked[rollout.problem].prompt
        rows.append(TracedRow(prompt, tokens, graded.grade.value, done.arm.name))
    return rows


def _token(
    model: Model, line: dict[str, float], names: Sequence[str], likely: list[Likely], at: int
) -> TracedToken:
    chooser = CHOOSERS[int(line["chooser"])]
    kind = int(line["category"])
    tops = [
        tuple(zip(_words(model, ids[at]), map(float, probs[at]), strict=True))
        for ids, probs in likely
    ]
    given = [None if np.isnan(line[f"{m}_prob"]) else line[f"{m}_prob"] for m in ("base", "tuned")]
    return TracedToken(
        text=_words(model, np.array([int(line["token"])]))[0],
        # A guardrail's choice is the tuned model's, however few it may choose from.
        chooser="tuned" if chooser == "among" else chooser,
        # Two latents may have one name: the number tells them apart.
        category=f"{kind} {names[kind]}" if kind >= 0 and kind < len(names) else "",
        base_prob=given[0],
        tuned_prob=given[1],
        base_top=tops[0],
        tuned_top=tops[1],
    )


def _words(model: Model, ids: Int[np.ndarray, " tokens"]) -> list[str]:
    """Each token as text, on its own."""
    return [str(model.tokenizer.decode([int(i)])) for i in ids]


def _likely(
    model: Model, texts: Sequence[tuple[int, ...]], counts: Sequence[int]
) -> dict[int, Likely]:
    """Of each text and each position that chose a token, the likeliest tokens."""
    found: dict[int, Likely] = {}
    for i, _, _, logits in replay_answers(model, texts, counts):
        probs = torch.softmax(logits.float(), -1)
        top = probs.topk(min(SHOWN, probs.shape[-1]), -1)
        found[i] = top.indices.cpu().numpy(), top.values.cpu().numpy()
    return found
