"""Answers of base and tuned to the test problems: recorded ones where they fit, else sampled.

A record is a table of judged answers in ``rollouts/`` beside the tuned model; it fits if it was
made by these weights, on this task, with these problems, samples, decoding and seed.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from probes.models import Model
from probes.records import (
    Measurement,
    Problem,
    Refusal,
    atomic_write,
    content_hash,
    read_arrow,
    unique,
)
from probes.served import Server
from probes.tasks import Task
from steering.evaluate import Judged, Line, evaluate, load_judged, save_judged
from steering.verdict.context import MODELS, Context
from steering.verdict.running import Progress, Tick

BATCH = 256
"""Rows decoded at a time: the small models are fastest there on one thread."""

VERSION = 1
"""Raised when answers change for the same settings, and only then: records carry it, and those of
the shipped pair outlive a change of what is computed from them."""


def base(context: Context, tick: Tick) -> list[Measurement]:
    """The base's answers."""
    return answers(context, "base", tick)


def tuned(context: Context, tick: Tick) -> list[Measurement]:
    """The tuned model's answers."""
    return answers(context, "tuned", tick)


def answers(context: Context, which: str, tick: Tick) -> list[Measurement]:
    """Write ``rollouts-*.parquet``; the rows say how many answers there are and where from."""
    path = context.file(f"rollouts-{which}.parquet")
    record = None if context.settings.fresh else recorded(context, which)
    if record is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with record.open("rb") as source, atomic_write(path) as target:
            shutil.copyfileobj(source, target)
    else:
        sample(context, which, path, tick)
    judged, about = load_judged(path)
    source = "recorded" if record is not None else "fresh"
    return [
        Measurement(
            "answers",
            float(len(judged.where(skill=skill, part=part).rollouts)),
            float("nan"),
            float("nan"),
            sum((p.skill, p.part) == (skill, part) for p in judged.problems),
            model=which,
            skill=skill,
            part=part,
            setting=source,
            note=f"{about['samples']} answers a problem, seed {about['seed']}",
        )
        for skill, part in unique([(p.skill, p.part) for p in judged.problems])
    ]


def identity(context: Context, which: str) -> dict[str, Any]:
    """Everything that determines the answers of a run, as it stands in a record's metadata."""
    return identified(
        context.model(which),
        context.task,
        context.test,
        samples=context.settings.samples,
        first=context.first_sample(which),
        seed=context.settings.seed,
    )


def identified(
    model: Model | Server,
    task: Task,
    problems: Sequence[Problem],
    *,
    samples: int,
    first: int = 0,
    seed: int = 0,
    temperature: float = 1.0,
) -> dict[str, Any]:
    """Everything that determines the answers of any model to any problems, in plain sampling.

    Of one that is known only by its name on a server, the name and how it was asked.
    """
    about = {
        "version": VERSION,
        **(
            {"served": model.identity(problems[0].prompt)}
            if isinstance(model, Server)
            else {"digest": model.digest}
        ),
        "task": content_hash(task.settings),
        "problems": content_hash([p.id for p in problems]),
        "samples": samples,
        "first": first,
        "seed": seed,
        "temperature": temperature,
    }
    if isinstance(model, Server):
        return about
    narrow = str(model.dtype).removeprefix("torch.")
    return about if narrow == "float32" else {**about, "dtype": narrow}


def recorded(context: Context, which: str) -> Path | None:
    """A record that fits, if there is one."""
    there = sorted((Path(context.settings.tuned) / "rollouts").glob("*.parquet"))
    if not there:
        return None  # what it would be known by asks for as many problems as the verdict does
    wanted = content_hash(identity(context, which))
    for path in there:
        try:
            about = read_arrow(path, Line.__name__)[1]
        except Refusal:
            continue  # a damaged record is no reason not to sample
        if about.get("identity") == wanted:
            return path
    return None


def sample(context: Context, which: str, path: Path, tick: Tick) -> None:
    """Sample and grade, at temperature 1."""
    about = identity(context, which)
    samples = context.settings.samples
    progress = Progress(tick, len(context.test) * samples)
    judged = written(context, which, context.test, samples, progress)
    del about["version"]  # the table has its own key of this name
    save_judged(path, judged, model=which, identity=content_hash(identity(context, which)), **about)


def written(
    context: Context,
    which: str,
    problems: Sequence[Problem],
    samples: int,
    progress: Callable[[int], Any] | None = None,
) -> Judged:
    """A model's own answers, at temperature 1 and on the run's random numbers."""
    return evaluate(
        context.model(which),
        context.task,
        problems,
        samples=samples,
        seed=context.settings.seed,
        first_sample=context.first_sample(which),
        batch=BATCH,
        progress=progress,
    )


def keep(out: Path, tuned: Path) -> list[Path]:
    """Make the answers of a finished run the record that later runs read."""
    kept = []
    for which in MODELS:
        target = tuned / "rollouts" / f"{which}.parquet"
        with (out / f"rollouts-{which}.parquet").open("rb") as source, atomic_write(target) as file:
            shutil.copyfileobj(source, file)
        kept.append(target)
    return kept
