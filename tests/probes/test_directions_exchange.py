"""Directions out of other people's vectors and into them; and activations for plain safetensors."""

import sys
import types
from dataclasses import dataclass

import gguf
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from probes.capture import capture, from_strings
from probes.directions import Source, cosine, load, save
from probes.directions.control_vectors import export
from probes.directions.exchange import (
    from_gguf,
    from_layers,
    from_repeng,
    from_steering_vector,
    to_layers,
    to_repeng,
    to_steering_vector,
)
from probes.models import blocks
from probes.records import Refusal

SOURCE = Source("", "")
ABOUT = {"strategy": "happy", "source": SOURCE}


@dataclass
class ControlVector:
    """As repeng 84b1787 has it."""

    model_type: str
    directions: dict[int, np.ndarray]


@dataclass
class SteeringVector:
    """As steering-vectors dac8fb9 has it."""

    layer_activations: dict[int, torch.Tensor]
    layer_type: str = "decoder_block"


@pytest.fixture
def libraries(monkeypatch):
    """Stand-ins for both libraries, which don't install beside transformers 5."""
    monkeypatch.setitem(sys.modules, "repeng", types.SimpleNamespace(ControlVector=ControlVector))
    made = types.SimpleNamespace(SteeringVector=SteeringVector)
    monkeypatch.setitem(sys.modules, "steering_vectors", made)


def vectors(layers=(1, 2), width=32, seed=0):
    rng = np.random.default_rng(seed)
    return {layer: (5 * rng.normal(size=width)).astype(np.float32) for layer in layers}


def same(found, given):
    assert {d.layer for d in found} == set(given)
    for d in found:
        assert d.norm == pytest.approx(np.linalg.norm(given[d.layer]), rel=1e-6)
        assert cosine(d.vector, given[d.layer]) == pytest.approx(1, abs=1e-6)
        assert d.place == f"blocks.{d.layer}.hook_resid_post"


def test_a_control_vector_file_that_repeng_would_write_is_read(tmp_path):
    """By the lines of its export_gguf, with gguf's own writer."""
    given = vectors((1, 3))
    writer = gguf.GGUFWriter(tmp_path / "v.gguf", "controlvector")
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_uint32("controlvector.layer_count", len(given))
    for layer, vector in given.items():
        writer.add_tensor(f"direction.{layer}", vector)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    same(from_gguf(tmp_path / "v.gguf", **ABOUT), given)


def test_there_and_back_by_a_file_is_the_same_vector(tmp_path):
    found = from_layers(vectors(), origin="mine", **ABOUT)
    back = from_gguf(export(found, tmp_path / "v.gguf", architecture="llama"), **ABOUT)
    same(back, to_layers(found))


def test_there_and_back_by_repengs_object(libraries):
    given = vectors((0, 2))
    found = from_repeng(ControlVector("llama", given), **ABOUT)
    same(found, given)
    back = to_repeng(found, model_type="llama")
    assert isinstance(back, ControlVector)
    assert back.model_type == "llama"
    for layer, vector in given.items():
        np.testing.assert_allclose(back.directions[layer], vector, rtol=1e-5)
        assert back.directions[layer].dtype == np.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_there_and_back_by_a_steering_vector(libraries, dtype):
    given = {layer: torch.from_numpy(v).to(dtype) for layer, v in vectors().items()}
    given[1] = given[1].reshape(1, 1, -1).requires_grad_()
    found = from_steering_vector(SteeringVector(given), **ABOUT)
    back = to_steering_vector(found)
    assert isinstance(back, SteeringVector)
    assert back.layer_type == "decoder_block"
    for layer, vector in given.items():
        torch.testing.assert_close(back.layer_activations[layer], vector.detach().float().flatten())


def test_strength_one_adds_what_coefficient_one_adds_there(model):
    """Both libraries add the vector to what the block gives: done here by a bare forward hook."""
    (layer, vector), *_ = vectors((1,)).items()
    (found,) = from_layers({layer: vector}, origin="mine", **ABOUT)
    tokens = torch.tensor([[1, 2, 3, 4, 5]])

    def add(module, given, out):
        return (
            (out[0] + torch.from_numpy(vector), *out[1:])
            if isinstance(out, tuple)
            else (out + torch.from_numpy(vector))
        )

    hook = blocks(model.net)[layer].register_forward_hook(add)
    theirs = model.net(tokens).logits
    hook.remove()
    push = torch.from_numpy(found.vector) * found.norm
    hook = blocks(model.net)[layer].register_forward_hook(
        lambda m, i, o: (o[0] + push, *o[1:]) if isinstance(o, tuple) else o + push
    )
    ours = model.net(tokens).logits
    hook.remove()
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(theirs, model.net(tokens).logits, atol=1e-2)


def test_what_was_imported_has_no_evidence_and_can_be_kept(tmp_path):
    found = from_layers(vectors(), origin="gguf", strategy="happy", source=Source("abc", ""))
    for d in found:
        assert np.isnan([d.auc, d.auc_low, d.null_high]).all()
        assert "nothing was measured" in d.reason
        kept = load(save(d, tmp_path / "d.safetensors"))
        np.testing.assert_array_equal(kept.vector, d.vector)
        assert (kept.norm, kept.model, kept.method, kept.reason) == (
            d.norm,
            "abc",
            "gguf",
            d.reason,
        )
        assert "undefined (imported (gguf)" in kept._repr_html_()


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ({}, "holds no layer"),
        ({-1: np.ones(4)}, "layer -1"),
        ({1: np.zeros(4)}, "length 0"),
        ({1: np.array([1.0, np.nan])}, "length nan"),
        ({1: np.ones((2, 4))}, r"shape \(2, 4\)"),
        ({1: np.ones(4), 2: np.ones(5)}, r"widths \[4, 5\]"),
    ],
)
def test_what_is_no_direction_is_refused(layers, says):
    with pytest.raises(Refusal, match=says):
        from_repeng(ControlVector("llama", layers), **ABOUT)


def test_other_objects_and_parts_are_refused():
    with pytest.raises(Refusal, match="dict has no directions: a repeng.ControlVector"):
        from_repeng({1: np.ones(4)}, **ABOUT)
    with pytest.raises(Refusal, match="'mlp' can't be taken over"):
        from_steering_vector(SteeringVector(vectors(), "mlp"), **ABOUT)


def test_without_the_libraries_it_says_what_else_there_is(monkeypatch):
    found = from_layers(vectors(), origin="mine", **ABOUT)
    for name in ("repeng", "steering_vectors"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(Refusal, match="repeng is not installed .* GGUF"):
        to_repeng(found, model_type="llama")
    with pytest.raises(Refusal, match="steering_vectors is not installed"):
        to_steering_vector(found)


def test_what_the_objects_cannot_hold_is_refused():
    one, two = from_layers(vectors(), origin="mine", **ABOUT)
    for some, says in (([], "no directions"), ([one, one], "several directions of a layer")):
        with pytest.raises(Refusal, match=says):
            to_layers(some)
    other = from_layers(vectors((2,)), origin="x", strategy="s", source=Source("other", ""))
    with pytest.raises(Refusal, match="different models"):
        to_layers([one, *other])


def test_activations_are_read_by_plain_safetensors_and_pandas(model, tmp_path):
    """No line of ours is needed: a tensor a site in each shard, and the index says whose row."""
    sites = ["blocks.0.hook_resid_pre", "blocks.1.hook_resid_post"]
    texts = from_strings(model, ["a b c d e", "f g h", "i j k l"])
    store = capture(model, sites, texts, tmp_path / "s", shard_rows=5)
    index = pd.read_parquet(tmp_path / "s" / "index.parquet")
    shards = [load_file(f) for f in sorted((tmp_path / "s").glob("*.safetensors"))]
    assert len(shards) > 1
    for site in sites:
        plain = np.stack([shards[s][site][r] for s, r in zip(index.shard, index.row, strict=True)])
        np.testing.assert_array_equal(plain, store.numpy(site))
        hidden = model.net(torch.tensor([texts[1].tokens]), output_hidden_states=True)
        layer = 0 if "pre" in site else 2
        mine = plain[(index.problem == "1").to_numpy()]
        wanted = hidden.hidden_states[layer][0].numpy()
        np.testing.assert_allclose(mine, wanted, atol=1e-4, rtol=1e-4)
