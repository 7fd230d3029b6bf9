"""What tells a strategy apart at the last position before it is chosen, and what else would.

Each model writes answers to the select split; the residual stream is read where the next token is
a decision (the decision's own token is not visible). The problems are split in three: to fit on,
to choose layer, site and method on, and to report. Beside each AUC stand, fitted and judged on the
same problems: the last three tokens' identities, the model's own decision logit, a model with
random weights and the twin reading the same texts, the other model's direction, shuffled labels.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped

from probes.capture import Store, Text, before_decisions, capture, from_rollouts
from probes.directions import (
    METHODS,
    Direction,
    Source,
    auc_by_problem,
    auc_interval,
    choose,
    cosine,
    find,
    identities,
    save,
    thirds,
)
from probes.directions.auc import FIT, REPORT
from probes.generate import replay
from probes.intervals import Estimate, undefined
from probes.measurements import point, row
from probes.models import Model
from probes.records import Measurement, Refusal, content_hash, site_name
from probes.tasks import decisions
from steering.evaluate import Judged, save_judged
from steering.verdict.context import MODELS, Context
from steering.verdict.running import Progress
from steering.verdict.stages.rollouts import BATCH, written

PLACES = ("hook_attn_out", "hook_mlp_out", "hook_resid_post")
"""Read in every layer; what enters a block is what left the one before."""

MOST = 1500
"""Decisions of a kind that are fitted and judged; every further one costs time and adds little."""

NULLS = 20

PAIRS = 6
"""Problems with both choices that pca wants."""


@dataclass(frozen=True)
class Marks:
    """The decisions of one kind in the texts that one model wrote; all arrays row by row."""

    kind: str
    lines: Int[np.ndarray, " n"]
    """Lines of the store's index."""
    used: Shaped[np.ndarray, " n"]
    """1 where the strategy was taken."""
    problems: Shaped[np.ndarray, " n"]
    last: Int[np.ndarray, "n three"]
    """The last three tokens before the decision."""
    logit: Float[np.ndarray, " n"]
    """Log-odds of the strategy's words under the model's own next-token distribution."""


def run(context: Context, tick: Any) -> list[Measurement]:
    """AUCs, cosines, transfer; saves a direction of each kind, model and place."""
    rows: list[Measurement] = []
    kinds = list(context.task.decision_kinds)
    step = Progress(tick, 2 * (2 + len(kinds)) + 1)
    found: dict[str, dict[str, list[Direction]]] = {}
    read: dict[str, tuple[Store, dict[str, Marks]]] = {}
    shutil.rmtree(context.file("directions"), ignore_errors=True)  # of other settings
    for which in MODELS:
        judged = written(context, which, context.select, context.settings.select_samples)
        save_judged(context.file(f"rollouts-select-{which}.parquet"), judged, model=which)
        step()
        texts = from_rollouts(context.model(which), judged.problems, judged.rollouts)
        store = activations(context, context.model(which), judged, texts, f"store-{which}")
        marks = marked(context, which, texts, store)
        read[which] = store, marks
        others = {
            name: activations(context, model, judged, texts, f"store-{name}-{which}")
            for name, model in baselines(context, which)
        }
        step()
        found[which] = {}
        for kind in kinds:
            if kind in marks:
                found[which][kind] = judge(context, which, marks[kind], store, others, rows)
            else:
                rows.append(
                    row("auc", undefined("this decision never came up", 0), model=which, kind=kind)
                )
            step()
    compare(context, found, read, rows)
    step()
    return rows


def baselines(context: Context, which: str) -> list[tuple[str, Model]]:
    """Other models that read the same texts: random weights, and the twin if there is one."""
    model = context.model(which)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.settings.seed)
        net = type(model.net)(model.config).to(model.device, model.dtype)
    random = Model(net.eval().requires_grad_(False), model.tokenizer, "random weights")
    found = [("random weights", random)]
    if context.twin is not None:
        found.append(("twin", context.twin))
    return found


def activations(
    context: Context, model: Model, judged: Judged, texts: Sequence[Text], name: str
) -> Store:
    """What flows before each decision, at every place."""
    by_id = {p.id: p for p in judged.problems}
    positions = [
        before_decisions(text, decisions(context.task, by_id[r.problem], r.text))
        for text, r in zip(texts, judged.rollouts, strict=True)
    ]
    folder = context.file(name.replace(" ", "-"))
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped
    sites = [site_name(layer, place) for layer in range(model.depth) for place in PLACES]
    return capture(model, sites, texts, folder, positions=positions)


def marked(context: Context, which: str, texts: Sequence[Text], store: Store) -> dict[str, Marks]:
    """The decisions by kind, with what the baselines need of each."""
    tokens = {(t.problem, t.sample): t for t in texts}
    odds = decision_logits(context, context.model(which), texts)
    index = store.index
    labels = index.label.str.split(":", n=1, expand=True)
    found = {}
    for kind, options in context.task.decision_kinds.items():
        lines = np.flatnonzero((labels[0] == kind).to_numpy() & (labels[1] != "other").to_numpy())
        if not len(lines):
            continue
        lines = lines[whole(index.problem.to_numpy().astype(str)[lines], MOST)]
        at = index.iloc[lines]
        yes = next(iter(options))
        places = list(zip(at.problem, at["sample"], at.position, strict=True))
        found[kind] = Marks(
            kind=kind,
            lines=lines,
            used=(labels[1].to_numpy()[lines] == yes).astype(int),
            problems=at.problem.to_numpy().astype(str),
            last=np.array([last_three(tokens[p, s], i) for p, s, i in places]),
            logit=np.array([odds[p, s][kind][i] for p, s, i in places], dtype=float),
        )
    return found


def whole(problems: Shaped[np.ndarray, " n"], most: int) -> Int[np.ndarray, " kept"]:
    """Rows of whole problems, at most so many (of one problem at least); a hash says of which.

    A problem that was cut would weigh less in the AUC than its decisions do.
    """
    names, counts = np.unique(problems, return_counts=True)
    order = np.argsort([content_hash(str(name)) for name in names])
    kept = max(1, int((np.cumsum(counts[order]) <= most).sum()))
    return np.flatnonzero(np.isin(problems, names[order[:kept]]))


def last_three(text: Text, position: int) -> tuple[int, ...]:
    """The tokens up to a position, the nearest first; -1 before the beginning."""
    return tuple(text.tokens[position - i] if position >= i else -1 for i in range(3))


def decision_logits(
    context: Context, model: Model, texts: Sequence[Text]
) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    """Of each text and kind, at each position: log p(strategy's words) - log p(the others)."""
    vocabulary = model.tokenizer.get_vocab()
    ids = {
        kind: [[vocabulary[w] for w in words if w in vocabulary] for words in options.values()]
        for kind, options in context.task.decision_kinds.items()
    }
    found: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    for rows, logits, now in replay(model, [t.tokens for t in texts], batch=BATCH):
        assert logits is not None, "a replay that isn't stopped has logits"
        for kind, (yes, *others) in ids.items():
            no = [token for words in others for token in words]
            odds = logits[..., yes].logsumexp(-1) - logits[..., no].logsumexp(-1)
            for i, text in enumerate(rows):
                key = texts[text].problem, texts[text].sample
                own = odds[i, -int(now.start[i] + now.width) :]
                found.setdefault(key, {})[kind] = own.float().cpu().numpy()
    return found


def judge(
    context: Context,
    which: str,
    marks: Marks,
    store: Store,
    others: dict[str, Store],
    rows: list[Measurement],
) -> list[Direction]:
    """All directions of one kind, their AUCs and those of the baselines; the chosen are saved."""
    seed = context.settings.seed
    about: dict[str, Any] = {"model": which, "kind": marks.kind}
    x = {site: store.numpy(site, marks.lines) for site in store.sites}
    source = Source(context.model(which).digest, content_hash(context.task.settings))
    given = {"strategy": marks.kind, "source": source, "seed": seed}

    def again(chosen: Direction) -> Direction:
        # Shuffled labels are fitted where a choice fell, and there only: 20 fits each.
        there = {chosen.place: x[chosen.place]}
        methods = [chosen.method]
        return find(there, marks.used, marks.problems, nulls=NULLS, methods=methods, **given)[0]

    found, refused = fitted(x, marks, given)
    problems = len(np.unique(marks.problems))
    if not found:
        rows.append(row("auc", undefined(next(iter(refused.values())), problems), **about))
        return []
    rows += [of_direction(d, d.method, **about) for d in found]
    rows += [row("auc", undefined(why, problems), setting=m, **about) for m, why in refused.items()]
    best = again(choose(found))
    rows.append(of_direction(best, "chosen", note=f"{best.method}, {marks_of(marks)}", **about))
    note = "high: 95% quantile"
    rows.append(row("auc", shuffled(best), setting="shuffled labels", note=note, **about))
    for name, estimate in beside(marks, others, best, seed).items():
        rows.append(row("auc", estimate, setting=name, **about))
    save(best, context.file(f"directions/{which}-{marks.kind}-chosen.safetensors"))
    pushes = [d for d in found if (d.site, d.method) == ("hook_resid_post", "difference")]
    if pushes:
        push = again(choose(pushes))
        save(push, context.file(f"directions/{which}-{marks.kind}.safetensors"))
    return found


def fitted(
    x: dict[str, Float[np.ndarray, "n _"]], marks: Marks, given: dict[str, Any]
) -> tuple[list[Direction], dict[str, str]]:
    """The directions of every method, and why a method has none: the others are not its business.

    pca is asked for more than it needs: the component of two differences is one of them.
    """
    pairs = set(zip(marks.problems, marks.used, strict=True))
    first = np.unique(marks.problems[thirds(marks.problems, given["seed"]) == FIT])
    both = sum((p, 0) in pairs and (p, 1) in pairs for p in first)
    found, refused = [], {}
    for method in METHODS:
        if method == "pca" and both < PAIRS:
            refused[method] = f"{both} problems to fit on hold both choices, pca wants {PAIRS}"
            continue
        try:
            found += find(x, marks.used, marks.problems, nulls=0, methods=[method], **given)
        except Refusal as refusal:
            refused[method] = str(refusal)
    return found, refused


def shuffled(direction: Direction) -> Estimate:
    """Mean AUC of shuffled labels, and as its upper end what they reach one time in twenty."""
    if np.isnan(direction.null_mean):
        return undefined("no shuffle of the labels gave a direction", direction.problems)
    return Estimate(direction.null_mean, float("nan"), direction.null_high, direction.problems)


def marks_of(marks: Marks) -> str:
    """How many rows it rests on."""
    return f"{len(marks.used)} decisions, {int(marks.used.sum())} taken"


def of_direction(direction: Direction, setting: str, note: str = "", **about: Any) -> Measurement:
    """The row of a direction's AUC on the third that chose nothing."""
    n = direction.problems // 3
    held = (
        undefined(direction.reason, n)
        if direction.reason
        else Estimate(direction.auc, direction.auc_low, direction.auc_high, n)
    )
    layer = float(direction.layer)
    return row("auc", held, site=direction.place, setting=setting, x=layer, note=note, **about)


def beside(
    marks: Marks, others: dict[str, Store], best: Direction, seed: int
) -> dict[str, Estimate]:
    """AUCs of what is no direction of this model, on the same thirds."""
    held = thirds(marks.problems, seed) == REPORT
    found = {
        "last three tokens": auc_by_problem(
            identities(marks.last), marks.used, marks.problems, seed=seed
        ),
        "decision logit": auc_interval(
            marks.logit[held], marks.used[held], marks.problems[held], seed=seed
        ),
    }
    for name, store in others.items():
        x = store.numpy(best.place, marks.lines)
        found[name] = auc_by_problem(x, marks.used, marks.problems, method=best.method, seed=seed)
    return found


def compare(
    context: Context,
    found: dict[str, dict[str, list[Direction]]],
    read: dict[str, tuple[Store, dict[str, Marks]]],
    rows: list[Measurement],
) -> None:
    """Angles of the two models' directions, and each one's AUC on the other's activations."""
    seed = context.settings.seed
    for kind in found["base"]:
        tuned = {(d.place, d.method): d for d in found["tuned"].get(kind, [])}
        for d in found["base"][kind]:
            if (d.place, d.method) in tuned:
                value = cosine(d.vector, tuned[d.place, d.method].vector)
                about = {"model": "base x tuned", "kind": kind, "site": d.place}
                layer = float(d.layer)
                rows.append(point("cosine", value, d.problems, setting=d.method, x=layer, **about))
        for of, to in (("base", "tuned"), ("tuned", "base")):
            if not found[of].get(kind) or kind not in read[to][1]:
                continue
            best, (store, marks) = choose(found[of][kind]), (read[to][0], read[to][1][kind])
            held = thirds(marks.problems, seed) == REPORT
            scores = store.numpy(best.place, marks.lines[held]).astype(float) @ best.vector
            try:
                moved = auc_interval(scores, marks.used[held], marks.problems[held], seed=seed)
            except Refusal as refusal:
                moved = undefined(str(refusal), 0)
            rows.append(row("auc", moved, model=to, kind=kind, setting=f"{of}'s direction"))
