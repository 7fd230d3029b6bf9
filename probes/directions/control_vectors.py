"""Directions as GGUF control vectors, which llama.cpp and repeng read.

    export([check, jump], "strategies.gguf", architecture="llama")
    # llama-cli ... --control-vector-scaled strategies.gguf:0.2      strength 0.2, as here

A control vector file holds one f32 tensor ``direction.{i}`` a layer, and llama.cpp adds it, times
the scale of the command line, to the output of block i at every position. So each tensor is the
direction times the mean activation norm at its site: the scale is then the strength of section
"Conventions" of the package, in multiples of that norm.

The layout has no place for layer 0 (llama.cpp's buffer begins at block 1), for another site than
the block's output, nor for two directions of one layer: all three are refused.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from probes.directions.vectors import Direction
from probes.records import Refusal, atomic_write

ARCHITECTURE = "controlvector"
SITE = "hook_resid_post"


def export(directions: Sequence[Direction], path: str | Path, *, architecture: str) -> Path:
    """Write directions of one model, at most one a layer, as a GGUF control vector.

    Args:
        directions: at the output of blocks from 1 on.
        path: the file; written atomically.
        architecture: llama.cpp's name for the model's (Hugging Face's ``config.model_type`` of
            most), kept as a hint; a loader may warn where it differs.

    Raises:
        Refusal: a direction that the layout can't hold, or directions of different models.
    """
    _check(directions)
    tensors = {d.layer: np.float32(d.norm) * d.vector.astype(np.float32) for d in directions}
    with tempfile.TemporaryDirectory() as folder, atomic_write(Path(path)) as file:
        written = _write(Path(folder) / "vectors.gguf", tensors, architecture)
        file.write(written.read_bytes())
    return Path(path)


def read(path: str | Path) -> dict[int, Float[np.ndarray, " d"]]:
    """What a control vector adds to the output of each block at scale 1, by layer.

    Raises:
        Refusal: no such file, no GGUF file, cut short, or not a control vector.
    """
    from gguf import GGUFReader

    if not Path(path).is_file():
        raise Refusal(f"there is no control vector at {path}.")
    try:
        reader = GGUFReader(str(path))
        kind = reader.fields["general.architecture"].contents()
        found = {t.name: np.array(t.data) for t in reader.tensors}
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise Refusal(f"{path} is no readable GGUF file (damaged or cut short): {error}") from None
    if kind != ARCHITECTURE:
        raise Refusal(f"{path} holds a model or an adapter ({kind!r}), not a control vector.")
    layers = {}
    for name, vector in found.items():
        prefix, _, layer = name.partition(".")
        if prefix != "direction" or not layer.isdigit() or vector.ndim != 1:
            raise Refusal(f"{path} has a tensor {name} {vector.shape}: not a control vector's.")
        layers[int(layer)] = vector
    return layers


def _check(directions: Sequence[Direction]) -> None:
    if not directions:
        raise Refusal("there are no directions to export.")
    for one in directions:
        if one.site != SITE:
            raise Refusal(
                f"a direction at {one.place} can't be a control vector: llama.cpp adds them to the "
                f"output of a block, blocks.{one.layer}.{SITE}."
            )
        if one.layer == 0:
            raise Refusal(
                "a direction of layer 0 can't be a control vector: the layout begins at layer 1."
            )
    layers = [one.layer for one in directions]
    if twice := [layer for layer in layers if layers.count(layer) > 1]:
        raise Refusal(f"{layers.count(twice[0])} directions of layer {twice[0]}: give one a layer.")
    if len({(one.model, len(one.vector)) for one in directions}) > 1:
        raise Refusal("the directions come from different models: a file is for one model.")


def _write(path: Path, tensors: dict[int, np.ndarray], architecture: str) -> Path:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, ARCHITECTURE)
    writer.add_string(f"{ARCHITECTURE}.model_hint", architecture)
    writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(tensors))
    for layer in sorted(tensors):
        writer.add_tensor(f"direction.{layer}", tensors[layer])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
