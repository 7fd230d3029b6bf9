"""CPU and CUDA differ in nothing but device. Skipped without one; run it with `make test-gpu`.

Tokens are equal, numbers to 1e-4 of the largest: float32 sums in another order, TF32 off.
"""

import copy

import numpy as np
import pytest
import torch

from probes.capture import capture, from_strings
from probes.divergence import token_kl
from probes.generate import Decoding, Request, generate, replay
from probes.models import Model, load, load_on, save
from probes.records import SITES
from probes.sae import SaeSettings, train_sae
from steering.interventions import GENERATED, Intervention, write

DEVICE = "cuda"
END = 28
PROMPTS = [(5, 6, 7), (8, 9), (3, 4, 5, 6, 9, 10, 11, 12), (4,)]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


@pytest.fixture(autouse=True)
def exact():
    """TF32 rounds to 10 bits, which is another number and no other device."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def there(model, dtype=torch.float32):
    """The same weights on the other device."""
    return Model(copy.deepcopy(model.net).to(DEVICE, dtype), model.tokenizer, model.name)


def near(found, want):
    found, want = found.float().cpu(), want.float()
    assert (found - want).abs().max() <= 1e-4 * want.abs().max()


def requests(settings=(None,)):
    return [Request(str(i), 0, p, 12, s) for i, p in enumerate(PROMPTS) for s in settings]


def test_a_model_is_loaded_where_it_was_asked_for(model, tmp_path):
    save(model.net, model.tokenizer, tmp_path / "m", dtype=None)
    for found in (
        load(tmp_path / "m", device=DEVICE),
        load(tmp_path / "m", device_map={"": DEVICE}),
        load_on(str(tmp_path / "m"), DEVICE, "bfloat16"),
    ):
        assert found.device.type == torch.device(DEVICE).type
        assert found.digest == load(tmp_path / "m").digest
    assert found.dtype == torch.bfloat16


def test_passes_are_equal(any_model):
    pairs = zip(replay(any_model, PROMPTS), replay(there(any_model), PROMPTS), strict=True)
    for here, other in pairs:
        assert here.rows == other.rows
        for row, i in enumerate(here.rows):
            near(other.logits[row, -len(PROMPTS[i]) :], here.logits[row, -len(PROMPTS[i]) :])


@pytest.mark.parametrize(
    "decoding", [Decoding(0.0, stop=(END,)), Decoding(0.8, 0.9, (END,))], ids=["greedy", "sampled"]
)
def test_answers_are_equal(any_model, decoding):
    """The random numbers are drawn on the host, so sampled ones too."""
    here, other = (
        generate(m, requests(), decoding, batch=3) for m in (any_model, there(any_model))
    )
    for a, b in zip(here, other, strict=True):
        assert a.tokens == b.tokens
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


@pytest.mark.parametrize("kind", SITES)
def test_steered_answers_are_equal(any_model, kind):
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    push = Intervention("add", f"blocks.1.{kind}", vector / vector.norm(), 60.0, window=GENERATED)
    settings = {"none": [], "push": [push]}
    asked = requests(tuple(settings))
    here, other = (
        write(m, settings, asked, Decoding(0.0, stop=(END,))) for m in (any_model, there(any_model))
    )
    assert [r.tokens for r in here] == [r.tokens for r in other]


def test_stores_are_equal(any_model, tmp_path):
    texts = from_strings(any_model, ["a b c d e f g", "h i", "j k l m"])
    sites = [f"blocks.{layer}.{kind}" for layer in range(3) for kind in SITES]
    here, other = (
        capture(m, sites, texts, tmp_path / name)
        for m, name in ((any_model, "here"), (there(any_model), "there"))
    )
    columns = ["problem", "sample", "position"]
    assert here.index[columns].equals(other.index[columns])
    every = np.ones(len(here.index), bool)
    for site in sites:
        want = torch.from_numpy(here.numpy(site, every).copy())
        near(torch.from_numpy(other.numpy(site, every).copy()), want)


def test_a_dictionary_trains_there(model, tmp_path):
    words = "abcdefghijklmnopqrstuv"
    texts = from_strings(model, [" ".join(words[i:] + words[:i]) for i in range(22)])
    store = capture(there(model), ["blocks.1.hook_resid_post"], texts, tmp_path / "store")
    settings = SaeSettings(latents=48, k=6, steps=50, batch=64)
    site = "blocks.1.hook_resid_post"
    sae = train_sae(store, site, settings, tmp_path / "sae", device=DEVICE)
    assert 0 < sae.facts["fvu"]["value"] < 1


def test_bfloat16_is_as_near_there_as_here(any_model):
    """`tests/steering/test_dtype.py` has the bound on the CPU."""
    (here,) = replay(any_model, PROMPTS)
    (other,) = replay(there(any_model, torch.bfloat16), PROMPTS)
    for row, i in enumerate(here.rows):
        p, q = (x.logits[row, -len(PROMPTS[i]) :].float().cpu() for x in (here, other))
        assert float(token_kl(p, q).max()) < 2e-3
