"""`whenhow sample`: a model's answers to a task, judged and kept.

With the verdict's own settings the file is a record that the verdict reads instead of sampling
anew, when it lies in ``rollouts/`` beside the tuned model.

    whenhow sample --model DIR --out answers.parquet
    whenhow sample --server http://host:8000/v1 --served-model NAME --out answers.parquet

What a server wrote is sharded, resumed, graded and kept as what a model here writes. Token ids are
those that it gives; where it gives none and ``--model`` is given, too, those of the text by that
model's tokenizer; without one there are none. With ``--model`` a folder, ids of all answers, and a
server that samples from the whole distribution (`probes.served.dialects`), the file is a record of
that model, as above: that the server has these weights is then your word, which its name, the
number of tokens of each prompt and whether answers vary are held against. Else it is a record of
the served name.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

if TYPE_CHECKING:
    from probes.models import Model
    from probes.served import Server


@dataclass(frozen=True)
class Sample:
    """Sample a model's answers to a task, judge them, and keep them as Parquet."""

    model: str = ""
    """Model folder, or a Hugging Face name. With --server: of the served model, for its tokenizer;
    its weights are not loaded, and it may be left out."""
    out: Path = tyro.MISSING
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
    """Of weights and activations; what a server computes in is recorded as told here."""
    server: str = ""
    """Address of an OpenAI-compatible server to ask, with its version: http://host:8000/v1."""
    served_model: str = ""
    """The model's name there."""
    concurrency: int = 32
    """Requests to the server in flight."""
    key_env: str = ""
    """Environment variable with the server's key, where it wants one; kept nowhere."""
    timeout: float = 600.0
    """Seconds that the server may take for one answer, before it is asked again."""
    need_logprobs: bool = False
    """Refuse a server that gives no log-probabilities; without, they are empty then."""

    resume = "the same command goes on with the first shard of answers that was not finished."

    def __post_init__(self) -> None:
        """Refuse half of a server, or nobody to ask."""
        from probes.records import Refusal

        if bool(self.server) != bool(self.served_model):
            raise Refusal(
                "--server ADDRESS and --served-model NAME go together: one may serve several."
            )
        if not self.model and not self.server:
            raise Refusal("name a model: --model FOLDER, or --server ADDRESS --served-model NAME.")

    def run(self) -> str:
        """Sample; the path of the file."""
        from probes.generate import Decoding
        from probes.tasks import load_task
        from probes.tasks.cells import cells_of, problems_of
        from steering.cli.progress import bar
        from steering.shards import sample_shards
        from steering.verdict.stages import rollouts

        decoding = Decoding(self.temperature, self.top_p)
        task = load_task(self.task)
        asked = problems_of(task, cells_of(task), self.split, self.problems)
        model, server = self._model(), None
        if self.server:
            server = self._server(model)
        source = server or model
        assert source is not None
        with bar("answers", len(asked) * self.samples) as advance:
            shards = sample_shards(
                source,
                task,
                asked,
                self.out.with_name(f".{self.out.name}.unfinished"),
                samples=self.samples,
                decoding=decoding,
                seed=self.seed,
                first_sample=self.first_sample,
                batch=rollouts.BATCH,
                progress=advance,
            )
        # A server that cuts the distribution doesn't write what the model writes here, and what
        # reads records of a model counts on the tokens.
        known = bool(model and model.digest)
        if server is not None:
            known = known and server.whole and shards.complete()
        shards.merge(self.out, **self._about(model if known else source, task, asked, server))
        shards.remove()
        return str(self.out)

    def _about(self, known: Any, task: Any, asked: list, server: "Server | None") -> dict[str, Any]:
        """What is said of the answers: whose they are known as, and all that they were made by."""
        from probes.records import content_hash
        from steering.verdict.stages import rollouts

        about = rollouts.identified(
            known,
            task,
            asked,
            samples=self.samples,
            first=self.first_sample,
            seed=self.seed,
            temperature=self.temperature,
        )
        if self.top_p < 1:
            about |= {"top_p": self.top_p}
        about |= {"identity": content_hash(about), "model": self.model or self.served_model}
        del about["version"]  # the table has its own key of this name
        # Beside what determines the answers, what they were asked under, in words: the task's
        # whole file, its template with it, and how they were drawn. The prompts are in the rows.
        about |= {"name": task.name, "settings": task.settings, "split": self.split}
        about |= {"template": task.settings.get("template"), "top_p": self.top_p}
        if server is not None:
            about |= {"server": server.address, "served_model": server.model}
            about |= {"dialect": server.dialect, "whole_distribution": server.whole}
        return about

    def _model(self) -> "Model | None":
        """The model; of one that is served, all but its weights."""
        from dataclasses import replace

        import torch

        from probes.models import load_on, outline

        if not self.server:
            return load_on(self.model, self.device, self.dtype)
        if not self.model:
            return None
        # From the hub, whose weights may be too many for here, only the small files.
        local = outline(self.model, weights=Path(self.model).is_dir())
        return replace(local, net=local.net.to(getattr(torch, self.dtype)))

    def _server(self, model: "Model | None") -> "Server":
        from probes.served import Server, tokens_of

        return Server(
            self.server,
            self.served_model,
            concurrency=self.concurrency,
            key_env=self.key_env,
            timeout=self.timeout,
            tokens=tokens_of(model) if model else None,
            need_logprobs=self.need_logprobs,
        )
