"""Actors of a Ray cluster: it places them, restarts them and retries what they were doing."""

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from probes.records import Refusal
from probes.verify import GraderFailure
from steering.sweep.engines import TRIES, Job, Run, lost
from steering.sweep.working import Done, Work, Worker

AHEAD = 2
PATIENCE = 5.0
"""Seconds that a cluster has to answer."""

HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What a client of HTTP/2, as Ray speaks it, says first (RFC 9113, section 3.4); no settings."""
SETTINGS = 4
"""The kind of the frame that a server answers with."""


@contextmanager
def on_ray(work: Work, workers: int | None, address: str) -> Iterator[Run]:
    """One actor a worker, with a CPU, or a GPU, each.

    Raises:
        Refusal: Ray is not installed, nothing answers at the address, or the cluster has fewer
            CPUs or GPUs than workers.
    """
    try:
        import ray
    except ImportError:
        raise Refusal("the ray engine needs Ray: pip install 'whenhow[ray]'.") from None
    if address:
        check_address(address)
    if workers == 0:
        raise Refusal("0 workers is this very process, which the local engine has; Ray has others.")
    cores = os.cpu_count() or 1
    if not address and (workers or 1) > cores:  # Ray would believe what it is told
        raise Refusal(f"{workers} workers with a core each, and this machine has {cores}.")
    gpu = work.device.startswith("cuda")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:  # said, as RAY_ADDRESS would name another
            ray.init(address="local", num_cpus=workers, include_dashboard=False, **quiet)
    except ConnectionError as error:
        raise Refusal(f"no Ray cluster answers at {address!r}: {error}") from None
    try:
        there = int(ray.cluster_resources().get("GPU" if gpu else "CPU", 0))
        count = workers or there
        if not 1 <= count <= there:
            raise Refusal(
                f"{count} workers with a {'GPU' if gpu else 'CPU'} each, and the cluster has "
                f"{there}."
            )
        actor = ray.remote(
            num_cpus=1, num_gpus=int(gpu), max_restarts=-1, max_task_retries=TRIES - 1
        )(Hand)
        # By value: what lies in the object store may be gone when an actor is restarted.
        hands = [actor.remote(work) for _ in range(count)]
        yield lambda jobs: _spread(ray, hands, jobs)
    finally:
        ray.shutdown()


class Hand:
    """What runs in an actor."""

    def __init__(self, work: Work) -> None:
        """One thread, as in every worker."""
        import torch

        torch.set_num_threads(1)
        self.worker = Worker(work)

    def run(self, job: Job) -> Done:
        """One shard."""
        return self.worker.run(job.blocks, job.settings)


def _spread(ray: Any, hands: list, jobs: Iterable[Job]) -> Iterator[tuple[int, Done]]:
    """Hand out jobs as hands get free; Ray itself repeats what a dead one left."""
    waiting, running = iter(jobs), {}
    load = dict.fromkeys(range(len(hands)), 0)
    while True:
        while True:
            free = min(load, key=lambda i: load[i])
            if load[free] >= AHEAD or not (job := next(waiting, None)):
                break
            running[hands[free].run.remote(job)] = job, free
            load[free] += 1
        if not running:
            return
        (ready,), _ = ray.wait(list(running), num_returns=1)
        job, hand = running.pop(ready)
        load[hand] -= 1
        try:
            yield job.index, ray.get(ready)
        except ray.exceptions.RayActorError as died:
            raise lost(job.index, died) from None
        except ray.exceptions.RayTaskError as error:
            told = isinstance(error.cause, (Refusal, GraderFailure))
            raise error.cause if told else error from None


def check_address(address: str) -> None:
    """Refuse an address at which no Ray answers; Ray's own client tries for minutes.

    Raises:
        Refusal: no host and port, or no answer.
    """
    if address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or int(port) >= 1 << 16:
        raise Refusal(f"address {address!r}: give HOST:PORT or ray://HOST:PORT, as ray start says.")
    try:
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as line:
            if os.environ.get("RAY_USE_TLS", "0") == "0":
                line.sendall(HELLO)
                if line.recv(9)[3:4] != bytes([SETTINGS]):
                    raise OSError("what listens there is no Ray")
    except OSError as error:
        raise Refusal(
            f"no Ray cluster answers at {address} ({error}): start one there (ray start --head), "
            f"or leave the address out."
        ) from None
