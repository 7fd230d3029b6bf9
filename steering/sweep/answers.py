"""The answers of a shard as a table, and one table of all of them."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from probes.records import Rollout, atomic_write, read_arrow, to_arrow
from probes.verify import Graded


@dataclass(frozen=True)
class Answer:
    """One answer of one setting."""

    setting: str
    """Key of the setting."""
    task: str
    """Of the problem."""
    problem: str
    sample: int
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Nats, under the setting's own distribution."""
    text: str
    stop: str
    """"stop" or "length"."""
    grade: str
    valid: bool | None
    """None where the task checks no traces."""
    error: str
    """Why it could not be graded; "" where it was."""
    length: int
    """Tokens, the stop token included."""
    kl: float
    """Nats a token from the unsteered model; NaN where it was not measured."""


def table(
    rollouts: Sequence[Rollout],
    graded: Sequence[Graded],
    kl: Float[np.ndarray, " answers"],
    tasks: Mapping[str, str],
    about: Mapping[str, Any],
) -> bytes:
    """A Parquet file of answers.

    Args:
        rollouts: the answers, each with the key of its setting.
        graded: of each.
        kl: of each.
        tasks: name of the task of each problem.
        about: what is said of all of them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Column by column: a dataclass a row costs a tenth of the time that decoding takes.
    columns: dict[str, list] = {
        "setting": [r.setting for r in rollouts],
        "task": [tasks[r.problem] for r in rollouts],
        "problem": [r.problem for r in rollouts],
        "sample": [r.sample for r in rollouts],
        "tokens": [r.tokens for r in rollouts],
        "logprobs": [r.logprobs for r in rollouts],
        "text": [r.text for r in rollouts],
        "stop": [r.stop for r in rollouts],
        "grade": [g.grade.value for g in graded],
        "valid": [g.valid for g in graded],
        "error": [g.error for g in graded],
        "length": [len(r.tokens) for r in rollouts],
        "kl": kl.tolist(),
    }
    assert list(columns) == [f.name for f in fields(Answer)]
    schema = to_arrow([], Answer, about).schema
    arrays = [pa.array(v, t) for v, t in zip(columns.values(), schema.types, strict=True)]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), file, compression="zstd")
    return file.getvalue()


def merge(paths: Sequence[Path], out: Path, keys: set[str], samples: int) -> int:
    """One table of the answers of these settings, a shard in memory at a time; how many they are.

    Args:
        paths: the shards, in order.
        out: where the table appears.
        keys: settings that are kept.
        samples: sample indices below this are kept.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    schema = to_arrow([], Answer, {}).schema
    wanted, count = pa.array(sorted(keys)), 0
    with atomic_write(out) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for path in paths:
            shard = read_arrow(path, Answer.__name__)[0]
            kept = pc.and_(  # type: ignore[attr-defined]
                pc.is_in(shard["setting"], value_set=wanted),  # type: ignore[attr-defined]
                pc.less(shard["sample"], samples),  # type: ignore[attr-defined]
            )
            part = shard.filter(kept).replace_schema_metadata(schema.metadata)
            count += part.num_rows
            if part.num_rows:
                writer.write_table(part)
    return count
