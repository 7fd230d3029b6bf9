"""Taxonomies on disk: one safetensors file, with everything known about it in the metadata."""

import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor

from probes.models import Model
from probes.records import Refusal, atomic_write
from probes.taxonomy.record import Taxonomy

FORMAT, VERSION = "whenhow-taxonomy", "1"
TENSORS = ("centre", "encoder", "encoder_bias", "decoder", "decoder_bias")
ABOUT = ("site", "k", "names", "model", "task", "data")


def save_taxonomy(taxonomy: Taxonomy, path: str | Path) -> Path:
    """Write a taxonomy atomically."""
    tensors = {name: getattr(taxonomy, name).detach().cpu().float() for name in TENSORS}
    about = {name: json.dumps(getattr(taxonomy, name)) for name in ABOUT}
    return write_tensors(Path(path), tensors, about | {"format": FORMAT, "version": VERSION})


def load_taxonomy(path: str | Path, model: Model | None = None) -> Taxonomy:
    """The taxonomy in a file.

    Args:
        path: of the file.
        model: whose activations it is to sort; checked by width and, where both are known, by the
            hash of the weights.

    Raises:
        Refusal: no such file, a damaged or foreign one, of a newer version, or of another model.
    """
    tensors, metadata = read_tensors(Path(path), FORMAT, VERSION, "taxonomy")
    if missing := [n for n in TENSORS if n not in tensors] + [
        n for n in ABOUT if n not in metadata
    ]:
        raise Refusal(f"{path} lacks {', '.join(missing)}: not written by this whenhow.")
    about = {name: json.loads(metadata[name]) for name in ABOUT}
    about["names"] = tuple(about["names"])
    taxonomy = Taxonomy(**{name: tensors[name] for name in TENSORS}, **about)
    if model is not None:
        check_model(path, "taxonomy", model, len(taxonomy.centre), taxonomy.model)
    return taxonomy


def check_model(path: str | Path, what: str, model: Model, width: int, digest: str) -> None:
    """Refuse a file that is of another model.

    Raises:
        Refusal: the width differs, or the hash of the weights, where both are known.
    """
    if width != model.width:
        raise Refusal(
            f"the {what} at {path} is of residuals of length {width}, and {model.name} has "
            f"{model.width}: it is of another model."
        )
    if digest and model.digest and digest != model.digest:
        raise Refusal(
            f"the {what} at {path} was made with a model of hash {digest[:12]}, and {model.name} "
            f"has {model.digest[:12]}: it is of another model, or of this one before it changed."
        )


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> Path:
    """Write tensors and what is said of them atomically, with a checksum of both."""
    from safetensors.torch import save

    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as file:
        file.write(save(whole, metadata | {"checksum": _checksum(whole, metadata)}))
    return path


def read_tensors(
    path: Path, form: str, version: str, what: str
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `write_tensors` wrote.

    Raises:
        Refusal: no such file, not readable, of another format or version, or damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise Refusal(f"there is no {what} at {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, UnicodeDecodeError, ValueError) as error:
        raise Refusal(f"{path} is no readable safetensors file (damaged?): {error}") from None
    if metadata.get("format") != form:
        raise Refusal(f"{path} holds no {what}, or not one that whenhow wrote.")
    if metadata.get("version") != version:
        raise Refusal(
            f"{path} is version {metadata.get('version')} of the format, this whenhow reads "
            f"{version}: a newer whenhow wrote it, or it is damaged."
        )
    if metadata.pop("checksum", "") != _checksum(tensors, metadata):
        raise Refusal(f"{path} is damaged: its checksum doesn't fit.")
    return tensors, metadata


def _checksum(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        flat = tensors[name].contiguous().view(torch.uint8) if tensors[name].numel() else None
        digest.update(name.encode() + (b"" if flat is None else flat.numpy().tobytes()))
    digest.update(repr(sorted(metadata.items())).encode())
    return digest.hexdigest()
