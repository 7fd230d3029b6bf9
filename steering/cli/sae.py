"""`whenhow sae train`, `score` and `show`: sparse dictionaries of a site's activations."""

import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from probes.measurements import Measurement

BATCH = 128
AGAIN = "the same command begins anew: it has no parts worth keeping."


@dataclass(frozen=True)
class SaeTrain:
    """Train a dictionary on a model's activations on its own answers, with SAELens' trainer."""

    model: str
    """Folder or name of the model."""
    task: str
    """A task that ships, or the path of a TOML file of your own."""
    out: Path
    """The dictionary's folder, in SAELens' format; must not hold anything."""
    site: str = "blocks.1.hook_resid_post"
    """Where the activations are taken."""
    kind: Literal["topk", "batchtopk"] = "topk"
    """k latents for each row, or for each on average."""
    latents: int = 512
    """How many directions."""
    k: int = 8
    """Latents that a row keeps."""
    problems: int = 1000
    """Of the split that models are tuned on; a fifth of them is only measured on."""
    samples: int = 8
    """Answers to each."""
    steps: int = 3000
    """Of the trainer."""
    batch: int = 512
    """Rows of a step."""
    rate: float = 1e-3
    """Learning rate of Adam."""
    why: str = ""
    """Why this site and size; kept with the dictionary."""
    seed: int = 0
    """Everything random follows from it."""
    device: str = "cpu"
    """Where model and dictionary are: cpu, cuda, cuda:1, mps."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the model's weights."""
    json: bool = False
    """Print what was measured as JSON, in place of the path of the folder."""

    resume = AGAIN

    def __post_init__(self) -> None:
        """Refuse what can never work, before any work is done."""
        from probes.records import Refusal, parse_site

        parse_site(self.site)
        _ = self.settings
        if self.problems < 12 or self.samples < 1:
            raise Refusal(
                f"problems {self.problems} (at least 12, of which a fifth is measured on), samples "
                f"{self.samples} (at least 1)."
            )

    @property
    def settings(self) -> Any:
        """Of the dictionary."""
        from probes.sae.train import SaeSettings

        names = ("kind", "latents", "k", "steps", "batch", "rate", "seed")
        return SaeSettings(**{name: getattr(self, name) for name in names})

    def run(self) -> str:
        """Sample, read, train; the path of the folder, or its facts."""
        from probes.capture import capture
        from probes.models import load_on
        from probes.sae import train_sae
        from probes.tasks import load_task
        from steering.cli.progress import bar, console
        from steering.cli.sae_reading import answers, check_size

        check_empty(self.out)
        task, model = load_task(self.task), load_on(self.model, self.device, self.dtype)
        check_layer(self.site, model.depth)
        check_size(task, self.problems, self.samples, self.settings)
        with bar("answers", self.problems * self.samples) as tick:
            read = answers(
                model, task, "tune", self.problems, self.samples, self.seed, tick, batch=BATCH
            )
        facts = {"task": task.name, "command": command(self, "train"), "why": self.why}
        with tempfile.TemporaryDirectory(prefix="whenhow-sae-") as folder:
            with bar("reading", len(read.texts)) as tick:
                store = capture(
                    model,
                    [self.site],
                    read.texts,
                    Path(folder) / "store",
                    positions="generated",
                    batch=BATCH,
                    progress=tick,
                )
            with bar("training", self.steps) as tick:
                sae = train_sae(
                    store, self.site, self.settings, self.out, tick, facts=facts, device=self.device
                )
        for name in ("fvu", "l0", "dead"):
            console().print(f"{name} on held-out problems: {said(sae.facts[name])}")
        return text_of(sae.facts) if self.json else str(self.out)


@dataclass(frozen=True)
class SaeScore:
    """Which latents are about reasoning, and how tuning moved them.

    With one dictionary: ReasonScore, and which latents tell each strategy. With a tuned model and
    its dictionary also: how often latents fire before and after, and whether they are shared.
    """

    sae: Path
    """Folder of the dictionary; of the base's where a tuned one is given."""
    model: str = ""
    """Its model; by default the folder that the dictionary's lies in."""
    task: str = ""
    """By default the one that it was trained on."""
    tuned_sae: Path | None = None
    """Folder of the tuned model's dictionary."""
    tuned: str = ""
    """The tuned model; by default the folder that its dictionary's lies in."""
    null: tuple[Path, ...] = ()
    """Dictionaries of copies whose difference means nothing: other seeds of the tuning."""
    words: tuple[str, ...] = ()
    """Reasoning tokens, a group each (wait however ...); by default what takes each strategy."""
    problems: int = 120
    """Problems of the select split: what is chosen here is then judged on others."""
    samples: int = 8
    """Answers of each model to each."""
    top: int = 10
    """Latents that are shown, with intervals."""
    shuffles: int = 200
    """Of the labels."""
    out: Path = Path("runs/sae")
    """Folder of the numbers and figures."""
    seed: int = 0
    """Everything random follows from it."""
    device: str = "cpu"
    """Where everything is: cpu, cuda, cuda:1, mps."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the models' weights."""
    json: bool = False
    """Print the numbers as JSON, in place of the path of their folder."""

    resume = AGAIN

    def __post_init__(self) -> None:
        """Refuse what can never work, before any work is done."""
        from probes.records import Refusal

        if self.problems < 24 or min(self.samples, self.top) < 1 or self.shuffles < 20:
            raise Refusal(
                f"problems {self.problems} (at least 24: half of them choose and half report), "
                f"samples {self.samples}, top {self.top} (at least 1), shuffles {self.shuffles} "
                f"(at least 20)."
            )
        if self.tuned_sae is None and (self.tuned or self.null):
            raise Refusal("a comparison with a tuned model needs its dictionary: --tuned-sae.")
        if len(self.words) == 1:
            raise Refusal("one reasoning token has no entropy: give two words at least.")

    def run(self) -> str:
        """Measure, draw, show; the path of the folder, or the JSON."""
        from probes.plots.features import FEATURES
        from steering.cli.progress import bars, console
        from steering.cli.results import write_results
        from steering.cli.sae_rows import score

        with bars() as tick:
            rows = score(self, tick)
        figures = {f"sae-{name}": draw for name, draw in FEATURES.items()}
        text = write_results(self.out, "sae", rows, plain(asdict(self)), figures)
        for table in tables(rows):
            console().print(table)
        return text if self.json else str(self.out)


@dataclass(frozen=True)
class SaeShow:
    """What the latents of a dictionary fire on: their tokens, and where each is largest."""

    sae: Path
    """Folder of the dictionary."""
    model: str = ""
    """Its model; by default the folder that the dictionary's lies in."""
    task: str = ""
    """By default the one that it was trained on."""
    latents: tuple[int, ...] = ()
    """Which; by default those with the highest ReasonScore."""
    words: tuple[str, ...] = ()
    """Reasoning tokens, a group each; by default what takes each strategy."""
    top: int = 10
    """How many."""
    problems: int = 60
    """Problems of the select split: what is chosen here is then judged on others."""
    samples: int = 4
    """Answers to each."""
    out: Path = Path("runs/sae-show")
    """Folder of show.json."""
    seed: int = 0
    """Everything random follows from it."""
    device: str = "cpu"
    """Where everything is: cpu, cuda, cuda:1, mps."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the model's weights."""
    json: bool = False
    """Print the table as JSON, in place of the path of its folder."""

    resume = AGAIN

    def __post_init__(self) -> None:
        """Refuse what can never work, before any work is done."""
        from probes.records import Refusal

        if min(self.problems, self.samples, self.top) < 1 or len(self.words) == 1:
            raise Refusal(
                f"problems {self.problems}, samples {self.samples} and top {self.top} are at least "
                f"1, reasoning tokens none or two at least."
            )

    def run(self) -> str:
        """Read some answers; the table."""
        from rich.table import Table

        from probes.records import write_json
        from steering.cli.progress import bars, console
        from steering.cli.sae_rows import describe

        with bars() as tick:
            shown = describe(self, tick)
        table = Table(title=f"{self.sae}: what its latents fire on")
        for name in shown[0]:
            table.add_column(name)
        for line in shown:
            table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in line.values()))
        console().print(table)
        write_json(self.out / "show.json", shown)
        return (self.out / "show.json").read_text().rstrip() if self.json else str(self.out)


def command(asked: Any, verb: str) -> str:
    """The command that says all of it again; --out and --device are the caller's own."""
    left = ("out", "device", "json", "why")
    flags = [(f.name, getattr(asked, f.name)) for f in fields(asked) if f.name not in left]
    return f"whenhow sae {verb} " + " ".join(f"--{name} {value}" for name, value in flags)


def check_empty(out: Path) -> None:
    """Refuse a folder in use before an hour of work goes by."""
    from probes.records import Refusal

    if out.is_dir() and any(out.iterdir()):
        raise Refusal(f"--out {out} already holds something; a dictionary goes to a new folder.")


def check_layer(site: str, depth: int) -> None:
    """Refuse a layer that the model doesn't have."""
    from probes.models import layer_index
    from probes.records import parse_site

    layer_index(parse_site(site)[0], depth)


def plain(settings: dict[str, Any]) -> dict[str, Any]:
    """The same with paths as text."""
    found = {key: str(v) if isinstance(v, Path) else v for key, v in settings.items()}
    return found | {k: [str(i) for i in v] for k, v in found.items() if isinstance(v, tuple)}


def text_of(content: Any) -> str:
    """JSON, null for NaN."""
    import json

    from probes.records import finite

    return json.dumps(finite(content), indent=2)


def said(fact: dict[str, float]) -> str:
    """A number with its interval, of a dictionary's facts."""
    return f"{fact['value']:.4g} [{fact['low']:.4g}, {fact['high']:.4g}]"


NU = ("median", "below 0.5")
WHOLE = ("fvu", "l0", "dead", "label rate", "feature discoveries", "feature discoveries, shuffled")
CHANGE = ("firing discoveries", *(f"nu {of}{what}" for of in ("", "on error ") for what in NU))
BEST = ("reason score", "feature auc", "feature precision", "firing shift", "nu", "nu on error")
"""What the tables show: of a dictionary, of the change, and of single latents."""


def tables(rows: "list[Measurement]") -> list[Any]:
    """One of the dictionaries, one of the change, one of the top latents with their nulls."""
    from rich.table import Table

    from steering.cli.drift import said as number

    found = []
    parts = (("the dictionaries", WHOLE), ("before and after", CHANGE), ("top latents", BEST))
    for title, measures in parts:
        table = Table(title=title)
        for name in ("measure", "of", "what", "where", "latent", "value", "note"):
            table.add_column(name)
        for measure in measures:
            of_it = [r for r in rows if r.measure in (measure, f"{measure}, shuffled")]
            if title == "top latents":
                of_it = of_it[:40]
            for r in of_it:
                latent = "" if r.x != r.x else str(int(r.x))
                table.add_row(r.measure, r.model, r.kind, r.setting, latent, number(r), r.note)
            if of_it:
                table.add_section()
        if table.row_count:
            found.append(table)
    return found
