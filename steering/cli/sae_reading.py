"""What `whenhow sae` reads: answers with their marks, and a model with its dictionary."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from probes.capture import Text, from_rollouts
from probes.models import Model, load_on
from probes.records import Refusal
from probes.sae import Sae, load_sae
from probes.sae.active import Active
from probes.sae.reason import word_marks
from probes.sae.train import SaeSettings, is_held
from probes.tasks import Task, decisions, load_task
from steering.evaluate import Judged, evaluate

BATCH = 128


@dataclass(frozen=True, eq=False)
class Answers:
    """A model's answers, as texts to read and with their marks."""

    task: Task
    judged: Judged
    texts: tuple[Text, ...]

    @cached_property
    def spans(self) -> dict[tuple[str, int], list[tuple[int, str]]]:
        """Positions in which each strategy is used."""
        found = {}
        for key, start, problem, response in self._each():
            marked = self.task.spans(problem, response)
            found[key] = [(start + w, s.strategy) for s in marked for w in range(s.start, s.stop)]
        return found

    @cached_property
    def decided(self) -> dict[tuple[str, int], list[tuple[int, str]]]:
        """Last position before each decision, as "kind:choice"."""
        found = {}
        for key, start, problem, response in self._each():
            taken = decisions(self.task, problem, response)
            found[key] = [(start + d.position - 1, f"{d.kind}:{d.choice}") for d in taken]
        return found

    def reasoning(
        self, model: Model, words: Sequence[str]
    ) -> tuple[dict[tuple[str, int], list[tuple[int, int]]], int]:
        """Positions of the reasoning tokens with their groups, and how many groups there are.

        Without words: those that take a strategy where the grammar leaves it open.
        """
        if words:
            name = model.tokenizer.convert_ids_to_tokens
            texts = {(t.problem, t.sample): name(list(t.answer)) for t in self.texts}
            start = {(t.problem, t.sample): len(t.prompt) for t in self.texts}
            return word_marks(words, texts, start), len(words)
        group = {
            f"{kind}:{next(iter(options))}": i
            for i, (kind, options) in enumerate(self.task.decision_kinds.items())
        }
        marks = {
            key: [(at + 1, group[what]) for at, what in listed if what in group]
            for key, listed in self.decided.items()
        }
        return marks, len(group)

    def _each(self) -> Iterable[tuple[tuple[str, int], int, Any, str]]:
        by_id = {p.id: p for p in self.judged.problems}
        for text, r in zip(self.texts, self.judged.rollouts, strict=True):
            yield (text.problem, text.sample), len(text.prompt), by_id[r.problem], r.text


def answers(
    model: Model,
    task: Task,
    split: str,
    problems: int,
    samples: int,
    seed: int,
    tick: Callable[[int], Any],
    *,
    batch: int = BATCH,
) -> Answers:
    """Sample answers to so many problems, the task's skills in turns."""
    judged = evaluate(
        model,
        task,
        task.problems(split, problems),
        samples=samples,
        seed=seed,
        batch=batch,
        progress=tick,
    )
    return Answers(task, judged, tuple(from_rollouts(model, judged.problems, judged.rollouts)))


def check_latents(sae: Sae, latents: Sequence[int]) -> None:
    """Refuse latents that the dictionary doesn't have, before anything is sampled.

    Raises:
        Refusal: with the first of them.
    """
    if wrong := [i for i in latents if not 0 <= i < sae.latents]:
        raise Refusal(f"latent {wrong[0]} is not one of the {sae.latents} of {sae.folder}.")


def check_size(task: Task, problems: int, samples: int, settings: SaeSettings) -> None:
    """Refuse a dictionary that these problems can't fill, before anything is sampled.

    Raises:
        Refusal: fewer than two problems are held out, by the hash of their names; or the longest
            answers to the others would be fewer rows than latents, or than a batch.
    """
    given = task.problems("tune", problems)
    held = is_held(np.array([p.id for p in given]), settings.held_out)
    most = samples * sum(task.budget(p) for p, out in zip(given, held, strict=True) if not out)
    if most < max(settings.latents, settings.batch):
        raise Refusal(
            f"{samples} answers to each of {problems} problems are at most {most} rows to train "
            f"on: too few for {settings.latents} latents in batches of {settings.batch}. Give more "
            f"problems or samples."
        )
    if held.sum() < 2:
        raise Refusal(
            f"of {problems} problems the hash of their names holds out {held.sum()} to measure on, "
            f"and two is the least: give more problems."
        )


def beside(folder: Path, given: str) -> str:
    """The model of a dictionary: the one given, or whose folder it lies in.

    Raises:
        Refusal: none given, and it lies in no model's folder.
    """
    if given:
        return given
    home = folder.resolve().parent.parent
    if not (home / "config.json").is_file():
        raise Refusal(
            f"{folder} does not lie in a model's folder (MODEL/sae/SITE), so say which model its "
            f"activations are of: --model, --tuned."
        )
    return str(home)


@dataclass(frozen=True)
class Part:
    """A model with its dictionary, under the name it has in tables."""

    name: str
    model: Model
    sae: Sae


def load_part(name: str, folder: Path, given: str, asked: Any) -> Part:
    """The dictionary and its model, checked to belong together."""
    load_sae(folder)  # a damaged folder is said before its model is looked for
    model = load_on(beside(folder, given), asked.device, asked.dtype)
    return Part(name, model, load_sae(folder, model))


def task_of(part: Part, given: str) -> Task:
    """The task that was given, or the one that the dictionary was trained on."""
    if not (given or part.sae.facts.get("task")):
        raise Refusal(f"{part.sae.folder} does not say its task: give --task.")
    return load_task(given or str(part.sae.facts["task"]))


def fires_on(model: Model, texts: Sequence[Text], a: Active, most: int = 4) -> Callable[[int], str]:
    """Of a latent, the tokens with the largest shares of its activation."""
    of = {(t.problem, t.sample): t.tokens for t in texts}
    places = zip(a.problems, a.samples, a.positions, strict=True)
    tokens = np.array([of[str(p), int(s)][int(at)] for p, s, at in places])

    def said(latent: int) -> str:
        column = a.a[:, [latent]].tocoo()
        mass = np.bincount(tokens[column.row], column.data, minlength=model.vocab)
        if not mass.sum() > 0:
            return "never"
        best = np.argsort(-mass, kind="stable")[:most]
        names = model.tokenizer.convert_ids_to_tokens(best.tolist())
        shares = [
            f"{n} {mass[i] / mass.sum():.0%}" for n, i in zip(names, best, strict=True) if mass[i]
        ]
        return ", ".join(shares)

    return said
