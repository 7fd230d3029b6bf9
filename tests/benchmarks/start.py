"""What one waits for `whenhow --help`, against importing torch, each in a process of its own."""

import subprocess
import sys
import time
from pathlib import Path

from . import Line, alternate

COMMAND = Path(sys.executable).with_name("whenhow")


def run(small: bool = False) -> Line:
    def started(*command: str | Path) -> int:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return 1

    return alternate(
        "start",
        lambda: started(COMMAND, "--help"),
        lambda: started(sys.executable, "-c", "import torch"),
        unit="starts/s",
        against='python -c "import torch"',
        rounds=1 if small else 11,
        clock=time.perf_counter,
    )
