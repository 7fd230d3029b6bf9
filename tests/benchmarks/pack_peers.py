"""The same sweep as `pack-own` against the fastest peer that installs beside us.

Peers: Hugging Face's `generate` with a forward hook, and nnsight; one setting at a time, as they
have it, its 128 answers in one batch. steering-vectors needs transformers below 5 and does not
install beside us; it registers the same hooks on the same `generate`. Peers only decode; ours also
grades.
"""

import time
from collections.abc import Callable

import torch

from probes.generate import Request
from probes.records import parse_site
from steering.interventions import Intervention
from steering.sweep.working import Worker

from . import Line, alternate
from ._peers import hooked, hugging_face, pushed
from ._shipped import base
from ._swept import prepared, work


def run(small: bool = False) -> Line:
    from nnsight import LanguageModel

    ready = prepared(2 if small else 64, kl=False)
    worker = Worker(work(ready))
    settings = ready.plan.settings
    blocks = [b for b in ready.plan.shards[0] if settings[b.key].steered]
    requests, _ = worker.requests(base(), blocks, settings)
    by_setting: dict[str, list[Request]] = {}
    for r in requests:
        by_setting.setdefault(str(r.setting), []).append(r)
    pushes = {b.key: push_of(settings[b.key]) for b in blocks}
    traced = LanguageModel(base().net, tokenizer=base().tokenizer)

    def ours() -> int:
        return worker.run(blocks, settings).answers

    def by_hugging_face(key: str) -> int:
        with hooked(pushes[key]):
            hugging_face(by_setting[key], batch=128)
        return len(by_setting[key])

    def by_nnsight(key: str) -> int:
        traced_generate(traced, pushes[key], by_setting[key])
        return len(by_setting[key])

    def peer(way: Callable[[str], int], count: int | None = None) -> int:
        return sum(way(key) for key in list(by_setting)[:count])

    ways = {"Hugging Face generate with a hook": by_hugging_face, "nnsight": by_nnsight}
    best = max(ways, key=lambda name: _speed(lambda: peer(ways[name], 2)))
    return alternate(
        "pack-peers",
        ours,
        lambda: peer(ways[best]),
        unit="answers/s",
        against=f"{best}, one setting after another, decoding only",
        rounds=1 if small else 3,
    )


def push_of(setting) -> Intervention:
    from steering.sweep.settings import operations

    (edit,) = operations(setting, base(), lambda _: None, foreign=False)
    return edit


def traced_generate(traced, push: Intervention, requests: list[Request]) -> None:
    """nnsight's own way: the block's output edited at every step of `generate`."""
    width = max(len(r.prompt) for r in requests)
    ids = torch.zeros((len(requests), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, r in enumerate(requests):
        ids[i, width - len(r.prompt) :] = torch.tensor(r.prompt)
        mask[i, width - len(r.prompt) :] = 1
    layer, _ = parse_site(push.site)
    edit = pushed(push)
    asked = {
        "max_new_tokens": max(r.max_new for r in requests),
        "do_sample": True,
        "top_k": 0,
        "pad_token_id": 0,
        "eos_token_id": base().tokenizer.eos_token_id,
    }
    with traced.generate({"input_ids": ids, "attention_mask": mask}, **asked) as tracer:
        for _ in tracer.iter[:]:
            traced.model.layers[layer].output = edit(traced.model.layers[layer].output)


def _speed(work: Callable[[], int]) -> float:
    """Of a second go; the first is a warm-up."""
    work()
    began = time.process_time()
    return work() / (time.process_time() - began)
