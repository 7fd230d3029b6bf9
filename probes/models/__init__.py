"""Language models: load one, name its layers, look at it through TransformerLens, make a small one.

Layer i is the output of block i, 0-based; -1 is the last. Everything about a model that another
module may need to know is here; how it decodes is in `probes.generate`.

    sites       the sites of the residual stream, one line an architecture
    folders     a model's folder, given or fetched from the hub, and whole
    loading     Model, from a folder or the hub; refusals; text to tokens and back
    offsets     which characters a token stands for
    pairs       the published pairs, and whether two models can be compared
    gguf        a folder made from a GGUF file; SmolLM2 from the package index
    making      a word-level tokenizer, a random Llama, and saving
    lens        the same weights as a TransformerBridge
"""

from probes.models.lens import bridge
from probes.models.loading import Model, decode, encode, load, load_on, outline
from probes.models.making import new_llama, new_tokenizer, save
from probes.models.offsets import covering, offsets
from probes.models.pairs import (
    Pair,
    check_pair,
    differences,
    differing_tokens,
    find_pair,
    read_pairs,
    spelt,
)
from probes.models.sites import (
    ARCHITECTURES,
    Architecture,
    architecture,
    blocks,
    layer_index,
    submodule,
)

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Model",
    "Pair",
    "architecture",
    "blocks",
    "bridge",
    "check_pair",
    "covering",
    "decode",
    "differences",
    "differing_tokens",
    "encode",
    "find_pair",
    "layer_index",
    "load",
    "load_on",
    "new_llama",
    "new_tokenizer",
    "offsets",
    "outline",
    "read_pairs",
    "save",
    "spelt",
    "submodule",
]
