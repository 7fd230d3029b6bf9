"""One feature of 16,384 clamped in the residuals of a decoding step, its error kept.

The residuals of 32 rows, recorded while the base wrote. Ours is the observer as decoding calls it:
windows, gathered rows, the count of what was edited. The peer is the faster of two, SAELens' object
with its error term on and a hook, and its encoder and decoder called by hand; both are checked to
give what ours gives.
"""

import time
from collections.abc import Callable
from itertools import cycle

import numpy as np
import torch
from torch import Tensor

from probes.generate import Pass, Request, generate
from steering.interventions import Steer

from . import Line, alternate
from ._clamped import SITE, by_error_term, by_hand, clamp
from ._shipped import asked, base, plain

ROWS = 32


class Recorder:
    """Keeps the residuals of full decoding steps."""

    sites = (SITE,)

    def __init__(self) -> None:
        self.steps: list[Tensor] = []

    def seat(self, slots: object, requests: object, rows: int) -> None:
        """Nothing is kept of a row."""

    def at(self, site: str, x: Tensor, now: Pass) -> Tensor:
        if x.shape[:2] == (ROWS, 1):
            self.steps.append(x.clone())
        return x


@torch.inference_mode()
def run(small: bool = False) -> Line:
    recorder = Recorder()
    generate(base(), asked(64), plain(), batch=ROWS, observers=[recorder])
    steps = cycle(recorder.steps)
    seats = tuple(Request("p", i, (5, 6), 1, "clamped") for i in range(ROWS))
    steer = Steer(base(), {"clamped": [clamp()]})
    steer.seat(range(ROWS), seats, ROWS)

    def edit(x: Tensor) -> Tensor:
        return steer.at(SITE, x, Pass(seats, np.ones(ROWS, np.int64), 1))

    def timed(way: Callable[[Tensor], Tensor], count: int) -> Callable[[], int]:
        def work() -> int:
            for _ in range(count):
                way(next(steps))
            return ROWS * count

        return work

    ways = {"SAELens' error term": by_error_term(), "SAELens' encoder and decoder": by_hand}
    for way in ways.values():
        x = recorder.steps[0]
        torch.testing.assert_close(way(x), edit(x), atol=1e-3, rtol=1e-3)
    few = 2 if small else 20
    best = max(ways, key=lambda name: _speed(timed(ways[name], few)))
    line = alternate(
        "sae-clamp",
        timed(edit, 10 if small else 4000),
        timed(ways[best], few),
        unit="positions/s",
        against=f"{best}, 16,384 latents",
        rounds=1 if small else 7,
    )
    steer.check()
    return line


def _speed(work: Callable[[], int]) -> float:
    """Of a second go; the first is a warm-up."""
    work()
    began = time.process_time()
    return work() / (time.process_time() - began)
