"""What hashing, planning, writing, tables and progress cost a sweep of 10,000 settings.

With them: from the sweep file to the tables, intervals and corrections included. Without: the same
shards by the same worker, decoded and graded, and nothing made of the answers.
"""

import shutil
import time

from steering.sweep import run as run_sweep
from steering.sweep import working
from steering.sweep.engines import engine
from steering.sweep.running import jobs

from . import Line, alternate
from ._swept import folder, prepared, work


def run(small: bool = False) -> Line:
    def ready(out: str):
        shutil.rmtree(folder() / out, ignore_errors=True)
        count = 40 if small else 10_000
        return prepared(count, samples=1, problems=16, kl=False, shard=4096, out=out)

    planned = ready("plan")

    def with_them() -> int:
        answers: list[int] = []
        run_sweep(ready("run"), workers=0, progress=lambda _, n, __: answers.append(n))
        return sum(answers)

    def without() -> int:
        table, working.table = working.table, lambda *_: b""
        try:
            with engine("local", work(planned), workers=0) as spread:
                listed = jobs(planned.plan, range(len(planned.plan.shards)))
                return sum(done.answers for _, done in spread(listed))
        finally:
            working.table = table

    return alternate(
        "bookkeeping",
        with_them,
        without,
        unit="answers/s",
        against="the same shards, decoded and graded only",
        rounds=1 if small else 2,
        clock=time.perf_counter,
    )
