"""Hand a text to its task's grader and trace checker, and survive both.

    graded = grade_all(task, problems, [r.text for r in rollouts])
    graded[0].grade, graded[0].valid        # Grade.RIGHT, False: a lucky answer

A grader that raises or dies gives `Grade.ERROR` and the text of what happened: never wrong, never
0, not counted. Above 1% of them the run stops, since what is left is no longer a fair sample of
the answers.

A text that runs out of the time or memory that a text may take is UNPARSED, with the reason in
`error`: that is a fact about the text, which the same grader would meet again however often the
run is resumed, and one such text must not stop a small one. Where many do (more than `FEW`, and
more than `TOLERATED_KILLED` of all) the grader is taken to hang, and the run stops as well. A busy
machine may so cost an answer that was slow to judge: those with an `error` can be counted.

Two ways to run them. The organisms' graders are exact string work of our own, of microseconds,
and run in this process: a pool would cost them a hundredfold and could only save us from our own
endless loops. All others (symbolic mathematics, other people's code) run in worker processes that
are killed when a text takes too long, and may not take more than `MEMORY`: a tower of powers would
take all there is before its time is up, and not its own process only. `concurrent.futures` and
`multiprocessing.Pool` can't kill a worker and lose the pool when one dies; pebble can and doesn't.
Workers are spawned, not forked, for a fork of a process that runs torch's threads may deadlock.

This module imports no torch, and pebble only where a pool is wanted.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from probes.records import Grade, Problem, Refusal, Trace

IN_PROCESS = frozenset({"chain", "countdown"})
"""Families whose graders are exact, fast and ours."""

UNCHECKED = "this task checks no traces, it judges final answers only; ask for right answers"
"""Why there is no number of valid answers."""

MEMORY = 3 * 2**30
"""Bytes that a worker may allocate beyond what it starts with; more is a MemoryError."""

TOLERATED = 0.01
"""The share of texts whose grader may fail before the run stops."""

TOLERATED_KILLED = 0.1
"""The share of texts that may run out of time or memory before the run stops: ten times that of
failures, since samples of one problem tend to run out together."""

FEW = 10
"""So many of them are never taken for a broken grader."""


@runtime_checkable
class Judge(Protocol):
    """The half of a `probes.tasks.Task` that is needed here."""

    settings: dict[str, Any]
    checks: bool

    def grade(self, problem: Problem, response: str) -> Grade: ...
    def check(self, problem: Problem, response: str) -> Trace: ...


@dataclass(frozen=True)
class Graded:
    """What the grader and the trace checker say of one text."""

    grade: Grade
    valid: bool | None
    """Whether the trace is a derivation of its answer. False where nothing was judged, None where
    the task checks no traces: then nobody knows."""
    error: str = ""
    """What happened, where the grade is ERROR, or UNPARSED for want of time or memory."""

    @property
    def killed(self) -> bool:
        """The text took more time or memory than it may."""
        return self.grade is Grade.UNPARSED and bool(self.error)

    @property
    def sound(self) -> bool:
        """Right by a valid trace: neither lucky nor wrong.

        Raises:
            Refusal: it is right, and the task checks no traces.
        """
        if self.valid is None and self.grade is Grade.RIGHT:
            raise Refusal(f"whether a right answer is valid is not known: {UNCHECKED}.")
        return self.grade is Grade.RIGHT and bool(self.valid)


class GraderFailure(RuntimeError):
    """More graders failed, or were killed, than can be left out."""


def grade_all(
    task: Judge,
    problems: Sequence[Problem],
    responses: Sequence[str],
    *,
    timeout: float = 10.0,
    workers: int | None = None,
) -> list[Graded]:
    """Grade and check each response to the problem of the same index.

    Args:
        task: the task that made the problems.
        problems: one for each response, repeated as needed.
        responses: the generated words.
        timeout: seconds that one text may take in a pool, the check included. In this process
            nothing can be stopped, and it is not looked at.
        workers: processes of the pool; 0 for this process; None for 0 with the organisms' own
            families and 2 with any other.

    Returns:
        One for each response, in order.

    Raises:
        Refusal: problems and responses don't pair up.
        GraderFailure: the grader raised or died on more than 1% of the texts, or more than 10% of
            them and more than ten ran out of time or memory.
    """
    if len(problems) != len(responses):
        raise Refusal(
            f"{len(problems)} problems and {len(responses)} responses: give the problem of each "
            f"response, as often as it was answered."
        )
    if workers is None:
        workers = 0 if task.settings.get("family") in IN_PROCESS else 2
    pairs = list(zip(problems, responses, strict=True))
    if workers == 0:
        return _tolerated((judge(task, *pair) for pair in pairs), pairs)
    return _tolerated(_in_pool(task, pairs, timeout, workers), pairs)


def judge(task: Judge, problem: Problem, response: str) -> Graded:
    """Grade and check one text in this process; what the grader raises becomes ERROR."""
    try:
        return _judged(task, problem, response)
    except Exception as error:  # the one place where any failure becomes data
        return Graded(Grade.ERROR, False, f"{type(error).__name__}: {error}")


def _judged(task: Judge, problem: Problem, response: str) -> Graded:
    grade = Grade(task.grade(problem, response))
    valid = task.check(problem, response).valid if task.checks else None
    return Graded(grade, False if grade is Grade.ERROR else valid)


def _tolerated(graded: Iterable[Graded], pairs: Sequence[tuple[Problem, str]]) -> list[Graded]:
    """The list of them, given up as soon as too many have failed or were killed."""
    allowed = math.floor(TOLERATED * len(pairs))
    spent = max(FEW, math.floor(TOLERATED_KILLED * len(pairs)))
    kept: list[Graded] = []
    failed: list[int] = []
    killed: list[int] = []
    for index, one in enumerate(graded):
        kept.append(one)
        failed += [index] if one.grade is Grade.ERROR else []
        killed += [index] if one.killed else []
        if len(failed) <= allowed and len(killed) <= spent:
            continue
        broken = len(failed) > allowed
        at, most = (failed, f"{TOLERATED:.0%}") if broken else (killed, f"{TOLERATED_KILLED:.0%}")
        problem, response = pairs[at[0]]
        raise GraderFailure(
            f"the grader {'failed' if broken else 'ran out of time or memory'} on {len(at)} of the "
            f"first {index + 1} texts (of {len(pairs)}; {most} may fail so), so the rest is no "
            f"fair sample. First on problem {problem.id}, {kept[at[0]].error or 'no reason given'},"
            f" with the response {response[:200]!r}."
        )
    return kept


_task: Judge | None = None
"""In a worker: the task that it serves, sent once and not with every text."""


def _serve(task: Judge) -> None:
    global _task
    _limit_memory()
    _task = task
    if warm := getattr(task, "warm", None):  # imports that no text's time should be spent on
        warm()


def _limit_memory() -> None:
    """Hold this process to `MEMORY` more address space than it has, where the system can."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (ImportError, OSError, ValueError):  # no Linux: the time limit is left
        return


def _judge_served(problem: Problem, response: str) -> Graded:
    """As `judge`, but that a text which takes more than `MEMORY` raises: no failure of a grader."""
    assert _task is not None
    try:
        return _judged(_task, problem, response)
    except MemoryError:
        raise
    except Exception as error:
        return Graded(Grade.ERROR, False, f"{type(error).__name__}: {error}")


def _in_pool(
    task: Judge, pairs: Sequence[tuple[Problem, str]], timeout: float, workers: int
) -> Iterator[Graded]:
    """Each pair judged in a worker; one that takes too long is killed and another started."""
    import multiprocessing

    from pebble import ProcessPool

    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPool(workers, initializer=_serve, initargs=(task,), context=spawn)  # type: ignore[arg-type]
    try:
        futures = [pool.schedule(_judge_served, args=pair, timeout=timeout) for pair in pairs]
        for future in futures:
            failure = future.exception()
            if failure is None:
                yield future.result()
            else:
                yield _without_verdict(task, failure, timeout)
    finally:
        pool.stop()  # kills what still runs: everything that was wanted has been yielded
        pool.join()


def _without_verdict(task: Judge, failure: BaseException, timeout: float) -> Graded:
    """UNPARSED where the text ran out of time or memory, ERROR where its worker died."""
    unchecked = False if task.checks else None
    if isinstance(failure, TimeoutError):
        return Graded(
            Grade.UNPARSED, unchecked, f"TimeoutError: not done after {timeout:g} s, killed"
        )
    if isinstance(failure, MemoryError):
        return Graded(Grade.UNPARSED, unchecked, f"MemoryError: more than {MEMORY >> 20} MB")
    return Graded(Grade.ERROR, False, f"{type(failure).__name__}: {failure}")
