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
    Categories,
    Gated,
    Steer,
    always,
    at_rates,
    but,
    by_chance,
    by_draw,
    by_rule,
    by_taxonomy,
    disagree,
    entropy_above,
    every,
    kl_above,
    living,
)
from steering.vectors.controls import alive, mean_vector, norm_matched, only
from steering.vectors.record import Vectors

Answers = Mapping[Key, Float[np.ndarray, "tokens f"]]

DRAWS = 16
"""Random directions for each trained one; a problem has one of them throughout."""

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
    everywhere: Vectors | None = None
    """One vector trained at every token; none given: the shared one, pushed at every token."""
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
    """KL(tuned || base), in nats: above it the tuned model writes, or the base is steered; and,
    crossed, below it."""
    entropies: tuple[float, ...] = ()
    """Entropy of the base's next token, in nats, above which the tuned model writes, or the base
    is steered."""
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
        Refusal: a category without a vector (`routers.lines_of`), no coefficient, words before the
            question that the tokenizer lacks.
    """
    if parts.prompt:  # now, and not when its turn comes
        encode(base, f"{parts.prompt} {problems[0].prompt}")
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
    arms += _random(parts, full, own, live)
    arms.append(
        replace(
            full,
            name="random category",
            router=Gated(disagree, Steer(by_chance(live, seed=parts.seed), sizes)),
            candidates=len(sizes),
        )
    )
    # A category that pushes nowhere would lose the place that was drawn for it.
    anywhere = Gated(disagree, Steer(living(own, live, seed=parts.seed), sizes))
    arms.append(replace(full, name="random position", router=anywhere, gated=False, follows=FULL))
    best = Gated(disagree, Steer(every(live), sizes))
    arms.append(replace(full, name="oracle category", router=best))
    arms += _without_vectors(base, parts, full)
    arms += _crossed(task, problems, tuned, parts, full, steer)
    return arms


def _random(parts: Parts, full: Arm, own: Categories, live: list[int]) -> list[Arm]:
    """As long as the trained pushes, in directions of chance: in their place, and to choose from.

    Each problem has directions of its own among `DRAWS`, so the interval over problems holds the
    chance of the directions too.
    """
    draws, sizes, seed = DRAWS, parts.coefficients, parts.seed
    others = norm_matched(parts.vectors, seed=seed + 1, repeat=draws)
    steer = Steer(by_draw(own, draws, seed=seed), sizes)
    about: dict[str, Any] = {"parameters": 0, "note": f"{draws} draws of the directions"}
    vectors = replace(full, name="random vectors", router=Gated(disagree, steer), vectors=others)
    many = norm_matched(parts.vectors, seed=seed + 2, repeat=len(sizes) * draws)
    tried = [line * len(sizes) + i for line in live for i in range(len(sizes))]
    oracle = Steer(by_draw(every(tried), draws, seed=seed), (max(sizes),))
    best = replace(full, name="random candidates", router=Gated(disagree, oracle), vectors=many)
    return [replace(arm, **about) for arm in (vectors, best)]


def _of_one_vector(parts: Parts, full: Arm) -> list[Arm]:
    """The same push whatever the category: where the gate is open, and at every token."""
    if parts.shared is None and parts.vectors.network is not None:
        why = "vectors with a coefficient network have no mean push, and no shared vector was given"
        return [Arm(name, undefined=why) for name in ("shared vector", "unconditional vector")]
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
    if parts.everywhere is not None:
        at_all = only(parts.everywhere, 0)
        about = {"vectors": at_all, "parameters": at_all.parameters}
        everywhere = replace(everywhere, note="trained at every token", **about)
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
        names = ("absent-skill vectors", "absent-skill candidates")
        arms += [Arm(name, undefined=reason) for name in names]
    elif parts.absent.tuned and parts.absent.tuned == parts.vectors.tuned:
        raise Refusal(
            "the vectors of a copy without the skill were trained towards the tuned model itself: "
            "give those of another copy."
        )
    else:
        # Their categories are those of another copy's taxonomy, which says nothing of this one: so
        # one by chance, which should recover nothing, and beside it whichever the tuned model finds
        # best, which is an oracle of as many candidates.
        lines, sizes = alive(parts.absent), parts.coefficients
        about: dict[str, Any] = {"vectors": parts.absent, "parameters": parts.absent.parameters}
        for name, kinds, tried in (
            ("absent-skill vectors", by_chance(lines, seed=parts.seed), 1),
            ("absent-skill candidates", every(lines), len(lines)),
        ):
            router, count = Gated(disagree, Steer(kinds, sizes)), tried * len(sizes)
            arms.append(replace(full, name=name, router=router, candidates=count, **about))
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
        tried = full.candidates * len(parts.windows)
        about = {"windows": parts.windows, "candidates": tried}
        arms.append(replace(full, name=f"windows {told}", **about))
    return arms


def _crossed(
    task: Task, problems: Sequence[Problem], tuned: Model, parts: Parts, full: Arm, steer: Steer
) -> list[Arm]:
    """Who decides x who executes, where decisions are places of high KL or entropy, or known.

    Beside them the hybrid with such a gate in place of the disagreement.
    """
    arms, vocab = [], tuned.vocab
    # By the base's own entropy, where is not asked of the tuned model.
    gates = [(f"KL > {t:g}", kl_above(t), True) for t in parts.thresholds]
    gates += [(f"entropy > {t:g}", entropy_above(t), False) for t in parts.entropies]
    for where, gate, gated in gates:
        cut = Arm(f"tuned at {where}", Gated(gate, TAKE), candidates=vocab, gated=gated)
        null = replace(cut, name=f"as many tokens as {cut.name}", router=None, gated=False)
        arms += [
            cut,
            replace(null, follows=cut.name),
            replace(cut, name=f"base at {where}", router=Gated(but(gate), TAKE)),
            replace(full, name=f"steered at {where}", router=Gated(gate, steer), gated=gated),
        ]
    if parts.thresholds:
        rule = by_rule(at_decisions(task, problems, tuned.tokenizer))
        for name, gate in (("tuned at decisions", rule), ("base at decisions", but(rule))):
            arms.append(Arm(name, Gated(gate, TAKE), candidates=vocab))
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
