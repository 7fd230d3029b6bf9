"""Peak memory of capturing N answers against 10 N, each in a process of its own.

    python -m tests.benchmarks.capture_memory 5120      # the peak of one, in bytes

The peak is what the system saw resident, so it includes interpreter, libraries and model, alike on
both sides; the texts themselves and the index are what grows with N. Three layers, all positions,
float32: 10 N are 126 MB on disk.
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from . import Line


def run(small: bool = False) -> Line:
    few, rounds = (32, 1) if small else (512, 5)
    pairs = [(peak(10 * few), peak(few)) for _ in range(rounds)]
    ours, peer = (median(side) / 1e6 for side in zip(*pairs, strict=True))
    ratio = median(b / a for a, b in pairs)
    return Line("capture-memory", ours, peer, ratio, "MB", f"{few} answers, ours {10 * few}")


def peak(count: int) -> int:
    """Of a process that captures so many answers, in bytes."""
    command = [sys.executable, "-m", __name__, str(count)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(ran.stdout)


def main() -> None:
    from probes.capture import capture

    from ._recorded import SITES, texts
    from ._shipped import base

    with tempfile.TemporaryDirectory() as folder:
        capture(base(), SITES, texts(int(sys.argv[1])), Path(folder) / "store")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(most if sys.platform == "darwin" else most * 1024)  # macOS counts in bytes


if __name__ == "__main__":
    main()
