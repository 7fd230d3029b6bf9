"""Directions on disk: a safetensors file each, with everything known about it in the metadata."""

import hashlib
from dataclasses import MISSING, fields
from pathlib import Path

import numpy as np

from probes.directions.vectors import Direction
from probes.records import Refusal, atomic_write, file_hash

FORMAT = "whenhow-direction"
VERSION = "1"
TENSOR = "direction"


def save(direction: Direction, path: str | Path) -> Path:
    """Write a direction atomically; the metadata's values are plain strings."""
    from safetensors.numpy import save as to_bytes

    vector = np.ascontiguousarray(direction.vector, dtype=np.float32)
    about = {f.name: getattr(direction, f.name) for f in fields(Direction) if f.name != "vector"}
    metadata = {name: repr(v) if isinstance(v, float) else str(v) for name, v in about.items()}
    metadata |= {"format": FORMAT, "version": VERSION}
    metadata["checksum"] = _checksum(vector, metadata)
    with atomic_write(Path(path)) as file:
        file.write(to_bytes({TENSOR: vector}, metadata))
    return Path(path)


def load(path: str | Path) -> Direction:
    """The direction in a file.

    Raises:
        Refusal: no such file, not a direction's, of a newer version, or damaged in any byte.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise Refusal(f"there is no direction at {path}.")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            vector = file.get_tensor(TENSOR) if TENSOR in file.keys() else None  # noqa: SIM118
    except (SafetensorError, OSError, UnicodeDecodeError, ValueError) as error:
        raise Refusal(f"{path} is no readable safetensors file (damaged?): {error}") from None
    if metadata.get("format") != FORMAT or vector is None:
        raise Refusal(f"{path} holds no direction, or not one that whenhow wrote.")
    if metadata.get("version") != VERSION:
        raise Refusal(
            f"{path} is version {metadata.get('version')} of the format, this whenhow reads "
            f"{VERSION}: a newer whenhow wrote it, or it is damaged."
        )
    if metadata.pop("checksum", "") != _checksum(vector, metadata):
        raise Refusal(f"{path} is damaged: its checksum doesn't fit (sha {file_hash(path)[:12]}).")
    kinds = {f.name: f.type for f in fields(Direction) if f.name != "vector"}
    needed = {f.name for f in fields(Direction) if f.default is MISSING} - {"vector"}
    if missing := needed - set(metadata):
        raise Refusal(f"{path} lacks {', '.join(sorted(missing))}: not written by this whenhow.")
    about = {name: kind(metadata[name]) for name, kind in kinds.items() if name in metadata}  # type: ignore[operator]
    return Direction(vector=vector, **about)


def _checksum(vector: np.ndarray, metadata: dict[str, str]) -> str:
    """Of the numbers and of what is said about them."""
    digest = hashlib.blake2b(vector.tobytes(), digest_size=16)
    digest.update(repr(sorted(metadata.items())).encode())
    return digest.hexdigest()
