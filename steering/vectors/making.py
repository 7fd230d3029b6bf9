"""What `whenhow vectors train` does between its flags and its files."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from probes.capture import Text
    from probes.models import Model
    from probes.records import Measurement, Span
    from probes.tasks import Task
    from probes.taxonomy import Candidate, Steps, Taxonomy
    from steering.cli.vectors import VectorsTrain
    from steering.vectors import Places, Vectors

SPLITS = ("tune", "select", "test")
BATCH = 128

Advance = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Made:
    """What a training leaves behind."""

    taxonomy: "Taxonomy"
    vectors: "Vectors"
    nearest: list[list[str]]
    rows: "list[Measurement]"


@dataclass(frozen=True)
class Answers:
    """Texts of one model to the problems of one split, with their steps."""

    texts: "list[Text]"
    spans: "list[list[Span]]"
    openings: "list[list[Span]]"
    """The same steps named after the word that they open with."""

    def __add__(self, more: "Answers") -> "Answers":
        """Both; told apart by the sample index."""
        return Answers(
            self.texts + more.texts, self.spans + more.spans, self.openings + more.openings
        )


def make(asked: "VectorsTrain") -> Made:
    """Answers, taxonomy, vectors and controls, and what they are worth on test problems."""
    from probes.models import check_pair
    from probes.tasks import load_task
    from probes.taxonomy import load_taxonomy
    from steering.cli.progress import bars
    from steering.vectors import nearest
    from steering.verdict.context import load_on

    base = load_on(asked.base, asked.device, asked.dtype)
    tuned = load_on(asked.tuned, asked.device, asked.dtype)
    check_pair(base, tuned)
    task = load_task(asked.task)
    given = None if asked.taxonomy is None else load_taxonomy(asked.taxonomy, tuned)
    site = steered_site(base, asked.site)
    with bars() as advance:
        readers = {"tuned": tuned} if given else {"tuned": tuned, "base": base}
        answers = sampled(asked, task, readers, advance)
        taxonomy, rows = given, []
        if taxonomy is None:
            taxonomy, rows = categories(asked, task, tuned, answers, advance)
        vectors, judged = train(asked, base, tuned, taxonomy, site, answers, advance)
    vectors = replace(vectors, command=asked.command)
    return Made(taxonomy, vectors, nearest(base, vectors), rows + judged)


def steered_site(base: "Model", site: str) -> str:
    """The site that was asked for, or the default one."""
    from probes.models import layer_index
    from probes.records import parse_site, site_name
    from steering.vectors import default_layer

    if not site:
        return site_name(default_layer(base), "hook_resid_post")
    layer, kind = parse_site(site)
    return site_name(layer_index(layer, base.depth), kind)


def sampled(
    asked: "VectorsTrain", task: "Task", models: "dict[str, Model]", advance: Advance
) -> dict[tuple[str, str], Answers]:
    """Answers of each model to the problems of each split, at temperature 1."""
    from probes.capture import from_rollouts
    from probes.taxonomy import aligned, openings
    from steering.evaluate import evaluate
    from steering.verdict.context import cells_of, problems_of

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
    asked: "VectorsTrain",
    task: "Task",
    tuned: "Model",
    answers: dict[tuple[str, str], Answers],
    advance: Advance,
) -> "tuple[Taxonomy, list[Measurement]]":
    """A taxonomy of the tuned model, and the rows that chose it and that tell what it is worth.

    It reads the base's texts too: a tuned model may use one kind of step alone, and whoever routes
    reads it on texts that both have written.
    """
    from probes.records import content_hash, site_name
    from probes.taxonomy import OPENING, choose, confusion, explore, read_steps, report

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
    asked: "VectorsTrain",
    base: "Model",
    tuned: "Model",
    taxonomy: "Taxonomy",
    site: str,
    answers: dict[tuple[str, str], Answers],
    advance: Advance,
) -> "tuple[Vectors, list[Measurement]]":
    """The vectors, their controls, and both judged at places of test problems."""
    from steering.vectors import find_places, judge, with_losses

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
    if asked.form == "first":
        vectors, controls = first_form(asked, base, tuned, taxonomy, site, answers, advance), {}
    else:
        vectors, controls = current_form(asked, base, tuned, taxonomy, places, advance)
    loss = asked.loss if asked.form == "current" else "kl"
    rows = judge(base, vectors, places["test"], loss=loss, controls=controls, seed=asked.seed)
    return with_losses(vectors, rows), rows


def current_form(
    asked: "VectorsTrain",
    base: "Model",
    tuned: "Model",
    taxonomy: "Taxonomy",
    places: "dict[str, Places]",
    advance: Advance,
) -> "tuple[Vectors, dict[str, Vectors]]":
    """The vectors and, fitted in the same way to as many places, their controls."""
    from steering.vectors import ONE_VECTOR, SHUFFLED, CurrentSettings, fit_current

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

    def fitted(title: str, tune: "Places", select: "Places", names: tuple[str, ...]) -> "Vectors":
        told = partial(_tell, advance, title, settings.seeds * settings.epochs)
        return fit_current(
            base, tuned, tune, select, names, settings, taxonomy=taxonomy.data, progress=told
        )

    vectors = fitted("vectors", places["tune"], places["select"], taxonomy.names)
    if asked.no_controls:
        return vectors, {}
    mixed = [places[s].shuffled(asked.seed + i) for i, s in enumerate(("tune", "select"))]
    pooled = [places[s].pooled() for s in ("tune", "select")]
    return vectors, {
        SHUFFLED: fitted(SHUFFLED, *mixed, taxonomy.names),
        ONE_VECTOR: fitted(ONE_VECTOR, *pooled, ("all",)),
    }


def first_form(
    asked: "VectorsTrain",
    base: "Model",
    tuned: "Model",
    taxonomy: "Taxonomy",
    site: str,
    answers: dict[tuple[str, str], Answers],
    advance: Advance,
) -> "Vectors":
    """A bias on whole texts, and the categories' vectors on top."""
    from steering.vectors import FirstSettings, fit_first, stretches

    blank = FirstSettings()
    settings = replace(
        blank,
        epochs=asked.epochs or blank.epochs,
        lr=asked.lr,
        seed=asked.seed,
        least=asked.least,
        allow_few=asked.allow_few,
    )
    tune, select = (
        stretches(tuned, of_it.texts, of_it.spans, taxonomy, batch=BATCH)
        for of_it in (answers["tuned", split] for split in ("tune", "select"))
    )
    told = partial(_tell, advance, "vectors", 2 * settings.epochs)
    return fit_first(base, tuned, taxonomy, site, tune, select, settings, progress=told)


def _tell(advance: Advance, title: str, total: int, more: int) -> None:
    advance(title, more, total)
