"""Language models: load one, name its layers, look at it through TransformerLens, make a small one.

Layer i is the output of block i, 0-based; -1 is the last. Everything about a model that another
module may need to know is here; how it decodes is in `probes.generate`.

    sites       the sites of the residual stream, one line an architecture
    loading     Model, from a folder or the hub; refusals; text to tokens and back
    offsets     which characters a token stands for
    making      a word-level tokenizer, a random Llama, and saving
    lens        the same weights as a TransformerBridge
"""

from probes.models.lens import bridge
from probes.models.loading import Model, check_pair, decode, encode, load, load_on, outline
from probes.models.making import new_llama, new_tokenizer, save
from probes.models.offsets import covering, offsets
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
    "architecture",
    "blocks",
    "bridge",
    "check_pair",
    "covering",
    "decode",
    "encode",
    "layer_index",
    "load",
    "load_on",
    "new_llama",
    "new_tokenizer",
    "offsets",
    "outline",
    "save",
    "submodule",
]
