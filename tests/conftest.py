"""A random tiny model, made once: three layers and a word tokenizer."""

import pytest
import torch

from probes.models import Model, new_llama, new_tokenizer

WORDS = [*"abcdefghijklmnopqrstuv", "=", ";", "?", ">", "END"]


@pytest.fixture(scope="session")
def tokenizer():
    return new_tokenizer(WORDS)


@pytest.fixture(scope="session")
def model(tokenizer):
    """Initialised ten times wider than usual, so that its distributions are far from uniform."""
    net = new_llama(len(tokenizer), width=32, depth=3, heads=4, mlp=48, context=96, seed=0)
    with torch.no_grad():
        for weight in net.parameters():
            if weight.ndim == 2:
                weight.mul_(10)
    return Model(net.requires_grad_(False), tokenizer, "tiny-llama")
