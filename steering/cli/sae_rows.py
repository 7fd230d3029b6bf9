"""What `whenhow sae score` and `show` measure: answers read once, every number as a tidy row."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.drift.features import firing_shift, fvu_table
from probes.drift.scaling import Scaling, Target, latent_scaling
from probes.intervals import Estimate, undefined
from probes.measurements import point, row
from probes.models import Model, check_pair
from probes.records import Measurement, Refusal
from probes.sae import Sae, dead, fvu, l0, sums
from probes.sae.active import Active, Rows, active, read_rows, shuffles
from probes.sae.reason import reason_interval, reason_null, reason_score, windows
from probes.sae.spans import LEVEL, Told, labels_of, told
from steering.cli.sae_reading import (
    Answers,
    Part,
    answers,
    beside,
    check_latents,
    fires_on,
    load_part,
    task_of,
)

if TYPE_CHECKING:
    from steering.cli.sae import SaeScore, SaeShow

Tick = Callable[[str, int, int], None]


def score(asked: "SaeScore", tick: Tick) -> list[Measurement]:
    """Every number of `whenhow sae score`."""
    first = load_part("base" if asked.tuned_sae else "model", asked.sae, asked.model, asked)
    parts = [first]
    if asked.tuned_sae:
        parts.append(load_part("tuned", asked.tuned_sae, asked.tuned, asked))
    copies = [load_part(Path(beside(f, "")).name, f, "", asked) for f in asked.null]
    check_nulls(parts, copies)
    for other in [*parts[1:], *copies]:
        check_pair(first.model, other.model)
        if other.sae.site != first.sae.site:
            raise Refusal(f"dictionaries of {first.sae.site} and of {other.sae.site}: one site.")
    task, rows = task_of(first, asked.task), []
    count = asked.problems * asked.samples
    for part in parts:

        def told_of(more: int, title: str = f"answers, {part.name}") -> None:
            tick(title, more, count)

        given = (part.model, task, "select", asked.problems, asked.samples, asked.seed)
        found = answers(*given, told_of)
        rows += of_one(asked, part, found, read_rows(part.model, part.sae.site, found.texts), tick)
        if parts[1:]:
            x = {p.name: read_rows(p.model, p.sae.site, found.texts) for p in [*parts, *copies]}
            rows += compared(asked, parts, copies, x, f"{part.name}'s texts", tick)
    return rows


def check_nulls(parts: Sequence[Part], copies: Sequence[Part]) -> None:
    """Refuse nulls that would say nothing: one of the models itself, or two of one name.

    Raises:
        Refusal: with the names.
    """
    names = [part.name for part in [*parts, *copies]]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise Refusal(
            f"--null: two models would be called {twice[0]!r} in tables; rename a folder."
        )
    own = {part.model.digest: part.name for part in parts}
    for copy in copies:
        if copy.model.digest in own:
            raise Refusal(
                f"--null {copy.name} is the {own[copy.model.digest]} model itself: a null is "
                f"another seed of its tuning."
            )


def of_one(asked: "SaeScore", part: Part, found: Answers, x: Rows, tick: Tick) -> list[Measurement]:
    """How good a dictionary is on its model's answers, and which latents are about reasoning."""
    about: dict[str, Any] = {"model": part.name, "site": part.sae.site}
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
        where: dict[str, Any] = {**about, "kind": kind, "setting": "decision"}
        rows += told_rows(asked, a.rows(there), of_kind[0][there], where)
        tick("labels", 1, 0)
    return rows


def reason_rows(asked: "SaeScore", part: Part, found: Answers, a: Active) -> list[Measurement]:
    """ReasonScore of the best latents, and what the best has where windows are shuffled."""
    about: dict[str, Any] = {"model": part.name, "site": part.sae.site}
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
    asked: "SaeScore", a: Active, label: np.ndarray, about: dict[str, Any]
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
        at: dict[str, Any] = {**about, "x": float(one.latent), "note": f"q {one.q:.2g}"}
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
    about: dict[str, Any] = {"site": base.sae.site, "setting": setting}
    saes = {p.name: p.sae for p in [*parts, *copies]}
    rows = [
        row("fvu", estimate, model=of, kind=f"{name}'s dictionary", **about)
        for (name, of), estimate in fvu_table(saes, x, seed=asked.seed).items()
    ]
    pairs = [(base, tuned), (tuned, base)]
    pairs += [pair for copy in copies for pair in ((tuned, copy), (copy, tuned), (base, copy))]
    tick("pairs", 0, 2 * len(pairs))
    for own, other in pairs:
        names: dict[str, Any] = {**about, "kind": f"{own.name}'s dictionary"}
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
    about: dict[str, Any],
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
        at: dict[str, Any] = {**about, "x": float(one.latent), "note": f"q {one.q:.2g}"}
        rows.append(row("firing shift", one.difference, model=change, **at))
        moved_at: dict[str, Any] = {**at, "note": change}
        rows.append(row("firing rate", one.before, model=before.name, **moved_at))
        rows.append(row("firing rate", one.after, model=after.name, **moved_at))
    return rows


TARGETS: tuple[tuple[Target, str], ...] = (("reconstruction", "nu"), ("error", "nu on error"))
"""What beta is fitted on, and how its nu is called."""


def nu_rows(
    asked: "SaeScore", found: Scaling, own: Part, other: Part, about: dict[str, Any]
) -> list[Measurement]:
    """Nu of every latent, with intervals of the lowest, and of all together.

    The lowest are chosen on one half of the problems and reported on the other: on the problems
    that chose them they would look lower than they are.
    """
    model, n = f"{other.name} / {own.name}", len(found.square)
    count, rows = f"{int(found.known.sum())} latents", []
    choosing, reporting = found.halves()
    for target, name in TARGETS:
        over: dict[str, Any] = {"model": model, "note": count, **about}
        rows.append(row(f"{name} median", found.median(target, seed=asked.seed), **over))
        below = found.share_below(target=target, seed=asked.seed)
        rows.append(row(f"{name} below 0.5", below, **over))
        nu, first = found.nu(target), choosing.nu(target)
        known = np.flatnonzero(np.isfinite(first))
        lowest = set(known[np.argsort(first[known], kind="stable")][: asked.top].tolist())
        for latent in np.flatnonzero(np.isfinite(nu)).tolist():
            at: dict[str, Any] = {**about, "model": model, "x": float(latent)}
            if latent in lowest:
                told = reporting.nu_interval(latent, target, seed=asked.seed)
                at["note"] = "chosen on the other half of the problems" if told.defined else ""
                rows.append(row(name, told, **at))
            else:
                rows.append(point(name, float(nu[latent]), n, **at))
    return rows


def describe(asked: "SaeShow", tick: Tick) -> list[dict[str, Any]]:
    """A line a latent: how often it fires, on which tokens, and where it is largest."""
    part = load_part("model", asked.sae, asked.model, asked)
    task, count = task_of(part, asked.task), asked.problems * asked.samples
    check_latents(part.sae, asked.latents)
    given = (part.model, task, "select", asked.problems, asked.samples, asked.seed)
    found = answers(*given, lambda more: tick("answers", more, count))
    a = active(part.sae, read_rows(part.model, part.sae.site, found.texts))
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
