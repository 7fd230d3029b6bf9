"""Processes of this machine, one thread or one GPU each."""

import fcntl
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool

from probes.records import Refusal
from steering.sweep.engines import TRIES, Job, Run, lost
from steering.sweep.working import Done, Work, Worker

AHEAD = 2
"""Jobs in flight for each worker: one that runs and one that waits."""


@contextmanager
def local(work: Work, workers: int | None) -> Iterator[Run]:
    """Processes here; none, and all in this one, where `workers` is 0.

    Raises:
        Refusal: more workers than GPUs.
    """
    import torch

    if workers == 0:
        before = torch.get_num_threads()
        torch.set_num_threads(1)  # as in a worker, or the bits would differ
        try:
            yield lambda jobs: _here(work, jobs)
        finally:
            torch.set_num_threads(before)
        return
    gpus = torch.cuda.device_count() if work.device == "cuda" else 0
    if work.device == "cuda" and (not gpus or (workers or gpus) > gpus):
        raise Refusal(f"{workers or 'a'} worker(s) with a GPU each, and this machine has {gpus}.")
    workers = workers or gpus or os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="whenhow-sweep-") as locks:
        # Spawned: a forked child of a process with threads, as torch has, may hang.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPool(
            workers, initializer=_begin, initargs=(work, gpus, locks), context=context
        )  # type: ignore[arg-type]
        try:
            yield lambda jobs: _pooled(pool, workers, jobs)
            pool.close()
        finally:
            pool.stop()  # does nothing to a closed pool whose jobs are done
            pool.join()


def _here(work: Work, jobs: Iterable[Job]) -> Iterator[tuple[int, Done]]:
    worker = Worker(work)
    for job in jobs:
        yield job.index, worker.run(job.blocks, job.settings)


def _pooled(pool: ProcessPool, workers: int, jobs: Iterable[Job]) -> Iterator[tuple[int, Done]]:
    waiting = iter(jobs)
    running: dict[Future, tuple[Job, int]] = {}

    def start(job: Job, tries: int) -> None:
        running[pool.schedule(_run, args=(job,))] = job, tries  # type: ignore[index]

    while True:
        while len(running) < AHEAD * workers and (job := next(waiting, None)):
            start(job, 1)
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            job, tries = running.pop(future)
            try:
                yield job.index, future.result()
            except ProcessExpired as died:
                if tries == TRIES:
                    raise lost(job.index, died) from None
                start(job, tries + 1)


_worker: Worker | None = None
_gpu: Any = None


def _begin(work: Work, gpus: int, locks: str) -> None:
    """In a new worker: one thread, a GPU of its own, deaf to Ctrl-C, gone when its parent is."""
    global _worker, _gpu
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    if gpus:
        index, _gpu = _claim(gpus, Path(locks))
        work = replace(work, device=f"cuda:{index}")
    _worker = Worker(work)


def _claim(count: int, folder: Path) -> tuple[int, Any]:
    """The first GPU that no living worker holds; the system frees the lock of a dead one."""
    for index in range(count):
        file = (folder / f"gpu-{index}").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return index, file
        except OSError:
            file.close()
    sys.exit("every GPU is taken")


def _run(job: Job) -> Done:
    assert _worker is not None
    return _worker.run(job.blocks, job.settings)
