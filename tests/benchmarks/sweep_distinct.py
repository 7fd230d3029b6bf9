"""256 settings side by side in one batch, against one setting for all of it.

Directions and strengths differ; the layer does not, as each site that is edited has its cost.
"""

from dataclasses import replace

from steering.interventions import write

from . import Line, alternate
from ._shipped import BATCH, asked, base, plain
from ._steered import LAYERS, settings


def run(small: bool = False) -> Line:
    requests = asked(16 if small else 512)

    def written(count: int) -> int:
        steered = [replace(r, setting=i % count) for i, r in enumerate(requests)]
        answers = write(base(), settings(count, LAYERS[:1]), steered, plain(), batch=BATCH)
        return sum(len(r.tokens) for r in answers)

    return alternate(
        "sweep-distinct",
        lambda: written(256),
        lambda: written(1),
        unit="tokens/s",
        against="our loop at 1 setting",
        rounds=1 if small else 7,
    )
