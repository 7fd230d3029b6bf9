"""Write a store shard by shard; `probes.capture.store` says what one is."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Shaped
from safetensors.torch import save_file
from torch import Tensor

from probes.records import SCHEMA_VERSION, Refusal, file_hash, write_json

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""What activations can be stored as, by the name in ``store.json``."""

KIND = "Activation"
"""What the metadata of an index says that its lines are."""


class Activation(NamedTuple):
    """One line of the index: whose activation it is. `position` is the row's own (from 0).

    A tuple, since there are as many as positions: making records of them, and columns of those,
    took longer than writing the values.
    """

    problem: str
    sample: int
    position: int
    label: str = ""
    """What the position was marked as: a strategy, the verdict of a step, a choice."""
    setting: str = ""
    """The request's setting: which intervention the pass ran under."""
    edited: bool = False
    """True where an intervention had changed this position before it was captured."""


SCHEMA = pa.schema(
    [("problem", pa.string()), ("sample", pa.int64()), ("position", pa.int64())]
    + [("label", pa.string()), ("setting", pa.string()), ("edited", pa.bool_())]
    + [("shard", pa.int64()), ("row", pa.int64())],
    metadata={"whenhow": json.dumps({"version": SCHEMA_VERSION, "kind": KIND})},
)


class Writer:
    """Rows in, a store out. Use it as a context manager: an exception leaves no store behind."""

    def __init__(
        self,
        folder: str | Path,
        sites: Sequence[str],
        dtype: torch.dtype = torch.float32,
        *,
        shard_rows: int = 8192,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Check the request and make the hidden folder.

        Raises:
            Refusal: the folder holds something, no site, an unknown dtype, or shards of no row.
        """
        self.folder = Path(folder)
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise Refusal(f"{folder} already holds something; a store goes to a new folder.")
        if dtype not in DTYPES.values():
            raise Refusal(f"activations can't be stored as {dtype}; choose one of {list(DTYPES)}.")
        if not sites or shard_rows < 1:
            raise Refusal(f"{len(sites)} sites in shards of {shard_rows} rows: nothing to store.")
        self.sites, self.dtype, self.shard_rows = tuple(sites), dtype, shard_rows
        self.about = dict(about or {})
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.partial = Path(
            tempfile.mkdtemp(prefix=f".{self.folder.name}.partial-", dir=self.folder.parent)
        )
        os.chmod(self.partial, 0o755)  # mkdtemp makes folders that only their owner can enter
        self._index = pq.ParquetWriter(self.partial / "index.parquet", SCHEMA, compression="zstd")
        self._shards: list[dict[str, Any]] = []
        self._rows: list[Activation] = []
        self._values: dict[str, Tensor] = {}
        # The model needn't wait while a file is hashed and flushed; nothing of it is held for that.
        self._disk = ThreadPoolExecutor(1)
        self._hashes: list[Future[str]] = []

    def __enter__(self) -> "Writer":
        """Nothing to do: the constructor made the folder."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Finish the store, or remove every trace of it after an exception."""
        try:
            if kind is None:
                self._finish()
        finally:
            self._disk.shutdown()
            self._index.close()
            shutil.rmtree(self.partial, ignore_errors=True)

    def append(
        self, rows: Sequence[Activation], values: Mapping[str, Shaped[Tensor, "rows d"]]
    ) -> None:
        """Add rows, with the values of every site in the same order, on any device."""
        assert set(values) == set(self.sites), f"{sorted(values)} were given, not {self.sites}"
        for site in self.sites:
            assert len(values[site]) == len(rows), f"{len(values[site])} values, {len(rows)} rows"
            if site not in self._values:
                shape = (self.shard_rows, values[site].shape[1])
                with torch.inference_mode(False):  # it is written to within a pass and after it
                    self._values[site] = torch.empty(shape, dtype=self.dtype)
        done = 0
        while done < len(rows):
            held = len(self._rows)
            taken = min(self.shard_rows - held, len(rows) - done)
            for site in self.sites:
                into = self._values[site][held : held + taken]
                into.copy_(values[site].detach()[done : done + taken])
            self._rows += rows[done : done + taken]
            done += taken
            if len(self._rows) == self.shard_rows:
                self._write_shard()

    def _write_shard(self) -> None:
        rows, self._rows = self._rows, []
        tensors = {site: values[: len(rows)] for site, values in self._values.items()}
        for site, values in tensors.items():
            low, high = (float(end) for end in values.aminmax())
            if not (low > -np.inf and high < np.inf):  # either is NaN where any value is
                raise Refusal(
                    f"{site} has values that are not finite as {_name(self.dtype)}: either the "
                    f"model computes NaN, or they are too large for it (float16 ends at 65504; "
                    f"bfloat16 and float32 hold them)."
                )
        number = len(self._shards)
        path = self.partial / f"shard-{number:05d}.safetensors"
        save_file(tensors, path)
        self._hashes.append(self._disk.submit(_sealed, path))
        said = {"file": path.name, "rows": len(rows), "bytes": path.stat().st_size}
        self._shards.append(said)
        columns: dict[str, Any] = dict(
            zip(Activation._fields, zip(*rows, strict=True), strict=True)
        )
        columns |= {"shard": np.full(len(rows), number), "row": np.arange(len(rows))}
        self._index.write_table(pa.table(columns, schema=SCHEMA))

    def _finish(self) -> None:
        if self._rows:
            self._write_shard()
        for said, digest in zip(self._shards, self._hashes, strict=True):
            said["hash"] = digest.result()
        self._index.close()
        index = self.partial / "index.parquet"
        content = {"version": SCHEMA_VERSION, "sites": self.sites, "dtype": _name(self.dtype)}
        content |= {"shards": self._shards, "index": _sealed(index), "about": self.about}
        write_json(self.partial / "store.json", content)
        if self.folder.is_dir():
            self.folder.rmdir()  # an empty folder may be given; a full one was refused
        os.replace(self.partial, self.folder)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _sealed(path: Path) -> str:
    """Hash of a file that was pushed to the disk, so that the rename can't outlive its content."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return file_hash(path)
