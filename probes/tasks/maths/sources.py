"""The rows of a benchmark: out of a Parquet or JSONL file, a folder of them, or the hub.

    rows("openai/gsm8k", "main", "", "test")      # ({"question": ..., "answer": ...}, ...)
    rows("downloads/gsm8k", "main", "", "test")   # downloads/gsm8k/main/test-00000-of-00001.parquet
    rows("my_problems.jsonl", "", "", "test")     # a file is one split, whatever it is called

In a folder the files of a split are those named `SPLIT.parquet`, `SPLIT-....parquet` or the same
with `.jsonl`, at any depth below the folder, or below its `config` where there is one: so a
download of a hub dataset is read as it is. The hub is asked for these files only, and nothing that
a dataset brings along is run.
"""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from probes.records import Refusal

SUFFIXES = (".parquet", ".jsonl")


@cache
def rows(source: str, config: str, revision: str, split: str) -> tuple[dict[str, Any], ...]:
    """The rows of one split, read once.

    Args:
        source: path of a file or folder, relative to the working directory, or a hub id.
        config: the hub's name for a part of the dataset, a folder in it; "" for none.
        revision: commit, branch or tag on the hub; "" for its newest.
        split: as the source calls it.

    Raises:
        Refusal: no such source or split, no network, a damaged file, or no rows in it.
    """
    found: list[dict[str, Any]] = []
    for file in _files(source, config, revision, split):
        found += _parquet(file) if file.suffix == ".parquet" else _jsonl(file)
    if not found:
        raise Refusal(f"{source}: the split {split} is empty: its files hold no row.")
    return tuple(found)


def is_file(source: str) -> bool:
    """Whether the source is one file, which has no splits of its own."""
    return source.endswith(SUFFIXES)


def _files(source: str, config: str, revision: str, split: str) -> list[Path]:
    path = Path(source)
    if is_file(source):
        if path.is_file():
            return [path]
        raise Refusal(f"there is no file {source}; a path is relative to the working directory.")
    folder = path if path.is_dir() else _downloaded(source, revision)
    below = folder / config if config and (folder / config).is_dir() else folder
    files = sorted(p for p in below.rglob("*") if p.suffix in SUFFIXES and p.is_file())
    named = re.compile(re.escape(split) + r"(-.*)?")
    chosen = [p for p in files if named.fullmatch(p.stem)]
    if not chosen:
        there = sorted({p.stem.partition("-")[0] for p in files})
        raise Refusal(
            f"{source} has no files of the split {split!r}"
            + (f"; there are {', '.join(there)}." if there else ", nor any .parquet or .jsonl.")
        )
    return chosen


def _downloaded(source: str, revision: str) -> Path:
    """A hub dataset's folder; out of the cache where the network is away."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise Refusal(
            f"source = {source!r} is no folder here and no hub id (OWNER/NAME): give one of them, "
            f"or a .parquet or .jsonl file."
        )
    from huggingface_hub import snapshot_download

    patterns = [f"*{suffix}" for suffix in SUFFIXES]
    about: dict[str, Any] = {"repo_type": "dataset", "revision": revision or None}
    try:
        return Path(snapshot_download(source, allow_patterns=patterns, **about))
    except Exception as error:  # the hub client raises its own, httpx's and the system's
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Refusal(
            f"{source} is no folder here, and the Hugging Face hub did not give it ({reason}). "
            f"Without a network give a local .parquet or .jsonl, or a folder of them: `hf download "
            f"--repo-type dataset {source} --local-dir DIR` where there is one, then source = "
            f'"DIR" in a copy of the task\'s file.'
        ) from None


def _parquet(file: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(file).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise Refusal(f"{file} is no readable Parquet file: {error}") from None


def _jsonl(file: Path) -> list[dict[str, Any]]:
    found = []
    try:
        lines = file.read_text(encoding="utf-8").split("\n")  # JSON may hold other line ends
    except (UnicodeDecodeError, OSError) as error:
        raise Refusal(f"{file} is no readable text: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise Refusal(f"{file}, line {number}, is not valid JSON: {error}") from None
        if not isinstance(row, dict):
            raise Refusal(f"{file}, line {number}, is no object with columns but {line[:60]!r}.")
        found.append(row)
    return found
