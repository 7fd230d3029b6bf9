"""Trained vectors on disk: one safetensors file, what is known of them in its metadata."""

import json
from pathlib import Path

import torch

from probes.models import Model
from probes.records import Refusal
from probes.taxonomy.files import check_model, read_tensors, write_tensors
from steering.vectors.record import NETWORK, Vectors

FORMAT, VERSION = "whenhow-vectors", "1"
TENSORS = ("vectors", "coefficients")
ABOUT = ("site", "form", "parameters", "base", "tuned", "taxonomy", "data", "command")
TUPLES = ("names", "counts", "losses")


def save_vectors(vectors: Vectors, path: str | Path) -> Path:
    """Write trained vectors atomically."""
    tensors = {name: getattr(vectors, name) for name in TENSORS}
    tensors |= {} if vectors.bias is None else {"bias": vectors.bias}
    tensors |= {f"network.{name}": tensor for name, tensor in (vectors.network or {}).items()}
    losses = [[None if x != x else x for x in pair] for pair in vectors.losses]  # JSON has no nan
    about = {name: json.dumps(getattr(vectors, name)) for name in (*ABOUT, "names", "counts")}
    about |= {"losses": json.dumps(losses), "format": FORMAT, "version": VERSION}
    held = {name: tensor.detach().cpu().float() for name, tensor in tensors.items()}
    return write_tensors(Path(path), held, about)


def load_vectors(path: str | Path, base: Model | None = None) -> Vectors:
    """The vectors in a file.

    Args:
        path: of the file.
        base: the model to be steered; checked by width and, where both are known, by the hash of
            the weights.

    Raises:
        Refusal: no such file, a damaged or foreign one, of a newer version, or of another model.
    """
    tensors, metadata = read_tensors(Path(path), FORMAT, VERSION, "trained vectors")
    missing = [n for n in TENSORS if n not in tensors]
    if missing := missing + [n for n in (*ABOUT, *TUPLES) if n not in metadata]:
        raise Refusal(f"{path} lacks {', '.join(missing)}: not written by this whenhow.")
    network = {n: tensors[f"network.{n}"] for n in NETWORK if f"network.{n}" in tensors}
    losses = json.loads(metadata["losses"])
    vectors = Vectors(
        **{name: tensors[name] for name in TENSORS},
        **{name: json.loads(metadata[name]) for name in ABOUT},
        names=tuple(json.loads(metadata["names"])),
        counts=tuple(json.loads(metadata["counts"])),
        losses=tuple((_number(before), _number(after)) for before, after in losses),
        bias=tensors.get("bias"),
        network=network or None,
    )
    if base is not None:
        check_model(path, "vectors", base, vectors.vectors.shape[1], vectors.base)
    return vectors


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def nearest(base: Model, vectors: Vectors, count: int = 5) -> list[list[str]]:
    """Of each vector, the tokens whose unembedding has the largest cosine with it.

    A reading by the direct path alone: at an early layer most of what a push does goes through the
    blocks behind it.
    """
    weight = base.net.get_output_embeddings().weight.detach().float().cpu()  # type: ignore[operator]
    unit = torch.nn.functional.normalize(weight, dim=-1)
    cosines = torch.nn.functional.normalize(vectors.vectors, dim=-1) @ unit.T
    best = cosines[:, : len(base.tokenizer)].topk(min(count, len(base.tokenizer)), dim=-1)
    names = [list(base.tokenizer.convert_ids_to_tokens(row)) for row in best.indices.tolist()]
    moved = vectors.vectors.norm(dim=-1) > 0
    return [row if some else [] for row, some in zip(names, moved.tolist(), strict=True)]
