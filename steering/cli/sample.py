"""`whenhow sample`: a model's answers to a task, judged and kept.

With the verdict's own settings the file is a record that the verdict reads instead of sampling
anew, when it lies in ``rollouts/`` beside the tuned model.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Sample:
    """Sample a model's answers to a task, judge them, and keep them as Parquet."""

    model: str
    """Model folder, or a Hugging Face name."""
    out: Path
    """The Parquet file: a row an answer, with its verdict and its problem."""
    task: str = "chain"
    """A task that ships, or the path of a TOML file of your own."""
    split: str = "test"
    """Which problems: of "tune", "select" or "test"."""
    problems: int = 60
    """Problems of each skill and part; so many as the verdict asks."""
    samples: int = 32
    """Answers to each: the largest k that pass@k can be reported for."""
    first_sample: int = 0
    """Index of the first answer; disjoint ranges are independent."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    """Sample from the likeliest tokens of this mass."""
    seed: int = 0
    """With problem and index it fixes the random numbers of an answer."""
    device: str = "cpu"
    """Such as "cuda"."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of weights and activations."""

    resume = "the same command goes on with the first shard of answers that was not finished."

    def run(self) -> str:
        """Sample; the path of the file."""
        from probes.generate import Decoding
        from probes.models import load_on
        from probes.records import content_hash
        from probes.tasks import load_task
        from probes.tasks.cells import cells_of, problems_of
        from steering.cli.progress import bar
        from steering.shards import sample_shards
        from steering.verdict.stages import rollouts

        model, task = load_on(self.model, self.device, self.dtype), load_task(self.task)
        asked = problems_of(task, cells_of(task), self.split, self.problems)
        with bar("answers", len(asked) * self.samples) as advance:
            shards = sample_shards(
                model,
                task,
                asked,
                self.out.with_name(f".{self.out.name}.unfinished"),
                samples=self.samples,
                decoding=Decoding(self.temperature, self.top_p),
                seed=self.seed,
                first_sample=self.first_sample,
                batch=rollouts.BATCH,
                progress=advance,
            )
        about = rollouts.identified(
            model,
            task,
            asked,
            samples=self.samples,
            first=self.first_sample,
            seed=self.seed,
            temperature=self.temperature,
        )
        if self.top_p < 1:
            about |= {"top_p": self.top_p}
        identity = content_hash(about)
        del about["version"]  # the table has its own key of this name
        # Beside what determines the answers, what they were asked under, in words: the task's
        # whole file, its template with it, and how they were drawn. The prompts are in the rows.
        about |= {"name": task.name, "settings": task.settings, "split": self.split}
        about |= {"template": task.settings.get("template"), "top_p": self.top_p}
        shards.merge(self.out, model=self.model, identity=identity, **about)
        shards.remove()
        return str(self.out)
