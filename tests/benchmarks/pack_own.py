"""64 settings x 32 problems x 4 samples in one batch against one setting at a time.

Both by the worker of a sweep, which decodes, measures the KL from the unsteered model and grades;
a setting alone has its 128 answers in one batch.
"""

from steering.sweep.working import Worker

from . import Line, alternate
from ._swept import prepared, work


def run(small: bool = False) -> Line:
    ready = prepared(2 if small else 64)
    worker = Worker(work(ready))
    blocks = [b for b in ready.plan.shards[0] if ready.plan.settings[b.key].steered]

    def packed() -> int:
        return worker.run(blocks, ready.plan.settings).answers

    def alone() -> int:
        return sum(worker.run([b], ready.plan.settings).answers for b in blocks)

    return alternate(
        "pack-own",
        packed,
        alone,
        unit="answers/s",
        against="one setting at a time, 128 answers in a batch",
        rounds=1 if small else 5,
    )
