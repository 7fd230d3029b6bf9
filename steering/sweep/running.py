"""Run a sweep: lay the plan, skip what is finished, have an engine do the rest, write the tables.

This process alone writes. It holds the names of the settings, and one shard's bytes at a time.

    shards/00001.parquet    the answers of a shard
    shards/00001.json       written behind it: the hash of its bytes, its cost, worker and commit

A shard whose hash is missing or doesn't fit is made again, and named. Whatever ends the run loses
the shards in flight and nothing else.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from probes.records import Refusal, atomic_write, write_json
from steering.sweep.engines import Job, engine
from steering.sweep.file import Mistakes, SweepFile, draft, name_of
from steering.sweep.plan import VERSION, Plan, extend, load_plan, save_plan
from steering.sweep.resolving import Asked, Resolved, Resolver
from steering.sweep.results import write_results
from steering.sweep.settings import Setting
from steering.sweep.working import Done, Work

Progress = Callable[[str, int, int], Any]
"""Told who did (a worker, or "" for what was found finished), how many answers, of how many."""


@dataclass
class Prepared:
    """A sweep that is laid out and not begun."""

    file: SweepFile
    out: Path
    plan: Plan
    resolved: list[Resolved]
    asked: dict[str, tuple[Asked, ...]]
    """The problems of a setting, by `Setting.problems`."""
    fresh: int
    """Shards that are new in this plan."""
    foreign: int = 0
    """Settings of earlier runs that are no longer asked for."""
    finished: set[int] = field(default_factory=set)
    damaged: list[Path] = field(default_factory=list)
    """Shards that were there and whose bytes are not what was written."""

    @cached_property
    def wanted(self) -> list[Setting]:
        """Every distinct setting: the unsteered ones first, each push before its controls."""
        return wanted(self.resolved)

    @cached_property
    def needed(self) -> list[int]:
        """The shards that hold an answer of them."""
        return list(self.plan.of({s.key for s in self.wanted}, self.file.samples))

    @property
    def pending(self) -> list[int]:
        """Shards that are to be run."""
        return [i for i in self.needed if i not in self.finished]

    def answers(self, shards: Sequence[int] | None = None) -> int:
        """How many these shards hold, or all that the settings need."""
        some = self.needed if shards is None else shards
        return sum(b.answers for i in some for b in self.plan.shards[i])


def wanted(resolved: Sequence[Resolved]) -> list[Setting]:
    """Settings of all points, each once, unsteered ones first."""
    rest = (s for r in resolved for s in (r.setting, *r.controls))
    return list({s.key: s for s in (*(r.plain for r in resolved), *rest)}.values())


def prepare(source: str | Path | Mapping[str, Any] | SweepFile, out: Path) -> Prepared:
    """Resolve every setting and lay out what is missing; nothing is written.

    Args:
        source: a sweep file, the name of one that ships, or what such a file holds.
        out: its folder, there or not; the bytes of finished shards are checked.

    Raises:
        Mistakes: all those of the file.
        Refusal: a folder that belongs to another sweep.
    """
    file, wrong = (source, []) if isinstance(source, SweepFile) else draft(source)
    resolved: list[Resolved] = []
    if file:
        resolver = Resolver(file)
        try:
            resolved = resolver.all()
        except Mistakes as more:
            wrong += more.wrong
    if wrong or not file:
        raise Mistakes(wrong, file.name if file else name_of(source))  # type: ignore[arg-type]
    off = resolver.off()
    beside = (off,) if off else ()
    by_name = {one.name: (one, *beside) for one in resolver.asked.values()}
    asked = {r.setting.problems: by_name[r.setting.task] for r in resolved}
    plan = load_plan(out, frame(file))
    known = set(plan.settings)
    listed = wanted(resolved)
    counts = {h: sum(len(a.problems) for a in parts) for h, parts in asked.items()}
    fresh = extend(plan, listed, counts, file.samples, file.shard)
    foreign = len(known - {s.key for s in listed})
    ready = Prepared(file, out, plan, resolved, asked, fresh, foreign)
    for index in range(len(plan.shards) - fresh):
        state = check_shard(shard_path(out, index))
        if state:
            ready.finished.add(index)
        elif state is False and index in ready.needed:
            ready.damaged.append(shard_path(out, index))
    return ready


def frame(file: SweepFile) -> dict[str, Any]:
    """What all shards of a folder share beside their settings."""
    return {
        "version": VERSION,
        "problems": file.problems,
        "split": file.split,
        "skills": list(file.skills),
        "off_task": file.off_task,
        "off_problems": file.off_problems if file.off_task else 0,
        "kl_samples": kl_samples(file),
        "batch": file.batch,
        "shard": file.shard,
        "dtype": file.dtype,
    }


def run(
    ready: Prepared,
    *,
    engine_name: str = "local",
    workers: int | None = None,
    address: str = "",
    device: str = "cpu",
    progress: Progress | None = None,
) -> Path:
    """Do what is missing and write the tables; the sweep's folder.

    Raises:
        Refusal: an engine that can't start (nothing is written then), another process that runs
            this sweep or went on with it since, a model that can't be loaded or changed since.
        ShardLost: a shard whose workers died every time.
        GraderFailure: more than 1% of a shard's answers could not be judged.
    """
    tell = progress or (lambda *_: None)
    total, file = ready.answers(), ready.file
    work = work_of(ready, device)
    pending = ready.pending
    with ExitStack() as stack:
        started = engine(engine_name, work, workers=workers, address=address)
        spread = stack.enter_context(started) if pending else None
        stack.enter_context(alone(ready.out))
        check_unchanged(ready)
        save_plan(ready.out, ready.plan)
        write_json(ready.out / "config.json", config(ready, engine_name, workers, device))
        tell("", total - ready.answers(pending), total)
        if spread:
            for index, done in spread(jobs(ready.plan, pending)):
                write_shard(ready.out, index, done)
                tell(str(done.cost["worker"]), done.answers, total)
        shards = [shard_path(ready.out, i) for i in ready.needed]
        write_results(ready.out, file, ready.resolved, ready.asked, shards)
    return ready.out


def check_unchanged(ready: Prepared) -> None:
    """Refuse a plan that was laid out on what the folder held before another run extended it.

    Raises:
        Refusal: it was.
    """
    known = len(ready.plan.shards) - ready.fresh
    if load_plan(ready.out, ready.plan.frame).shards != ready.plan.shards[:known]:
        raise Refusal(
            f"{ready.out} went on since this sweep was prepared: prepare it again, or its answers "
            f"would be laid over the others'."
        )


def work_of(ready: Prepared, device: str) -> Work:
    """What every worker is told once."""
    file = ready.file
    return Work(ready.asked, file.batch, kl_samples(file), file.foreign, device)


def kl_samples(file: SweepFile) -> int:
    """On how many answers of each problem the KL is measured."""
    return file.kl_samples if "kl" in file.metrics else 0


def jobs(plan: Plan, pending: Sequence[int]) -> Iterator[Job]:
    """Shards with the settings they name, made as they are taken."""
    for index in pending:
        blocks = plan.shards[index]
        yield Job(index, blocks, {b.key: plan.settings[b.key] for b in blocks})


def shard_path(out: Path, index: int) -> Path:
    """Where a shard's answers are."""
    return out / "shards" / f"{index:06d}.parquet"


def write_shard(out: Path, index: int, done: Done) -> None:
    """The answers, then the note that vouches for them."""
    path = shard_path(out, index)
    note = path.with_suffix(".json")
    note.unlink(missing_ok=True)
    with atomic_write(path) as file:
        file.write(done.table)
    about = {**done.cost, "answers": done.answers, "finished": time.time(), "commit": commit()}
    write_json(note, {"hash": _hash(done.table), **about})


def check_shard(path: Path) -> bool | None:
    """Whether a shard is whole; None where there is none, or none that was finished."""
    try:
        said = json.loads(path.with_suffix(".json").read_text())["hash"]
    except (OSError, ValueError, KeyError, TypeError):
        return False if path.with_suffix(".json").exists() else None
    try:
        return _hash(path.read_bytes()) == said
    except OSError:
        return False


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=32).hexdigest()


def config(ready: Prepared, engine_name: str, workers: int | None, device: str) -> dict[str, Any]:
    """How it was started, for people; nothing reads it."""
    file = {k: v for k, v in asdict(ready.file).items() if k not in ("points", "folder")}
    started = {"engine": engine_name, "workers": workers, "device": device, "commit": commit()}
    return {"sweep": file, "points": len(ready.file.points), **started, **versions()}


def versions() -> dict[str, str]:
    """Of what computes."""
    import platform
    from importlib.metadata import version

    named = {name: version(name) for name in ("whenhow", "torch", "transformers")}
    return {**named, "python": platform.python_version()}


@cache
def commit() -> str:
    """Of the source tree, "" where it is none."""
    import subprocess

    with suppress(OSError, subprocess.CalledProcessError):
        where = Path(__file__).parent
        asked = ["git", "-C", str(where), "rev-parse", "--short=12", "HEAD"]
        return subprocess.run(asked, capture_output=True, check=True, text=True).stdout.strip()
    return ""


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """One driver a folder; the system frees the lock of one that was killed."""
    from filelock import FileLock, Timeout

    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise Refusal(f"another process is running the sweep in {out}.") from None
    try:
        yield
    finally:
        lock.release()
