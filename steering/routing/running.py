"""All arms of a pair, one after another; what was finished survives whatever ends the run.

    done = run_arms(base, tuned, task, problems, parts, folder=Path("runs/route/arms"))
    done[2].arm.name, done[2].judged, done[2].answers

Of each arm two tables: who chose each token (`Token`) and, written last, the judged answers: so
an arm whose answers are there is whole. Both are known again by the identity of everything that
determines them; a folder with arms of another run is refused and nothing in it overwritten.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from probes.generate import Decoding
from probes.models import Model
from probes.records import Problem, Refusal, content_hash, read_table, write_table
from probes.tasks import Task
from steering.evaluate import Judged, load_judged, save_judged
from steering.routing.arms import Answers, Arm, Parts, make_arms, run_arm, shares
from steering.routing.hybrid import FIELDS, Key
from steering.routing.reference import check_greedy
from steering.vectors.record import Vectors

VERSION = 2
"""Raised whenever the same settings give other answers."""


@dataclass(frozen=True)
class Token:
    """One token of an answer: `hybrid.FIELDS`, and whose it is."""

    problem: str
    sample: int
    place: int
    token: float
    chooser: float
    category: float
    coefficient: float
    among: float
    base_prob: float
    tuned_prob: float
    base_top: float
    tuned_top: float
    kl: float


@dataclass(frozen=True)
class Done:
    """One arm with its answers; without any where it does not exist."""

    arm: Arm
    judged: Judged | None
    answers: Answers


def run_arms(
    base: Model,
    tuned: Model,
    task: Task,
    problems: Sequence[Problem],
    parts: Parts,
    *,
    folder: Path | None = None,
    samples: int = 1,
    decoding: Decoding = Decoding(0),  # noqa: B008 - frozen
    batch: int = 64,
    progress: Callable[[str, int, int], Any] | None = None,
) -> list[Done]:
    """Run every arm that exists, or read what is there of it.

    Args:
        base: before tuning.
        tuned: after it.
        task: made the problems.
        problems: each once.
        parts: what the arms are made of.
        folder: where finished arms are kept; None keeps nothing.
        samples: answers to each problem.
        decoding: of every token.
        batch: rows decoded together.
        progress: called with the arm, how many answers more are finished, and of how many.

    Raises:
        Refusal: what `make_arms` refuses, several greedy samples, or a folder with arms of another
            run.
    """
    if samples > 1 and decoding.temperature == 0:
        raise Refusal(
            f"{samples} samples at temperature 0 are the same answer {samples} times: ask for one, "
            f"or give a temperature."
        )
    if set(parts.windows) != {-1}:  # now, and not when its turn comes
        check_greedy(decoding, parts.windows)
    arms = make_arms(base, tuned, task, problems, parts)
    identity = _identity(base, tuned, task, problems, parts, samples, decoding)
    done: dict[str, Done] = {}
    for place, arm in enumerate(arms):
        if arm.undefined:
            done[arm.name] = Done(arm, None, {})
            continue
        path = None if folder is None else folder / f"{place:02d}-{_file(arm.name)}.parquet"
        kept = None if path is None else _read(path, arm, identity)
        if kept is None:
            rates = shares(done[arm.follows].answers) if arm.follows else None
            total = len(problems) * samples

            def advance(more: int, name: str = arm.name, total: int = total) -> None:
                if progress:
                    progress(name, more, total)

            judged, answers = run_arm(
                arm,
                base,
                tuned,
                task,
                problems,
                parts,
                shares=rates,
                samples=samples,
                decoding=decoding,
                batch=batch,
                progress=advance,
            )
            kept = Done(arm, judged, answers)
            if path is not None:
                _write(path, kept, identity)
        done[arm.name] = kept
    return list(done.values())


def _identity(
    base: Model,
    tuned: Model,
    task: Task,
    problems: Sequence[Problem],
    parts: Parts,
    samples: int,
    decoding: Decoding,
) -> str:
    gate = parts.gate
    given = parts.vectors, parts.shared, parts.everywhere, parts.absent
    about = {
        "version": VERSION,
        "models": [base.digest, tuned.digest, str(base.dtype)],
        "task": content_hash(task.settings),
        "problems": [p.id for p in problems],
        "taxonomy": [parts.taxonomy.site, parts.taxonomy.encoder.tolist()],
        "vectors": [_content(v) for v in given],
        "gate": gate and [gate.of, gate.site, gate.weights.tolist(), gate.bias],
        "settings": [parts.coefficients, parts.windows, parts.guardrail, parts.prompt],
        "more": [parts.thresholds, parts.entropies, parts.seed, samples, asdict(decoding)],
    }
    return content_hash(about)


def _content(vectors: Vectors | None) -> Any:
    if vectors is None:
        return None
    network = {name: x.tolist() for name, x in (vectors.network or {}).items()}
    numbers = [vectors.vectors.tolist(), vectors.coefficients.tolist(), network]
    return [vectors.site, numbers, None if vectors.bias is None else vectors.bias.tolist()]


def _file(name: str) -> str:
    """A name without blanks and signs that a file system may not like."""
    return "".join(c if c.isalnum() or c in ".-" else "-" for c in name)


def _tokens(path: Path) -> Path:
    return path.with_name(f"{path.stem}.tokens.parquet")


def _write(path: Path, done: Done, identity: str) -> None:
    assert done.judged is not None
    if done.answers:
        rows = [
            Token(problem, sample, place, *line)
            for (problem, sample, _), table in done.answers.items()
            for place, line in enumerate(table.tolist())
        ]
        write_table(_tokens(path), rows, Token, identity=identity)
    save_judged(path, done.judged, identity=identity, arm=done.arm.name)


def _read(path: Path, arm: Arm, identity: str) -> Done | None:
    """A finished arm; None where it is not there, or damaged and so to be made again."""
    if not path.exists():
        return None
    try:
        judged, about = load_judged(path)
    except Refusal:
        return None
    if about.get("identity") != identity:
        raise Refusal(
            f"{path} is an arm of another run (other models, vectors, problems or settings): "
            f"nothing is overwritten; choose another --out, or remove that folder."
        )
    answers: Answers = {}
    if arm.router is not None or arm.follows:
        try:
            rows, told = read_table(_tokens(path), Token)
        except Refusal:
            return None
        if told.get("identity") != identity:
            return None
        answers = _by_answer(rows, arm.name)
    return Done(arm, judged, answers)


def _by_answer(rows: Iterable[Token], setting: str) -> Answers:
    found: dict[Key, list[list[float]]] = {}
    for row in rows:
        line = [getattr(row, name) for name in FIELDS]
        found.setdefault((row.problem, row.sample, setting), []).append(line)
    return {key: np.array(lines) for key, lines in found.items()}
