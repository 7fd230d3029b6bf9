"""Two Ray workers against one, on the same shards; wall time, starting the cluster left out."""

import time

from steering.sweep.engines import engine
from steering.sweep.running import jobs

from . import Line
from ._swept import prepared, work


def run(small: bool = False) -> Line:
    ready = prepared(2 if small else 64, samples=1 if small else 8, shard=256 if small else 1024)
    pending = list(range(len(ready.plan.shards)))

    def speed(workers: int) -> float:
        with engine("ray", work(ready), workers=workers) as spread:
            # Each worker loads its model in a first round that is not counted.
            for _ in spread(list(jobs(ready.plan, pending))[: 2 * workers]):
                pass
            began = time.perf_counter()
            answers = sum(done.answers for _, done in spread(jobs(ready.plan, pending)))
            return answers / (time.perf_counter() - began)

    pairs = [(speed(2), speed(1)) for _ in range(1 if small else 3)]
    ratio = sorted(a / b for a, b in pairs)[len(pairs) // 2]
    two, one = (sorted(side)[len(pairs) // 2] for side in zip(*pairs, strict=True))
    return Line("workers-2", two, one, ratio, "answers/s", "one Ray worker")
