import json
import shutil
from collections.abc import Sequence

import pytest
import torch
from safetensors.torch import load_file, save_file

from probes.generate import Decoding, Request, generate, replay
from probes.models import (
    bridge,
    check_pair,
    decode,
    encode,
    layer_index,
    load,
    new_llama,
    new_tokenizer,
    save,
    submodule,
)
from probes.models.loading import Model
from probes.records import SITES, Refusal

TEXT = (3, 4, 5, 6, 7, 8, 9, 10)


class Read:
    """Keeps the value of every site of every layer."""

    def __init__(self, depth=3):
        self.sites: Sequence[str] = [f"blocks.{i}.{s}" for i in range(depth) for s in SITES]
        self.values = {}

    def seat(self, slots, requests, rows):
        pass

    def at(self, site, x, now):
        self.values[site] = x.clone()
        return x


def sites_of(model, text=TEXT):
    read = Read()
    (done,) = replay(model, [text], observers=[read])
    return read.values, done.logits


def test_layer_i_is_the_output_of_block_i(any_model):
    values, _ = sites_of(any_model)
    hidden = any_model.net(torch.tensor([TEXT]), output_hidden_states=True).hidden_states
    for layer in range(3):
        torch.testing.assert_close(values[f"blocks.{layer}.hook_resid_pre"], hidden[layer])
    for layer in range(2):
        torch.testing.assert_close(values[f"blocks.{layer}.hook_resid_post"], hidden[layer + 1])
    last = values["blocks.2.hook_resid_post"]
    norm = next(
        module
        for name, module in any_model.net.named_modules()
        if name in ("model.norm", "transformer.ln_f", "gpt_neox.final_layer_norm")
    )
    torch.testing.assert_close(norm(last), hidden[3])
    assert not torch.allclose(last, hidden[3])


def test_attention_and_mlp_are_what_is_added_to_the_residual(any_model):
    values, _ = sites_of(any_model)
    for layer in range(3):
        pre, attn, mlp, post = (values[f"blocks.{layer}.{s}"] for s in SITES)
        torch.testing.assert_close(pre + attn + mlp, post, atol=1e-5, rtol=1e-5)
        assert attn.norm() > 0.01 * pre.norm()  # a site that is zero would add up too
        assert mlp.norm() > 0.01 * pre.norm()


def test_reading_changes_no_bit(any_model):
    _, logits = sites_of(any_model)
    (plain,) = replay(any_model, [TEXT])
    assert torch.equal(logits, plain.logits)


def test_sites_are_those_of_transformer_lens(any_model):
    values, _ = sites_of(any_model)
    _, cache = bridge(any_model).run_with_cache(torch.tensor([TEXT]))
    for site, value in values.items():
        torch.testing.assert_close(value, cache[site], atol=2e-5, rtol=1e-4, msg=site)


def test_a_bridge_leaves_the_model_whole_and_shares_its_weights(model, tmp_path):
    before = dict(model.net.state_dict())
    special = model.tokenizer.special_tokens_map
    request = [Request("p", 0, TEXT, 10)]
    answer = generate(model, request, Decoding())
    lens = bridge(model)
    after = model.net.state_dict()
    assert list(after) == list(before)
    assert model.tokenizer.special_tokens_map == special
    assert all(after[k].data_ptr() == v.data_ptr() for k, v in before.items())
    assert {v.data_ptr() for v in before.values()} <= {p.data_ptr() for p in lens.parameters()}
    assert generate(model, request, Decoding()) == answer
    save(model.net, model.tokenizer, tmp_path / "m", dtype=None)


@pytest.fixture
def folder(model, tmp_path):
    save(model.net, model.tokenizer, tmp_path / "m", dtype=None)
    return tmp_path / "m"


def test_a_saved_model_comes_back(model, folder):
    back = load(folder)
    assert (back.depth, back.width, back.context, back.vocab) == (3, 32, 96, 29)
    assert back.name == str(folder)
    assert not any(p.requires_grad for p in back.net.parameters())
    assert not back.net.training
    for (name, ours), theirs in zip(
        model.net.named_parameters(), back.net.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs), name
    assert back.tokenizer.get_vocab() == model.tokenizer.get_vocab()
    assert back.tokenizer.eos_token_id == 28
    assert {f.suffix for f in folder.iterdir()} <= {".json", ".safetensors"}
    check_pair(model, back)


def test_half_precision_is_stored_and_leaves_the_model_alone(model, tmp_path):
    weights = model.net.model.norm.weight.clone()
    save(model.net, model.tokenizer, tmp_path / "half")
    stored = load_file(tmp_path / "half" / "model.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.float16}
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "float16"
    assert "lm_head.weight" not in stored  # tied
    assert torch.equal(model.net.model.norm.weight, weights)
    back = load(tmp_path / "half")
    assert back.dtype == torch.float32
    assert torch.equal(back.net.model.norm.weight, weights.half().float())


def test_saving_replaces_a_folder_and_leaves_nothing_else(model, other, folder):
    save(other.net, other.tokenizer, folder, dtype=None)
    assert torch.equal(load(folder).net.model.norm.weight, other.net.model.norm.weight)
    assert [p.name for p in folder.parent.iterdir()] == ["m"]


def test_weights_that_overflow_are_not_written(tokenizer, folder):
    net = new_llama(29, width=32, depth=1, heads=4, mlp=48, context=96, seed=0)
    with torch.no_grad():
        net.model.norm.weight[0] = 1e6
    before = load(folder).digest
    with pytest.raises(Refusal, match="norm.weight is not finite as torch.float16"):
        save(net, tokenizer, folder)
    assert load(folder).digest == before
    assert [p.name for p in folder.parent.iterdir()] == ["m"]


def test_the_digest_follows_the_content(model, other, folder, tmp_path):
    digest = load(folder).digest
    save(model.net, model.tokenizer, tmp_path / "again", dtype=None)
    assert load(tmp_path / "again").digest == digest
    save(other.net, other.tokenizer, tmp_path / "again", dtype=None)
    assert load(tmp_path / "again").digest != digest


def test_damaged_folders_are_refused(folder):
    file = folder / "model.safetensors"
    weights = {k: v.clone() for k, v in load_file(file).items()}  # not mapped: it is overwritten

    def refused(message):
        with pytest.raises(Refusal, match=message):
            load(folder)

    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    refused("damaged or cut short")
    save_file({k: v for k, v in weights.items() if "layers.1.mlp" not in k}, file, {"format": "pt"})
    refused("lacks 3 weights.*layers.1.mlp")
    bad = weights["model.norm.weight"].clone()
    bad[3] = float("nan")
    save_file(weights | {"model.norm.weight": bad}, file, {"format": "pt"})
    refused("model.norm.weight has values that are not finite")
    short = {"model.norm.weight": torch.ones(31)}
    save_file(weights | short, file, {"format": "pt"})
    refused("don't fit the config|mismatch")
    file.unlink()
    refused("weights are missing")
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    refused("pytorch_model.bin are pickled")
    (folder / "config.json").unlink()
    refused("no config.json")
    shutil.rmtree(folder)
    refused("no model folder")
    with pytest.raises(Refusal, match="no model folder 'nowhere'.*Qwen"):
        load("nowhere")


def test_a_tokenizer_must_be_there_and_fit(folder):
    new_tokenizer([*(f"w{i}" for i in range(40)), "END"]).save_pretrained(folder)
    with pytest.raises(Refusal, match="knows 43 tokens and the model 29"):
        load(folder)
    for file in folder.glob("token*"):
        file.unlink()
    with pytest.raises(Refusal, match="no tokenizer"):
        load(folder)


def test_an_unknown_architecture_is_refused_with_what_is_missing(folder):
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["MambaForCausalLM"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(Refusal, match="MambaForCausalLM, which is not a known architecture"):
        load(folder)
    with pytest.raises(Refusal, match=r"Linear is not a known.*a line in probes.models.sites"):
        submodule(torch.nn.Linear(1, 1), 0, "hook_resid_post")


def test_only_pairs_of_one_model_can_be_compared(model, tokenizer):
    def like(**changes):
        shape = {"width": 32, "depth": 3, "heads": 4, "mlp": 48} | changes
        return Model(new_llama(29, **shape, context=96, seed=0), tokenizer, "changed")

    check_pair(model, like(mlp=64))
    with pytest.raises(Refusal, match="tiny-llama has depth 3 and changed 2"):
        check_pair(model, like(depth=2))
    with pytest.raises(Refusal, match="width 32 and changed 16"):
        check_pair(model, like(width=16))
    swapped = new_tokenizer([*"bacdefghijklmnopqrstuv", "=", ";", "?", ">", "END"])
    with pytest.raises(Refusal, match=r"different tokenizers \(2 tokens differ, such as 'a'\)"):
        check_pair(model, Model(model.net, swapped, "swapped"))


def test_layers_count_from_either_end():
    assert [layer_index(i, 3) for i in (0, 2, -1, -3)] == [0, 2, 2, 0]
    for layer in (3, -4, 28):
        with pytest.raises(Refusal, match=rf"layer {layer} is not in.*0\.\.2.*-1 is the last"):
            layer_index(layer, 3)
    with pytest.raises(Refusal, match=r"hidden_states\[3\] is layer 2 here"):
        layer_index(3, 3)


def test_an_unknown_site_or_a_block_without_it_is_refused(model):
    with pytest.raises(Refusal, match="hook_q.*hook_resid_pre, hook_attn_out"):
        submodule(model, 0, "hook_q")
    net = new_llama(29, width=8, depth=1, heads=1, mlp=8, context=8, seed=0)
    net.model.layers[0] = torch.nn.Sequential(torch.nn.Linear(8, 8))
    with pytest.raises(Refusal, match="block 0 of this LlamaForCausalLM has no 'mlp', only 0"):
        submodule(net, 0, "hook_mlp_out")


def test_words_and_tokens_correspond(model):
    text = "a b ? c = v ; >"
    tokens = encode(model, text)
    assert tokens == (2, 3, 26, 4, 24, 23, 25, 27)
    assert decode(model, tokens) == text
    assert decode(model, (*tokens, 28)) == text  # END is left out
    assert encode(model, "a END") == (2, 28)
    with pytest.raises(Refusal, match="zebra BEND is not in the vocabulary"):
        encode(model, "a zebra b BEND zebra")
    with pytest.raises(Refusal, match="empty"):
        encode(model, "  ")


def test_a_vocabulary_has_distinct_words_and_an_end():
    for words in (["a", "a", "END"], ["a"], ["a b", "END"], ["", "END"]):
        with pytest.raises(Refusal, match="distinct words"):
            new_tokenizer(words)


def test_the_seed_fixes_a_new_model_and_nothing_else():
    shape = {"width": 8, "depth": 1, "heads": 1, "mlp": 8, "context": 8}
    state = torch.get_rng_state()
    one, same, another = (new_llama(5, **shape, seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.lm_head.weight, same.lm_head.weight)
    assert not torch.equal(one.lm_head.weight, another.lm_head.weight)
    assert one.lm_head.weight is one.model.embed_tokens.weight


def test_what_lies_beside_the_weights_is_no_part_of_the_model(model, tmp_path):
    """Vectors and a taxonomy ship in the folder of the model that they were made of."""
    save(model.net, model.tokenizer, tmp_path / "m")
    before = load(tmp_path / "m").digest
    save_file({"vectors": torch.zeros(2, 3)}, tmp_path / "m" / "vectors.safetensors")
    assert load(tmp_path / "m").digest == before
