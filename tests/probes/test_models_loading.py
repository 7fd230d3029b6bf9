"""Where a model comes from: the hub and what goes wrong there, device maps, quantised weights."""

import json
from pathlib import Path

import httpx2
import huggingface_hub
import pytest
import torch
from huggingface_hub import errors
from safetensors.torch import load_file, save_file

from probes.generate import Decoding, Request, generate
from probes.models import Model, load, new_llama, outline, save
from probes.models.sites import ARCHITECTURES, check_sites
from probes.records import Refusal

NAME = "some-lab/some-model"
ASKED = [Request("p", 0, (3, 4, 5), 8), Request("q", 0, (6, 7, 8, 9, 10), 8)]


@pytest.fixture
def folder(model, tmp_path):
    save(model.net, model.tokenizer, tmp_path / "m", dtype=None)
    return tmp_path / "m"


@pytest.fixture
def hub(monkeypatch):
    """A hub that answers with what it was given, and the calls that it got."""
    calls = []

    def answer(given):
        def snapshot_download(name, **how):
            calls.append((name, how))
            if isinstance(given, Exception):
                raise given
            return str(given)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        return calls

    return answer


def of_status(kind, code):
    return kind("no", response=httpx2.Response(code, request=httpx2.Request("GET", "https://hub")))


REFUSED = {
    "gated": (
        of_status(errors.GatedRepoError, 403),
        rf"{NAME} is gated: accept its terms at https://huggingface.co/{NAME}.*hf auth login",
    ),
    "unknown": (
        of_status(errors.RepositoryNotFoundError, 404),
        f"{NAME} is no repository on the Hugging Face hub, or a private one.*check the name",
    ),
    "no network": (
        errors.LocalEntryNotFoundError("no"),
        f"can't be reached.*`hf download {NAME} --local-dir DIR` makes a folder, and DIR",
    ),
    "offline": (errors.OfflineModeIsEnabled("no"), "HF_HUB_OFFLINE.*hf download"),
    "revision": (
        of_status(errors.RevisionNotFoundError, 404),
        f"{NAME} has no revision 'v9': https://huggingface.co/{NAME}/tree/main lists",
    ),
    "server": (of_status(errors.HfHubHTTPError, 500), r"did not give it \(.*\): .*hf download"),
    "disk": (OSError("No space left on device"), "No space left on device"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_hub_refuses_is_refused_with_what_to_do(hub, case):
    error, message = REFUSED[case]
    hub(error)
    for opened in (load, outline):
        with pytest.raises(Refusal, match=message):
            opened(NAME, revision="v9")


def test_a_hub_name_is_a_folder_that_was_fetched(hub, folder):
    calls = hub(folder)
    there, here = load(NAME), load(folder)
    assert (there.name, there.digest) == (NAME, here.digest)
    assert calls[0][0] == NAME
    assert calls[0][1]["revision"] is None
    assert "model*.safetensors" in calls[0][1]["allow_patterns"]
    assert not any("bin" in pattern or pattern == "*" for pattern in calls[0][1]["allow_patterns"])


@pytest.mark.parametrize(
    ("source", "how"), [(f"{NAME}@step9", {}), (NAME, {"revision": "step9"})], ids=["@", "revision"]
)
def test_a_revision_is_fetched_and_part_of_the_name(hub, folder, source, how):
    calls = hub(folder)
    for opened in (load, outline):
        assert opened(source, **how).name == f"{NAME}@step9"
    assert [(name, asked["revision"]) for name, asked in calls] == [(NAME, "step9")] * 2


def test_a_revision_is_of_a_hub_name_and_one(hub, folder):
    with pytest.raises(Refusal, match="which is a folder: folders have none"):
        load(folder, revision="main")
    with pytest.raises(Refusal, match="names revision 'a', and revision='b' another"):
        load(f"{NAME}@a", revision="b")


def test_an_outline_without_weights_needs_small_files_only(hub, folder):
    (folder / "model.safetensors").unlink()
    calls = hub(folder)
    found = outline(NAME, weights=False)
    assert (found.depth, found.width, found.vocab, found.digest) == (3, 32, 29, "")
    assert found.net.model.norm.weight.is_meta
    assert not any("safetensors" in pattern for pattern in calls[0][1]["allow_patterns"])
    with pytest.raises(Refusal, match="weights are missing"):
        outline(NAME)


def test_code_beside_a_model_is_not_run(folder):
    ran = folder / "ran"
    code = f"open({str(ran)!r}, 'w').close()\nfrom transformers import LlamaConfig as Config\n"
    (folder / "evil.py").write_text(code)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Config"}
    (folder / "config.json").write_text(json.dumps(config))
    load(folder)
    config["model_type"] = "evil"
    config["architectures"] = ["EvilForCausalLM"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(Refusal, match="EvilForCausalLM, which is not a known architecture"):
        load(folder)
    assert not ran.exists()


@pytest.mark.parametrize("text", ["{", "[]", "{}"], ids=["cut", "list", "empty"])
def test_a_config_that_says_nothing_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(Refusal, match="no JSON object|without architectures"):
        load(folder)


WRONG = {
    "type": ({"model_type": "weird"}, "can't read this LlamaForCausalLM.*model type `weird`"),
    "kind": ({"hidden_size": "x"}, "can't read this LlamaForCausalLM.*hidden_size"),
    "heads": ({"num_attention_heads": 3}, "can't read this.*not a multiple"),
    "rope": ({"rope_scaling": {"type": "curly"}}, "its config.json makes no model.*curly"),
    "activation": ({"hidden_act": "wish"}, "its config.json makes no model.*wish"),
    "depth": ({"num_hidden_layers": 0}, "has no blocks"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_config_of_no_model_is_refused_whoever_finds_out(folder, case):
    """Some of it transformers' config classes check, and some only the modules."""
    given, message = WRONG[case]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | given))
    for opened in (load, outline):
        with pytest.raises(Refusal, match=message):
            opened(folder)


@pytest.mark.parametrize(
    ("file", "text"),
    [("tokenizer.json", '{"ver'), ("tokenizer.json", "{}"), ("tokenizer_config.json", "{")],
)
def test_a_damaged_tokenizer_is_refused(folder, file, text):
    (folder / file).write_text(text)
    for opened in (load, outline):
        with pytest.raises(Refusal, match="its tokenizer is damaged or cut short"):
            opened(folder)


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_a_damaged_index_of_shards_is_refused(folder, text):
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(Refusal, match="index.json is damaged or cut short"):
        load(folder)


def test_a_gguf_file_is_no_folder_and_says_how_it_becomes_one(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(Refusal, match="is a GGUF file.*probes.models.gguf.convert"):
        load(tmp_path / "m.gguf")


def test_the_architectures_that_are_promised_are_known():
    promised = ["Llama", "Qwen2", "Qwen3", "Gemma3", "Olmo2", "GPTNeoX", "Mistral", "Gemma2"]
    assert {f"{name}ForCausalLM" for name in promised} | {"GPT2LMHeadModel"} <= set(ARCHITECTURES)


def test_an_unknown_architecture_is_told_what_is_missing(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["NewForCausalLM"]}))
    missing = "a line in probes.models.sites: the path of its blocks, and the submodules"
    with pytest.raises(Refusal, match=missing):
        load(folder)


def test_a_model_is_hooked_at_every_site_or_not_at_all():
    """A hybrid, of which some blocks have no attention by that name."""
    net = new_llama(29, width=8, depth=3, heads=1, mlp=8, context=8, seed=0)
    check_sites(net)
    del net.model.layers[1].self_attn
    with pytest.raises(Refusal, match="block 1 of this LlamaForCausalLM has no 'self_attn'"):
        check_sites(net)


SPLIT = {
    "model.embed_tokens": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "cpu",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.layers.2": "disk",
    "model.norm": "cpu",
}


@pytest.mark.parametrize("where", ["auto", "cpu", {"": "cpu"}, SPLIT], ids=str)
def test_a_device_map_changes_where_and_not_what(folder, where):
    mapped = load(folder, device_map=where)
    assert (mapped.device, mapped.dtype) == (torch.device("cpu"), torch.float32)
    assert any(p.is_meta for p in mapped.net.parameters()) == (where is SPLIT)
    assert generate(mapped, ASKED, Decoding()) == generate(load(folder), ASKED, Decoding())


def test_a_device_map_over_several_devices_is_refused(folder, monkeypatch):
    """No machine of ours has two: what transformers then says of the net is put there by hand."""
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained

    def spread(*args, **how):
        net, report = plain(*args, **{**how, "device_map": None})
        net.hf_device_map = {"model.layers.0": 0, "model.layers.1": 1, "model.layers.2": "cpu"}
        return net, report

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", spread)
    with pytest.raises(Refusal, match="over 0, 1, and the cache lies on one device"):
        load(folder, device_map="auto")


def test_a_device_map_that_cannot_be_is_refused(folder):
    with pytest.raises(Refusal, match="device_map='nonsense'"):
        load(folder, device_map="nonsense")


BLOCK = 16


def quantised(folder: Path):
    """The folder with FP8 weights, a scale for each block, as DeepSeek and Qwen publish theirs.

    Returns what each weight then stands for.
    """
    file, stored, meant = folder / "model.safetensors", {}, {}
    for name, weight in load_file(file).items():
        stored[name] = meant[name] = weight.clone()
        if name.endswith("_proj.weight"):
            rows, columns = (n // BLOCK for n in weight.shape)
            tiles = weight.view(rows, BLOCK, columns, BLOCK)
            scale = tiles.abs().amax((1, 3)) / 448
            small = (tiles / scale[:, None, :, None]).to(torch.float8_e4m3fn)
            stored[name] = small.reshape(weight.shape)
            stored[f"{name}_scale_inv"] = scale
            meant[name] = (small.float() * scale[:, None, :, None]).reshape(weight.shape)
    save_file(stored, file, {"format": "pt"})
    how = {
        "quant_method": "fp8",
        "weight_block_size": [BLOCK, BLOCK],
        "activation_scheme": "dynamic",
    }
    told(folder, how)
    return meant


def told(folder, how):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": how}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_an_fp8_checkpoint_computes_with_what_its_weights_stand_for(folder, dtype):
    meant = quantised(folder)
    found = load(folder, dtype=dtype)
    assert found.dtype == dtype
    assert {p.dtype for p in found.net.parameters()} == {dtype}
    for name, weight in found.net.named_parameters():
        torch.testing.assert_close(
            weight.float(), meant[name], atol=0, rtol=0 if dtype == torch.float32 else 8e-3
        )
    assert len(generate(found, ASKED, Decoding())) == 2


@pytest.mark.parametrize(
    ("how", "lacking"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "gptq", "bits": 4}, "optimum|gptqmodel"),
        ({"quant_method": "awq", "bits": 4}, "gptqmodel|autoawq"),
    ],
    ids=["bitsandbytes", "gptq", "awq"],
)
def test_a_quantisation_whose_library_is_not_here_is_refused_by_its_name(folder, how, lacking):
    told(folder, how)
    with pytest.raises(
        Refusal, match=f"is quantised, and transformers can't load it here.*({lacking})"
    ):
        load(folder)


def test_a_quantisation_that_transformers_skips_is_refused(folder):
    """It warns, and would read the packed numbers as weights."""
    told(folder, {"quant_method": "secret"})
    with pytest.raises(Refusal, match="in a way that transformers doesn't know.*secret"):
        load(folder)


def test_a_model_is_where_it_computes_and_of_its_residual_streams_dtype(tokenizer):
    """Whatever its first weight is: left outside by a device_map, of 8 bits, or integers."""
    net = torch.nn.Module()
    net.outside = torch.nn.Parameter(torch.zeros(2, dtype=torch.bfloat16, device="meta"))
    net.small = torch.nn.Parameter(torch.zeros(2, dtype=torch.float8_e4m3fn), requires_grad=False)
    net.packed = torch.nn.Parameter(torch.zeros(2, dtype=torch.uint8), requires_grad=False)
    net.norm = torch.nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))
    found = Model(net, tokenizer, "quantised")
    assert (found.dtype, found.device) == (torch.bfloat16, torch.device("cpu"))


def test_weights_of_blocks_that_the_config_does_not_name_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    fewer = {"num_hidden_layers": config["num_hidden_layers"] - 1, "layer_types": None}
    (folder / "config.json").write_text(json.dumps(config | fewer))
    with pytest.raises(Refusal, match="weights of blocks that its config.json doesn't name"):
        load(folder)
