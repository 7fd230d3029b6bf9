"""Who runs the shards: processes of this machine, or a Ray cluster.

    with engine("local", work, workers=2) as run:
        for index, done in run(jobs): ...

An engine is a context manager that gives a function from jobs to finished shards, in the order in
which they finish. It holds one model a worker, hands out a job when a worker is free, keeps few
jobs in flight, and gives a lost worker's job to another. What it must not do is change a job.

    local    processes here, one thread or one GPU each
    on_ray   actors of a Ray cluster, this machine's own or one that runs elsewhere
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from probes.records import Refusal
from steering.sweep.plan import Block
from steering.sweep.settings import Setting
from steering.sweep.working import Done, Work

TRIES = 3
"""How often a shard is begun before its workers' deaths are its own fault."""


@dataclass(frozen=True)
class Job:
    """One shard to be run."""

    index: int
    blocks: Sequence[Block]
    settings: Mapping[str, Setting]


Run = Callable[[Iterable[Job]], Iterator[tuple[int, Done]]]

ENGINES = ("local", "ray")


def engine(
    name: str, work: Work, *, workers: int | None = None, address: str = ""
) -> AbstractContextManager[Run]:
    """An engine by name.

    Args:
        name: one of `ENGINES`.
        work: what every worker is told once.
        workers: how many; by default one a core, or one a GPU. 0: this very process (local only).
        address: of a Ray cluster that runs already; "" starts one here.

    Raises:
        Refusal: no such engine, Ray is not installed, a cluster that doesn't answer, too few GPUs.
    """
    if name == "local":
        if address:
            raise Refusal("an address is for the ray engine: --engine ray.")
        from steering.sweep.engines.local import local

        return local(work, workers)
    if name == "ray":
        from steering.sweep.engines.on_ray import on_ray

        return on_ray(work, workers, address)
    raise Refusal(f"engine {name!r} is not known; there are {', '.join(ENGINES)}.")


class ShardLost(RuntimeError):
    """Workers died on one shard as often as it may be tried."""


def lost(index: int, last: object) -> ShardLost:
    """What to raise when a shard has killed its workers."""
    return ShardLost(
        f"shard {index} was begun {TRIES} times and its worker died every time ({last}): out of "
        f"memory? A smaller batch, or fewer workers, need less."
    )
