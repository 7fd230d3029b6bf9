"""Every generated token written under an intervention, against the same loop without any."""

from dataclasses import replace

from probes.generate import generate
from steering.interventions import write

from . import Line, alternate
from ._shipped import BATCH, asked, base, plain
from ._steered import settings


def run(small: bool = False) -> Line:
    requests = asked(16 if small else 512)
    steered = [replace(r, setting=0) for r in requests]

    def ours() -> int:
        answers = write(base(), settings(1), steered, plain(), batch=BATCH)
        return sum(len(r.tokens) for r in answers)

    def unsteered() -> int:
        return sum(len(r.tokens) for r in generate(base(), requests, plain(), batch=BATCH))

    return alternate(
        "steering-overhead",
        ours,
        unsteered,
        unit="tokens/s",
        against="our loop, unsteered",
        rounds=1 if small else 7,
    )
