import argparse
import importlib
import json

import torch

from . import NAMES


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks")
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(NAMES))
    parser.add_argument("--small", action="store_true", help="only see that they run")
    asked = parser.parse_args()
    if unknown := [n for n in asked.names if n not in NAMES]:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(NAMES)}.")
    torch.set_num_threads(1)
    for name in asked.names or NAMES:
        module = importlib.import_module(f".{name.replace('-', '_')}", __package__)
        line = module.run(small=asked.small)._asdict()
        print(json.dumps({k: _round(v) for k, v in line.items()}), flush=True)


def _round(value: float | str) -> float | str:
    return value if isinstance(value, str) else float(f"{value:.3g}")


if __name__ == "__main__":
    main()
