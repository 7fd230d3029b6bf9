"""Imitate: tune a model on answers that a teacher wrote, or on the best of its own.

    settings = SupervisedSettings(tokens=410_000, keep="valid")
    texts = written(teacher, task, problems, folder, settings)        # resumable
    tuned, curve = supervised(student, texts, settings, folder)

Which arm of a comparison this is follows from the teacher alone:

- an expert that knows what the student never met: distillation that can create;
- the student's own copy after RL: distillation that can only deploy what RL deployed, and hands
  over what RL wrote (RL's Razor, arXiv:2509.04259, compares with it too);
- the student itself: rejection-sampling fine-tuning, RFT (arXiv:2308.01825).

Runs are compared at equal training tokens, so a run's length is set in tokens and not in examples:
every update learns from as many completion tokens, up to one answer.

What is kept matters. To keep right answers or valid traces only is information about the truth of
the entries in them: a skill that a model can't use at all is right by luck now and then, and those
answers survive. So RFT, too, may write entries that tuning touched; it can't the others.
"""

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from probes.generate import Decoding
from probes.models import Model
from probes.records import Grade, Problem, Refusal
from probes.tasks import Task
from probes.verify import UNCHECKED
from steering.evaluate import load_judged
from steering.shards import sample_shards
from steering.training.pretrain import CurveRow, Examples, PretrainSettings, pretrain

KEEP = ("all", "right", "valid")
"""Which of the teacher's answers are learned from; of all, those that ended by themselves."""


@dataclass(frozen=True)
class SupervisedSettings:
    """How answers are collected and learned from."""

    tokens: int = 410_000
    """Completion tokens learned from over the whole run, counted each time they are seen."""
    updates: int = 240
    """Updates of the weights; each learns from its share of the tokens."""
    rate: float = 1e-3
    """AdamW's learning rate after the warm-up; it then falls linearly to 0."""
    warmup: int = 20
    decay: float = 0.01
    clip: float = 1.0
    keep: str = "valid"
    """One of `KEEP`."""
    samples: int = 48
    """Answers of the teacher to each problem."""
    most: int = 0
    """Different answers kept of a problem, the first ones; 0 keeps all, repeated ones too."""
    temperature: float = 1.0
    """At which the teacher writes."""
    save_every: int = 120
    """Updates between checkpoints, hence the most that a killed run loses."""
    seed: int = 0
    """Of the teacher's answers and of the order in which they are learned from."""

    def __post_init__(self) -> None:
        """Refuse what can never work."""
        counts = (self.tokens, self.updates, self.samples, self.save_every)
        if min(counts) < 1 or not self.rate > 0 or self.most < 0 or not self.temperature >= 0:
            raise Refusal(
                f"{self}: tokens, updates, samples, save_every and rate must be positive, most and "
                f"temperature not negative."
            )
        if self.keep not in KEEP:
            raise Refusal(f"keep = {self.keep!r}: there are {', '.join(KEEP)}.")
        if self.tokens < self.updates:
            raise Refusal(f"{self.tokens} tokens can't be shared by {self.updates} updates.")


def written(
    teacher: Model,
    task: Task,
    problems: Sequence[Problem],
    folder: Path,
    settings: SupervisedSettings,
    *,
    progress: Callable[[int], Any] | None = None,
) -> list[tuple[str, str]]:
    """The teacher's answers that are kept, as (prompt, completion).

    Args:
        teacher: loaded from a folder.
        task: made the problems, and judges the answers.
        problems: of the tuning split.
        folder: of the shards of answers; what is finished there is not written again.
        settings: see there.
        progress: called with the number of answers finished since the last call.

    Raises:
        Refusal: no answer is left to learn from, valid ones are to be kept of a task that checks no
            traces, or `folder` holds those of another run.
    """
    if settings.keep == "valid" and not task.checks:
        raise Refusal(f"keep = 'valid' of {task.name}: {UNCHECKED}.")
    shards = sample_shards(
        teacher,
        task,
        problems,
        folder,
        samples=settings.samples,
        decoding=Decoding(settings.temperature),
        seed=settings.seed,
        progress=progress,
    )
    prompts = {problem.id: problem.prompt for problem in problems}
    kept: list[tuple[str, str]] = []
    known: dict[str, set[str]] = {}
    for path in shards.paths:
        judged, _ = load_judged(path)
        for answer, graded in zip(judged.rollouts, judged.graded, strict=True):
            right = graded.grade is Grade.RIGHT
            fits = {"all": True, "right": right, "valid": right and graded.valid}[settings.keep]
            if answer.stop != "stop" or not fits:
                continue  # an answer that the budget cut would teach to stop anywhere
            seen = known.setdefault(answer.problem, set())
            if settings.most and (answer.text in seen or len(seen) == settings.most):
                continue
            seen.add(answer.text)
            kept.append((prompts[answer.problem], answer.text))
    if not kept:
        raise Refusal(
            f"none of the {len(problems) * settings.samples} answers of {teacher.name} is kept "
            f"(keep = {settings.keep!r}): draw more samples, keep others, or choose a teacher that "
            f"solves some of these problems."
        )
    return kept


def batches(texts: Sequence[tuple[str, str]], settings: SupervisedSettings) -> Examples:
    """The examples of each update: all texts in a shuffled order, again and again.

    An update takes the texts until its share of the tokens is reached; what one has too many the
    next has too few, so the whole run is off by less than one text.
    """
    lengths = [len(completion.split()) + 1 for _, completion in texts]  # and the final END
    cuts, order, seen = [0], [], 0
    share = settings.tokens / settings.updates
    draw = random.Random(f"{settings.seed} supervised")
    while len(cuts) <= settings.updates:
        epoch = list(range(len(texts)))
        draw.shuffle(epoch)
        for i in epoch:
            order.append(i)
            seen += lengths[i]
            if seen >= share * len(cuts):
                cuts.append(len(order))

    def batch(step: int) -> Sequence[tuple[str, str]]:
        return [texts[i] for i in order[cuts[step] : cuts[step + 1]]]

    return batch


def supervised(
    student: Model,
    texts: Sequence[tuple[str, str]],
    settings: SupervisedSettings,
    out: Path | None = None,
    *,
    progress: bool = True,
) -> tuple[Model, list[CurveRow]]:
    """Train a copy of `student` on the texts; return it with the curve, one row an update.

    Args:
        student: in float32; it is not changed.
        texts: prompt and completion of each example, of words of the student's vocabulary.
        settings: see there.
        out: folder of checkpoints; a run found there is continued. None keeps nothing.
        progress: show one line of progress on standard error.

    Raises:
        Refusal: an answer longer than an update's share of the tokens, or what `pretrain` refuses.
    """
    share = settings.tokens / settings.updates
    longest = max(len(completion.split()) + 1 for _, completion in texts)
    if longest > share:
        raise Refusal(
            f"an answer has {longest} tokens and an update's share is {share:.0f}: take fewer "
            f"updates, or more tokens."
        )
    given = asdict(settings)
    same = {key: given[key] for key in ("rate", "warmup", "decay", "clip", "save_every")}
    net = copy.deepcopy(student.net)
    loop = PretrainSettings(steps=settings.updates, **same)
    curve = pretrain(net, student.tokenizer, batches(texts, settings), loop, out, progress=progress)
    return Model(net, student.tokenizer, f"{student.name}+supervised"), curve
