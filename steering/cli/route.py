"""`whenhow route`: decode with base and tuned model together, and see what recovers the gap."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from steering.cli.verdict import SHIPPED
from steering.verdict.settings import BESIDE

if TYPE_CHECKING:
    from probes.records import Measurement
    from steering.routing.arms import Parts
    from steering.routing.running import Done
    from steering.verdict.context import Context


@dataclass(frozen=True)
class Route:
    """Steer the base where and as the tuned model says, beside everything it is compared with.

    Each token is the base's, the base's under a category's vector, or the tuned model's: who chose
    it is recorded. The share of the gap that each arm recovers is signed, and undefined where the
    gap may be 0. Without flags: of the base and its RL copy that ship.
    """

    base: str = SHIPPED.base
    """Folder or name of the model that is steered."""
    tuned: str = SHIPPED.tuned
    """Folder or name of the model that says where and in what."""
    vectors: Path | None = None
    """Trained vectors of the base; those beside the tuned model if absent."""
    taxonomy: Path | None = None
    """Taxonomy of the tuned model's steps; the one beside it if absent."""
    task: str = SHIPPED.task
    """A task that ships, or the path of a TOML file of your own."""
    out: Path = Path("runs/route")
    """Folder of the answers, numbers and figures; arms that are there are not decoded again."""
    problems: int = 30
    """Test problems of each skill and half of its entries."""
    samples: int = 1
    """Answers of each arm to each of them; more than one needs a temperature."""
    temperature: float = 0.0
    """0 is greedy, as in the papers."""
    coefficients: tuple[float, ...] = (1.0,)
    """Of a push; of several, the tuned model chooses by the likelihood of the token they give."""
    windows: tuple[int, ...] = (-1,)
    """Positions that are pushed: -1 the newest, -15 the last 15, 0 all. Others than -1 are decoded
    without a cache, as an arm beside."""
    guardrail: int = 4
    """The base's likeliest tokens among which the tuned model chooses, in the arm of this name."""
    prompt: str = ""
    """Words before the question that ask for reasoning, where the task has such."""
    shared: Path | None = None
    """One vector trained on all places alike; the one beside the vectors if absent, and where
    there is none the mean of the categories'."""
    everywhere: Path | None = None
    """One vector trained at every token; the one beside the vectors if absent, and where there is
    none the shared one."""
    absent: Path | None = None
    """Vectors trained towards a copy that lacks the skill: they should recover nothing."""
    gate: Literal["", "base", "tuned"] = "base"
    """Whose residual a linear probe reads in place of the disagreement gate; "" for no such arm."""
    thresholds: tuple[float, ...] = (0.1, 0.5, 1.0)
    """KL(tuned || base), in nats, above which the tuned model writes, where decisions are not
    known, or the base is steered; none given: no such arms."""
    entropies: tuple[float, ...] = ()
    """Entropy of the base's next token, in nats, above which the tuned model writes, or the base is
    steered."""
    beside: tuple[Path, ...] = ()
    """Folders of earlier runs on other pairs, drawn beside this one."""
    trace: int = 4
    """Problems on the page of traces; 0 for no page."""
    batch: int = 64
    """Rows decoded together."""
    seed: int = 0
    """Everything random follows from it."""
    device: str = "cpu"
    """Where the models are: cpu, cuda, cuda:1, mps."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of weights and activations."""
    json: bool = False
    """Print the numbers as JSON, in place of the path of their folder."""

    resume = "the same command goes on with the first arm that was not finished."

    def __post_init__(self) -> None:
        """Refuse what can never work, before any work is done."""
        from probes.records import Refusal

        if self.problems < 2 or min(self.samples, self.guardrail, self.batch) < 1 or self.trace < 0:
            raise Refusal(
                f"problems {self.problems} (at least 2: intervals resample problems), samples "
                f"{self.samples}, guardrail {self.guardrail} and batch {self.batch} (at least 1), "
                f"trace {self.trace} (at least 0)."
            )
        if not self.coefficients:
            raise Refusal("coefficients: at least one is needed.")
        for name in ("coefficients", "thresholds", "entropies"):
            if not all(map(math.isfinite, getattr(self, name))):
                raise Refusal(f"{name} {getattr(self, name)}: only finite ones.")
        if not self.windows or max(self.windows) > 0:
            raise Refusal(f"windows {self.windows}: -w is the last w positions, 0 all of them.")

    @property
    def pair(self) -> str:
        """Name of the pair in tables and figures."""
        return Path(self.tuned).name or self.tuned

    def run(self) -> str:
        """Decode, measure, draw, show; the path of the folder, or the JSON."""
        from dataclasses import asdict

        from probes.plots.routing import ROUTING
        from steering.cli.progress import console
        from steering.cli.results import write_results

        others = [row for folder in self.beside for row in earlier(folder, self.pair)]
        rows = measure(self) + others
        about: dict[str, Any] = {k: said_of(v) for k, v in asdict(self).items()}
        figures = {f"route-{name}": draw for name, draw in ROUTING.items()}
        text = write_results(self.out, "route", rows, about, figures)
        for table in shown(rows):
            console().print(table)
        return text if self.json else str(self.out)


def said_of(value: Any) -> Any:
    """A setting as JSON has it."""
    if isinstance(value, Path):
        return str(value)
    return [said_of(v) for v in value] if isinstance(value, tuple) else value


def measure(asked: Route) -> "list[Measurement]":
    """Every number: of the arms, and of the KL in place of known decisions."""
    from probes.generate import Decoding
    from steering.cli.progress import bars
    from steering.routing.recovery import recovery
    from steering.routing.running import run_arms
    from steering.verdict.context import Context
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
    base, tuned = context.pair
    parts, problems = made(asked, context), context.problems("test", asked.problems)
    with bars() as advance:
        done = run_arms(
            base,
            tuned,
            context.task,
            problems,
            parts,
            folder=asked.out / "arms",
            samples=asked.samples,
            decoding=Decoding(asked.temperature),
            batch=asked.batch,
            progress=advance,
        )
    page(asked, context, done)
    rows = recovery(done, pair=asked.pair, seed=asked.seed)
    return rows + known(asked, context, done)


def made(asked: Route, context: "Context") -> "Parts":
    """What the arms are made of, loaded and checked against the pair and each other.

    Raises:
        Refusal: a file that is missing, or of other models, a category without a vector.
    """
    from probes.taxonomy import load_taxonomy
    from steering.routing.arms import Parts
    from steering.routing.hybrid import check_vectors
    from steering.routing.routers import lines_of
    from steering.vectors import load_vectors

    base, tuned = context.pair
    beside = Path(asked.tuned)
    taxonomy = load_taxonomy(asked.taxonomy or beside / BESIDE["taxonomy"], tuned)
    vectors = load_vectors(asked.vectors or beside / BESIDE["vectors"], base)
    check_vectors(vectors, base, tuned)
    lines_of(taxonomy, vectors)
    folder = asked.vectors.parent if asked.vectors else beside

    def one(given: Path | None, name: str) -> Any:
        file = given or folder / BESIDE[name]
        if not (given or file.is_file()):
            return None
        check_vectors(found := load_vectors(file, base), base, tuned)
        return found

    return Parts(
        taxonomy,
        vectors,
        coefficients=asked.coefficients,
        shared=one(asked.shared, "shared"),
        everywhere=one(asked.everywhere, "everywhere"),
        absent=load_vectors(asked.absent, base) if asked.absent else None,
        gate=learnt(asked, context, vectors.site) if asked.gate else None,
        windows=asked.windows,
        guardrail=asked.guardrail,
        prompt=asked.prompt,
        thresholds=asked.thresholds,
        entropies=asked.entropies,
        seed=asked.seed,
    )


def learnt(asked: Route, context: "Context", site: str) -> Any:
    """The linear gate, fitted on greedy answers of the tuned model to select problems."""
    from steering.routing.learnt import fit_gate, greedy_texts

    base, tuned = context.pair
    if context.same:
        return None  # a model agrees with itself everywhere: nothing to fit
    problems = context.problems("select", min(asked.problems, 20))
    texts = greedy_texts(tuned, context.task, problems, batch=asked.batch)
    of: Any = asked.gate
    return fit_gate(base, tuned, texts, site, of=of, batch=asked.batch)


def page(asked: Route, context: "Context", done: "list[Done]") -> None:
    """The traces of the hybrid and of two arms beside it, on a few problems of different skills."""
    from probes.report import trace_page
    from steering.routing.tracing import traced

    if not asked.trace:
        return
    every = context.problems("test", asked.problems)
    some = every[:: max(1, len(every) // asked.trace)][: asked.trace]
    by_name = {one.arm.name: one for one in done}
    vectors = by_name["hybrid"].arm.vectors
    assert vectors is not None, "the hybrid steers"
    rows = []
    for name in ("hybrid", "random candidates", "substitution"):
        kinds = vectors.names if name == "hybrid" else ()
        rows += traced(by_name[name], *context.pair, some, kinds)
    about = {"base": asked.base, "tuned": asked.tuned, "task": asked.task, "seed": asked.seed}
    trace_page(rows, asked.out / "trace.html", f"Who chose which token: {asked.pair}", about)


def known(asked: Route, context: "Context", done: "list[Done]") -> "list[Measurement]":
    """How well the KL finds the decisions that the task's grammar knows, on both models' texts."""
    from probes.divergence import divergences
    from steering.routing.parting import kl_as_decisions

    if not asked.thresholds:
        return []
    base, tuned = context.pair
    rows = []
    for one in done[:2]:
        assert one.judged is not None, "a plain model always has answers"
        judged = one.judged
        parted = divergences(
            base, tuned, context.task, judged.problems, judged.rollouts, batch=asked.batch
        )
        rows += kl_as_decisions(
            parted,
            asked.thresholds,
            setting=f"{one.arm.name}'s texts",
            pair=asked.pair,
            seed=asked.seed,
        )
    return rows


def earlier(folder: Path, own: str) -> "list[Measurement]":
    """The rows of another run's own pair.

    Raises:
        Refusal: there are none, or they are of a pair of the same name.
    """
    from probes.records import Measurement, Refusal, read_table

    rows, about = read_table(folder / "route.parquet", Measurement)
    name = Path(about["settings"]["tuned"]).name
    if name == own:
        raise Refusal(
            f"{folder} holds a pair called {name!r}, as this one is: they would be mixed."
        )
    return [r for r in rows if r.model == name]


COLUMNS = (
    ("valid", "valid"),
    ("recovered valid", "of the gap"),
    ("steered share", "steered"),
    ("disagreement rate", "disagree"),
    ("oracle bits", "bits a token"),
    ("fitted parameters", "fitted"),
)
"""Measures of the table and their headings."""


def shown(rows: "list[Measurement]") -> "list[Any]":
    """A table a pair of every arm, and one of the gap by skill."""
    from rich.table import Table

    from probes.records import unique

    tables = []
    for pair in unique(r.model for r in rows):
        of_it = [r for r in rows if r.model == pair]
        table = Table(title=f"{pair}: every arm, all problems")
        for heading in ("arm", *(heading for _, heading in COLUMNS)):
            table.add_column(heading)
        pooled = [r for r in of_it if not r.skill and not r.part]
        for arm in unique(r.setting for r in pooled if r.measure == "valid"):
            cells = [said(pooled, measure, arm) for measure, _ in COLUMNS]
            table.add_row(arm, *cells)
        tables.append(table)
        cells = unique((r.skill, r.part) for r in of_it if r.skill)
        by = Table(title=f"{pair}: share of the gap, valid answers, by skill")
        arms = ("hybrid", "random candidates", "random vectors", "shared vector", "guardrail")
        for heading in ("skill", "gap", *arms):
            by.add_column(heading)
        for skill, part in cells:
            here = [r for r in of_it if (r.skill, r.part) == (skill, part)]
            gap = said(here, "gap valid", "tuned")
            shares = [said(here, "recovered valid", arm).split(" (")[0] for arm in arms]
            by.add_row(f"{skill} {part}".strip(), gap, *shares)
        tables.append(by)
    return tables


def said(rows: "list[Measurement]", measure: str, arm: str) -> str:
    """The number with its interval, or why there is none; empty where there is no row."""
    found = [r for r in rows if (r.measure, r.setting) == (measure, arm)]
    if not found:
        return ""
    row = found[0]
    if math.isnan(row.value):
        reason = row.note if len(row.note) <= 40 else f"{row.note[:40]}..."
        return f"undefined ({reason})"
    if math.isnan(row.low):
        return f"{row.value:g}"
    return f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]"
