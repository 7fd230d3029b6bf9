"""Training loops, one readable file each: `pretrain`, `supervised` and `rlvr`.

All follow one law, and `steering.training.checkpoints` is where it is kept: whatever is random at
a step is a pure function of (seed, step), and a checkpoint holds everything else. So a run that was
killed and started again ends with the same bits as one that was left alone, on one machine with
one number of threads.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from tqdm.auto import tqdm

from probes.records import Refusal


@contextmanager
def training(net: nn.Module) -> Iterator[None]:
    """Make every weight trainable and leave the model as one that is only read: eval, no gradient.

    Raises:
        Refusal: the weights are not float32. A step of 1e-4 on a weight near 1 rounds to nothing
            in half precision, and the run would learn in its small weights only.
    """
    types = sorted({str(weight.dtype) for weight in net.parameters()})
    if types != ["torch.float32"]:
        raise Refusal(
            f"the weights are {', '.join(types)}: load the model in torch.float32 to train."
        )
    try:
        yield _set(net, True)
    finally:
        _set(net, False)


def progress_bar(start: int, total: int, shown: bool) -> tqdm:
    """One line on standard error: rewritten in a terminal, printed twice a minute in a log.

    In a notebook it is tqdm's own bar, which is redrawn in its place and never printed anew.
    """
    drawn = any(kind.__module__ == "tqdm.notebook" for kind in tqdm.__mro__)
    pause = 0.2 if drawn or sys.stderr.isatty() else 30.0
    return tqdm(
        total=total, initial=start, disable=not shown, mininterval=pause, dynamic_ncols=True
    )


def _set(net: nn.Module, on: bool) -> None:
    net.train(on)
    for weight in net.parameters():
        weight.requires_grad_(on)
        weight.grad = None
    assert torch.is_grad_enabled() or not on, "training inside torch.no_grad() would learn nothing"
