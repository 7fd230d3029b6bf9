"""Random tiny models, made once: three layers and a word tokenizer."""

import importlib
from pathlib import Path

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from probes.models import Model, new_llama, new_tokenizer

WORDS = [*"abcdefghijklmnopqrstuv", "=", ";", "?", ">", "END"]
SIZE = {
    "vocab_size": 29,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 96,
}
MIXED = {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"] * 2}
MIXED["layer_types"] = MIXED["layer_types"][:3]
GPT2 = {"vocab_size": 29, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 96}
FAMILIES = {
    "llama": SIZE,
    "mistral": SIZE | {"sliding_window": 5},
    "qwen2": SIZE | MIXED | {"use_sliding_window": True},
    "qwen3": SIZE,
    "gpt2": GPT2,
    "gpt_neox": SIZE | {"num_key_value_heads": 4},
    "gemma2": SIZE | MIXED | {"query_pre_attn_scalar": 8},
    "gemma3_text": SIZE | MIXED | {"query_pre_attn_scalar": 8},
    "olmo2": SIZE,
}


def sharpen(net):
    """Weights wide enough that distributions are far from uniform and every site matters."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in net.parameters():
            if weight.ndim == 2:
                weight.mul_(6)
            else:
                weight.add_(0.2 * torch.randn_like(weight))
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def tokenizer():
    return new_tokenizer(WORDS)


@pytest.fixture(scope="session")
def model(tokenizer):
    net = new_llama(29, width=32, depth=3, heads=4, mlp=48, context=96, seed=0)
    return Model(sharpen(net), tokenizer, "tiny-llama")


@pytest.fixture(scope="session")
def other(tokenizer):
    """A second model of the same shape, for whatever takes two."""
    net = new_llama(29, width=32, depth=3, heads=4, mlp=48, context=96, seed=1)
    return Model(sharpen(net), tokenizer, "tiny-other")


@pytest.fixture(scope="session", params=FAMILIES)
def any_model(request, tokenizer):
    """One tiny model of each known architecture; some of them with sliding windows."""
    ids = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": 28}
    config = CONFIG_MAPPING[request.param](**FAMILIES[request.param], **ids)
    torch.manual_seed(0)
    return Model(sharpen(AutoModelForCausalLM.from_config(config)), tokenizer, request.param)


@pytest.fixture(scope="session")
def loopback():
    """The module of the server that fails as it is told (`tests/loopback.py`)."""
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(Path(__file__).resolve().parents[1])
        return importlib.import_module("tests.loopback")
