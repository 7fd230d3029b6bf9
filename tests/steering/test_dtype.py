"""How far bfloat16 is from float32, in every architecture.

bfloat16 rounds to 2^-8, and each block rounds a few times; the bounds are about twice what was
measured (`tests/steering/test_smollm2.py` has those of thirty blocks).
"""

import copy

import numpy as np
import pytest
import torch

from probes.divergence import token_kl
from probes.generate import Request, replay
from probes.models import Model
from steering.interventions import Intervention, Steer

RESIDUAL = 0.07
"""Largest distance of two residual vectors, in lengths of the float32 one; 0.036 was measured."""

KL = 2e-3
"""Largest KL(float32 || bfloat16) of a next token, nats; 0.0003 was measured."""


class Read:
    def __init__(self):
        self.sites, self.x = [f"blocks.{layer}.hook_resid_post" for layer in range(3)], {}

    def seat(self, slots, requests, rows):
        pass

    def at(self, site, x, now):
        self.x[site] = x.float().clone()
        return x


@pytest.fixture
def half(any_model):
    return Model(copy.deepcopy(any_model.net).to(torch.bfloat16), any_model.tokenizer, "bfloat16")


@pytest.fixture
def texts():
    rng = np.random.default_rng(0)
    return [tuple(rng.integers(2, 28, n).tolist()) for n in (20, 20, 7, 1)]


def test_residuals_and_next_tokens_agree_within_the_bounds(any_model, half, texts):
    assert (any_model.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    for text in texts:
        reads = Read(), Read()
        (a,), (b,) = (
            list(replay(m, [text], observers=[r]))
            for m, r in zip((any_model, half), reads, strict=True)
        )
        for site in reads[0].sites:
            full, rounded = (r.x[site] for r in reads)
            apart = (full - rounded).norm(dim=-1) / full.norm(dim=-1)
            assert 0 < apart.max() < RESIDUAL
        assert float(token_kl(a.logits[0], b.logits[0].float()).max()) < KL


def test_padding_is_harmless_within_the_same_bound(half, texts):
    (batch,) = replay(half, texts)
    for row, i in enumerate(batch.rows):
        (alone,) = replay(half, [texts[i]])
        p, q = batch.logits[row, -len(texts[i]) :].float(), alone.logits[0].float()
        assert float(token_kl(p, q).max()) < KL


def test_steering_reaches_as_far(any_model, half, texts):
    """What an edit moves two blocks on is the same within a tenth of its own size."""
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    push = Intervention("add", "blocks.0.hook_resid_post", vector / vector.norm(), 60.0)
    moved = []
    for m in (any_model, half):
        values = []
        for setting in (None, "push"):
            read, asked = Read(), [Request("p", 0, texts[0], 1, setting)]
            steer = Steer(m, {"push": [push]})
            list(replay(m, texts[:1], observers=[steer, read], requests=asked))
            values.append(read.x["blocks.2.hook_resid_post"])
        moved.append(values[1] - values[0])
    assert moved[0].norm() > 10
    assert (moved[1] - moved[0]).norm() < 0.1 * moved[0].norm()
