"""`whenhow drift`: how far tuning moved the activations, and in what."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from steering.cli.verdict import SHIPPED

if TYPE_CHECKING:
    import numpy as np

    from probes.capture import Text
    from probes.drift import Lens
    from probes.drift.rows import Marked
    from probes.models import Model
    from probes.records import Measurement
    from steering.evaluate import Judged
    from steering.verdict.context import Context

ORGANISMS = Path(SHIPPED.base).parent
NULLS = (str(ORGANISMS / "random-0"), str(ORGANISMS / "rl-0-1"))
"""Of the shipped pair: a copy rewarded at random, and another seed of the same RL."""

BATCH = 128
MOST = 4000
"""Decisions of a kind that are read; whole problems are left out beyond it."""


@dataclass(frozen=True)
class Drift:
    """Measure how tuning moved the activations: CKA, norms, directions, subspace, logit lens.

    Description, and no line of a verdict. Without flags: the base and its RL copy that ship, read
    on their recorded answers, beside a copy rewarded at random and another RL seed.
    """

    base: str = SHIPPED.base
    """Folder or name of the model before tuning."""
    tuned: str = SHIPPED.tuned
    """Folder or name of the model after tuning; the base's own for a model against itself."""
    task: str = SHIPPED.task
    """A task that ships, or the path of a TOML file of your own."""
    null: tuple[str, ...] = ()
    """Copies whose difference means nothing: other seeds of the tuning, random rewards."""
    out: Path = Path("runs/drift")
    """Folder of the numbers and figures."""
    problems: int = 20
    """Test problems of each skill and half of its entries."""
    texts: int = 6
    """Answers of each model to each of them that all models read."""
    rows: int = 8
    """Positions of each problem that CKA and the moved subspace are measured on."""
    rank: int = 5
    """Dimension of the moved subspace."""
    seed: int = 0
    """Everything random follows from it."""
    device: str = "cpu"
    """Where the models are: cpu, cuda, cuda:1, mps."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of weights and activations."""
    json: bool = False
    """Print the numbers as JSON, in place of the path of their folder."""

    resume = "the same command measures anew: it has no parts worth keeping."

    def __post_init__(self) -> None:
        """Refuse what can never work, before any work is done."""
        from probes.records import Refusal

        if self.problems < 2 or min(self.texts, self.rows, self.rank) < 1:
            raise Refusal(
                f"problems {self.problems} (at least 2: intervals resample problems), texts "
                f"{self.texts}, rows {self.rows} and rank {self.rank} (at least 1)."
            )
        names = [Path(source).name for source in self.nulls]
        for name, source in zip(names, self.nulls, strict=True):
            if name in ("", "base", "tuned") or names.count(name) > 1:
                raise Refusal(
                    f"null {source} would be called {name!r} in tables and figures, after its "
                    f"folder: each null needs a name of its own, and base and tuned are the "
                    f"pair's. Rename the folder, or give another."
                )

    @property
    def nulls(self) -> tuple[str, ...]:
        """The copies given, or those that ship with the shipped pair."""
        shipped = (self.base, self.tuned) == (SHIPPED.base, SHIPPED.tuned)
        return self.null or (NULLS if shipped else ())

    def run(self) -> str:
        """Measure, draw, show; the path of the folder, or the JSON."""
        from dataclasses import asdict

        from probes.plots.drift import DRIFT
        from steering.cli.progress import bar, console
        from steering.cli.results import write_results

        with bar("steps", 2 * STEPS) as advance:
            rows = measure(self, lambda: advance(1))
        about = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()}
        about["null"] = self.nulls
        figures = {f"drift-{name}": draw for name, draw in DRIFT.items()}
        text = write_results(self.out, "drift", rows, about, figures)
        for table in shown(rows):
            console().print(table)
        return text if self.json else str(self.out)


STEPS = 6
"""Of each model's texts: answers, reading, and four measures."""


def measure(asked: Drift, tick: Callable[[], Any]) -> "list[Measurement]":
    """Every number, on the texts of base and tuned apart."""
    from probes.models import Model, check_pair
    from steering.verdict.context import MODELS, Context
    from steering.verdict.settings import VerdictSettings

    settings = VerdictSettings(
        asked.base,
        asked.tuned,
        asked.task,
        asked.out,
        seed=asked.seed,
        device=asked.device,
        dtype=asked.dtype,
    )
    context = Context(settings)
    models: dict[str, Model] = dict(zip(MODELS, context.pair, strict=True))
    for source in asked.nulls:
        copy = context.load(source)
        check_pair(models["base"], copy)
        models[Path(source).name] = copy
    rows = []
    for which in MODELS:
        judged = answered(asked, context, which)
        tick()
        rows += on_texts(asked, context, models, judged, f"{which}'s texts", tick)
    return rows


def answered(asked: Drift, context: "Context", which: str) -> "Judged":
    """Some answers of a model to some test problems: recorded ones where they fit, else sampled."""
    from steering.evaluate import Judged, evaluate, load_judged
    from steering.verdict.stages import rollouts

    problems = context.problems("test", asked.problems)
    ids, record = {p.id for p in problems}, rollouts.recorded(context, which)
    few = context.settings.samples < asked.texts
    if record is None or few or not ids <= {p.id for p in context.test}:
        return evaluate(
            context.model(which),
            context.task,
            problems,
            samples=asked.texts,
            seed=asked.seed,
            first_sample=context.first_sample(which),
            batch=rollouts.BATCH,
        )
    judged, first = load_judged(record)[0], context.first_sample(which)
    pairs = [
        (r, g)
        for r, g in zip(judged.rollouts, judged.graded, strict=True)
        if r.problem in ids and r.sample - first < asked.texts
    ]
    kept, graded = zip(*pairs, strict=True)
    return Judged(tuple(problems), kept, graded)


def on_texts(
    asked: Drift,
    context: "Context",
    models: "dict[str, Model]",
    judged: "Judged",
    setting: str,
    tick: Callable[[], Any],
) -> "list[Measurement]":
    """All measures, every model reading the same texts."""
    from probes.capture import from_rollouts
    from probes.drift import drift, lens, read, spread
    from probes.drift import rows as tidy
    from probes.records import site_name

    base, seed = models["base"], asked.seed
    texts = from_rollouts(base, judged.problems, judged.rollouts)
    sites = [site_name(layer, "hook_resid_post") for layer in range(base.depth)]
    spots = spread(texts, rows=asked.rows, seed=seed)
    x = {name: read(model, spots, sites, batch=BATCH) for name, model in models.items()}
    marked, at = decided(context, judged, texts)
    z = {name: read(model, at, sites, batch=BATCH) for name, model in models.items()} if at else {}
    tick()
    rows = []
    for name, model in list(models.items())[1:]:
        moved = drift(base, model, texts, sites=sites, batch=BATCH, seed=seed)
        rows += tidy.shift_rows(moved, ("base", name), setting)
    tick()
    copies = list(models)[2:]
    pairs = [("base", "tuned"), *((m, c) for c in copies for m in ("base", "tuned"))]
    rows += tidy.similarity_rows(x, spots, pairs, setting, seed=seed)
    tick()
    vectors = {}
    if z:
        see = lens(base)
        pair = {name: z[name] for name in ("base", "tuned")}
        rows += tidy.transfer_rows(pair, marked, setting, seed=seed)
        rows += tidy.lens_rows(see, z, marked, setting, seed=seed)
        vectors = tidy.directions_of(z["base"], marked)
        for site, found in readouts(context, see, z["base"], marked).items():
            vectors[site] |= found
    tick()
    rows += tidy.subspace_rows(x, asked.rank, vectors, setting, seed=seed)
    tick()
    return rows


def decided(
    context: "Context", judged: "Judged", texts: "Sequence[Text]"
) -> "tuple[list[Marked], Any]":
    """The decisions of each kind, and the spots of all of them; None where there is none."""
    import numpy as np

    from probes.capture import before_decisions
    from probes.drift import marks
    from probes.drift.rows import Marked
    from probes.tasks import decisions
    from steering.verdict.stages.directions import whole

    by_id = {p.id: p for p in judged.problems}
    found = [
        sorted(before_decisions(text, decisions(context.task, by_id[text.problem], r.text)))
        for text, r in zip(texts, judged.rollouts, strict=True)
    ]
    if not any(found):
        return [], None
    spots = marks(texts, [[mark.position for mark in of_text] for of_text in found])
    labels = np.array([mark.label.split(":", 1) for of_text in found for mark in of_text])
    marked = []
    for kind, options in context.task.decision_kinds.items():
        lines = np.flatnonzero((labels[:, 0] == kind) & (labels[:, 1] != "other"))
        lines = lines[whole(spots.problems[lines], MOST)] if len(lines) else lines
        used = (labels[lines, 1] == next(iter(options))).astype(int)
        if len(lines):
            marked.append(Marked(kind, lines, used, spots.problems[lines]))
    return marked, spots


def readouts(
    context: "Context", see: "Lens", z: "dict[str, np.ndarray]", marked: "Sequence[Marked]"
) -> "dict[str, dict[str, np.ndarray]]":
    """Of each site and kind, the direction that raises the strategy's words against the others."""
    from probes.drift import readout

    known = see.model.tokenizer.get_vocab()
    found: dict[str, dict[str, Any]] = {site: {} for site in z}
    for one in marked:
        (_, taken), *others = context.task.decision_kinds[one.kind].items()
        yes = [known[w] for w in taken if w in known]
        no = [known[w] for _, words in others for w in words if w in known]
        for site, x in z.items():
            found[site][f"readout {one.kind}"] = readout(see, x[one.lines], yes, no)
    return found


def shown(rows: "list[Measurement]") -> "list[Any]":
    """A table for each model's texts: every number, by layer, with its nulls below it."""
    from rich.table import Table

    from probes.records import unique

    tables = []
    for setting in unique(r.setting for r in rows):
        of_it = [r for r in rows if r.setting == setting and r.measure not in UNSHOWN]
        layers = sorted(unique(r.site for r in of_it), key=lambda s: int(s.split(".")[1]))
        table = Table(title=f"on {setting}: description, no evidence for or against a skill")
        for name in ("measure", "of", "against", *(f"layer {s.split('.')[1]}" for s in layers)):
            table.add_column(name)
        measure = ""
        for key in unique((r.measure, r.model, r.kind) for r in of_it):
            if key[0] != measure:
                table.add_section()
            cells = {r.site: said(r) for r in of_it if (r.measure, r.model, r.kind) == key}
            label = key[0] if key[0] != measure else ""
            table.add_row(label, *key[1:], *(cells.get(site, "") for site in layers))
            measure = key[0]
        tables.append(table)
        tables.append(lens_table(rows, setting))
    return tables


UNSHOWN = ("lens", "moved angle")
"""What the table of numbers leaves to another table or to its figure."""


def lens_table(rows: "list[Measurement]", setting: str) -> Any:
    """The words that the change promotes and demotes at each decision, layer by layer."""
    from rich.table import Table

    from probes.records import unique

    of_it = [
        r for r in rows if (r.setting, r.measure) == (setting, "lens") and not math.isnan(r.value)
    ]
    table = Table(title=f"on {setting}: what the change at a decision says by logit lens")
    for name in ("decision", "layer", "of", "rise of the logit above the mean logit"):
        table.add_column(name)
    for kind, site, model in unique((r.kind, r.site, r.model) for r in of_it):
        words = [r for r in of_it if (r.kind, r.site, r.model) == (kind, site, model)]
        listed = ", ".join(f"{r.note} {r.value:+.1f}" for r in words)
        table.add_row(kind, site.split(".")[1], model, listed)
    return table


def said(row: "Measurement") -> str:
    """A number with its interval, or why there is none."""
    if math.isnan(row.value):
        reason = row.note if len(row.note) <= 40 else f"{row.note[:40]}..."
        return f"undefined ({reason})"
    if math.isnan(row.low):
        high = "" if math.isnan(row.high) else f" (95%: {row.high:.3f})"
        return f"{row.value:.3f}{high}"
    return f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"
