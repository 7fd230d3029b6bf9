"""What crosses the seam of the decoding engine: requests, passes, observers and writers.

The loop (`probes.generate.loop`) owns queue, seating, stopping and records. A `Writer` chooses the
next token of every row; it holds one `Stepper` or more, each one model with its cache and its
`Observer`s. So a plain model with a sampler is one writer, and a router over two models another.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from probes.records import Refusal


@dataclass(frozen=True)
class Request:
    """One answer to be written."""

    problem: str
    """Id of the problem; with `sample` and the run's seed it fixes the random numbers."""
    sample: int
    prompt: tuple[int, ...]
    max_new: int
    """Most tokens to write, the stop token included."""
    setting: Hashable = None
    """What observers and writers look up to know what to do with this row."""
    prefix_key: Hashable = None
    """Requests of equal prompt and key share the prefill of positions 0..P-2; rows that are edited
    there by different settings need different keys."""
    seed: int | None = None
    """Of its random numbers, where it is not the run's."""


@dataclass(frozen=True)
class Decoding:
    """How a token is chosen from the logits."""

    temperature: float | int = 1.0
    """0 is greedy."""
    top_p: float | int = 1.0
    """Only the smallest set of likeliest tokens with at least this mass is sampled from."""
    stop: tuple[int, ...] = ()
    """Tokens that end an answer; they are part of it."""

    def __post_init__(self) -> None:
        """Refuse what is no distribution."""
        if not 0 <= self.temperature < float("inf") or not 0 < self.top_p <= 1:
            raise Refusal(
                f"temperature {self.temperature} and top_p {self.top_p}: the temperature is 0 "
                f"(greedy) or above, top_p is in (0, 1] (1 = every token)."
            )


@dataclass(frozen=True)
class Pass:
    """What one forward pass computes, known on the host before it runs.

    Rows are right-aligned: the last column of every row is its newest token.
    """

    requests: tuple[Request, ...]
    """Of each row. A shared prefill has one row for all requests that share it."""
    start: Int[np.ndarray, " rows"]
    """Own position of each row's first column; negative where a row begins with padding."""
    width: int
    """Columns computed in this pass: 1 in decoding."""

    @cached_property
    def positions(self) -> Int[np.ndarray, "rows width"]:
        """Own position of every cell; negative is padding."""
        return self.start[:, None] + np.arange(self.width)


@runtime_checkable
class Observer(Protocol):
    """Sees, and may change, the residual stream at its sites.

    `seat` is called when rows change, `at` in every pass: so what `at` needs of a row is gathered
    in `seat`. A request may be seated again (another row, or the same one after a prefill), with
    more or fewer `rows` than before.
    """

    @property
    def sites(self) -> Sequence[str]:
        """Full names, "blocks.1.hook_resid_post"."""
        ...

    def seat(self, slots: Sequence[int], requests: Sequence[Request], rows: int) -> None:
        """From now on `requests[i]` is in row `slots[i]` of passes with `rows` rows."""
        ...

    def at(
        self, site: str, x: Float[Tensor, "rows width d"], now: Pass
    ) -> Float[Tensor, "rows width d"]:
        """The value that flows on: `x` itself, or another tensor; `x` is never changed in place."""
        ...


@dataclass(frozen=True)
class Turn:
    """What a writer knows when it chooses one token for each row."""

    requests: tuple[Request, ...]
    """Of each row."""
    written: tuple[list[int], ...]
    """Tokens of each answer so far; the loop's own lists, to be read only."""
    uniforms: Float[np.ndarray, " rows"]
    """One number in [0, 1) for each row, keyed by its request and place (`uniforms`)."""
    decoding: Decoding


class Choice(NamedTuple):
    """The next token of each row."""

    tokens: Int[Tensor, " rows"]
    logprobs: Float[Tensor, " rows"]
    """Under the distribution that each was drawn from, in nats."""


@runtime_checkable
class Writer(Protocol):
    """Chooses the next tokens with the models it holds.

    The loop seats, moves and drops the rows of all its steppers; `next` must feed `tokens` to each
    of them once, so that their caches stay in step.
    """

    @property
    def steppers(self) -> Sequence[Any]:
        """Every `Stepper` it uses."""
        ...

    def next(self, tokens: Int[Tensor, " rows"], turn: Turn) -> Choice:
        """One token for each row, given the newest one of each."""
        ...
