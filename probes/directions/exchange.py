"""Directions from other people's vectors, and to them: GGUF, repeng, steering-vectors.

    found = from_gguf("happy.gguf", strategy="happy", source=Source(model.digest, ""))
    from_repeng(control_vector, ...)             # repeng.ControlVector, or what has its fields
    from_steering_vector(steering_vector, ...)   # steering_vectors.SteeringVector, likewise
    to_repeng(directions, model_type="llama"); to_steering_vector(directions)

All three add a vector to the output of block i, counted from 0, so each is a direction at
blocks.{i}.hook_resid_post whose `norm` is the vector's length: strength 1 here is coefficient 1
there, and what is imported and exported again is the same vector.

An imported direction has no evidence: its AUC is undefined, with the reason. The fields are those
of repeng 84b1787, extract.py (model_type, directions) and of steering-vectors dac8fb9,
steering_vector.py (layer_activations, layer_type), as read there: neither runs beside numpy 2 and
transformers 5.
"""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from probes.directions.control_vectors import SITE, read
from probes.directions.vectors import Direction, Source
from probes.records import Refusal, content_hash

BLOCK = "decoder_block"
"""The layer type of steering-vectors that is the output of a block. The other ones hook modules
by a guess at their name, which on some architectures are not what is added to the residual."""


def from_layers(
    layers: Mapping[int, Any], *, strategy: str, source: Source, origin: str
) -> list[Direction]:
    """Directions from what is added to the output of each block at strength 1, by layer.

    Args:
        layers: arrays or tensors of one width; leading axes of length 1 are dropped.
        strategy: what they point towards.
        source: whose activations they are for: sweeps refuse a direction of another model.
        origin: where they are from; kept as the method.

    Raises:
        Refusal: no layer, a layer below 0, a vector of length 0, with NaN, or of another width.
    """
    vectors = {int(layer): _flat(layer, given) for layer, given in layers.items()}
    if not vectors:
        raise Refusal(f"this {origin} holds no layer.")
    if min(vectors) < 0:
        raise Refusal(f"layer {min(vectors)}: layers are counted from 0, by their blocks.")
    if len(widths := {len(v) for v in vectors.values()}) > 1:
        raise Refusal(f"vectors of widths {sorted(widths)} are not of one model.")
    nan = float("nan")
    return [
        Direction(
            vector=(vector / np.linalg.norm(vector)).astype(np.float32),
            layer=layer,
            site=SITE,
            strategy=strategy,
            method=origin,
            norm=float(np.linalg.norm(vector)),
            auc=nan,
            auc_low=nan,
            auc_high=nan,
            auc_choice=nan,
            null_mean=nan,
            null_high=nan,
            rows=0,
            positives=0,
            problems=0,
            model=source.model,
            task=source.task,
            data=content_hash([layer, vector.tolist()]),
            seed=0,
            reason=f"imported ({origin}): nothing was measured here",
        )
        for layer, vector in sorted(vectors.items())
    ]


def to_layers(directions: Sequence[Direction]) -> dict[int, Float[np.ndarray, " d"]]:
    """What each direction adds to the output of its block at strength 1, by layer.

    Raises:
        Refusal: none, another site than a block's output, two of one layer, or of two models.
    """
    if not directions:
        raise Refusal("there are no directions to export.")
    if bad := [one.place for one in directions if one.site != SITE]:
        raise Refusal(f"a direction at {bad[0]}: the others add to a block's output, {SITE}.")
    layers = [one.layer for one in directions]
    if len(set(layers)) < len(layers):
        raise Refusal(f"several directions of a layer ({sorted(layers)}): give one a layer.")
    if len({(one.model, len(one.vector)) for one in directions}) > 1:
        raise Refusal("the directions come from different models: an object is for one model.")
    return {one.layer: np.float32(one.norm) * one.vector.astype(np.float32) for one in directions}


def from_gguf(path: str | Path, *, strategy: str, source: Source) -> list[Direction]:
    """The directions of a control vector file, of llama.cpp, repeng or whenhow.

    Raises:
        Refusal: as `control_vectors.read` and `from_layers`.
    """
    return from_layers(read(path), strategy=strategy, source=source, origin="gguf")


def from_repeng(vector: Any, *, strategy: str, source: Source) -> list[Direction]:
    """The directions of a `repeng.ControlVector`, or of anything with its `directions`.

    Raises:
        Refusal: as `from_layers`, or it has no such field.
    """
    layers = _field(vector, "directions", "repeng.ControlVector")
    return from_layers(layers, strategy=strategy, source=source, origin="repeng")


def from_steering_vector(vector: Any, *, strategy: str, source: Source) -> list[Direction]:
    """The directions of a `steering_vectors.SteeringVector`, or of anything with its fields.

    Raises:
        Refusal: as `from_layers`, it has no such fields, or is for another part than a block.
    """
    layers = _field(vector, "layer_activations", "steering_vectors.SteeringVector")
    kind = _field(vector, "layer_type", "steering_vectors.SteeringVector")
    if kind != BLOCK:
        raise Refusal(f"a steering vector for {kind!r} can't be taken over, only for {BLOCK!r}.")
    return from_layers(layers, strategy=strategy, source=source, origin="steering-vectors")


def to_repeng(directions: Sequence[Direction], *, model_type: str) -> Any:
    """A `repeng.ControlVector`, where repeng is installed.

    Args:
        directions: at most one a layer, of one model.
        model_type: of the model's Hugging Face config.

    Raises:
        Refusal: as `to_layers`, or it is not installed.
    """
    made = _library("repeng", "export() writes a GGUF file that it imports").ControlVector
    return made(model_type=model_type, directions=to_layers(directions))


def to_steering_vector(directions: Sequence[Direction]) -> Any:
    """A `steering_vectors.SteeringVector` of float32 tensors, where that library is installed.

    Raises:
        Refusal: as `to_layers`, or it is not installed.
    """
    import torch

    made = _library("steering_vectors", "to_layers() gives its layer_activations as arrays")
    tensors = {layer: torch.from_numpy(v) for layer, v in to_layers(directions).items()}
    return made.SteeringVector(layer_activations=tensors, layer_type=BLOCK)


def _flat(layer: Any, given: Any) -> Float[np.ndarray, " d"]:
    """A vector in float64, from an array or from a tensor of any device and dtype."""
    if hasattr(given, "detach"):
        given = given.detach().cpu().double().numpy()
    vector = np.asarray(given, dtype=np.float64)
    if vector.ndim == 0 or vector.size != vector.shape[-1]:
        raise Refusal(f"layer {layer} holds an array of shape {vector.shape}, not one vector.")
    vector = vector.reshape(-1)
    length = np.linalg.norm(vector)
    if not (np.isfinite(length) and length > 0):
        raise Refusal(f"the vector of layer {layer} has length {length:g}: it has no direction.")
    return vector


def _field(thing: Any, name: str, kind: str) -> Any:
    if not hasattr(thing, name):
        raise Refusal(f"a {type(thing).__name__} has no {name}: a {kind} was expected.")
    return getattr(thing, name)


def _library(name: str, instead: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise Refusal(f"{name} is not installed here: install it, or {instead}.") from None
