"""Many answers, sampled shard by shard: what was finished survives whatever ends the run.

    kept = sample_shards(model, task, problems, Path("runs/x/base"), samples=1024)
    kept.counts()                      # for `probes.boundary`, one shard in memory at a time
    kept.merge(Path("base.parquet"))   # one table of answers, as `steering.evaluate` reads it

A shard is a block of problems times a block of sample indices. Which answers it holds follows
from the problems, the number of samples and the size of a shard alone, never from how far an
earlier run came. Each is decoded on its own and written atomically, so a run that was killed loses
the shard in flight at most, and what the same call gives after it is what it would have given
uninterrupted, bit for bit.

A model behind a server (`probes.served.Server`) is sampled likewise; there, bit for bit depends on
the server.

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
from probes.served import Server
from probes.served.draws import check_varied
from probes.tasks import Task
from steering.evaluate import Judged, Line, evaluate, judge_all, save_judged

VERSION = 1
"""Raised whenever the same settings give other answers."""

SIZE = 4096
"""Most answers in a shard: seconds of work on a small model, and the rows still fill batches."""

SERVED = 512
"""The same of a server, whose answers may take minutes each; of 32 in flight, few wait for the
last."""


@dataclass(frozen=True)
class Shards:
    """Finished answers on disk."""

    paths: tuple[Path, ...]
    """In order of problems, then of samples."""
    problems: tuple[Problem, ...]

    def texts(self) -> Iterator[tuple[str, str]]:
        """Problem and text of every answer."""
        for path in self.paths:
            yield from _columns(path, ("problem", "text"))

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

    def complete(self) -> bool:
        """Whether every answer has its token ids; a server may give none."""
        return all(tokens for path in self.paths for (tokens,) in _columns(path, ("tokens",)))

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
    model: Model | Server,
    task: Task,
    problems: Sequence[Problem],
    folder: Path,
    *,
    samples: int,
    decoding: Decoding = Decoding(),  # noqa: B008 - frozen
    seed: int = 0,
    first_sample: int = 0,
    batch: int = 256,
    size: int | None = None,
    progress: Callable[[int], Any] | None = None,
) -> Shards:
    """Answers to every problem, those that are there already left as they are.

    Args:
        model: is sampled from plainly, here or where it is served.
        task: made the problems.
        problems: each once.
        folder: holds the shards of this run and of no other.
        samples: answers to each problem.
        decoding: as in `steering.evaluate.evaluate`.
        seed: of the random numbers.
        first_sample: index of the first sample; disjoint ranges give independent answers.
        batch: rows decoded together, by a model here.
        size: most answers of a shard; `SIZE`, of a server `SERVED`.
        progress: called with the number of answers finished, or found finished, since the last.

    Raises:
        Refusal: the folder holds shards of another run, the model was not loaded from a folder, or
            what `evaluate` or `Server.write` refuses.
        GraderFailure: more than 1% of the answers of a shard could not be judged.
        ServerUnavailable: a server that stayed away; finished shards are kept.
    """
    if size is None:
        size = SERVED if isinstance(model, Server) else SIZE
    if isinstance(model, Server) and decoding.stop:
        raise Refusal("a server stops where its model does: stop tokens of your own can't be kept.")
    if not problems or samples < 1:
        raise Refusal(f"{len(problems)} problems and {samples} samples: both are at least 1.")
    about = {
        "version": VERSION,
        **_source(model, problems[0]),
        "task": content_hash(task.settings),
        "problems": content_hash([p.id for p in problems]),
        "decoding": asdict(decoding),
        "numbers": [samples, seed, first_sample, size],
    }
    identity = content_hash(about)
    blocks = list(composition(len(problems), samples, size))
    paths = [folder / f"{i + 1:05d}-of-{len(blocks):05d}.parquet" for i in range(len(blocks))]
    if foreign := sorted(set(folder.glob("*.parquet")) - set(paths)):
        raise Refusal(_another(foreign[0]))
    for path, (asked, drawn) in zip(paths, blocks, strict=True):
        if _finished(path, identity):
            if progress:
                progress(len(asked) * len(drawn))
            continue
        judged = _judged(
            model,
            task,
            [problems[i] for i in asked],
            range(first_sample + drawn.start, first_sample + drawn.stop),
            decoding=decoding,
            seed=seed,
            batch=batch,
            progress=progress,
        )
        save_judged(path, judged, identity=identity)
    shards = Shards(tuple(paths), tuple(problems))
    if isinstance(model, Server) and decoding.temperature > 0:
        check_varied(shards.texts())
    return shards


def _source(model: Model | Server, problem: Problem) -> dict[str, Any]:
    """What a shard knows again of whoever wrote it."""
    if isinstance(model, Server):
        return {"served": model.identity(problem.prompt)}
    if not model.digest:
        raise Refusal(
            f"{model.name} is in memory only: finished shards are known again by the content of a "
            f"model's folder. Save it and load it, or use evaluate."
        )
    return {"dtype": str(model.dtype), "digest": model.digest}


def _judged(
    model: Model | Server,
    task: Task,
    problems: Sequence[Problem],
    samples: range,
    *,
    decoding: Decoding,
    seed: int,
    batch: int,
    progress: Callable[[int], Any] | None,
) -> Judged:
    """The answers of one shard, with their verdicts."""
    how: dict[str, Any] = {"seed": seed, "progress": progress}
    if isinstance(model, Server):
        how |= {"temperature": decoding.temperature, "top_p": decoding.top_p}
        return judge_all(task, problems, model.write(task, problems, samples, **how))
    how |= {"samples": len(samples), "first_sample": samples.start}
    return evaluate(model, task, problems, decoding=decoding, batch=batch, **how)


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
