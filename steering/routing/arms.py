"""The arms of a hybrid: what it is compared with, always together, and how each is run.

    arms = make_arms(base, tuned, task, problems, parts)
    judged, answers = run_arm(arm, base, tuned, task, problems, asked)

Each answers one objection to "the base, steered where and as the tuned model says, recovers the
gap": it is the prompt (probe prompt), the bias or any push (bias only, shared and unconditional
vector, random vectors), any category (random category), any place (random position), the choice
among candidates that the tuned model makes (random candidates, guardrail), the tuned model's own
tokens (substitution). An arm that does not exist for a pair says why.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from probes.generate import Decoding, Request, generate
from probes.models import Model, encode
from probes.records import Problem, Refusal
from probes.tasks import Task
from probes.taxonomy.record import Taxonomy
from steering.evaluate import Judged, evaluate, judge_all
from steering.routing.crossed import at_decisions
from steering.routing.hybrid import BASE, CHOOSERS, FIELDS, Hybrid, Key, Pushes, Router
from steering.routing.learnt import LinearGate
from steering.routing.reference import by_reference
from steering.routing.routers import (
    TAKE,
    Among,
    Gated,
    Steer,
    always,
    at_rates,
    by_chance,
    by_rule,
    by_taxonomy,
    disagree,
    every,
    kl_above,
)
from steering.vectors.record import Vectors

Answers = Mapping[Key, Float[np.ndarray, "tokens f"]]

PLAIN = ("base", "tuned")
FULL = "hybrid"


@dataclass(frozen=True)
class Parts:
    """What the arms of one pair are made of."""

    taxonomy: Taxonomy
    vectors: Vectors
    coefficients: tuple[float, ...] = (1.0,)
    """One in the current form; several are candidates, as in the released code."""
    shared: Vectors | None = None
    """One vector trained on all places alike; none given: the mean of the categories' pushes."""
    absent: Vectors | None = None
    """Vectors trained towards a copy that lacks the skill."""
    gate: LinearGate | None = None
    """A linear probe in place of the disagreement."""
    windows: tuple[int, ...] = (-1,)
    """Others than -1 are decoded by the uncached reference."""
    guardrail: int = 4
    """The base's likeliest tokens that the tuned model may choose from."""
    prompt: str = ""
    """Words before the question that ask for reasoning."""
    thresholds: tuple[float, ...] = ()
    """KL(tuned || base), in nats, above which the tuned model writes."""
    seed: int = 0


@dataclass(frozen=True)
class Arm:
    """One way of writing the answers."""

    name: str
    router: Router | None = None
    """None: a plain model, or an arm that does not exist."""
    vectors: Vectors | None = None
    reads: tuple[tuple[str, str], ...] = ()
    candidates: int = 1
    """How many possibilities the tuned model's residual and probabilities choose among at each
    token that is not the base's: categories x coefficients, tokens of a guardrail, or 1."""
    gated: bool = False
    """Whether the gate needs the tuned model's next token: one bit a token at most."""
    parameters: int = 0
    """Fitted numbers, without the taxonomy's."""
    undefined: str = ""
    """Why there is no such arm."""
    note: str = ""
    prompt: str = ""
    windows: tuple[int, ...] = (-1,)
    follows: str = ""
    """The arm whose share of steered tokens, problem by problem, is this one's at random places."""


def make_arms(
    base: Model, tuned: Model, task: Task, problems: Sequence[Problem], parts: Parts
) -> list[Arm]:
    """Every arm, in the order in which they are run and shown.

    Raises:
        Refusal: a category without a vector (`routers.lines_of`), no coefficient.
    """
    taxonomy, vectors, sizes = parts.taxonomy, parts.vectors, parts.coefficients
    own, live = by_taxonomy(taxonomy, vectors), alive(vectors)
    reads = (("tuned", taxonomy.site),)
    count = len(live) * len(sizes)
    seeded = {"reads": reads, "parameters": vectors.parameters}
    steer = Steer(own, sizes)
    full = Arm(FULL, Gated(disagree, steer), vectors, candidates=count, gated=True, **seeded)
    arms = [Arm(name) for name in PLAIN] + [full]
    if (bias := vectors.bias) is None:
        arms.append(Arm("bias only", undefined="vectors of the current form have no bias"))
    else:
        alone = replace(vectors, vectors=torch.zeros_like(vectors.vectors), parameters=len(bias))
        arms.append(replace(full, name="bias only", vectors=alone, candidates=len(sizes)))
    arms += _of_one_vector(parts, full)
    others = norm_matched(vectors, seed=parts.seed + 1)
    arms.append(replace(full, name="random vectors", vectors=others, parameters=0))
    many = norm_matched(vectors, seed=parts.seed + 2, repeat=len(sizes))
    oracle = Steer(every(alive(many)), (max(sizes),))
    arms.append(
        replace(
            full,
            name="random candidates",
            router=Gated(disagree, oracle),
            vectors=many,
            parameters=0,
        )
    )
    arms.append(
        replace(
            full,
            name="random category",
            router=Gated(disagree, Steer(by_chance(live, seed=parts.seed), sizes)),
            candidates=len(sizes),
        )
    )
    arms.append(replace(full, name="random position", gated=False, follows=FULL))
    best = Gated(disagree, Steer(every(live), sizes))
    arms.append(replace(full, name="oracle category", router=best))
    arms += _without_vectors(base, parts, full)
    arms += _crossed(task, problems, tuned, parts)
    return arms


def _of_one_vector(parts: Parts, full: Arm) -> list[Arm]:
    """The same push whatever the category: where the gate is open, and at every token."""
    if parts.shared is None:
        one, note = mean_vector(parts.vectors), "the mean of the trained pushes, by their counts"
    else:
        if len(parts.shared.vectors) > 1:
            raise Refusal(
                f"the shared vector's file has {len(parts.shared.vectors)} vectors: give the one "
                f"that was trained on all places alike (one-vector.safetensors)."
            )
        one, note = only(parts.shared, 0), "trained on all places alike"
    steer = Steer(every([0]), parts.coefficients)
    about = {"vectors": one, "candidates": len(parts.coefficients), "parameters": one.parameters}
    shared = replace(full, name="shared vector", note=note, router=Gated(disagree, steer), **about)
    everywhere = replace(
        shared, name="unconditional vector", router=Gated(always, steer), gated=False
    )
    return [shared, everywhere]


def _without_vectors(base: Model, parts: Parts, full: Arm) -> list[Arm]:
    """Prompt, guardrail, substitution, and the vectors and gates that are given beside."""
    why = "the task has no words that ask for reasoning, and none were given"
    arms = [Arm("probe prompt", undefined="" if parts.prompt else why, prompt=parts.prompt)]
    top = min(parts.guardrail, base.vocab)
    arms.append(Arm("guardrail", Gated(always, Among(top)), candidates=top))
    vocab = {"candidates": base.vocab, "gated": True}
    arms.append(Arm("substitution", Gated(disagree, TAKE), **vocab))
    if parts.absent is None:
        reason = "no vectors of a copy without the skill were given"
        arms.append(Arm("absent-skill vectors", undefined=reason))
    else:
        # Their categories are those of another copy's taxonomy, which says nothing of this one:
        # so each token gets the best of them, as the tuned model sees it.
        lines = alive(parts.absent)
        router = Gated(disagree, Steer(every(lines), parts.coefficients))
        about = {"vectors": parts.absent, "parameters": parts.absent.parameters}
        about |= {"candidates": len(lines) * len(parts.coefficients)}
        arms.append(replace(full, name="absent-skill vectors", router=router, **about))
    if parts.gate is not None:
        reads = (*full.reads, (parts.gate.of, parts.gate.site))
        assert isinstance(full.router, Gated)
        arms.append(
            replace(
                full,
                name="linear gate",
                router=Gated(parts.gate, full.router.then),
                reads=reads,
                gated=parts.gate.of == "tuned",
                parameters=full.parameters + parts.gate.parameters,
                note=f"a probe on the {parts.gate.of}'s residual",
            )
        )
    if set(parts.windows) != {-1}:
        told = " ".join(map(str, parts.windows))
        arms.append(replace(full, name=f"windows {told}", windows=parts.windows))
    return arms


def _crossed(task: Task, problems: Sequence[Problem], tuned: Model, parts: Parts) -> list[Arm]:
    """The tuned model writes where its KL from the base is large, or at the known decisions."""
    arms = []
    for threshold in parts.thresholds:
        name = f"tuned at KL > {threshold:g}"
        cut = Arm(name, Gated(kl_above(threshold), TAKE), candidates=tuned.vocab, gated=True)
        null = replace(cut, name=f"as many tokens as {name}", router=None, gated=False)
        arms += [cut, replace(null, follows=name)]
    if parts.thresholds:
        rule = by_rule(at_decisions(task, problems, tuned.tokenizer))
        arms.append(Arm("tuned at decisions", Gated(rule, TAKE), candidates=tuned.vocab))
    return arms


def run_arm(
    arm: Arm,
    base: Model,
    tuned: Model,
    task: Task,
    problems: Sequence[Problem],
    parts: Parts,
    *,
    shares: Mapping[str, float] | None = None,
    samples: int = 1,
    decoding: Decoding = Decoding(0),  # noqa: B008 - frozen
    batch: int = 64,
    progress: Callable[[int], Any] | None = None,
) -> tuple[Judged, Answers]:
    """The judged answers of one arm, and who chose each token of them (none of a plain model).

    Args:
        arm: one that exists.
        base: before tuning.
        tuned: after it.
        task: made the problems.
        problems: each once.
        parts: what the arm was made of.
        shares: of each problem, the chance that a random place is steered; of arms that follow
            another.
        samples: answers to each problem.
        decoding: greedy in the papers.
        batch: rows decoded together.
        progress: called with the number of answers finished since the last call.
    """
    how: dict[str, Any] = {"samples": samples, "decoding": decoding, "seed": parts.seed}
    how |= {"batch": batch, "progress": progress, "settings": (arm.name,)}
    if arm.name in PLAIN:
        model = (base, tuned)[PLAIN.index(arm.name)]
        return evaluate(model, task, problems, **how), {}
    if arm.prompt or set(arm.windows) != {-1}:
        return _by_requests(
            arm, base, tuned, task, problems, parts, samples, decoding, batch, progress
        )
    router = arm.router
    if arm.follows:
        assert shares is not None, "an arm at random places follows another's shares"
        then = router.then if isinstance(router, Gated) else TAKE
        router = Gated(at_rates(shares, seed=parts.seed), then)
    assert router is not None, "an arm that exists has a router"
    pushes = None if arm.vectors is None else Pushes(arm.vectors, base.device)
    writer = Hybrid(base, tuned, router, pushes, reads=arm.reads, kl=True)
    judged = evaluate(writer, task, problems, **how)
    return judged, writer.log.answers


def _by_requests(
    arm: Arm,
    base: Model,
    tuned: Model,
    task: Task,
    problems: Sequence[Problem],
    parts: Parts,
    samples: int,
    decoding: Decoding,
    batch: int,
    progress: Callable[[int], Any] | None,
) -> tuple[Judged, Answers]:
    """Answers to a prompt with words before it, or by the uncached reference."""
    if not decoding.stop:
        decoding = replace(decoding, stop=(base.tokenizer.eos_token_id,))
    before = f"{arm.prompt} " if arm.prompt else ""
    requests = [
        Request(p.id, i, encode(base, before + p.prompt), task.budget(p), arm.name)
        for p in problems
        for i in range(samples)
    ]
    if arm.prompt:
        rollouts = generate(
            base, requests, decoding, batch=batch, seed=parts.seed, progress=progress
        )
        return judge_all(task, problems, rollouts), {}
    rollouts, steps = by_reference(
        base,
        tuned,
        requests,
        decoding,
        parts.taxonomy,
        parts.vectors,
        coefficients=parts.coefficients,
        windows=arm.windows,
        progress=progress,
    )
    nan = float("nan")
    answers: dict[Key, Any] = {}
    for request, of_it in zip(requests, steps, strict=True):
        lines = [
            (s.token, CHOOSERS.index(s.chooser), s.category, s.coefficient, 0, nan, nan)
            + (s.base_top, s.tuned_top, nan)
            for s in of_it
        ]
        answers[request.problem, request.sample, request.setting] = np.array(lines, dtype=float)
    return judge_all(task, problems, rollouts), answers


def shares(answers: Answers) -> dict[str, float]:
    """Of each problem, the share of tokens that another than the base chose."""
    counted: dict[str, list[int]] = {}
    for (problem, _, _), table in answers.items():
        both = counted.setdefault(problem, [0, 0])
        both[0] += int((table[:, FIELDS.index("chooser")] != BASE).sum())
        both[1] += len(table)
    return {problem: taken / total for problem, (taken, total) in counted.items()}


# ------------------------------------------------------------------ other vectors


def alive(vectors: Vectors) -> list[int]:
    """The categories that push at all: one with too few places may have been left at zero.

    Raises:
        Refusal: none does.
    """
    found = (_pushes(vectors).norm(dim=1) > 0).nonzero()[:, 0].tolist()
    if not found:
        raise Refusal("every vector is zero: there is nothing to steer with.")
    return found


def norm_matched(vectors: Vectors, *, seed: int, repeat: int = 1) -> Vectors:
    """Random directions, each as long as the push of a category, bias included.

    Of length 1 beside a kept bias, as in the released code, they would be the bias alone: learnt
    pushes are 40 to 60 times as long there.

    Args:
        vectors: whose lengths are matched; of a coefficient network, at its factors' mean of 1.
        seed: of the directions.
        repeat: so many directions for each category.
    """
    lengths = _pushes(vectors).norm(dim=1).repeat_interleave(repeat)
    draw = torch.Generator().manual_seed(seed)
    drawn = torch.randn(len(lengths), vectors.vectors.shape[1], generator=draw)
    drawn = drawn / drawn.norm(dim=1, keepdim=True) * lengths[:, None]
    names = tuple(name for name in vectors.names for _ in range(repeat))
    counts = tuple(count for count in vectors.counts for _ in range(repeat))
    return replace(_fixed(vectors, drawn), names=names, counts=counts, parameters=0)


def mean_vector(vectors: Vectors) -> Vectors:
    """The mean of the categories' pushes, weighted by the places each was fitted to."""
    weights = torch.tensor(vectors.counts, dtype=torch.float32)
    mean = (weights / weights.sum().clamp_min(1)) @ _pushes(vectors)
    counts = (int(weights.sum()),)
    return replace(_fixed(vectors, mean[None]), names=("mean",), counts=counts)


def only(vectors: Vectors, category: int) -> Vectors:
    """One category's push as vectors of their own."""
    fixed = _fixed(vectors, _pushes(vectors)[category : category + 1])
    size = vectors.vectors.shape[1] + 1
    names, counts = (vectors.names[category],), (vectors.counts[category],)
    return replace(fixed, names=names, counts=counts, parameters=size)


def _pushes(vectors: Vectors) -> Float[torch.Tensor, "categories d"]:
    """What each category adds; of a coefficient network, the vectors at a factor of 1."""
    fixed = replace(vectors, network=None)
    return fixed.pushes(torch.arange(len(vectors.vectors))).detach().cpu().float()


def _fixed(vectors: Vectors, lines: Float[torch.Tensor, "categories d"]) -> Vectors:
    """These pushes at the same site, with nothing else added and no factor."""
    return replace(
        vectors,
        vectors=lines,
        coefficients=torch.ones(len(lines)),
        bias=None,
        names=("",) * len(lines),
        counts=(0,) * len(lines),
        network=None,
        losses=(),
    )
