"""The base pushed along its own directions, and everything that a push is to be compared with.

First on the select split: the dose-response of the strategies whose rate tuning changed most, at
the strengths given, with each control at the strength that moves the next-token distribution at
the decisions as far (equal KL). The edit acts after those tokens that the decision was seen to
follow, so its effects on other decisions and on execution are effects and not edits. Then the arm
that helped valid answers most, if any beat the model as it is, and its controls, on the test split:
the share of the gap between base and tuned that each recovers. And all four source x target cells:
a direction that can be read in one model need not push the other.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from probes.capture import Store, Text, from_rollouts
from probes.directions import Direction, fit, load, thirds
from probes.directions.auc import FIT
from probes.intervals import Estimate, difference, rate, recovered, undefined
from probes.measurements import point, row
from probes.records import Measurement, Refusal
from probes.strategies import mark, shares
from probes.tasks import decisions
from steering.controls import decision_kl, match_kl, shaped_random, shuffled, unembeddings, without
from steering.evaluate import Judged, evaluate, save_judged
from steering.interventions import Intervention, LogitBias, Steer, Steered, Window
from steering.interventions import decisions as after_tokens
from steering.verdict.context import MODELS, Context
from steering.verdict.stages.rollouts import BATCH

KINDS = 2
"""Strategies that are steered: those whose rate tuning changed most."""

KL_TEXTS = 32
"""Texts on which strengths are matched."""

Edit = Intervention | LogitBias


@dataclass(frozen=True)
class Arm:
    """One setting of the sweep."""

    kind: str
    control: str
    """"direction", or the name of a control."""
    x: float
    """Strength of the direction; of a control, the direction's strength that it is matched to."""
    edit: Edit
    note: str = ""

    @property
    def name(self) -> str:
        """As `Rollout.setting` holds it."""
        return f"{self.kind}|{self.control}|{self.x:g}"


def run(context: Context, tick: Any) -> list[Measurement]:
    """Dose-response with controls, recovered share, and the four cells."""
    rows: list[Measurement] = []
    kinds = steered_kinds(context)
    if not kinds:
        return [point("recovered", float("nan"), 0, note="no direction of any strategy was found")]
    arms = [
        arm for kind in kinds for arm in [*doses(context, kind), *controls(context, kind, rows)]
    ]
    tick(1, 5)
    swept = sweep(context, "base", context.select, arms)
    save_judged(context.file("rollouts-steered-select.parquet"), swept, model="base")
    rows += responses(context, swept, arms, "base", "base")
    tick(2, 5)
    rows += cells(context, kinds)
    tick(3, 5)
    chosen = best(swept, arms)
    beside = [a for a in arms if (a.kind, a.x) == (chosen.kind, chosen.x)] if chosen else []
    if chosen and len(beside) == 1:
        beside += controls(context, chosen.kind, rows, strengths=(chosen.x,))
    tick(4, 5)
    rows += share(context, beside) if chosen else unhelped(context)
    tick(5, 5)
    return rows


def steered_kinds(context: Context) -> list[str]:
    """Those asked for; else, of those with a direction, the two whose use tuning changed most.

    Use is counted per answer: a decision that hardly ever comes up explains no gain.
    """
    wanted = context.settings.strategies
    kinds = context.task.decision_kinds
    if unknown := [kind for kind in wanted if kind not in kinds]:
        raise Refusal(f"strategy {unknown[0]!r} is not known; there are {', '.join(kinds)}.")
    found = [k for k in kinds if context.file(f"directions/base-{k}.safetensors").is_file()]
    if wanted:
        return [k for k in wanted if k in found]
    used: dict[str, Counter[str]] = {}
    for which in MODELS:
        judged = context.selected(which)
        marked = mark(context.task, judged.problems, judged.rollouts)
        used[which] = Counter(m.kind for m in marked if m.choice == next(iter(kinds[m.kind])))
    return sorted(found, key=lambda k: -abs(used["tuned"][k] - used["base"][k]))[:KINDS]


def direction(context: Context, which: str, kind: str) -> Direction:
    """The difference of means at the best layer: probes that predict better steer worse."""
    return load(context.file(f"directions/{which}-{kind}.safetensors"))


def window(context: Context, which: str, kind: str) -> Window:
    """After the tokens that this decision was seen to follow in the model's own answers."""
    texts, places = decided(context, which, kind)
    tokens = sorted({t.tokens[p] for t, listed in zip(texts, places, strict=True) for p in listed})
    return after_tokens(tokens)


def decided(context: Context, which: str, kind: str) -> tuple[list[Text], list[list[int]]]:
    """The select answers in which the decision comes up, and the positions before it."""
    judged = context.selected(which)
    by_id = {p.id: p for p in judged.problems}
    texts = from_rollouts(context.model(which), judged.problems, judged.rollouts)
    found, places = [], []
    for text, rollout in zip(texts, judged.rollouts, strict=True):
        taken = decisions(context.task, by_id[rollout.problem], rollout.text)
        at = [len(text.prompt) + d.position - 1 for d in taken if d.kind == kind]
        if at:
            found.append(text)
            places.append(at)
    return found, places


def push(context: Context, source: str, target: str, kind: str, strength: float) -> Intervention:
    """A model's direction in a model, at a strength."""
    d = direction(context, source, kind)
    return Intervention("add", d.place, d.vector, strength, d.norm, window(context, target, kind))


def doses(context: Context, kind: str) -> list[Arm]:
    """The base's own direction at every strength but 0."""
    edit = push(context, "base", "base", kind, 1.0)
    return [
        Arm(kind, "direction", s, replace(edit, strength=s))
        for s in context.settings.strengths
        if s != 0
    ]


def controls(
    context: Context, kind: str, rows: list[Measurement], strengths: Sequence[float] | None = None
) -> list[Arm]:
    """Every control, at the strengths that are as far from the unsteered model as the direction's.

    Matched at the strongest pushes either way unless told; one that can't be matched is a row
    with its reason.
    """
    given = context.settings.strengths
    strengths = strengths or sorted({min(given), max(given)} - {0.0})
    texts, places = decided(context, "base", kind)
    kl = decision_kl(context.model("base"), texts[:KL_TEXTS], places[:KL_TEXTS], batch=BATCH)
    real = push(context, "base", "base", kind, 1.0)
    arms = []
    for name, edit in nulls(context, kind, real).items():
        for x in strengths:
            target = kl([replace(real, strength=x)])
            sign = -1.0 if x < 0 else 1.0
            try:
                match = match_kl(
                    lambda s, e=edit, sign=sign: kl([replace(e, strength=sign * s)]), target
                )
            except Refusal as refusal:
                nan = float("nan")
                rows.append(
                    point(
                        "option rate",
                        nan,
                        0,
                        model="base",
                        kind=kind,
                        setting=name,
                        x=x,
                        note=str(refusal),
                    )
                )
                continue
            strength = sign * match.strength
            note = f"strength {strength:.3g}, KL {match.kl:.4g}, the direction's {target:.4g}"
            arms.append(Arm(kind, name, x, replace(edit, strength=strength), note))
    return arms


def nulls(context: Context, kind: str, real: Intervention) -> dict[str, Edit]:
    """The controls by name, at strength 1."""
    base, seed = context.model("base"), context.settings.seed
    d = direction(context, "base", kind)
    store = Store(context.file("store-base"))
    labels = store.index.label
    lines = np.flatnonzero(labels.isin([f"{kind}:{c}" for c in context.task.decision_kinds[kind]]))
    problems = store.index.problem.to_numpy().astype(str)[lines]
    first = thirds(problems, seed) == FIT
    x = torch.from_numpy(store.numpy(d.place, lines[first]))
    yes = next(iter(context.task.decision_kinds[kind]))
    used = (labels.to_numpy()[lines[first]] == f"{kind}:{yes}").astype(int)

    def refit(activations: torch.Tensor, marks: np.ndarray) -> torch.Tensor:
        found = fit(activations.numpy(), marks, problems[first], d.method)
        return torch.from_numpy(found.astype(np.float32))

    found: dict[str, Edit] = {
        "random direction": replace(real, vector=shaped_random(x, seed=seed)),
        "shuffled labels": replace(real, vector=shuffled(refit, x, used, seed=seed)),
    }
    vocabulary = base.tokenizer.get_vocab()
    options = list(context.task.decision_kinds[kind].values())
    ids = [[vocabulary[w] for w in words if w in vocabulary] for words in options]
    found["logit bias"] = LogitBias({t: 1.0 for t in ids[0]}, 1.0, real.window)
    spanned = unembeddings(base, [t for listed in ids for t in listed])
    try:
        rest = without(torch.from_numpy(d.vector), spanned)
        found["without unembeddings"] = replace(real, vector=rest)
    except Refusal:
        pass  # the direction is one of the logits; the bias above says it all
    for other in context.task.decision_kinds:
        path = context.file(f"directions/base-{other}.safetensors")
        if other != kind and path.is_file() and load(path).place == d.place:
            found["another strategy"] = replace(real, vector=load(path).vector)
            break
    return found


def sweep(context: Context, which: str, problems: Sequence[Any], arms: Sequence[Arm]) -> Judged:
    """All arms and the unsteered model in one batch, on common random numbers."""
    settings: dict[Hashable, list[Edit]] = {arm.name: [arm.edit] for arm in arms}
    steer = Steer(context.model(which), settings)
    judged = evaluate(
        Steered(steer),
        context.task,
        problems,
        samples=context.settings.crossed_samples,
        seed=context.settings.seed,
        settings=(None, *settings),
        batch=BATCH,
    )
    steer.check()
    return judged


def responses(
    context: Context, judged: Judged, arms: Sequence[Arm], source: str, target: str
) -> list[Measurement]:
    """Of each arm: rate of its strategy, of the others, valid answers, and right execution."""
    model = target if source == target else f"{source}'s direction in {target}"
    rows = []
    for kind in dict.fromkeys(arm.kind for arm in arms):
        plain = Arm(kind, "direction", 0.0, arms[0].edit)
        for arm in [plain, *(a for a in arms if a.kind == kind)]:
            of_it = judged.where(setting=arm.name if arm is not plain else None)
            about: dict[str, Any] = {
                "model": model,
                "setting": arm.control,
                "x": arm.x,
                "note": arm.note,
            }
            rows += of_arm(context, of_it, kind, about)
    return rows


def of_arm(context: Context, judged: Judged, kind: str, about: dict[str, Any]) -> list[Measurement]:
    """The rows of one arm."""
    seed, task = context.settings.seed, context.task
    marked = mark(task, judged.problems, judged.rollouts)
    yes = {k: next(iter(options)) for k, options in task.decision_kinds.items()}
    rows = []
    for found in shares(marked, task.decision_kinds, seed=seed):
        if found.choice == yes[found.kind]:
            own = found.kind == kind
            rows.append(
                row(
                    "option rate" if own else f"option rate of {found.kind}",
                    found.estimate,
                    kind=kind,
                    **about,
                )
            )
    for which in ("right", "valid"):
        rows.append(row(which, rate(judged.rates(which), seed=seed), kind=kind, **about))
    rows.append(row("valid steps", executed(context, judged), kind=kind, **about))
    return rows


def executed(context: Context, judged: Judged) -> Estimate:
    """Share of steps that are no calculator error, of each problem's answers."""
    by_id = {p.id: p for p in judged.problems}
    good: dict[str, int] = {}
    steps: dict[str, int] = {}
    for r in judged.rollouts:
        for step in context.task.check(by_id[r.problem], r.text).steps:
            steps[r.problem] = steps.get(r.problem, 0) + 1
            good[r.problem] = good.get(r.problem, 0) + (step.verdict != "calculator")
    if len(steps) < 2:
        return undefined("no steps were written", len(steps))
    return rate(np.array([good[p] / steps[p] for p in steps]), seed=context.settings.seed)


def cells(context: Context, kinds: Sequence[str]) -> list[Measurement]:
    """Base's and tuned's direction in base and tuned, at the strongest pushes either way."""
    given = context.settings.strengths
    rows = []
    for source, target in (("tuned", "base"), ("base", "tuned"), ("tuned", "tuned")):
        arms = [
            Arm(kind, "direction", x, push(context, source, target, kind, x))
            for kind in kinds
            for x in sorted({min(given), max(given)} - {0.0})
            if context.file(f"directions/{source}-{kind}.safetensors").is_file()
            and decided(context, target, kind)[0]
        ]
        if arms:
            judged = sweep(context, target, context.select, arms)
            rows += responses(context, judged, arms, source, target)
    return rows


def best(judged: Judged, arms: Sequence[Arm]) -> Arm | None:
    """The arm of the direction with the most valid answers on the select split.

    None where no push had more than the model without one: the least harmful is no help.
    """

    def valid(arm: Arm) -> float:
        return float(judged.rates("valid", setting=arm.name).mean())

    own = [arm for arm in arms if arm.control == "direction"]
    top = max(own, key=valid, default=None)
    plain = float(judged.rates("valid", setting=None).mean())
    return top if top and valid(top) > plain else None


def unhelped(context: Context) -> list[Measurement]:
    """Rows where no push helped: there is no share to be had, but the gap is what it is."""
    why = undefined("no push helped on the select split", len(context.select))
    base, tuned = (context.rollouts(which).rates("valid") for which in MODELS)
    gap = difference(tuned, base, seed=context.settings.seed)
    return [
        row("recovered", why, model="base", setting="direction", x=0.0),
        row("gap", gap, model="tuned - base", note="valid answers"),
    ]


def share(context: Context, beside: Sequence[Arm]) -> list[Measurement]:
    """How much of the gap in valid answers the chosen arm and its controls close, on test."""
    seed = context.settings.seed
    judged = sweep(context, "base", context.test, beside)
    save_judged(context.file("rollouts-steered-test.parquet"), judged, model="base")
    tuned = context.rollouts("tuned").rates("valid")
    plain = judged.rates("valid", setting=None)
    rows = []
    for arm in beside:
        steered = judged.rates("valid", setting=arm.name)
        about: dict[str, Any] = {
            "model": "base",
            "kind": arm.kind,
            "setting": arm.control,
            "x": arm.x,
            "note": arm.note,
        }
        rows.append(row("recovered", recovered(steered, plain, tuned, seed=seed), **about))
        rows.append(row("steered gain", difference(steered, plain, seed=seed), **about))
    rows.append(
        row("gap", difference(tuned, plain, seed=seed), model="tuned - base", note="valid answers")
    )
    return rows
