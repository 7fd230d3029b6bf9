"""Most memory of the driver at 1,000 settings against at 10,000; 16 answers each.

Each in a process of its own with one worker, in MB of resident memory at its peak; ours is the
larger sweep's, so a ratio of 1 means that nothing grows with the settings.
"""

import subprocess
import sys
from pathlib import Path

from . import Line

CHILD = """
import resource, sys
import torch
from tests.benchmarks._swept import prepared
from steering.sweep import run
if __name__ == "__main__":
    torch.set_num_threads(1)
    count = int(sys.argv[1])
    ready = prepared(count, samples=1, problems=16, kl=False, shard=4096, out="run")
    run(ready, workers=1)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def run(small: bool = False) -> Line:
    few, many = (10, 40) if small else (1_000, 10_000)
    small_one, large_one = (peak(n) for n in (few, many))
    ratio = small_one / large_one
    return Line("driver-memory", large_one, small_one, ratio, "MB", f"{few:,} settings")


def peak(settings: int) -> float:
    root = Path(__file__).parents[2]
    asked = [sys.executable, "-c", CHILD, str(settings)]
    ran = subprocess.run(asked, cwd=root, capture_output=True, text=True, check=True)
    return float(ran.stdout.split()[-1])
