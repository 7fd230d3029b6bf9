"""Many answers, sampled shard by shard: what was finished survives whatever ends the run.

    kept = sample_shards(model, task, problems, Path("runs/x/base"), samples=1024)
    kept.counts()                      # for `probes.boundary`, one shard in memory at a time
    kept.merge(Path("base.parquet"))   # one table of answers, as `steering.evaluate` reads it

A shard is a block of problems times a block of sample indices. Which answers it holds follows
from the problems, the number of samples and the size of a shard alone, never from how far an
earlier run came. Each is decoded on its own and written atomically, so a run that was killed loses
the shard in flight at most, and what the same call gives after it is what it would have given
uninterrupted, bit for bit.

Only the answers of one shard are ever objects in memory; counting reads three columns.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from probes.boundary import Counts
from probes.generate import Decoding
from probes.models import Model
from probes.records import Grade, Problem, Refusal, atomic_write, content_hash, read_arrow
from probes.tasks import Task
from steering.evaluate import Line, evaluate, save_judged

VERSION = 1
"""Raised whenever the same settings give other answers."""

SIZE = 4096
"""Most answers in a shard: seconds of work on a small model, and the rows still fill batches."""


@dataclass(frozen=True)
class Shards:
    """Finished answers on disk."""

    paths: tuple[Path, ...]
    """In order of problems, then of samples."""
    problems: tuple[Problem, ...]

    def counts(self) -> list[Counts]:
        """What the answers to each problem came to, in the order of the problems.

        Raises:
            Refusal: no answer to some problem could be graded.
        """
        tally = {problem.id: [0, 0, 0, 0] for problem in self.problems}
        checked = True
        for path in self.paths:
            for problem, grade, valid in _columns(path, ("problem", "grade", "valid")):
                if grade != Grade.ERROR:
                    right = grade == Grade.RIGHT
                    checked = checked and valid is not None
                    one = (1, right, right and bool(valid), grade == Grade.UNPARSED)
                    tally[problem] = [a + b for a, b in zip(tally[problem], one, strict=True)]
        if lost := [problem for problem, (n, *_) in tally.items() if n == 0]:
            raise Refusal(f"no answer to {len(lost)} problem(s) could be graded, first {lost[0]}.")
        return [
            Counts(problem, n, right, valid if checked else None, unparsed)
            for problem, (n, right, valid, unparsed) in tally.items()
        ]

    def merge(self, path: Path, **about: Any) -> None:
        """One table of all answers, written atomically, a shard at a time.

        Args:
            path: where it appears.
            about: what is to be said of all of them.
        """
        import json

        import pyarrow.parquet as pq

        schema = read_arrow(self.paths[0], Line.__name__)[0].schema
        told = json.loads(schema.metadata[b"whenhow"])
        kept = {key: told[key] for key in ("version", "kind")}
        schema = schema.with_metadata({"whenhow": json.dumps({**kept, **about})})
        with atomic_write(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as out:
            for shard in self.paths:
                table = read_arrow(shard, Line.__name__)[0]
                out.write_table(table.replace_schema_metadata(schema.metadata))

    def remove(self) -> None:
        """Delete the shards, and their folder if nothing else is in it."""
        for path in self.paths:
            path.unlink(missing_ok=True)
        with suppress(OSError):
            self.paths[0].parent.rmdir()


def sample_shards(
    model: Model,
    task: Task,
    problems: Sequence[Problem],
    folder: Path,
    *,
    samples: int,
    decoding: Decoding = Decoding(),  # noqa: B008 - frozen
    seed: int = 0,
    first_sample: int = 0,
    batch: int = 256,
    size: int = SIZE,
    progress: Callable[[int], Any] | None = None,
) -> Shards:
    """Answers to every problem, those that are there already left as they are.

    Args:
        model: is sampled from plainly.
        task: made the problems.
        problems: each once.
        folder: holds the shards of this run and of no other.
        samples: answers to each problem.
        decoding: as in `steering.evaluate.evaluate`.
        seed: of the random numbers.
        first_sample: index of the first sample; disjoint ranges give independent answers.
        batch: rows decoded together.
        size: most answers of a shard.
        progress: called with the number of answers finished, or found finished, since the last.

    Raises:
        Refusal: the folder holds shards of another run, the model was not loaded from a folder, or
            what `evaluate` refuses.
        GraderFailure: more than 1% of the answers of a shard could not be judged.
    """
    if not model.digest:
        raise Refusal(
            f"{model.name} is in memory only: finished shards are known again by the content of a "
            f"model's folder. Save it and load it, or use evaluate."
        )
    about = {
        "version": VERSION,
        "dtype": str(model.dtype),
        "digest": model.digest,
        "task": content_hash(task.settings),
        "problems": content_hash([p.id for p in problems]),
        "decoding": asdict(decoding),
        "numbers": [samples, seed, first_sample, size],
    }
    identity = content_hash(about)
    blocks = list(composition(len(problems), samples, size))
    if not blocks:
        raise Refusal(f"{len(problems)} problems and {samples} samples: both are at least 1.")
    paths = [folder / f"{i + 1:05d}-of-{len(blocks):05d}.parquet" for i in range(len(blocks))]
    if foreign := sorted(set(folder.glob("*.parquet")) - set(paths)):
        raise Refusal(_another(foreign[0]))
    for path, (asked, drawn) in zip(paths, blocks, strict=True):
        if _finished(path, identity):
            if progress:
                progress(len(asked) * len(drawn))
            continue
        judged = evaluate(
            model,
            task,
            [problems[i] for i in asked],
            samples=len(drawn),
            decoding=decoding,
            seed=seed,
            first_sample=first_sample + drawn.start,
            batch=batch,
            progress=progress,
        )
        save_judged(path, judged, identity=identity)
    return Shards(tuple(paths), tuple(problems))


def composition(problems: int, samples: int, size: int) -> Iterator[tuple[range, range]]:
    """Which problems and which of their samples each shard holds, `size` answers at most.

    >>> [(list(p), list(s)) for p, s in composition(3, 2, 4)]
    [([0, 1], [0, 1]), ([2], [0, 1])]
    """
    deep = max(1, min(samples, size))
    wide = max(1, size // deep)
    for first in range(0, problems, wide):
        for start in range(0, samples, deep):
            yield (
                range(first, min(first + wide, problems)),
                range(start, min(start + deep, samples)),
            )


def _finished(path: Path, identity: str) -> bool:
    """Whether a shard is there, whole; one that is damaged is made again."""
    if not path.exists():
        return False
    try:
        about = read_arrow(path, Line.__name__)[1]
    except Refusal:
        return False
    if about.get("identity") != identity:
        raise Refusal(_another(path))
    return True


def _another(path: Path) -> str:
    return (
        f"{path} is a shard of another run (of another model, task, number of samples, decoding or "
        f"seed): nothing is overwritten; choose another --out, or remove that folder."
    )


def _columns(path: Path, names: Sequence[str]) -> Iterator[tuple]:
    table = read_arrow(path, Line.__name__)[0].select(list(names))
    return zip(*(table[name].to_pylist() for name in names), strict=True)
