"""Long texts: passes without a mask compute the same, and memory is linear in their length."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from probes.generate import Decoding, Request, generate, replay, stepper
from steering.interventions import GENERATED, Intervention, write

RNG = np.random.default_rng(0)
TEXTS = [tuple(RNG.integers(2, 28, n).tolist()) for n in (20, 12, 12, 3, 20, 9, 1)]


@pytest.fixture
def every_pass_is_long(monkeypatch):
    """So that tiny texts are computed as those of a thousand tokens are."""
    monkeypatch.setattr(stepper, "LONG", 8)


def logits_of(model, texts, **how):
    """Of each text, in the order given, its own columns."""
    found = {}
    for batch in replay(model, texts, **how):
        for row, i in enumerate(batch.rows):
            found[i] = batch.logits[row, -len(texts[i]) :]
    return [found[i] for i in range(len(texts))]


def test_a_pass_without_a_mask_computes_what_one_with_it_does(any_model, monkeypatch):
    with_mask = logits_of(any_model, TEXTS)
    monkeypatch.setattr(stepper, "LONG", 8)
    for found, want in zip(logits_of(any_model, TEXTS), with_mask, strict=True):
        torch.testing.assert_close(found, want, atol=1e-4, rtol=1e-5)


def test_answers_to_long_prompts_are_those_with_a_mask(any_model, monkeypatch):
    asked = [Request(str(i), 0, text, 8) for i, text in enumerate(TEXTS)]
    with_mask = generate(any_model, asked, Decoding(), batch=3)
    monkeypatch.setattr(stepper, "LONG", 8)
    for found, want in zip(generate(any_model, asked, Decoding(), batch=3), with_mask, strict=True):
        assert found.tokens == want.tokens
        assert found.logprobs == pytest.approx(want.logprobs, abs=1e-4)


def test_steering_of_long_prompts_is_that_with_a_mask(model, monkeypatch):
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    site = "blocks.1.hook_resid_post"
    pushes = {
        "all": [Intervention("add", site, vector / vector.norm(), 60.0)],
        "generated": [Intervention("add", site, vector / vector.norm(), 60.0, window=GENERATED)],
    }
    asked = [Request(str(i), 0, t, 8, name) for i, t in enumerate(TEXTS) for name in pushes]
    with_mask = write(model, pushes, asked, Decoding(temperature=0))
    monkeypatch.setattr(stepper, "LONG", 8)
    found = write(model, pushes, asked, Decoding(temperature=0))
    assert [r.tokens for r in found] == [r.tokens for r in with_mask]


@pytest.mark.usefixtures("every_pass_is_long")
def test_long_rows_share_a_pass_only_with_their_own_length(model, monkeypatch):
    sizes = []
    for batch in replay(model, TEXTS):
        lengths = [len(TEXTS[i]) for i in batch.rows]
        sizes.append(lengths)
        if max(lengths) >= 8:
            assert len(set(lengths)) == 1
    assert sorted(map(len, sizes)) == [1, 2, 2, 2]
    assert [3, 1] in sizes  # what is short is batched as ever


@pytest.mark.usefixtures("every_pass_is_long")
def test_a_long_pass_has_a_mask_only_where_a_window_needs_one(any_model):
    """Windows are of five positions here, shorter than the text."""
    masks = stepper.Masks(any_model)
    request = Request("p", 0, TEXTS[0], 1)
    now = stepper.Pass((request,), np.array([0]), 20)
    given = masks.fresh(now)
    full, sliding = (
        (given["full_attention"], given["sliding_attention"])
        if isinstance(given, dict)
        else (given, given)
    )
    eager = any_model.name == "gemma2"  # it caps its scores, which SDPA can't
    if masks.form != "window":
        assert (full is None) != eager
    assert (sliding is None) == (masks.window is None and not eager)
    padded = masks.fresh(stepper.Pass((request,), np.array([-1]), 20))
    assert all(m is not None for m in (padded.values() if isinstance(padded, dict) else [padded]))


MEASURE = """
import json, sys, tempfile
from pathlib import Path
import numpy as np, torch
from transformers import LlamaConfig, LlamaForCausalLM
from probes.capture import Text, capture
from probes.generate import Decoding, Request
from probes.models import Model, new_tokenizer
from steering.interventions import GENERATED, Intervention, write

what, attention, lengths = sys.argv[1], sys.argv[2], [int(n) for n in sys.argv[3:]]
torch.manual_seed(0)
config = LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=24,
                     num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=8192,
                     tie_word_embeddings=True, attn_implementation=attention)
net = LlamaForCausalLM(config).eval().requires_grad_(False)
model = Model(net, new_tokenizer([*"abcdefgh", "END"]), "random")
tokens = tuple(np.random.default_rng(0).integers(2, 60, max(lengths)).tolist())
vector = torch.randn(64)
push = Intervention("add", "blocks.12.hook_resid_post", vector / vector.norm(), 5.0,
                    window=GENERATED)

def run(length):
    if what == "capture":
        sites = ["blocks.12.hook_resid_post", "blocks.23.hook_resid_post"]
        with tempfile.TemporaryDirectory() as place:
            capture(model, sites, [Text("p", 0, tokens[:length])], Path(place) / "store")
    else:
        request = Request("p", 0, tokens[: length - 16], 16, "push")
        write(model, {"push": [push]}, [request], Decoding(temperature=0))

def status(key):
    line = next(l for l in open("/proc/self/status") if l.startswith(key))
    return int(line.split()[1]) / 1024

run(64)
found = []
for length in lengths:
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = status("VmRSS")
    run(length)
    found.append(status("VmHWM") - before)
print(json.dumps(found))
"""


def measured(what, attention, *lengths):
    """Megabytes that it takes at its peak for each length, in a process of its own.

    What is freed goes back at once, or a peak would lie in what the process had kept.
    """
    command = [sys.executable, "-c", MEASURE, what, attention, *map(str, lengths)]
    freed = {f"MALLOC_{what}_THRESHOLD_": "65536" for what in ("MMAP", "TRIM")}
    ran = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, **freed}
    )
    return json.loads(ran.stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from Linux' /proc")
@pytest.mark.parametrize("what", ["capture", "steer"])
def test_memory_is_linear_in_the_length_of_a_trace(what):
    """24 layers of width 64. Measured: 4, 6 and 12 MB; 37, 77 and 155 with the cache."""
    short, middle, long = measured(what, "sdpa", 1024, 2048, 4096)
    assert middle < 2.4 * short
    assert 1.2 * middle < long < 2.4 * middle


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from Linux' /proc")
def test_the_eager_path_grows_with_its_square():
    """Without this the law above could hold of whatever is measured. 11, 38 and 148 MB."""
    short, middle, long = measured("capture", "eager", 512, 1024, 2048)
    assert middle > 3.2 * short
    assert long > 3.2 * middle
    assert long > 8 * measured("capture", "sdpa", 2048)[0]
