"""`whenhow vectors train|show`: vectors that steer a base towards its tuned model, by category."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from steering.cli.verdict import SHIPPED
from steering.verdict.settings import BESIDE

if TYPE_CHECKING:
    from probes.records import Measurement
    from steering.vectors import Vectors


@dataclass(frozen=True)
class VectorsTrain:
    """Train steering vectors on the frozen base, a category of steps each.

    The tuned model's steps are sorted into categories (or a taxonomy is given); where base and
    tuned model would write different tokens, the category's vector is trained to correct the base.
    Fitted to problems of the tune split, chosen on the select split, reported on the test split.
    """

    base: str = SHIPPED.base
    """Folder or name of the model to steer."""
    tuned: str = SHIPPED.tuned
    """Folder or name of the model to steer it towards."""
    task: str = SHIPPED.task
    """A task that ships, or the path of a TOML file of your own."""
    form: Literal["current", "first"] = "current"
    """Vectors that correct disagreements, or a bias over whole traces and vectors on top."""
    taxonomy: Path | None = None
    """A taxonomy of the tuned model; made, and saved beside the vectors, if there is none."""
    sizes: tuple[int, ...] = (5, 10, 15, 20, 30, 50)
    """Numbers of categories that a taxonomy being made chooses from."""
    site: str = ""
    """Where the base is steered; at two fifths of its depth if absent."""
    problems: int = 80
    """Tune problems of each skill and half of its entries."""
    held: int = 30
    """Select and test problems of each."""
    samples: int = 1
    """Answers of each model to each problem."""
    loss: Literal["kl", "ce"] = "kl"
    """To the tuned model's distribution, or to its likeliest token. Current form only."""
    lr: float = 1e-2
    """Adam's learning rate."""
    epochs: int = 0
    """At most so many; 0: the form's own, 10 (current) or 50 (first)."""
    starts: int = 3
    """Random starts, the best on select problems kept. Current form only."""
    network: bool = False
    """A network reads each push's size off the residual, in place of a number a category."""
    least: int = 20
    """Positions (first form: steps) that a category needs."""
    allow_few: bool = False
    """Leave categories with fewer unsteered instead of refusing."""
    no_controls: bool = False
    """Don't train the controls: shuffled categories, and one vector for all (current form)."""
    seed: int = 0
    """Everything random follows from it."""
    out: Path = Path("runs/vectors")
    """Folder of vectors, taxonomy, numbers and figures."""
    device: str = "cpu"
    """Where the models are: cpu, cuda, cuda:1, mps."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the models' weights; what is learnt is float32."""
    json: bool = False
    """Print the numbers as JSON, in place of the path of the vectors."""

    resume = "the same command trains anew: it takes a minute or two."

    def __post_init__(self) -> None:
        """Refuse what can never work, before any work is done."""
        from probes.records import Refusal

        if min(self.problems, self.held) < 2 or min(self.samples, self.starts, *self.sizes) < 1:
            raise Refusal(
                f"problems {self.problems} and held {self.held} (at least 2: intervals resample "
                f"problems), samples {self.samples}, starts {self.starts} and sizes {self.sizes} "
                f"(at least 1)."
            )
        if self.form == "first" and (self.network or self.loss == "ce"):
            raise Refusal(
                "--network and --loss are of the current form; the first has neither a "
                "coefficient network nor another loss than cross-entropy to the text."
            )
        if not 0 < self.lr < math.inf or self.epochs < 0:
            raise Refusal(f"lr {self.lr} must be above 0, and epochs {self.epochs} not below.")

    @property
    def command(self) -> str:
        """The flags that matter for the result, as they would be typed."""
        blank = VectorsTrain()
        said = []
        for name, value in vars(self).items():
            if value == getattr(blank, name) or name in ("out", "json", "device"):
                continue
            flag = f"--{name.replace('_', '-')}"
            words = value if isinstance(value, tuple) else (value,)
            said.append(flag if value is True else " ".join([flag, *map(str, words)]))
        return " ".join(["whenhow vectors train", *said])

    def run(self) -> str:
        """Train, judge, save, draw, show; the path of the vectors, or the JSON."""
        from dataclasses import asdict, fields

        from probes.models import load_on
        from probes.plots.taxonomy import TAXONOMY
        from probes.tasks import load_task
        from probes.taxonomy import load_taxonomy, save_taxonomy
        from steering.cli.progress import bars, console
        from steering.cli.results import write_results
        from steering.vectors import Training, made, save_vectors

        base, tuned = (load_on(m, self.device, self.dtype) for m in (self.base, self.tuned))
        given = None if self.taxonomy is None else load_taxonomy(self.taxonomy, tuned)
        asked = Training(**{f.name: getattr(self, f.name) for f in fields(Training)})
        task = load_task(self.task)
        with bars() as tick:
            found = made(base, tuned, task, asked, tick, taxonomy=given, command=self.command)
        if self.taxonomy is None:
            save_taxonomy(found.taxonomy, self.out / BESIDE["taxonomy"])
        for name in ("vectors", "shared", "everywhere"):
            if one := getattr(found, name):
                save_vectors(one, self.out / BESIDE[name])
        about = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()}
        about["parameters"] = found.vectors.parameters
        figures = {
            f"vectors-{name}": draw
            for name, draw in TAXONOMY.items()
            if name == "loss" or self.taxonomy is None
        }
        text = write_results(self.out, "vectors", found.rows, about, figures)
        for table in (*scores_table(found.rows), *tables(found.vectors, found.nearest, found.rows)):
            console().print(table)
        return text if self.json else str(self.out / BESIDE["vectors"])


@dataclass(frozen=True)
class VectorsShow:
    """Show trained vectors: of each category its size, coefficient, loss and nearest tokens."""

    vectors: Path = Path(SHIPPED.tuned) / BESIDE["vectors"]
    """The file."""
    base: str = SHIPPED.base
    """Folder or name of the model that they steer."""
    out: Path = Path("runs/vectors-show")
    """Folder of the numbers and the figure."""
    json: bool = False
    """Print what is known as JSON, in place of the path of its folder."""

    resume = "the same command shows it again."

    def run(self) -> str:
        """Load, draw, show; the path of the folder, or the JSON."""
        from probes.measurements import point
        from probes.models import load
        from probes.plots.taxonomy import TAXONOMY
        from steering.cli.progress import console
        from steering.cli.results import write_results
        from steering.vectors import load_vectors, nearest

        base = load(self.base)
        vectors = load_vectors(self.vectors, base)
        near = nearest(base, vectors)
        rows = [
            point("vector loss", value, count, kind=name, setting=setting, x=float(j))
            for j, (name, count, losses) in enumerate(
                zip(vectors.names, vectors.counts, vectors.losses, strict=True)
            )
            for setting, value in zip(("unsteered", "vectors"), losses, strict=True)
        ]
        about = {"vectors": str(self.vectors), "base": self.base, **described(vectors, near)}
        figures = {"vectors-loss": TAXONOMY["loss"]}
        text = write_results(self.out, "vectors", rows, about, figures)
        for table in tables(vectors, near, []):
            console().print(table)
        return text if self.json else str(self.out)


def described(vectors: "Vectors", near: list[list[str]]) -> dict[str, Any]:
    """What is known of vectors, for JSON."""
    names = ("site", "form", "parameters", "tuned", "taxonomy", "command")
    about = {name: getattr(vectors, name) for name in names}
    norms = (vectors.coefficients[:, None] * vectors.vectors).norm(dim=-1).tolist()
    losses = vectors.losses or ((math.nan, math.nan),) * len(norms)
    about["categories"] = [
        {
            "name": name,
            "positions": vectors.counts[j],
            "coefficient": float(vectors.coefficients[j]),
            "norm": norms[j],
            "loss_before": losses[j][0],
            "loss_after": losses[j][1],
            "nearest": near[j],
        }
        for j, name in enumerate(vectors.names)
    ]
    if vectors.bias is not None:
        about["bias_norm"] = float(vectors.bias.norm())
    return about


def tables(vectors: "Vectors", near: list[list[str]], rows: "list[Measurement]") -> list[Any]:
    """A line a category; below it, over all categories, vectors beside controls."""
    from rich.table import Table

    about = described(vectors, near)
    fitted = f"{vectors.parameters} fitted parameters"
    bias = f", bias of norm {about['bias_norm']:.3g}" if vectors.bias is not None else ""
    table = Table(title=f"{vectors.form} form at {vectors.site}: {fitted}{bias}")
    unit = "steps" if vectors.form == "first" else "positions"
    for name in ("category", "named", unit, "coefficient", "norm", "loss", "nearest tokens"):
        table.add_column(name)
    for j, one in enumerate(about["categories"]):
        before, after = one["loss_before"], one["loss_after"]
        loss = "no test position" if math.isnan(before) else f"{before:.3f} to {after:.3f}"
        numbers = (
            (f"{one['coefficient']:.3g}", f"{one['norm']:.3g}") if one["nearest"] else ("", "")
        )
        cells = (str(j), one["name"], str(one["positions"]), *numbers, loss)
        table.add_row(*cells, " ".join(one["nearest"]) or "left unsteered")
    whole = [r for r in rows if r.measure.startswith("vector ") and r.x == -1]
    if not whole:
        return [table]
    over = Table(title="at all test positions where the two models' choices differ")
    for name in ("pushed by", "loss (nats)", "chooses the tuned model's token"):
        over.add_column(name)
    for setting in dict.fromkeys(r.setting for r in whole):
        by = {r.measure: r for r in whole if r.setting == setting}
        over.add_row(setting, said(by["vector loss"]), said(by["vector agreement"]))
    return [table, over]


def scores_table(rows: "list[Measurement]") -> list[Any]:
    """What may be claimed of a taxonomy that was made: its scores on test problems."""
    from rich.table import Table

    tested = [r for r in rows if r.part == "test" and r.measure in ("ari", "nmi", "purity")]
    if not tested:
        return []
    one = tested[0]
    table = Table(title=f"{one.x:.0f} categories at {one.site}, against the known kinds of steps")
    for name in ("kinds by", "sorted by", "ARI", "NMI", "purity"):
        table.add_column(name)
    for kind, setting in dict.fromkeys((r.kind, r.setting) for r in tested):
        by = {r.measure: r for r in tested if (r.kind, r.setting) == (kind, setting)}
        table.add_row(kind, setting, *(said(by[m]) for m in ("ari", "nmi", "purity")))
    return [table]


def said(row: "Measurement") -> str:
    """A number with its interval, or why there is none."""
    if math.isnan(row.value):
        return f"undefined ({row.note[:40]})"
    return f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"
