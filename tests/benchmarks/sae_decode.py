"""Answers written under one clamped feature of 16,384, error kept, against SAELens' way of it.

32 rows at a time, every generated token edited. The peer is the fastest of four: Hugging Face's
`generate` with a forward hook, and our own loop with an observer, each calling SAELens' object with
its error term on, or its encoder and decoder by hand. So what is left of the ratio is the edit.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product

from torch import Tensor

from probes.generate import Pass, generate
from probes.models import submodule
from probes.records import parse_site
from steering.interventions import write

from . import Line, alternate
from ._clamped import SITE, by_error_term, by_hand, clamp
from ._peers import hugging_face
from ._shipped import asked, base, plain

ROWS = 32


class Edited:
    """An observer that gives the last position of every row to a function."""

    sites = (SITE,)

    def __init__(self, edit: Callable[[Tensor], Tensor]) -> None:
        self.edit = edit

    def seat(self, slots: object, requests: object, rows: int) -> None:
        """Every row is edited alike."""

    def at(self, site: str, x: Tensor, now: Pass) -> Tensor:
        return self.edit(x) if now.width == 1 else x  # a shared prefill ends before the last token


def run(small: bool = False) -> Line:
    requests = asked(16 if small else 256)
    steered = [replace(r, setting="clamped") for r in requests]

    def ours() -> int:
        answers = write(base(), {"clamped": [clamp()]}, steered, plain(), batch=ROWS)
        return sum(len(r.tokens) for r in answers)

    def by_hugging_face(edit: Callable[[Tensor], Tensor]) -> int:
        module, _ = submodule(base(), *parse_site(SITE))

        def last(x: Tensor) -> Tensor:
            if x.shape[1] == 1:
                return edit(x)
            x = x.clone()
            x[:, -1:] = edit(x[:, -1:])
            return x

        handle = module.register_forward_hook(
            lambda _, __, out: (last(out[0]), *out[1:]) if isinstance(out, tuple) else last(out)
        )
        try:
            return hugging_face(requests, batch=ROWS)
        finally:
            handle.remove()

    def by_our_loop(edit: Callable[[Tensor], Tensor]) -> int:
        answers = generate(base(), requests, plain(), batch=ROWS, observers=[Edited(edit)])
        return sum(len(r.tokens) for r in answers)

    loops = {"Hugging Face generate": by_hugging_face, "our loop": by_our_loop}
    edits = {"SAELens' error term": by_error_term(), "SAELens' encoder and decoder": by_hand}
    ways = {
        f"{edit} in {loop}": lambda loop=loop, edit=edit: loops[loop](edits[edit])
        for loop, edit in product(loops, edits)
    }
    best = max(ways, key=lambda name: _speed(ways[name]))
    return alternate(
        "sae-decode",
        ours,
        ways[best],
        unit="tokens/s",
        against=best,
        rounds=1 if small else 5,
    )


def _speed(work: Callable[[], int]) -> float:
    began = time.process_time()
    return work() / (time.process_time() - began)
