"""What the instrument costs, beside what others take for the same work.

    make bench                      # all of them
    make bench ONLY=sampling-limit  # one

Each runs ours and the peer in one process and on one thread, in alternating rounds, on the base
that ships, and prints one JSON line. A ratio above 1 means that ours is better.

A benchmark is a file here, named as in `NAMES` with `_` for `-`, with one function:

    def run(small: bool = False) -> Line

`small` is a run of a second or two, to see that it works; its numbers mean nothing. A library that
only the extra `benchmark` brings is imported inside `run`. A ratio of speeds comes from
`alternate`, which says how rounds are combined.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

NAMES = (
    "sampling",
    "sampling-limit",
    "steering-overhead",
    "sweep-64",
    "sweep-distinct",
    "pack-own",
    "pack-peers",
    "workers-2",
    "bookkeeping",
    "driver-memory",
    "sampling-smollm2",
    "capture-smollm2",
    "capture-limit",
    "capture-transformerlens",
    "capture-memory",
    "hybrid-1",
    "hybrid-32",
    "hybrid-limit",
    "grpo-limit",
    "grpo-trl",
    "sae-clamp",
    "sae-decode",
    "start",
)


class Line(NamedTuple):
    """What one benchmark prints."""

    name: str
    ours: float
    peer: float
    ratio: float
    """Above 1: ours is better."""
    unit: str
    against: str


def alternate(
    name: str,
    ours: Callable[[], float],
    peer: Callable[[], float],
    *,
    unit: str,
    against: str,
    rounds: int = 7,
    clock: Callable[[], float] = time.process_time,
) -> Line:
    """Speeds of two ways of doing the same, and the median of the ratios of paired rounds.

    A pair runs one right after the other, first one way round and then the other, so that what
    else the machine does meets both. One pair before them is not counted.

    Args:
        name: as in `NAMES`.
        ours: does the work and returns how much it was, in units.
        peer: likewise.
        unit: of a speed, such as "tokens/s".
        against: what the peer is.
        rounds: counted pairs.
        clock: the default, CPU seconds, leaves out what other processes do. Whatever waits, for a
            disk, a device or other processes, needs `time.perf_counter`.
    """

    def speed(work: Callable[[], float]) -> float:
        began = clock()
        done = work()
        return done / (clock() - began)

    speed(ours), speed(peer)
    pairs = []
    for i in range(rounds):
        if i % 2:
            theirs = speed(peer)
            pairs.append((speed(ours), theirs))
        else:
            pairs.append((speed(ours), speed(peer)))
    mine, theirs = (median(side) for side in zip(*pairs, strict=True))
    return Line(name, mine, theirs, median(a / b for a, b in pairs), unit, against)
