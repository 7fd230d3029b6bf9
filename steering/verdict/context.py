"""What every stage works with: the pair, the task, the problems, and the files of the run."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from probes.models import Model, check_pair, load_on
from probes.records import Problem, Refusal, content_hash, file_hash
from probes.tasks import Task, load_task
from probes.tasks.cells import Cell, cells_of, problems_of
from steering.evaluate import Judged, load_judged
from steering.verdict.settings import BESIDE, VerdictSettings

MODELS = ("base", "tuned")


@dataclass(frozen=True)
class Context:
    """One run of the verdict in one process; everything is loaded when it is first needed."""

    settings: VerdictSettings

    @cached_property
    def task(self) -> Task:
        """The task of the problems."""
        task = load_task(self.settings.task)
        if unknown := [s for s in self.settings.strategies if s not in task.decision_kinds]:
            raise Refusal(
                f"strategy {unknown[0]!r} is not one of the task {task.name}, which has "
                f"{', '.join(task.decision_kinds)} (a strategy is an option of a decision)."
            )
        return task

    def check_task(self) -> None:
        """Refuse, before any work, a task on which the rules of the verdict say nothing.

        Raises:
            Refusal: it checks no traces.
        """
        if not self.task.checks:
            raise Refusal(
                f"the verdict's rules read valid traces, and {self.task.name} checks none: use "
                f"whenhow boundary, divergence and drift, which say what right answers can."
            )

    @cached_property
    def pair(self) -> tuple[Model, Model]:
        """Base and tuned, checked to be comparable."""
        base, tuned = self.load(self.settings.base), self.load(self.settings.tuned)
        check_pair(base, tuned)
        return base, tuned

    @cached_property
    def twin(self) -> Model | None:
        """The twin of the base, if one was given."""
        if not self.settings.twin:
            return None
        twin = self.load(self.settings.twin)
        check_pair(self.pair[0], twin)
        return twin

    @cached_property
    def again(self) -> Model | None:
        """Another seed of the same tuning, if one was given."""
        if not self.settings.again:
            return None
        again = self.load(self.settings.again)
        check_pair(self.pair[0], again)
        return again

    @cached_property
    def dictionaries(self) -> dict[str, Path]:
        """The sparse dictionary beside each model, all of one site, where there are some."""
        given = {"base": self.settings.base, "tuned": self.settings.tuned}
        given |= {"again": self.settings.again} if self.settings.again else {}
        found = {name: sorted((Path(m) / "sae").glob("*/cfg.json")) for name, m in given.items()}
        sites = [{path.parent.name for path in paths} for paths in found.values() if paths]
        common = sorted(set.intersection(*sites)) if sites else []
        return {
            name: Path(given[name]) / "sae" / common[0]
            for name, paths in found.items()
            if paths and common
        }

    @cached_property
    def fitted(self) -> dict[str, Path]:
        """Taxonomy and steering vectors beside the tuned model, where both are and may be used."""
        folder = Path(self.settings.tuned)
        files = {name: folder / file for name, file in BESIDE.items() if (folder / file).is_file()}
        there = {"taxonomy", "vectors"} <= files.keys() and not self.settings.fresh
        return files if there else {}

    def load(self, source: str) -> Model:
        """A model where this run wants it, and as wide."""
        return load_on(source, self.settings.device, self.settings.dtype)

    def model(self, which: str) -> Model:
        """The base or the tuned model, by these names."""
        return self.pair[MODELS.index(which)]

    @property
    def same(self) -> bool:
        """Whether the two models are one: then they are sampled at disjoint indices."""
        return self.pair[0].digest == self.pair[1].digest

    @cached_property
    def cells(self) -> list[Cell]:
        """Skill and half of its entries."""
        return cells_of(self.task)

    def problems(self, split: str, count: int) -> list[Problem]:
        """So many problems of each cell."""
        return problems_of(self.task, self.cells, split, count)

    @cached_property
    def test(self) -> list[Problem]:
        """What everything is reported on."""
        return self.problems("test", self.settings.problems)

    @cached_property
    def select(self) -> list[Problem]:
        """What everything is fitted and chosen on."""
        return self.problems("select", self.settings.select_problems)

    def file(self, name: str) -> Path:
        """A file of the run."""
        return self.settings.out / name

    def rollouts(self, which: str) -> Judged:
        """The judged answers of a model to the test problems, of the first stage."""
        return load_judged(self.file(f"rollouts-{which}.parquet"))[0]

    def selected(self, which: str) -> Judged:
        """The judged answers of a model to the select problems, of the directions stage."""
        return load_judged(self.file(f"rollouts-select-{which}.parquet"))[0]

    def identity(self, stage: str, names: tuple[str, ...]) -> str:
        """Hash of what determines a stage's result: see `running.Stage`.

        Models and task count by their content, so it makes no difference where they lie.
        """
        values = {name: self._content(name) for name in names}
        digests = [m.digest for m in self.pair]
        given = [self.settings.dtype, digests, self.task.settings, values]
        return content_hash([RESULT_VERSION, stage, *given])

    def _content(self, name: str) -> Any:
        """A setting; of models and files their content, wherever they lie."""
        if name in ("twin", "again"):
            model = getattr(self, name)
            return model.digest if model else ""
        if name == "fitted":
            return {what: file_hash(file) for what, file in self.fitted.items()}
        if name == "dictionaries":
            files = {
                k: sorted(f for f in p.iterdir() if f.is_file())
                for k, p in self.dictionaries.items()
            }
            return {k: [file_hash(file) for file in of_it] for k, of_it in files.items()}
        return getattr(self.settings, name)

    def first_sample(self, which: str) -> int:
        """Index of a model's first sample; disjoint only where a model meets itself."""
        return 10_000 if which == "tuned" and self.same else 0


RESULT_VERSION = 5
"""Raised whenever a stage's result changes for the same settings."""


def one_thread() -> None:
    """One thread a process: two would fight for the cores that the other worker uses."""
    torch.set_num_threads(1)
