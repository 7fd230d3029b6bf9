"""What `whenhow sae score` and `show` measure: answers read once, every number as a tidy row."""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.capture import Text, capture, from_rollouts
from probes.drift.features import firing_shift, fvu_table
from probes.drift.scaling import Scaling, latent_scaling
from probes.intervals import Estimate, undefined
from probes.measurements import point, row
from probes.models import Model, check_pair
from probes.records import Measurement, Refusal
from probes.sae import Sae, dead, fvu, l0, load_sae, sums
from probes.sae.active import Active, Rows, active, rows_of, shuffles
from probes.sae.reason import reason_interval, reason_null, reason_score, windows, word_marks
from probes.sae.spans import LEVEL, Told, labels_of, told
from probes.tasks import Task, decisions, load_task
from steering.evaluate import Judged, evaluate
from steering.verdict.context import load_on

if TYPE_CHECKING:
    from steering.cli.sae import SaeScore, SaeShow

BATCH = 128
Tick = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Answers:
    """A model's answers, as texts to read and with their marks."""

    task: Task
    judged: Judged
    texts: tuple[Text, ...]

    @cached_property
    def spans(self) -> dict[tuple[str, int], list[tuple[int, str]]]:
        """Positions in which each strategy is used."""
        found = {}
        for key, start, problem, response in self._each():
            marked = self.task.spans(problem, response)
            found[key] = [(start + w, s.strategy) for s in marked for w in range(s.start, s.stop)]
        return found

    @cached_property
    def decided(self) -> dict[tuple[str, int], list[tuple[int, str]]]:
        """Last position before each decision, as "kind:choice"."""
        found = {}
        for key, start, problem, response in self._each():
            taken = decisions(self.task, problem, response)
            found[key] = [(start + d.position - 1, f"{d.kind}:{d.choice}") for d in taken]
        return found

    def reasoning(
        self, model: Model, words: Sequence[str]
    ) -> tuple[dict[tuple[str, int], list[tuple[int, int]]], int]:
        """Positions of the reasoning tokens with their groups, and how many groups there are.

        Without words: those that take a strategy where the grammar leaves it open.
        """
        if words:
            name = model.tokenizer.convert_ids_to_tokens
            texts = {(t.problem, t.sample): name(list(t.answer)) for t in self.texts}
            start = {(t.problem, t.sample): len(t.prompt) for t in self.texts}
            return word_marks(words, texts, start), len(words)
        group = {
            f"{kind}:{next(iter(options))}": i
            for i, (kind, options) in enumerate(self.task.decision_kinds.items())
        }
        marks = {
            key: [(at + 1, group[what]) for at, what in listed if what in group]
            for key, listed in self.decided.items()
        }
        return marks, len(group)

    def _each(self) -> Iterable[tuple[tuple[str, int], int, Any, str]]:
        by_id = {p.id: p for p in self.judged.problems}
        for text, r in zip(self.texts, self.judged.rollouts, strict=True):
            yield (text.problem, text.sample), len(text.prompt), by_id[r.problem], r.text


def answers(
    model: Model,
    task: Task,
    split: str,
    problems: int,
    samples: int,
    seed: int,
    tick: Callable[[int], Any],
    *,
    batch: int = BATCH,
) -> Answers:
    """Sample answers to so many problems, the task's skills in turns."""
    judged = evaluate(
        model,
        task,
        task.problems(split, problems),
        samples=samples,
        seed=seed,
        batch=batch,
        progress=tick,
    )
    return Answers(task, judged, tuple(from_rollouts(model, judged.problems, judged.rollouts)))


def read(model: Model, site: str, texts: Sequence[Text]) -> Rows:
    """What flows through a site where the answers' tokens are chosen."""
    with tempfile.TemporaryDirectory(prefix="whenhow-sae-") as folder:
        to = Path(folder) / "store"
        store = capture(model, [site], texts, to, positions="generated", batch=BATCH)
        return rows_of(store, site)


def beside(folder: Path, given: str) -> str:
    """The model of a dictionary: the one given, or whose folder it lies in.

    Raises:
        Refusal: none given, and it lies in no model's folder.
    """
    if given:
        return given
    home = folder.resolve().parent.parent
    if not (home / "config.json").is_file():
        raise Refusal(
            f"{folder} does not lie in a model's folder (MODEL/sae/SITE), so say which model its "
            f"activations are of: --model, --tuned."
        )
    return str(home)


@dataclass(frozen=True)
class Part:
    """A model with its dictionary, under the name it has in tables."""

    name: str
    model: Model
    sae: Sae


def load_part(name: str, folder: Path, given: str, asked: Any) -> Part:
    """The dictionary and its model, checked to belong together."""
    load_sae(folder)  # a damaged folder is said before its model is looked for
    model = load_on(beside(folder, given), asked.device, asked.dtype)
    return Part(name, model, load_sae(folder, model))


def task_of(part: Part, given: str) -> Task:
    """The task that was given, or the one that the dictionary was trained on."""
    if not (given or part.sae.facts.get("task")):
        raise Refusal(f"{part.sae.folder} does not say its task: give --task.")
    return load_task(given or str(part.sae.facts["task"]))


def score(asked: "SaeScore", tick: Tick) -> list[Measurement]:
    """Every number of `whenhow sae score`."""
    first = load_part("base" if asked.tuned_sae else "model", asked.sae, asked.model, asked)
    parts = [first]
    if asked.tuned_sae:
        parts.append(load_part("tuned", asked.tuned_sae, asked.tuned, asked))
    copies = [load_part(Path(beside(f, "")).name, f, "", asked) for f in asked.null]
    for other in [*parts[1:], *copies]:
        check_pair(first.model, other.model)
        if other.sae.site != first.sae.site:
            raise Refusal(f"dictionaries of {first.sae.site} and of {other.sae.site}: one site.")
    task, rows = task_of(first, asked.task), []
    count = asked.problems * asked.samples
    for part in parts:

        def told_of(more: int, title: str = f"answers, {part.name}") -> None:
            tick(title, more, count)

        given = (part.model, task, "test", asked.problems, asked.samples, asked.seed)
        found = answers(*given, told_of)
        rows += of_one(asked, part, found, read(part.model, part.sae.site, found.texts), tick)
        if parts[1:]:
            x = {p.name: read(p.model, p.sae.site, found.texts) for p in [*parts, *copies]}
            rows += compared(asked, parts, copies, x, f"{part.name}'s texts", tick)
    return rows


def of_one(asked: "SaeScore", part: Part, found: Answers, x: Rows, tick: Tick) -> list[Measurement]:
    """How good a dictionary is on its model's answers, and which latents are about reasoning."""
    about = {"model": part.name, "site": part.sae.site}
    whole = sums(part.sae, x.x, x.problems)
    rows = [row("fvu", fvu(whole, seed=asked.seed), **about)]
    rows += [row("l0", l0(whole, seed=asked.seed), **about), row("dead", dead(whole), **about)]
    a = active(part.sae, x)
    rows += reason_rows(asked, part, found, a)
    kinds = list(found.task.decision_kinds.items())
    tick("labels", 0, 2 * (len(found.task.strategies) + len(kinds)))
    for name in found.task.strategies:
        label = labels_of(a, found.spans, name)
        rows += told_rows(asked, a, label, {**about, "kind": name, "setting": "span"})
        tick("labels", 1, 0)
    for kind, options in kinds:
        of_kind = [labels_of(a, found.decided, f"{kind}:{choice}") for choice in options]
        there = np.any(of_kind, axis=0)
        where = {**about, "kind": kind, "setting": "decision"}
        rows += told_rows(asked, a.rows(there), of_kind[0][there], where)
        tick("labels", 1, 0)
    return rows


def reason_rows(asked: "SaeScore", part: Part, found: Answers, a: Active) -> list[Measurement]:
    """ReasonScore of the best latents, and what the best has where windows are shuffled."""
    about = {"model": part.name, "site": part.sae.site}
    marks, groups = found.reasoning(part.model, asked.words)
    around = windows(a, marks, groups)
    try:
        scored = reason_score(a.a, around)
    except Refusal as refusal:
        return [row("reason score", undefined(str(refusal), len(np.unique(a.problems))), **about)]
    takes = list(shuffles(a.problems, a.samples, asked.shuffles, asked.seed))
    best = reason_null(a, around, takes).max(1)
    null = Estimate(float(best.mean()), np.nan, float(np.quantile(best, 0.95)), len(best))
    note = "best latent of shuffled windows; high: 95% quantile"
    rows = [row("reason score, shuffled", null, note=note, **about)]
    tokens = fires_on(part.model, found.texts, a)
    for latent in np.argsort(-scored.score, kind="stable")[: asked.top]:
        estimate = reason_interval(a, around, int(latent), seed=asked.seed)
        rows.append(
            row("reason score", estimate, x=float(latent), note=tokens(int(latent)), **about)
        )
    return rows


def told_rows(
    asked: "SaeScore", a: Active, label: np.ndarray, about: dict[str, str]
) -> list[Measurement]:
    """Which latents tell a label, or why none can be looked for."""
    try:
        found: Told = told(a, label, top=asked.top, count=asked.shuffles, seed=asked.seed)
    except Refusal as refusal:
        return [row("feature auc", undefined(str(refusal), len(np.unique(a.problems))), **about)]
    n = found.rate.n
    note = "best latent of shuffled labels, on the other half; high: 95% quantile"
    rows = [
        row("label rate", found.rate, **about),
        point("feature discoveries", found.discoveries, n, note=f"q < {LEVEL}", **about),
        point("feature discoveries, shuffled", found.shuffled_discoveries, n, **about),
        row("feature auc, shuffled", found.best_of_shuffled, note=note, **about),
    ]
    for one in found.top:
        at = {**about, "x": float(one.latent), "note": f"q {one.q:.2g}"}
        rows.append(row("feature auc", one.auc, **at))
        rows.append(row("feature precision", one.precision, **at))
        rows.append(row("feature recall", one.recall, **at))
    return rows


def compared(
    asked: "SaeScore",
    parts: Sequence[Part],
    copies: Sequence[Part],
    x: dict[str, Rows],
    setting: str,
    tick: Tick,
) -> list[Measurement]:
    """Before and after on one model's texts, and the same of the copies."""
    base, tuned = parts
    about = {"site": base.sae.site, "setting": setting}
    saes = {p.name: p.sae for p in [*parts, *copies]}
    rows = [
        row("fvu", estimate, model=of, kind=f"{name}'s dictionary", **about)
        for (name, of), estimate in fvu_table(saes, x, seed=asked.seed).items()
    ]
    pairs = [(base, tuned), (tuned, base)]
    pairs += [pair for copy in copies for pair in ((tuned, copy), (copy, tuned), (base, copy))]
    tick("pairs", 0, 2 * len(pairs))
    for own, other in pairs:
        names = {**about, "kind": f"{own.name}'s dictionary"}
        rows += nu_rows(
            asked, latent_scaling(own.sae, x[own.name], x[other.name]), own, other, names
        )
        before, after = (base, tuned) if {own, other} == {base, tuned} else (own, other)
        rows += shift_rows(asked, own.sae, before, after, x, names)
        tick("pairs", 1, 0)
    return rows


def shift_rows(
    asked: "SaeScore",
    sae: Sae,
    before: Part,
    after: Part,
    x: dict[str, Rows],
    about: dict[str, str],
) -> list[Measurement]:
    """How often each latent fires before and after."""
    a, b = (active(sae, x[part.name]) for part in (before, after))
    moved = firing_shift(a, b, seed=asked.seed)
    change = f"{after.name} - {before.name}"
    found = sum(one.q < LEVEL for one in moved)
    n = moved[0].difference.n
    note = f"of {len(moved)} latents; q < {LEVEL}"
    rows = [point("firing discoveries", float(found), n, model=change, note=note, **about)]
    for one in moved:
        at = {**about, "x": float(one.latent), "note": f"q {one.q:.2g}"}
        rows.append(row("firing shift", one.difference, model=change, **at))
        rows.append(row("firing rate", one.before, model=before.name, **at | {"note": change}))
        rows.append(row("firing rate", one.after, model=after.name, **at | {"note": change}))
    return rows


def nu_rows(
    asked: "SaeScore", found: Scaling, own: Part, other: Part, about: dict[str, str]
) -> list[Measurement]:
    """Nu of every latent, with intervals of the lowest, and of all together."""
    model, n = f"{other.name} / {own.name}", len(found.square)
    count = f"{int(found.known.sum())} latents"
    rows = [
        row("nu median", found.median(seed=asked.seed), model=model, note=count, **about),
        row("nu below 0.5", found.share_below(seed=asked.seed), model=model, note=count, **about),
    ]
    error = found.median("error", seed=asked.seed)
    rows.append(row("nu median on the error", error, model=model, note=count, **about))
    nu = found.nu()
    known = np.flatnonzero(np.isfinite(nu))
    lowest = set(known[np.argsort(nu[known], kind="stable")][: asked.top].tolist())
    for latent in known.tolist():
        at = {**about, "model": model, "x": float(latent)}
        if latent in lowest:
            rows.append(row("nu", found.nu_interval(latent, seed=asked.seed), **at))
        else:
            rows.append(point("nu", float(nu[latent]), n, **at))
    return rows


def fires_on(model: Model, texts: Sequence[Text], a: Active, most: int = 4) -> Callable[[int], str]:
    """Of a latent, the tokens with the largest shares of its activation."""
    of = {(t.problem, t.sample): t.tokens for t in texts}
    places = zip(a.problems, a.samples, a.positions, strict=True)
    tokens = np.array([of[str(p), int(s)][int(at)] for p, s, at in places])

    def said(latent: int) -> str:
        column = a.a[:, [latent]].tocoo()
        mass = np.bincount(tokens[column.row], column.data, minlength=model.vocab)
        if not mass.sum() > 0:
            return "never"
        best = np.argsort(-mass, kind="stable")[:most]
        names = model.tokenizer.convert_ids_to_tokens(best.tolist())
        shares = [
            f"{n} {mass[i] / mass.sum():.0%}" for n, i in zip(names, best, strict=True) if mass[i]
        ]
        return ", ".join(shares)

    return said


def describe(asked: "SaeShow", tick: Tick) -> list[dict[str, Any]]:
    """A line a latent: how often it fires, on which tokens, and where it is largest."""
    part = load_part("model", asked.sae, asked.model, asked)
    task, count = task_of(part, asked.task), asked.problems * asked.samples
    if wrong := [i for i in asked.latents if not 0 <= i < part.sae.latents]:
        raise Refusal(f"latent {wrong[0]} is not one of the {part.sae.latents} of {asked.sae}.")
    given = (part.model, task, "test", asked.problems, asked.samples, asked.seed)
    found = answers(*given, lambda more: tick("answers", more, count))
    a = active(part.sae, read(part.model, part.sae.site, found.texts))
    marks, groups = found.reasoning(part.model, asked.words)
    scores = reason_score(a.a, windows(a, marks, groups)).score
    chosen = asked.latents or np.argsort(-scores, kind="stable")[: asked.top].tolist()
    tokens = fires_on(part.model, found.texts, a)
    of = {(t.problem, t.sample): t.tokens for t in found.texts}
    lines = []
    for latent in chosen:
        column = a.a[:, [latent]].toarray()[:, 0]
        top = int(column.argmax())
        text = of[str(a.problems[top]), int(a.samples[top])]
        lines.append(
            {
                "latent": int(latent),
                "ReasonScore": float(scores[latent]),
                "fires": float((column > 0).mean()),
                "largest": float(column.max()),
                "on": tokens(int(latent)),
                "where": around(part.model, text, int(a.positions[top])),
            }
        )
    return lines


def around(model: Model, tokens: Sequence[int], at: int, reach: int = 6) -> str:
    """The tokens around a position, its own in brackets."""
    names = model.tokenizer.convert_ids_to_tokens(list(tokens))
    start = max(0, at - reach)
    words = [f"[{n}]" if i == at else n for i, n in enumerate(names)][start : at + reach + 1]
    return ("... " if start else "") + " ".join(words)
