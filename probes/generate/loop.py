"""The decoding loop: requests in, rollouts out, rows refilled as they finish.

    rollouts = generate(model, requests, Decoding(stop=(eos,)), batch=64, seed=0)

What comes out depends on model, request, decoding and seed, and on nothing else: not on the batch
size, on the other requests, or on the order in which rows were refilled.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from probes.generate.sampling import choose, uniforms
from probes.generate.seam import Choice, Decoding, Observer, Request, Turn, Writer
from probes.generate.stepper import Stepper, prefix
from probes.models import Model, decode
from probes.records import Refusal, Rollout


class Sampler:
    """The plain writer: one model, and a choice from its logits."""

    def __init__(self, stepper: Stepper):
        self.steppers = (stepper,)

    def next(self, tokens: Int[Tensor, " rows"], turn: Turn) -> Choice:
        """Sample from the model's own distribution."""
        return choose(self.steppers[0].forward(tokens), turn.uniforms, turn.decoding)


def generate(
    source: Model | Writer,
    requests: Sequence[Request],
    decoding: Decoding = Decoding(),  # noqa: B008 - frozen
    *,
    batch: int = 64,
    seed: int = 0,
    observers: Sequence[Observer] = (),
    progress: Callable[[int], Any] | None = None,
) -> list[Rollout]:
    """Write an answer to each request.

    Args:
        source: a model, sampled from plainly, or a `Writer`.
        requests: in any order; each (problem, sample, setting) once.
        decoding: temperature, top-p and stop tokens.
        batch: rows that are decoded together. It changes the speed and not the answers.
        seed: of the random numbers, which depend on it, the problem, the sample index and the
            place in the answer alone: settings are compared on common ones.
        observers: on a plain model; a writer's steppers have their own.
        progress: called with the number of answers that were finished since the last call.

    Returns:
        Rollouts in the order of the requests.

    Raises:
        Refusal: an empty prompt, one that doesn't fit the context with its answer, a request
            twice, or observers given beside a writer.
    """
    if isinstance(source, Model):
        writer: Writer = Sampler(Stepper(source, observers))
    elif observers:
        raise Refusal("a writer's observers belong to its steppers: Stepper(model, observers).")
    else:
        writer = source
    _check(writer, requests, batch)
    if not requests:
        return []
    return Loop(writer, requests, decoding, batch, seed, progress).run()


def _check(writer: Writer, requests: Sequence[Request], batch: int) -> None:
    if batch < 1:
        raise Refusal(f"a batch of {batch} rows decodes nothing; it has at least 1.")
    context = min(s.model.context for s in writer.steppers)
    for request in requests:
        length = len(request.prompt)
        if not request.prompt or request.max_new < 1:
            raise Refusal(
                f"request {request.problem}/{request.sample} has {length} prompt tokens and asks "
                f"for {request.max_new} new ones: both must be at least 1."
            )
        if length + request.max_new > context:
            raise Refusal(
                f"request {request.problem}/{request.sample} has {length} prompt tokens and asks "
                f"for {request.max_new} new ones, but the model reads {context} in all: at most "
                f"{context - length} new ones fit."
            )
    if len({(r.problem, r.sample, r.setting) for r in requests}) < len(requests):
        raise Refusal(
            "a request is there twice: the same problem, sample and setting would give the same "
            "answer again. Give further samples other indices."
        )


class Loop:
    """Queue, seating, stopping and records of one call of `generate`."""

    def __init__(
        self,
        writer: Writer,
        requests: Sequence[Request],
        decoding: Decoding,
        batch: int,
        seed: int,
        progress: Callable[[int], Any] | None,
    ):
        self.writer, self.requests, self.decoding = writer, requests, decoding
        self.progress = progress
        self.budget = max(r.max_new for r in requests)
        self.seed = seed
        rows = min(batch, len(requests))
        self.queue = deque(_queued(requests, rows))
        for stepper in writer.steppers:
            stepper.reset(rows)
        self.device = writer.steppers[0].model.device
        self.index: list[int] = [-1] * rows  # of the request in each row
        self.seats: tuple[Request, ...] = ()
        self.written: list[list[int]] = [[] for _ in range(rows)]
        self.logprobs: list[list[float]] = [[] for _ in range(rows)]
        self.uniforms = np.zeros((rows, self.budget))
        self.newest = torch.zeros(rows, dtype=torch.long)
        self.rollouts: list[Rollout | None] = [None] * len(requests)

    @torch.inference_mode()
    def run(self) -> list[Rollout]:
        """Decode until the queue is empty and every row is done.

        In inference mode and not only without gradients: on small models the bookkeeping that it
        leaves out is about a ninth of the time.
        """
        self.seat(list(range(len(self.index))))
        tokens = self.newest.to(self.device)
        while self.index:
            place = np.fromiter(map(len, self.written), dtype=np.int64, count=len(self.written))
            u = self.uniforms[np.arange(len(place)), place]
            turn = Turn(self.seats, tuple(self.written), u, self.decoding)
            choice = self.writer.next(tokens, turn)
            tokens = choice.tokens
            if done := self.record(choice):
                self.newest = tokens.cpu()
                self.retire(done)
                tokens = self.newest.to(self.device)
        return self.rollouts  # type: ignore[return-value]

    def record(self, choice: Choice) -> list[int]:
        """Note what was chosen; the rows that are done."""
        stop = self.decoding.stop
        done = []
        pairs = zip(choice.tokens.tolist(), choice.logprobs.tolist(), strict=True)
        for row, (token, logprob) in enumerate(pairs):
            answer = self.written[row]
            answer.append(token)
            self.logprobs[row].append(logprob)
            if token in stop or len(answer) == self.seats[row].max_new:
                done.append(row)
        return done

    def retire(self, done: list[int]) -> None:
        """Keep the finished answers, refill their rows, and close those nobody needs."""
        model = self.writer.steppers[0].model
        for row in done:
            request, tokens = self.seats[row], tuple(self.written[row])
            self.rollouts[self.index[row]] = Rollout(
                problem=request.problem,
                sample=request.sample,
                tokens=tokens,
                logprobs=tuple(self.logprobs[row]),
                text=decode(model, tokens),
                stop="stop" if tokens[-1] in self.decoding.stop else "length",
                setting="" if request.setting is None else str(request.setting),
            )
        if self.progress:
            self.progress(len(done))
        refilled = done[: len(self.queue)]
        self.seat(refilled)
        self.close(done[len(refilled) :])

    def seat(self, rows: list[int]) -> None:
        """Fill rows from the queue."""
        if not rows:
            return
        taken = [self.queue.popleft() for _ in rows]
        requests = [self.requests[i] for i in taken]
        for row, index, request in zip(rows, taken, requests, strict=True):
            self.index[row] = index
            self.written[row], self.logprobs[row] = [], []
            seed = self.seed if request.seed is None else request.seed
            numbers = uniforms(seed, request.problem, request.sample, "tokens", request.max_new)
            self.uniforms[row, : request.max_new] = numbers
            self.newest[row] = request.prompt[-1]
        for stepper in self.writer.steppers:
            stepper.seat(rows, requests, (self.requests[i] for i in self.queue))
        self.seats = tuple(self.requests[i] for i in self.index)

    def close(self, rows: list[int]) -> None:
        """Remove rows by moving the last ones into their place."""
        if not rows:
            return
        last = len(self.index)
        for row in reversed(rows):
            last -= 1
            if row != last:
                for stepper in self.writer.steppers:
                    stepper.copy(last, row)
                for per_row in (
                    self.index,
                    self.written,
                    self.logprobs,
                    self.uniforms,
                    self.newest,
                ):
                    per_row[row] = per_row[last]  # type: ignore[index]
        for stepper in self.writer.steppers:
            stepper.drop(last)
        self.index, self.written = self.index[:last], self.written[:last]
        self.logprobs, self.uniforms = self.logprobs[:last], self.uniforms[:last]
        self.newest = self.newest[:last]
        self.seats = tuple(self.requests[i] for i in self.index)


def _queued(requests: Sequence[Request], rows: int) -> list[int]:
    """Indices in the order of seating: equal prefixes side by side; of more than fit, long first.

    An answer that is begun late and is long leaves the other rows empty at the end. How long it
    will be is unknown, but its budget bounds it, and a longer question tends to take longer.
    """
    first: dict[Any, int] = {}
    budget: dict[Any, int] = {}
    prefixes = [prefix(request) for request in requests]
    for i, (key, request) in enumerate(zip(prefixes, requests, strict=True)):
        first.setdefault(key, i)
        budget[key] = max(budget.get(key, 0), request.max_new)

    def place(i: int) -> tuple[int, ...]:
        key = prefixes[i]
        if len(requests) <= rows:
            return (first[key],)
        return -budget[key], -len(requests[i].prompt), first[key]

    return sorted(range(len(requests)), key=place)
