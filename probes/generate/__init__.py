"""The decoding engine: batched, cached, seeded, rows retired and refilled.

    seam        Request, Decoding, Pass, Observer, Turn, Choice, Writer: what others implement
    sampling    uniforms keyed by problem and sample; choosing a token by them
    cache       the key-value buffer
    hooks       observers on the residual stream, only while a pass runs
    stepper     one model with its cache, advanced token by token
    loop        generate: queue, seating, stopping, records
    teacher_forcing     replay: finished sequences, with the same observers

Position counts the real tokens of a row from its own first one; a prompt of P tokens has positions
0..P-1, and what is done at position p changes the choice of token p+1.
"""

from probes.generate.loop import Sampler, generate
from probes.generate.sampling import choose, distribution, uniforms
from probes.generate.seam import Choice, Decoding, Observer, Pass, Request, Turn, Writer
from probes.generate.stepper import Stepper
from probes.generate.teacher_forcing import Answered, Held, Replayed, replay, replay_answers

__all__ = [
    "Answered",
    "Choice",
    "Decoding",
    "Held",
    "Observer",
    "Pass",
    "Replayed",
    "Request",
    "Sampler",
    "Stepper",
    "Turn",
    "Writer",
    "choose",
    "distribution",
    "generate",
    "replay",
    "replay_answers",
    "uniforms",
]
