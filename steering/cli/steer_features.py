"""`whenhow sae steer`: what single latents do to the answers, beside their controls."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from steering.cli.sae import AGAIN, plain

if TYPE_CHECKING:
    from probes.measurements import Measurement

MEASURES = ("right", "valid", "length", "right gain", "valid gain")
"""What the table shows; the files have all."""


@dataclass(frozen=True)
class SaeSteer:
    """Steer by latents of a dictionary, its error kept, at several strengths, with controls.

    Beside each: random latents that fire as often, random directions that push as far, and
    unsteered answers of the same length.
    """

    sae: Path
    """Folder of the dictionary."""
    latents: tuple[int, ...]
    """Which; `whenhow sae score` and `show` find them."""
    model: str = ""
    """What is steered; by default the model whose folder the dictionary's lies in."""
    foreign: bool = False
    """Allow another model than the dictionary's own: a tuned model's latent in its base."""
    task: str = ""
    """By default the one that it was trained on."""
    op: Literal["clamp", "add", "ablate"] = "clamp"
    """Set the activation, add to it, or take its share away."""
    strengths: tuple[float, ...] = (0.5, 1.0, 2.0)
    """In multiples of each latent's largest activation on the reference text."""
    ending: tuple[str, ...] = ()
    """Words that end an answer, for the control of length; by default the end-of-sequence token."""
    problems: int = 60
    """Test problems."""
    samples: int = 8
    """Answers to each, in each setting."""
    draws: int = 2
    """Random latents, and random directions, for each latent."""
    out: Path = Path("runs/sae-steer")
    """Folder of the numbers and figures."""
    seed: int = 0
    """Everything random follows from it."""
    device: str = "cpu"
    """Where everything is: cpu, cuda, cuda:1, mps."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the model's weights."""
    json: bool = False
    """Print the numbers as JSON, in place of the path of their folder."""

    resume = AGAIN

    def __post_init__(self) -> None:
        """Refuse what can never work, before any work is done."""
        from probes.records import Refusal

        if not self.latents or self.problems < 2:
            raise Refusal(
                f"latents {self.latents} (at least one) and problems {self.problems} (at least 2)."
            )
        _ = self.settings

    @property
    def settings(self) -> Any:
        """Of the doses."""
        from steering.features import DoseSettings

        return DoseSettings(
            op=self.op,
            strengths=self.strengths,
            samples=self.samples,
            draws=self.draws,
            foreign=self.foreign,
            seed=self.seed,
        )

    def run(self) -> str:
        """Sample, measure, draw, show; the path of the folder, or the JSON."""
        from probes.plots.dose import feature_dose
        from steering.cli.progress import console
        from steering.cli.results import write_results

        rows = measured(self)
        figures = {"dose": feature_dose}
        text = write_results(self.out, "sae-steer", rows, plain(asdict(self)), figures)
        console().print(table(rows))
        return text if self.json else str(self.out)


def measured(asked: SaeSteer) -> "list[Measurement]":
    """The rows of `steering.features.dose_response`."""
    import torch

    from probes.models import load_on
    from probes.records import Refusal
    from probes.sae import load_sae
    from probes.sae.active import read_rows
    from steering.cli.progress import bar
    from steering.cli.sae_reading import Part, answers, beside, check_latents, task_of
    from steering.features import dose_response

    sae = load_sae(asked.sae)
    check_latents(sae, asked.latents)
    model = load_on(beside(asked.sae, asked.model), asked.device, asked.dtype)
    sae = load_sae(asked.sae, None if asked.foreign else model, device=model.device)
    task, vocabulary = task_of(Part("model", model, sae), asked.task), model.tokenizer.get_vocab()
    if unknown := [word for word in asked.ending if word not in vocabulary]:
        raise Refusal(f"--ending {' '.join(unknown)}: no token of {model.name}.")
    with bar("plain answers", asked.problems * 2) as tick:
        found = answers(model, task, "select", asked.problems, 2, asked.seed, tick)
    shape = torch.from_numpy(read_rows(model, sae.site, found.texts).x)
    settings = asked.settings
    arms = 1 + len(settings.biases)
    arms += len(asked.latents) * len(asked.strengths) * (1 + 2 * asked.draws)
    with bar("steered answers", arms * asked.problems * asked.samples) as tick:
        return dose_response(
            model,
            task,
            task.problems("test", asked.problems),
            sae,
            asked.latents,
            settings,
            activations=shape,
            ending=[vocabulary[word] for word in asked.ending],
            which=model.name,
            progress=tick,
        )


def table(rows: "list[Measurement]") -> Any:
    """Rates and lengths of every latent and control."""
    from rich.table import Table

    from steering.cli.drift import said

    found = Table(title="latents and their controls")
    for name in ("latent", "strength", "measure", "setting", "value", "note"):
        found.add_column(name)
    for r in rows:
        if r.measure in MEASURES:
            strength = "" if r.x != r.x else f"{r.x:g}"
            found.add_row(r.kind, strength, r.measure, r.setting, said(r), r.note)
    return found
