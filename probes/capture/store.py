"""Activations on disk: safetensors shards, a Parquet index, and a checksum of each.

    with Writer(folder, sites, torch.float16, shard_rows=8192, about={}) as writer:
        writer.append(rows, {site: values})            # values (rows, d), again and again
    store = Store(folder)
    store.index                                         # problem, sample, position, label, ...
    store.read("blocks.1.hook_resid_post", store.index.label == "check")

Three promises, each held by a test:

- a store is whole or absent: everything is written to a hidden neighbour, which takes the folder's
  name in one step at the end;
- no more than one shard is held in memory while writing, and no more than is asked for (and the
  file pages of one shard) while reading;
- the first read of a shard compares its checksum; a damaged one is named, never read.

A store is a folder of ``store.json``, ``index.parquet`` and ``shard-00000.safetensors`` and so on.
A shard has one tensor a site, named as the site, whose row r belongs to the line of the index with
that shard and row.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from torch import Tensor

from probes.capture.writing import DTYPES, KIND
from probes.frames import card
from probes.records import SCHEMA_VERSION, Refusal, file_hash, read_arrow

CHUNK = 4096
"""Rows of a shard that a scattered read maps at a time."""


class Store:
    """A finished store, opened for reading."""

    def __init__(self, folder: str | Path) -> None:
        """Read what the store says of itself and its index; no activation.

        Raises:
            Refusal: no store there, one that is not whole, a damaged index, a newer version.
        """
        self.folder = Path(folder)
        path = self.folder / "store.json"
        if not path.is_file():
            raise Refusal(f"there is no activation store at {folder}: it has no store.json.")
        try:
            content = json.loads(path.read_text())
            version, index_hash = content["version"], content["index"]
            self.sites: tuple[str, ...] = tuple(content["sites"])
            """Full names of the sites that every line has a value of."""
            self.dtype: torch.dtype = DTYPES[content["dtype"]]
            """What the values are stored as."""
            self.about: dict[str, Any] = content["about"]
            """What the writer said of all rows: model, digest, how they were captured."""
            self._shards: list[dict[str, Any]] = content["shards"]
        except (ValueError, KeyError, TypeError) as error:
            raise Refusal(f"{path} is damaged: {error!r}") from None
        if version > SCHEMA_VERSION:
            raise Refusal(f"{path} is of version {version}: a newer whenhow wrote it.")
        index = self.folder / "index.parquet"
        if not index.is_file() or file_hash(index) != index_hash:
            raise Refusal(f"{index} is missing or damaged (its checksum differs).")
        self.index: pd.DataFrame = read_arrow(index, KIND)[0].to_pandas()
        """One line a stored position: the fields of `Activation`, shard and row."""
        self._checked: set[int] = set()

    def read(self, site: str, rows: Any = None) -> Shaped[Tensor, "rows d"]:
        """Values of a site as stored, on the CPU, for lines of the index in the order given.

        Args:
            site: one of `sites`.
            rows: line numbers, a mask over the lines, a slice, or None for all of them.

        Raises:
            Refusal: an unknown site, lines that don't exist, a damaged or missing shard.
        """
        if site not in self.sites:
            raise Refusal(f"site {site!r} was not captured; there are {', '.join(self.sites)}.")
        lines = self._lines(rows)
        shards, places = (self.index[c].to_numpy()[lines] for c in ("shard", "row"))
        values: Tensor | None = None
        for shard in np.unique(shards):
            wanted = np.flatnonzero(shards == shard)
            part = self._read_shard(int(shard), site, places[wanted])
            if values is None:
                values = part.new_empty(len(lines), part.shape[1])
            values[torch.from_numpy(wanted)] = part
        if values is None:
            raise Refusal(f"no line was asked for; the store has {len(self.index)}.")
        return values

    def numpy(self, site: str, rows: Any = None) -> Shaped[np.ndarray, "rows d"]:
        """`read` as a numpy array; bfloat16, which numpy does not know, becomes float32."""
        values = self.read(site, rows)
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()

    def _repr_html_(self) -> str:
        """What it holds, in a notebook; `index` is a pandas frame."""
        told = {"sites": ", ".join(self.sites), "lines": len(self.index), "stored as": self.dtype}
        labels = self.index.label.value_counts()
        told |= {f"label {name or '(none)'}": count for name, count in labels.head(12).items()}
        return card(f"Activations in {self.folder}", told)

    def verify(self) -> None:
        """Compare the checksum of every shard. Raises Refusal naming the first bad one."""
        for shard in range(len(self._shards)):
            self._check(shard)

    def _lines(self, rows: Any) -> np.ndarray:
        count = len(self.index)
        if rows is None or isinstance(rows, slice):
            return np.arange(count)[rows if rows is not None else slice(None)]
        lines = np.asarray(rows)
        if lines.dtype == bool:
            if len(lines) != count:
                raise Refusal(f"a mask of {len(lines)} lines for a store of {count}.")
            return np.flatnonzero(lines)
        if lines.size and (lines.min() < 0 or lines.max() >= count):
            raise Refusal(f"line {lines.max()} (or one below 0) of a store of {count} lines.")
        return lines.astype(np.int64)

    def _check(self, shard: int) -> Path:
        """Path of a shard whose bytes are those that were written; hashed once per `Store`."""
        said = self._shards[shard]
        path = self.folder / said["file"]
        if shard in self._checked:
            return path
        size = path.stat().st_size if path.is_file() else None
        if size != said["bytes"]:
            what = "is missing" if size is None else f"has {size} bytes of {said['bytes']}"
            raise Refusal(f"{path} {what}: the store is truncated and none of this shard was read.")
        if file_hash(path) != said["hash"]:
            raise Refusal(f"{path} is damaged: its checksum differs; none of it was read.")
        self._checked.add(shard)
        return path

    def _read_shard(self, shard: int, site: str, places: np.ndarray) -> Tensor:
        path = self._check(shard)
        parts, order = [], np.argsort(places, kind="stable")
        ordered = places[order]
        try:
            with safe_open(path, "pt") as file:
                tensor = file.get_slice(site)
                for start in range(0, int(ordered[-1]) + 1, CHUNK):
                    low, high = np.searchsorted(ordered, [start, start + CHUNK])
                    if low < high:
                        first, last = int(ordered[low]), int(ordered[high - 1])
                        held = tensor[first : last + 1]
                        parts.append(held[torch.from_numpy(ordered[low:high] - first)])
        except SafetensorError as error:
            raise Refusal(f"{path} can't be read: {error}") from None
        values = torch.cat(parts)
        return values[torch.from_numpy(np.argsort(order, kind="stable"))]
