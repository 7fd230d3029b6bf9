"""A taxonomy and vectors from nothing but a pair and a task: what the command and the verdict do.

    found = made(base, tuned, task, Training(lr=0.05, allow_few=True))
    found.taxonomy, found.vectors, found.rows

Fitted to the models' answers to problems of the tune split, chosen on the select split, and
reported on the test split.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from probes.capture import Text, from_rollouts
from probes.models import Model, check_pair, layer_index
from probes.records import Measurement, Span, content_hash, parse_site, site_name
from probes.tasks import Task
from probes.tasks.cells import cells_of, problems_of
from probes.taxonomy import (
    OPENING,
    Candidate,
    Steps,
    Taxonomy,
    aligned,
    choose,
    confusion,
    explore,
    openings,
    read_steps,
    report,
)
from steering.evaluate import evaluate
from steering.vectors.current import CurrentSettings, fit_current
from steering.vectors.files import nearest
from steering.vectors.first import FirstSettings, bias_everywhere, fit_everywhere, fit_first
from steering.vectors.judging import ONE_VECTOR, SHUFFLED, judge, with_losses
from steering.vectors.places import Places, find_places
from steering.vectors.record import Vectors
from steering.vectors.targets import Stretches, stretches

SPLITS = ("tune", "select", "test")
EVERYWHERE = "everywhere"
BATCH = 128

Advance = Callable[[str, int, int], Any]
"""Called with a title, how much more of it is done, and of how much."""


@dataclass(frozen=True)
class Training:
    """What is asked of a training; `whenhow vectors train` has the words for each."""

    form: Literal["current", "first"] = "current"
    sizes: tuple[int, ...] = (5, 10, 15, 20, 30, 50)
    site: str = ""
    problems: int = 80
    held: int = 30
    samples: int = 1
    loss: Literal["kl", "ce"] = "kl"
    lr: float = 1e-2
    epochs: int = 0
    starts: int = 3
    network: bool = False
    least: int = 20
    allow_few: bool = False
    no_controls: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Made:
    """What a training leaves behind."""

    taxonomy: Taxonomy
    vectors: Vectors
    shared: Vectors | None
    """One vector for all places, trained alike; a control of what categories are worth."""
    everywhere: Vectors | None
    """One vector trained at every token; a control of what choosing the places is worth."""
    nearest: list[list[str]]
    rows: list[Measurement]


@dataclass(frozen=True)
class Answers:
    """Texts of one model to the problems of one split, with their steps."""

    texts: list[Text]
    spans: list[list[Span]]
    openings: list[list[Span]]
    """The same steps named after the word that they open with."""

    def __add__(self, more: "Answers") -> "Answers":
        """Both; told apart by the sample index."""
        return Answers(
            self.texts + more.texts, self.spans + more.spans, self.openings + more.openings
        )


def made(
    base: Model,
    tuned: Model,
    task: Task,
    asked: Training,
    advance: Advance = lambda *_: None,
    *,
    taxonomy: Taxonomy | None = None,
    command: str = "",
) -> Made:
    """Answers, taxonomy, vectors and controls, and what they are worth on test problems.

    Args:
        base: is steered.
        tuned: says towards what.
        task: made the problems.
        asked: see there.
        advance: told how far it is.
        taxonomy: of the tuned model, where there is one.
        command: that was typed; kept with the vectors.

    Raises:
        Refusal: no pair, a pair that never disagrees, steps of one kind only, categories with too
            few places.
    """
    check_pair(base, tuned)
    site = steered_site(base, asked.site)
    readers = {"tuned": tuned} if taxonomy else {"tuned": tuned, "base": base}
    answers = sampled(asked, task, readers, advance)
    rows: list[Measurement] = []
    if taxonomy is None:
        taxonomy, rows = categories(asked, task, tuned, answers, advance)
    vectors, controls, judged = train(asked, base, tuned, taxonomy, site, answers, advance)
    vectors = replace(vectors, command=command)
    shared, everywhere = (
        one and replace(one, command=command) for one in map(controls.get, (ONE_VECTOR, EVERYWHERE))
    )
    return Made(taxonomy, vectors, shared, everywhere, nearest(base, vectors), rows + judged)


def steered_site(base: Model, site: str) -> str:
    """The site that was asked for, or the default one."""
    if not site:
        return site_name(default_layer(base), "hook_resid_post")
    layer, kind = parse_site(site)
    return site_name(layer_index(layer, base.depth), kind)


def sampled(
    asked: Training, task: Task, models: dict[str, Model], advance: Advance
) -> dict[tuple[str, str], Answers]:
    """Answers of each model to the problems of each split, at temperature 1."""
    found, cells = {}, cells_of(task)
    counts = {"tune": asked.problems, "select": asked.held, "test": asked.held}
    problems = {split: problems_of(task, cells, split, n) for split, n in counts.items()}
    total = sum(map(len, problems.values())) * asked.samples * len(models)
    for nth, (which, model) in enumerate(models.items()):
        for split, of_it in problems.items():
            first = 10_000 * nth  # texts are told apart by problem and sample
            judged = evaluate(
                model,
                task,
                of_it,
                samples=asked.samples,
                seed=asked.seed,
                first_sample=first,
                batch=BATCH,
                progress=lambda more: advance("answers", more, total),
            )
            by_id = {p.id: p for p in of_it}
            texts = from_rollouts(model, judged.problems, judged.rollouts)
            pairs = list(zip(texts, judged.rollouts, strict=True))
            # A special token in the middle of an answer is no word: its steps can't be placed.
            spans = [
                task.spans(by_id[r.problem], r.text) if aligned(model, t, len(t.answer) - 1) else []
                for t, r in pairs
            ]
            opened = [openings(s, r.text) for s, (_, r) in zip(spans, pairs, strict=True)]
            found[which, split] = Answers(texts, spans, opened)
    return found


def categories(
    asked: Training,
    task: Task,
    tuned: Model,
    answers: dict[tuple[str, str], Answers],
    advance: Advance,
) -> tuple[Taxonomy, list[Measurement]]:
    """A taxonomy of the tuned model, and the rows that chose it and that tell what it is worth.

    It reads the base's texts too: a tuned model may use one kind of step alone, and whoever routes
    reads it on texts that both have written.
    """
    sites = [site_name(layer, "hook_resid_post") for layer in range(tuned.depth)]
    both = {split: answers["tuned", split] + answers["base", split] for split in SPLITS}
    steps: dict[str, Steps] = {
        split: read_steps(tuned, of_it.texts, of_it.spans, sites, batch=BATCH)
        for split, of_it in both.items()
    }
    total = len(sites) * len(asked.sizes)
    candidates: list[Candidate] = explore(
        steps["tune"],
        steps["select"],
        sites,
        asked.sizes,
        task=content_hash(task.settings),
        seed=asked.seed,
        progress=lambda more: advance("taxonomies", more, total),
    )
    best = choose(candidates)
    rows = [r for c in candidates for r in c.rows]
    told = partial(report, best.taxonomy, steps["tune"], part="test", seed=asked.seed)
    rows += told(steps["test"])
    opened = [span.strategy for listed in both["test"].openings for span in listed]
    rows += told(steps["test"].relabelled(opened), kinds=OPENING)
    rows += confusion(best.taxonomy, steps["test"], "test")
    return best.taxonomy, rows


def train(
    asked: Training,
    base: Model,
    tuned: Model,
    taxonomy: Taxonomy,
    site: str,
    answers: dict[tuple[str, str], Answers],
    advance: Advance,
) -> tuple[Vectors, dict[str, Vectors], list[Measurement]]:
    """The vectors and their controls; all but the one for every token judged at test places."""
    texts = {split: answers["tuned", split].texts for split in SPLITS}
    total = 2 * sum(map(len, texts.values()))
    places: dict[str, Places] = {
        split: find_places(
            base,
            tuned,
            of_it,
            taxonomy,
            site,
            batch=BATCH,
            progress=lambda more: advance("places", more, total),
        )
        for split, of_it in texts.items()
    }
    controls, everywhere = {}, None
    if asked.form == "first":
        vectors, everywhere = first_form(asked, base, tuned, taxonomy, site, answers, advance)
    else:
        vectors, controls = current_form(asked, base, tuned, taxonomy, places, advance)
        if not asked.no_controls:
            everywhere = unconditional(asked, base, tuned, taxonomy, site, answers, advance)
    loss = asked.loss if asked.form == "current" else "kl"
    rows = judge(base, vectors, places["test"], loss=loss, controls=controls, seed=asked.seed)
    if everywhere and not asked.no_controls:
        controls[EVERYWHERE] = everywhere
    return with_losses(vectors, rows), controls, rows


def current_form(
    asked: Training,
    base: Model,
    tuned: Model,
    taxonomy: Taxonomy,
    places: dict[str, Places],
    advance: Advance,
) -> tuple[Vectors, dict[str, Vectors]]:
    """The vectors and, fitted in the same way to as many places, their controls."""
    blank = CurrentSettings()
    settings = replace(
        blank,
        loss=asked.loss,
        epochs=asked.epochs or blank.epochs,
        lr=asked.lr,
        seeds=asked.starts,
        seed=asked.seed,
        network=asked.network,
        least=asked.least,
        allow_few=asked.allow_few,
    )

    def fitted(title: str, tune: Places, select: Places, names: tuple[str, ...]) -> Vectors:
        told = partial(_tell, advance, title, settings.seeds * settings.epochs)
        return fit_current(
            base, tuned, tune, select, names, settings, taxonomy=taxonomy.data, progress=told
        )

    vectors = fitted("vectors", places["tune"], places["select"], taxonomy.names)
    if asked.no_controls:
        return vectors, {}
    tune, select = places["tune"], places["select"]
    mixed = tune.shuffled(asked.seed), select.shuffled(asked.seed + 1)
    pooled = tune.pooled(), select.pooled()
    return vectors, {
        SHUFFLED: fitted(SHUFFLED, mixed[0], mixed[1], taxonomy.names),
        ONE_VECTOR: fitted(ONE_VECTOR, pooled[0], pooled[1], ("all",)),
    }


def first_form(
    asked: Training,
    base: Model,
    tuned: Model,
    taxonomy: Taxonomy,
    site: str,
    answers: dict[tuple[str, str], Answers],
    advance: Advance,
) -> tuple[Vectors, Vectors]:
    """A bias on whole texts and the categories' vectors on top; and the bias by itself."""
    settings = first_settings(asked)
    tune, select = stretched(tuned, taxonomy, answers)
    told = partial(_tell, advance, "vectors", 2 * settings.epochs)
    vectors = fit_first(base, tuned, taxonomy, site, tune, select, settings, progress=told)
    return vectors, bias_everywhere(vectors, tune)


def unconditional(
    asked: Training,
    base: Model,
    tuned: Model,
    taxonomy: Taxonomy,
    site: str,
    answers: dict[tuple[str, str], Answers],
    advance: Advance,
) -> Vectors:
    """One vector for every token, beside vectors that have no bias."""
    settings = first_settings(asked)
    tune, select = stretched(tuned, taxonomy, answers)
    told = partial(_tell, advance, EVERYWHERE, settings.epochs)
    return fit_everywhere(base, tuned, site, tune, select, settings, progress=told)


def first_settings(asked: Training) -> FirstSettings:
    """How the first form, and the vector of every token, are trained."""
    blank = FirstSettings()
    return replace(
        blank,
        epochs=(asked.epochs if asked.form == "first" else 0) or blank.epochs,
        lr=asked.lr,
        seed=asked.seed,
        least=asked.least,
        allow_few=asked.allow_few,
    )


def stretched(
    tuned: Model, taxonomy: Taxonomy, answers: dict[tuple[str, str], Answers]
) -> tuple[Stretches, Stretches]:
    """What the first form is fitted to, and what stops it."""
    tune, select = (
        stretches(tuned, of_it.texts, of_it.spans, taxonomy, batch=BATCH)
        for of_it in (answers["tuned", split] for split in ("tune", "select"))
    )
    return tune, select


def _tell(advance: Advance, title: str, total: int, more: int) -> None:
    advance(title, more, total)


def default_layer(model: Model) -> int:
    """The layer at the depth at which the authors steer: outputs of 12/32, 18/48, 24/64, 10/28."""
    return max(0, round(0.395 * model.depth) - 1)
