"""Processes of this machine, one thread or one GPU each.

Each has a pipe of its own, of which nobody else holds the far end. So a worker that dies, in
whatever it was doing (its start, or halfway through an answer), is the end of that pipe and nothing
more: its shard goes to a new one. (In a pool with one queue for all, as pebble's, a worker that is
killed while it writes leaves the queue locked and half a message in it, and the pool waits for
ever.)
"""

import fcntl
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from probes.records import Refusal
from steering.sweep.engines import TRIES, Job, Run, lost
from steering.sweep.working import Done, Work, Worker

PATIENCE = 10.0
"""Seconds that a worker has to end by itself."""


@contextmanager
def local(work: Work, workers: int | None) -> Iterator[Run]:
    """Processes here; none, and all in this one, where `workers` is 0.

    Raises:
        Refusal: more workers than GPUs, or fewer than none.
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
    if workers < 0:
        raise Refusal(f"{workers} workers: one or more, or 0 to do all in this process.")
    with tempfile.TemporaryDirectory(prefix="whenhow-sweep-") as locks:
        crew = Crew(work, gpus, locks)
        try:
            yield lambda jobs: _spread(crew, workers, jobs)
        finally:
            crew.stop()


def _here(work: Work, jobs: Iterable[Job]) -> Iterator[tuple[int, Done]]:
    worker = Worker(work)
    for job in jobs:
        yield job.index, worker.run(job.blocks, job.settings)


@dataclass
class Hand:
    """A worker as the driver sees it."""

    process: Any
    pipe: Connection
    told: bool = False
    """Whether it was sent the `Work`."""
    busy: bool = False


@dataclass
class Crew:
    """The living workers, those that wait for a job among them."""

    work: Work
    gpus: int
    locks: str
    hands: list[Hand] = field(default_factory=list)

    def start(self) -> Hand:
        """A new worker, in its start: sent to only later, so that many start side by side."""
        # Spawned: a forked child of a process with threads, as torch has, may hang.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self.gpus, self.locks), daemon=True)
        # A child inherits what is blocked: Ctrl-C in a terminal is for the driver alone.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self.hands.append(Hand(process, ours))
        return self.hands[-1]

    def send(self, hand: Hand, job: Job) -> None:
        """Give it a job; of one that is dead, `receive` will tell."""
        hand.busy = True
        try:
            if not hand.told:
                hand.pipe.send(self.work)
                hand.told = True
            hand.pipe.send(job)
        except OSError:
            pass

    def receive(self, hand: Hand) -> Done | None:
        """What it did; None if it died.

        Raises:
            Exception: what the worker raised.
        """
        try:
            done = hand.pipe.recv()
        except (EOFError, OSError):
            self.hands.remove(hand)
            hand.pipe.close()
            hand.process.kill()
            hand.process.join()
            return None
        hand.busy = False
        if isinstance(done, BaseException):
            raise done
        return done

    def stop(self) -> None:
        """End all of them: at once those that still work, as they do so in vain."""
        for hand in self.hands:
            hand.pipe.close()  # which one that waits takes as its end
            if hand.busy:
                hand.process.kill()
        for hand in self.hands:
            hand.process.join(PATIENCE)
            hand.process.kill()
        self.hands.clear()


def _spread(crew: Crew, workers: int, jobs: Iterable[Job]) -> Iterator[tuple[int, Done]]:
    waiting = iter(jobs)
    first = list(islice(waiting, workers))
    while len(crew.hands) < len(first):
        crew.start()
    running: dict[Any, tuple[Hand, Job, int]] = {}

    def give(hand: Hand, job: Job, tries: int) -> None:
        crew.send(hand, job)
        running[hand.pipe] = hand, job, tries

    try:
        for hand, job in zip(crew.hands, first, strict=False):
            give(hand, job, 1)
        while running:
            for pipe in wait(list(running)):
                hand, job, tries = running.pop(pipe)
                done = crew.receive(hand)
                if done:
                    if following := next(waiting, None):
                        give(hand, following, 1)
                    yield job.index, done
                elif tries == TRIES:
                    raise lost(job.index, f"exit code {hand.process.exitcode}")
                else:
                    give(crew.start(), job, tries + 1)
    finally:
        if running:  # an exception, or nobody wants the rest
            crew.stop()


_gpu: Any = None
"""The lock of this process' GPU, held as long as it lives."""


def _serve(pipe: Connection, gpus: int, locks: str) -> None:
    """A worker: one thread, a GPU of its own, deaf to Ctrl-C, gone when its parent is."""
    global _gpu
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    with suppress(EOFError, ConnectionError):  # the driver wants no more
        work = pipe.recv()
        if gpus:
            index, _gpu = _claim(gpus, Path(locks))
            work = replace(work, device=f"cuda:{index}")
        worker = Worker(work)
        while True:
            pipe.send(_done(worker, pipe.recv()))


def _done(worker: Worker, job: Job) -> Done | Exception:
    """What it did, or what went wrong, for the driver to raise."""
    try:
        return worker.run(job.blocks, job.settings)
    except Exception as error:
        error.add_note(traceback.format_exc())
        return error


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
