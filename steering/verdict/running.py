"""Run the stages: each once, each resumable, several at a time where that helps.

A stage is a function from the run's `Context` to `Measurement` rows. It is done when its table
``stage-NAME.parquet`` is there with the identity that its settings, models and task hash to; a
run that was stopped therefore goes on with the first stage that isn't. A stage reads what earlier
ones wrote, never their memory, so it may run in any process: with two workers, base and tuned are
sampled side by side. Stages are named here and imported where they run, so this module, which only
waits and draws the bars, needs no torch.
"""

import importlib
import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from probes.records import Measurement, Refusal, read_table, write_table
from steering.verdict.settings import VerdictSettings

Tick = Callable[[int, int], Any]
"""Called with how much of the stage is done, and of how much."""

SAMPLED = ("seed", "problems", "samples", "fresh")
SELECTED = ("select_problems", "select_samples")


@dataclass(frozen=True)
class Stage:
    """One step of the verdict."""

    name: str
    title: str
    """Beside its progress bar."""
    function: str
    """module:function, called with the context and a `Tick`; returns Measurement rows."""
    needs: tuple[str, ...]
    """Stages whose files it reads."""
    settings: tuple[str, ...]
    """The settings that its result depends on, those of `needs` included; models and task count
    always, by their content, as do "fitted" and "dictionaries", the files beside the models."""


_HERE = "steering.verdict.stages"
STAGES = (
    Stage("rollouts-base", "answers of the base", f"{_HERE}.rollouts:base", (), SAMPLED),
    Stage("rollouts-tuned", "answers of the tuned", f"{_HERE}.rollouts:tuned", (), SAMPLED),
    Stage(
        "directions",
        "directions of strategies",
        f"{_HERE}.directions:run",
        (),
        ("seed", "twin", *SELECTED),
    ),
    Stage(
        "boundary",
        "pass@k, right and valid",
        f"{_HERE}.boundary:run",
        ("rollouts-base", "rollouts-tuned"),
        SAMPLED,
    ),
    Stage(
        "strategies",
        "strategies used",
        f"{_HERE}.mix:run",
        ("rollouts-base", "rollouts-tuned"),
        SAMPLED,
    ),
    Stage(
        "divergence",
        "where they part",
        f"{_HERE}.divergence:run",
        ("rollouts-base", "rollouts-tuned"),
        SAMPLED,
    ),
    Stage(
        "crossing",
        "when or how: crossed decoding",
        f"{_HERE}.crossing:run",
        ("rollouts-base", "rollouts-tuned"),
        (*SAMPLED, "crossed_samples"),
    ),
    Stage(
        "steering",
        "steering the base",
        f"{_HERE}.steered:run",
        ("rollouts-base", "rollouts-tuned", "directions"),
        (*SAMPLED, *SELECTED, "twin", "crossed_samples", "strategies", "strengths"),
    ),
    Stage(
        "sharpening",
        "sharpening alone",
        f"{_HERE}.sharpening:run",
        ("rollouts-base", "rollouts-tuned"),
        (*SAMPLED, *SELECTED, "crossed_samples"),
    ),
    Stage(
        "elicitation",
        "eliciting what the base doesn't show",
        f"{_HERE}.elicited:run",
        ("boundary",),
        (
            *SAMPLED,
            "tuning_answers",
            "margin",
            "elicitation_updates",
            "elicitation_batch",
            "elicitation_problems",
        ),
    ),
    Stage(
        "routing",
        "routing by trained vectors",
        f"{_HERE}.routing:run",
        (),
        ("seed", "fresh", "problems", "routed_problems", "gates", "fitted"),
    ),
    Stage(
        "features",
        "latents of either model",
        f"{_HERE}.features:run",
        ("rollouts-tuned",),
        (*SAMPLED, "again", "dictionaries"),
    ),
    Stage(
        "drift",
        "shift of activations",
        f"{_HERE}.shift:run",
        ("directions",),
        ("seed", "twin", *SELECTED),
    ),
)
"""In the order in which free workers take them, as soon as what they need is there."""


class Progress:
    """Counts what is done of a stage and tells its `Tick`; called with how much more is."""

    def __init__(self, tick: Tick, total: int):
        self.tick, self.done, self.total = tick, 0, total

    def __call__(self, more: int = 1) -> None:
        self.done += more
        self.tick(self.done, self.total)


@runtime_checkable
class Bars(Protocol):
    """Whoever shows how far each stage is."""

    def started(self, stage: Stage) -> None:
        """A stage begins."""
        ...

    def tick(self, stage: Stage, done: int, total: int) -> None:
        """So much of a stage is done."""
        ...

    def finished(self, stage: Stage, resumed: bool) -> None:
        """A stage is done, now or already before."""
        ...


def table(out: Path, stage: Stage | str) -> Path:
    """Where a stage's rows are."""
    return out / f"stage-{stage if isinstance(stage, str) else stage.name}.parquet"


def chosen(settings: VerdictSettings) -> list[Stage]:
    """The stages to run: all but the skipped ones and those that need one of these."""
    names = [stage.name for stage in STAGES]
    if unknown := [name for name in settings.skip if name not in names]:
        raise Refusal(f"stage {unknown[0]!r} is not known; the stages are {', '.join(names)}.")
    skipped = set(settings.skip)
    kept = []
    for stage in STAGES:
        if stage.name in skipped or skipped & set(stage.needs):
            skipped.add(stage.name)
        else:
            kept.append(stage)
    return kept


def run_stage(context: Any, stage: Stage, tick: Tick) -> bool:
    """Run a stage and write its table, unless it is there; returns whether it was.

    Args:
        context: a `steering.verdict.context.Context`.
        stage: which.
        tick: told how far it is.
    """
    path = table(context.settings.out, stage)
    identity = context.identity(stage.name, stage.settings)
    with suppress(Refusal):  # absent or damaged: it is made again
        if read_table(path, Measurement)[1].get("identity") == identity:
            return True
    module, function = stage.function.split(":")
    # A table vouches for the files beside it, which the stage is about to replace.
    path.unlink(missing_ok=True)
    wall, cpu = time.perf_counter(), time.process_time()
    rows = getattr(importlib.import_module(module), function)(context, tick)
    cost = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    write_table(path, rows, Measurement, identity=identity, stage=stage.name, **cost)
    return False


def run_all(settings: VerdictSettings, bars: Bars) -> None:
    """Run every chosen stage, in this process or in workers."""
    stages = chosen(settings)
    from steering.verdict.context import Context

    Context(settings).check_task()
    if settings.workers == 0:
        context = Context(settings)
        for stage in stages:
            bars.started(stage)
            resumed = run_stage(context, stage, lambda n, of, s=stage: bars.tick(s, n, of))
            bars.finished(stage, resumed)
        return
    workers = [_Worker(settings) for _ in range(min(settings.workers, len(stages)))]
    try:
        _dispatch(stages, workers, bars)
    finally:
        for worker in workers:
            worker.stop()


def _dispatch(stages: Sequence[Stage], workers: Sequence["_Worker"], bars: Bars) -> None:
    """Give each free worker the first stage whose needs are done, until all are."""
    waiting, done = list(stages), set()
    busy: dict[Connection, tuple[_Worker, Stage]] = {}
    while waiting or busy:
        for worker in workers:
            ready = next((s for s in waiting if set(s.needs) <= done), None)
            if worker.pipe not in busy and ready:
                waiting.remove(ready)
                worker.pipe.send(ready)
                bars.started(ready)
                busy[worker.pipe] = (worker, ready)
        for pipe in wait(list(busy)):
            worker, stage = busy[pipe]  # type: ignore[index]
            kind, *about = worker.receive(stage)
            if kind == "tick":
                bars.tick(stage, *about)
            elif kind == "refused":
                raise Refusal(about[0])
            elif kind == "failed":
                raise RuntimeError(f"stage {stage.name} failed:\n{about[0]}")
            else:
                bars.finished(stage, *about)
                done.add(stage.name)
                del busy[pipe]  # type: ignore[arg-type]


class _Worker:
    """A process that runs the stages it is sent. Spawned: a fork of torch's threads may hang."""

    def __init__(self, settings: VerdictSettings):
        spawn = multiprocessing.get_context("spawn")
        self.pipe, theirs = spawn.Pipe()
        self.process = spawn.Process(target=_serve, args=(theirs, settings), daemon=True)
        self.process.start()
        theirs.close()

    def receive(self, stage: Stage) -> tuple:
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            raise RuntimeError(
                f"the worker of stage {stage.name} died (exit code {self.process.exitcode}); out "
                f"of memory? Finished stages are kept: run the same command again."
            ) from None

    def stop(self) -> None:
        self.pipe.close()  # an idle worker meets the pipe's end and leaves in good order
        self.process.join(timeout=2)
        if self.process.is_alive():
            self.process.terminate()  # nothing is lost: every file appears whole or not at all
        self.process.join()


def _serve(pipe: Connection, settings: VerdictSettings) -> None:
    """The worker's loop; an interrupt is for the parent, which then ends us."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from steering.verdict.context import Context, one_thread

    one_thread()
    context = Context(settings)
    with suppress(EOFError, BrokenPipeError):
        while True:
            stage = pipe.recv()
            try:
                resumed = run_stage(context, stage, lambda n, of: pipe.send(("tick", n, of)))
                pipe.send(("done", resumed))
            except Refusal as refusal:
                pipe.send(("refused", str(refusal)))
            except Exception:  # the parent raises it with its traceback
                pipe.send(("failed", traceback.format_exc()))
