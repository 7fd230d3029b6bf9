"""Three layers of the residual stream to disk, against the forward passes alone.

All positions of 512 prompts with answers, as float32, in batches of 64 by length on both sides. The
bare passes have neither head nor mask; ours end in a finished store: values, index, checksums,
flushed to the disk, opened for reading. CPU time is counted, so waiting for the disk is not.
"""

import tempfile
from pathlib import Path

import torch

from probes.capture import capture

from . import Line, alternate
from ._recorded import BATCH, SITES, batches, texts
from ._shipped import base


def run(small: bool = False) -> Line:
    found = texts(32 if small else 512)
    count = sum(len(text.tokens) for text in found)
    padded = [ids for _, ids in batches(found)]

    @torch.inference_mode()
    def bare() -> int:
        for ids in padded:
            base().net.model(ids, use_cache=False)
        return count

    with tempfile.TemporaryDirectory() as folder:
        stores = (Path(folder) / str(i) for i in range(1000))

        def ours() -> int:
            capture(base(), SITES, found, next(stores), batch=BATCH)
            return count

        return alternate(
            "capture-limit",
            ours,
            bare,
            unit="positions/s",
            against="bare forward passes to the deepest wanted layer",
            rounds=1 if small else 15,
        )
