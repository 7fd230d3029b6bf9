"""`whenhow directions`: where in a model its strategies can be read, as vectors to steer by."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from steering.cli.verdict import SHIPPED


@dataclass(frozen=True)
class Directions:
    """Fit a direction for each strategy at every layer, from the model's own answers.

    A sweep names all layers at once: push = "DIR/check-blocks.{layer}.hook_resid_post.safetensors".
    """

    model: str = SHIPPED.base
    """Model folder, or a Hugging Face name."""
    task: str = "chain"
    """A task that ships, or the path of a TOML file of your own."""
    lexicon: str = ""
    """Of a task of free text: a lexicon that ships, or the path of one of your own. Each of its
    labels is a strategy, which the next sentence uses or not."""
    out: Path = Path("runs/directions")
    """Folder: a safetensors file for each strategy and site, and a table of all."""
    sites: tuple[
        Literal["hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post"], ...
    ] = ("hook_resid_post",)
    """Of each block."""
    method: Literal["difference", "pca", "logistic"] = "difference"
    """Difference of means, principal component within problems, or a logistic probe."""
    problems: int = 24
    """Problems of the select split, of each skill and part."""
    samples: int = 8
    """Answers to each."""
    temperature: float = 1.0
    """Of the answers."""
    seed: int = 0
    """Everything random follows from it."""
    device: str = "cpu"
    """Where the model is: cpu, cuda, cuda:1, mps."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of its weights."""
    json: bool = False
    """Print what is known of each direction as JSON, in place of the path of the folder."""

    resume = "the same command begins anew: it takes seconds on a small model."

    def run(self) -> str:
        """Sample, fit, save, show; the path of the folder, or the JSON."""
        from dataclasses import asdict

        from probes.directions import save
        from probes.models import load_on
        from probes.records import write_json
        from probes.strategies.lexicon import load_lexicon
        from probes.tasks import load_task
        from probes.tasks.cells import cells_of, problems_of
        from steering.cli.progress import bar, console
        from steering.own_directions import file_name, own_directions

        model, task = load_on(self.model, self.device, self.dtype), load_task(self.task)
        count = len(problems_of(task, cells_of(task), "select", self.problems)) * self.samples
        with bar("answers", count) as tick:
            found = own_directions(
                model,
                task,
                lexicon=load_lexicon(self.lexicon) if self.lexicon else None,
                problems=self.problems,
                samples=self.samples,
                sites=self.sites,
                method=self.method,
                temperature=self.temperature,
                seed=self.seed,
                progress=tick,
            )
        for d in found:
            save(d, self.out / file_name(d))
        listed = [
            {"file": file_name(d), **{k: v for k, v in asdict(d).items() if k != "vector"}}
            for d in found
        ]
        write_json(self.out / "directions.json", listed)
        console().print(table(listed))
        return (self.out / "directions.json").read_text().rstrip() if self.json else str(self.out)


def table(listed: list[dict[str, Any]]) -> Any:
    """AUC on held-out problems beside its null."""
    from rich.table import Table

    found = Table(title="directions: AUC on problems they never met")
    for name in ("file", "AUC", "shuffled labels (mean, 95%)", "decisions", "of them used"):
        found.add_column(name)
    for d in listed:
        auc = f"{d['auc']:.2f} [{d['auc_low']:.2f}, {d['auc_high']:.2f}]"
        null = f"{d['null_mean']:.2f}, {d['null_high']:.2f}"
        auc = d["reason"] or auc
        found.add_row(d["file"], auc, null, str(d["rows"]), str(d["positives"]))
    return found
