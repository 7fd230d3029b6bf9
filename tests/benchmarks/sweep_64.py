"""64 settings in one batch against one after another, which is how the peers can have them.

Eight answers a setting, so 512; a peer's batch is the eight of one setting. The peer is the faster
of two, each tried on eight settings first: Hugging Face's `generate` with a forward hook, and
TransformerLens' bridge with its own hook. All edit the same positions: the last one of the prompt,
which chooses the first token, and every later one.
"""

import time
from collections.abc import Callable

from probes.generate import Request
from probes.models import bridge
from steering.interventions import Intervention, write

from . import Line, alternate
from ._peers import hooked, hugging_face, pushed, transformer_lens
from ._shipped import BATCH, asked, base, plain
from ._steered import settings


def run(small: bool = False) -> Line:
    swept = settings(2 if small else 64)
    requests = asked(512)[::64]
    steered = [
        Request(r.problem, r.sample, r.prompt, r.max_new, name) for name in swept for r in requests
    ]
    lens = bridge(base())

    def ours() -> int:
        answers = write(base(), swept, steered, plain(), batch=BATCH)
        return sum(len(r.tokens) for r in answers)

    def by_hugging_face(push: Intervention) -> int:
        with hooked(push):
            return hugging_face(requests)

    def by_transformer_lens(push: Intervention) -> int:
        edit = pushed(push)
        with lens.hooks([(push.site, lambda x, hook: edit(x))]):  # noqa: ARG005 - passed by name
            return transformer_lens(lens, requests)

    def peer(way: Callable[[Intervention], int], count: int | None = None) -> int:
        return sum(way(swept[name][0]) for name in list(swept)[:count])

    ways = {
        "Hugging Face generate with a hook": by_hugging_face,
        "TransformerLens": by_transformer_lens,
    }
    best = max(ways, key=lambda name: _speed(lambda: peer(ways[name], 8)))
    return alternate(
        "sweep-64",
        ours,
        lambda: peer(ways[best]),
        unit="tokens/s",
        against=f"{best}, one setting after another",
        rounds=1 if small else 5,
    )


def _speed(work: Callable[[], int]) -> float:
    """Of a second go; the first is a warm-up."""
    work()
    began = time.process_time()
    return work() / (time.process_time() - began)
