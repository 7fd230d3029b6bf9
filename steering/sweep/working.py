"""What a worker does: hold a model, run one shard after another, hand back finished tables.

    worker = Worker(work)
    done = worker.run(blocks, settings)          # a Parquet file's bytes, and what it cost

A worker writes no file and knows of no other: the same shard gives the same bytes wherever it
runs on one kind of machine, as its rows, their order and the number of threads are fixed.
"""

import os
import socket
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes.capture import from_rollouts
from probes.generate import Decoding, Request, generate
from probes.models import Model, encode, load_on
from probes.records import Problem, Refusal, Rollout
from probes.sae.active import read_rows
from probes.verify import Graded, grade_all
from steering.interventions import Operation, Steer
from steering.sweep.answers import table
from steering.sweep.plan import Block
from steering.sweep.resolving import Asked
from steering.sweep.settings import Setting, operations
from steering.sweep.side_effects import kl_from_plain
from steering.sweep.writer import Packed

SHAPE_PROBLEMS = 64
SHAPE_ROWS = 4096
"""Of the unsteered activations that random directions are drawn from: answers, and rows kept."""
SHAPE_SAMPLE = 1 << 30
"""Sample index of those answers, which no setting uses."""
LARGEST = 1e18
"""Longest push: its square, in float32 as every norm takes it, is finite."""


@dataclass(frozen=True)
class Work:
    """What all shards share; sent to a worker once."""

    asked: Mapping[str, tuple[Asked, ...]]
    """By `Setting.problems`: the task's own problems, and those of the task beside."""
    batch: int
    kl: int
    """On how many samples of each problem the KL is measured."""
    foreign: bool
    device: str = "cpu"


@dataclass(frozen=True)
class Done:
    """A finished shard."""

    table: bytes
    """The Parquet file."""
    answers: int
    """How many rows were decoded, those of failed settings included."""
    cost: dict[str, float | str]
    """Seconds, tokens, and who did it."""


@dataclass
class Worker:
    """One process with one model."""

    work: Work
    _held: tuple[tuple[str, str], Model] | None = None
    _shapes: dict[tuple[str, str, str], Tensor] = field(default_factory=dict)

    def run(self, blocks: Sequence[Block], settings: Mapping[str, Setting]) -> Done:
        """One shard: decode, measure, grade.

        Raises:
            Refusal: a model or push that changed since the plan was made.
            GraderFailure: more than 1% of the answers could not be judged.
        """
        begun, used = time.perf_counter(), time.process_time()
        first = settings[blocks[0].key]
        model = self.model(first)
        edits: dict[Hashable, list[Operation]] = {
            b.key: operations(
                settings[b.key],
                model,
                lambda site, s=settings[b.key]: self.shape(model, s, site),
                foreign=self.work.foreign,
            )
            for b in blocks
        }
        requests, owners = self.requests(model, blocks, settings)
        rollouts, failed = self.decode(model, edits, requests, settings)
        kl = np.full(len(rollouts), np.nan)
        if self.work.kl:
            kl, missed = self.side_effects(model, edits, requests, rollouts, failed)
            failed |= missed
        graded = grade(rollouts, owners, failed)
        kept = [i for i, r in enumerate(rollouts) if r.setting not in failed]
        tasks = {p: asked.task.name for p, (asked, _) in owners.items()}
        made = table(
            [rollouts[i] for i in kept],
            [graded[i] for i in kept],
            kl[kept],
            tasks,
            {"failed": {str(k): v for k, v in failed.items()}},
        )
        cost: dict[str, float | str] = {
            "seconds": time.perf_counter() - begun,
            "cpu_seconds": time.process_time() - used,
            "tokens": sum(len(r.tokens) for r in rollouts),
            "worker": f"{socket.gethostname()}-{os.getpid()}",
            "device": self.work.device,
        }
        return Done(made, len(rollouts), cost)

    def model(self, setting: Setting) -> Model:
        """The setting's model; one is held at a time, and shards come model by model."""
        wanted = setting.digest, setting.dtype
        if self._held is None or self._held[0] != wanted:
            self._held = None
            self._shapes.clear()
            model = load_on(setting.model, self.work.device, setting.dtype)
            if model.digest != setting.digest:
                raise Refusal(
                    f"{setting.model} is not what it was when the sweep was planned: its weights "
                    f"or its config changed."
                )
            self._held = wanted, model
        return self._held[1]

    def requests(
        self, model: Model, blocks: Sequence[Block], settings: Mapping[str, Setting]
    ) -> tuple[list[Request], dict[str, tuple[Asked, Problem]]]:
        """What is asked, block by block, and of each problem its task and itself."""
        found, owners = [], {}
        prompts: dict[str, tuple[int, ...]] = {}
        for b in blocks:
            setting = settings[b.key]
            listed = [(a, p) for a in self.work.asked[setting.problems] for p in a.problems]
            for asked, problem in listed[b.first : b.last]:
                owners[problem.id] = asked, problem
                if problem.id not in prompts:
                    prompts[problem.id] = encode(model, problem.prompt)
                budget = asked.task.budget(problem)
                found += [
                    Request(problem.id, i, prompts[problem.id], budget, b.key, seed=setting.seed)
                    for i in range(b.sample, b.sample + b.samples)
                ]
        return found, owners

    def decode(
        self,
        model: Model,
        edits: Mapping[Hashable, Sequence[Operation]],
        requests: Sequence[Request],
        settings: Mapping[str, Setting],
    ) -> tuple[list[Rollout], dict[Hashable, str]]:
        """All rows in one batch, and what went wrong with which setting."""
        stop = ending(model)
        steer = Steer(model, edits)
        decodings: dict[Hashable, Decoding] = {
            k: Decoding(settings[str(k)].temperature, settings[str(k)].top_p, (stop,))
            for k in edits
        }
        writer = Packed(steer, decodings, stop)
        keyed = steer.keyed(requests)
        rollouts = generate(writer, keyed, Decoding(stop=(stop,)), batch=self.work.batch)
        return rollouts, {**steer.missed(), **beyond(edits), **writer.failed}

    def side_effects(
        self,
        model: Model,
        edits: Mapping[Hashable, Sequence[Operation]],
        requests: Sequence[Request],
        rollouts: Sequence[Rollout],
        failed: Mapping[Hashable, str],
    ) -> tuple[Float[np.ndarray, " answers"], dict[Hashable, str]]:
        """KL of the first answers to each problem; 0 of unsteered ones, NaN where not measured."""
        kl = np.full(len(requests), np.nan)
        asked = [
            i for i, r in enumerate(requests) if r.sample < self.work.kl and r.setting not in failed
        ]
        kl[asked] = 0.0
        at = [i for i in asked if edits[requests[i].setting]]
        if not at:
            return kl, {}
        of = [requests[i] for i in at], [rollouts[i] for i in at]
        kl[at], missed = kl_from_plain(model, edits, *of, batch=self.work.batch)
        return kl, missed

    def shape(self, model: Model, setting: Setting, site: str) -> Float[Tensor, "rows d"]:
        """Unsteered activations at a site, where answers are written."""
        name = model.digest, setting.problems, site
        if name not in self._shapes:
            problems = self.work.asked[setting.problems][0]
            some = problems.problems[:SHAPE_PROBLEMS]
            requests = [
                Request(p.id, SHAPE_SAMPLE, encode(model, p.prompt), problems.task.budget(p))
                for p in some
            ]
            decoding = Decoding(stop=(ending(model),))
            answers = generate(model, requests, decoding, batch=self.work.batch)
            x = read_rows(model, site, from_rollouts(model, some, answers)).x
            self._shapes[name] = torch.from_numpy(x[:: -(-len(x) // SHAPE_ROWS)].copy())
        return self._shapes[name]


def beyond(edits: Mapping[Hashable, Sequence[Operation]]) -> dict[Hashable, str]:
    """Settings whose answers look fine and mean nothing, and why."""
    found: dict[Hashable, str] = {}
    for name, listed in edits.items():
        for edit in listed:
            length = float(torch.as_tensor(edit.vector).double().norm())  # type: ignore[arg-type]
            size = abs(edit.strength) * (getattr(edit, "norm", None) or 1.0) * length
            if size > LARGEST:
                found[name] = (
                    f"a push of length {size:.3g} has a square that is not finite, so the next "
                    f"norm makes zeros of the whole residual"
                )
    return found


def ending(model: Model) -> int:
    """The token that ends an answer."""
    stop = model.tokenizer.eos_token_id
    assert isinstance(stop, int), f"{model.name} has no end-of-sequence token"
    return stop


def grade(
    rollouts: Sequence[Rollout],
    owners: Mapping[str, tuple[Asked, Problem]],
    failed: Mapping[Hashable, str],
) -> list[Graded]:
    """Verdicts task by task; those of failed settings are never looked at."""
    found: dict[int, Graded] = {}
    tasks: dict[str, list[int]] = {}
    for i, r in enumerate(rollouts):
        if r.setting not in failed:
            tasks.setdefault(owners[r.problem][0].name, []).append(i)
    for at in tasks.values():
        asked = owners[rollouts[at[0]].problem][0]
        problems = [owners[rollouts[i].problem][1] for i in at]
        judged = grade_all(asked.task, problems, [rollouts[i].text for i in at])
        found |= dict(zip(at, judged, strict=True))
    return [found.get(i) or _unjudged() for i in range(len(rollouts))]


def _unjudged() -> Graded:
    from probes.records import Grade

    return Graded(Grade.ERROR, False, "its setting failed")
