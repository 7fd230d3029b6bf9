"""The records that cross module lines, the names of sites, and the one Parquet writer.

Everything that is written to disk as a table passes through `write_table` and comes back through
`read_table`, so that a table is either whole or absent and says which schema it follows. Tensor
files belong to the module that makes them (`probes.capture`, `probes.directions`).

This module imports no torch: graders and figures depend on it.
"""

import hashlib
import json
import math
import os
import re
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

Row = TypeVar("Row")

SCHEMA_VERSION = 1
"""Version of every Parquet table's columns; a reader refuses a newer one."""

SITES = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")
"""What can be read or edited in a block, by TransformerLens' names, in the order of computation."""


class Grade(StrEnum):
    """What a grader says of an answer. Only RIGHT and WRONG are measurements."""

    RIGHT = "right"
    WRONG = "wrong"
    UNPARSED = "unparsed"
    """No answer could be read from the text, or judged within the time and memory that a text may
    take: a fact about its format, not about its value."""
    ERROR = "error"
    """The grader failed; the answer was not judged. Never counted as wrong."""


class Refusal(ValueError):
    """A request that can never work, found before any work was done; the CLI exits with 2."""


@dataclass(frozen=True)
class Problem:
    """A question with a checkable answer.

    `id` is the hash of the content, so the same problem has the same id in every run, split and
    file, and its random numbers follow it.
    """

    task: str
    """Name of the task that made it and grades it."""
    prompt: str
    """What the model reads, to the last character."""
    answer: str
    """The gold answer, as the grader compares it."""
    skill: str
    """The one skill that it needs beside the common ones; "" where none is singled out."""
    part: str
    """"touched" where tuning may use its entries, "untouched" where it may not, "" if undivided."""
    difficulty: int
    """The family's own dial: depth of a chain, how many numbers of a countdown."""
    spec: str
    """JSON of what the trace checker needs; its keys belong to the family."""

    @cached_property
    def id(self) -> str:
        """Sixteen hex digits of the content's hash."""
        return content_hash(asdict(self))[:16]

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """`spec`, parsed; to be read only."""
        return json.loads(self.spec)


@dataclass(frozen=True)
class Step:
    """One step of a trace: words `start` to `stop` (exclusive) of the response, and its verdict."""

    start: int
    stop: int
    verdict: str
    """"valid", or the kind of error: "calculator", "premise", "rule" or "format"."""


STEP_VERDICTS = ("valid", "calculator", "premise", "rule", "format")


@dataclass(frozen=True)
class Trace:
    """What the exact checker says of a whole response."""

    steps: tuple[Step, ...]
    valid: bool
    """True where the response is a derivation of its answer: nothing wrong is left standing."""


@dataclass(frozen=True)
class Span:
    """Words `start` to `stop` (exclusive) of a response, in which one strategy is used."""

    start: int
    stop: int
    strategy: str


@dataclass(frozen=True)
class Decision:
    """A point of a response at which the grammar leaves the strategy open.

    The choice is made by the word at `position`; what stands before it is all that the writer
    knew. Position 0 is the first word of the response.
    """

    position: int
    kind: str
    """Name of the decision ("check", "double", ...), one of the task's `decision_kinds`."""
    choice: str
    """Name of the option taken, one of that kind's options; "other" where the word is none."""


@dataclass(frozen=True)
class Rollout:
    """One sampled answer: the tokens, and the log-probability that each was chosen with."""

    problem: str
    """Id of the problem."""
    sample: int
    """Sample index: with the seed and the problem it fixes the random numbers."""
    tokens: tuple[int, ...]
    """The generated token ids, the stop token included where one was reached."""
    logprobs: tuple[float, ...]
    """Of each token under the distribution it was sampled from (nats); greedy: under T = 1."""
    text: str
    """The generated words, special tokens left out."""
    stop: str
    """"stop" where a stop token ended it, "length" where the budget did."""
    setting: str = ""
    """Which intervention, writer or decoding made it; "" for the plain model."""


@dataclass(frozen=True)
class Measurement:
    """One number with its interval, and what it is a number of.

    Every stage of the verdict writes a table of these and every figure reads one; a column that
    does not apply is "" (or nan for `x`).
    """

    measure: str
    """What was measured: "pass@k", "valid@k", "option rate", "auc", "cosine", ..."""
    value: float
    """nan where it is undefined; `note` then says why."""
    low: float
    """Lower end of the 95% interval."""
    high: float
    """Upper end of the 95% interval."""
    n: int
    """How many problems (or other units of the bootstrap) it rests on."""
    model: str = ""
    """"base", "tuned", "tuned - base", or deciding x executing model as in "base x tuned"."""
    skill: str = ""
    part: str = ""
    kind: str = ""
    """Kind of decision, hence name of the strategy."""
    site: str = ""
    """Full name, as in blocks.1.hook_resid_post."""
    setting: str = ""
    """The arm or control: "direction", "random direction", "logit bias", "shuffled labels", ..."""
    x: float = float("nan")
    """The abscissa, where there is one: k, strength, layer, temperature."""
    note: str = ""


def site_name(layer: int, site: str) -> str:
    """The full name of a site, as TransformerLens spells it.

    >>> site_name(2, "hook_resid_post")
    'blocks.2.hook_resid_post'
    """
    if site not in SITES:
        raise Refusal(f"site {site!r} is not known; the sites of a block are {', '.join(SITES)}.")
    return f"blocks.{layer}.{site}"


def parse_site(name: str) -> tuple[int, str]:
    """Layer and site of a full name; the inverse of `site_name`.

    >>> parse_site("blocks.2.hook_resid_post")
    (2, 'hook_resid_post')
    """
    match = re.fullmatch(r"blocks\.(-?\d+)\.(\w+)", name)
    if not match or match[2] not in SITES:
        raise Refusal(
            f"site {name!r} is not known; a site is blocks.LAYER.SITE with SITE one of "
            f"{', '.join(SITES)}, for example blocks.1.hook_resid_post."
        )
    return int(match[1]), match[2]


def content_hash(content: Any) -> str:
    """Hex digest of any JSON-able content, independent of the order of its keys."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(canonical.encode(), digest_size=32).hexdigest()


def file_hash(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A binary file that appears under `path` when the block ends, whole, or not at all.

    The bytes go to a temporary neighbour, are flushed to the disk, and take the name at once;
    a crash, a full disk or an exception leaves whatever stood there before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON atomically, as `finite` has it."""
    text = json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as file:
        file.write((text + "\n").encode())


def finite(content: Any) -> Any:
    """The same with null for NaN and infinity, at any depth: JSON has neither."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def write_table(path: Path, rows: Sequence[Any], kind: type, **about: Any) -> None:
    """Write dataclass instances as Parquet, one a row, atomically.

    Args:
        path: where the table appears.
        rows: instances of `kind`; an empty table keeps its columns.
        kind: the frozen dataclass whose fields are the columns.
        about: what the whole table shares (settings, seed, hashes), kept as JSON in its metadata.
    """
    import pyarrow.parquet as pq

    with atomic_write(path) as file:
        pq.write_table(to_arrow(rows, kind, about), file, compression="zstd")


def to_arrow(rows: Sequence[Any], kind: type, about: Mapping[str, Any]) -> Any:
    """The Arrow table of dataclass instances, with its schema version in the metadata."""
    import pyarrow as pa

    columns = {
        str: pa.string(),
        Grade: pa.string(),
        int: pa.int64(),
        float: pa.float64(),
        bool: pa.bool_(),
        bool | None: pa.bool_(),
        tuple[int, ...]: pa.list_(pa.int32()),
        tuple[float, ...]: pa.list_(pa.float32()),
        str | None: pa.string(),
        float | None: pa.float64(),
        bool | None: pa.bool_(),
    }
    metadata = {"whenhow": json.dumps({"version": SCHEMA_VERSION, "kind": kind.__name__, **about})}
    named = [(field.name, columns[field.type]) for field in fields(kind)]  # type: ignore[index]
    schema = pa.schema(named, metadata=metadata)
    arrays = [pa.array([getattr(row, name) for row in rows], column) for name, column in named]
    return pa.Table.from_arrays(arrays, schema=schema)


def read_table(path: Path, kind: type[Row]) -> tuple[list[Row], dict[str, Any]]:
    """The rows that `write_table` wrote, and what was said about them.

    Raises:
        Refusal: the file is missing, damaged, of another kind, or of a newer schema.
    """
    table, about = read_arrow(path, kind.__name__)
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    if missing := set(names) - set(table.column_names):
        raise Refusal(f"{path} lacks the columns {sorted(missing)} of a {kind.__name__} table.")
    tuples = {f.name for f in fields(kind) if str(f.type).startswith("tuple")}  # type: ignore[arg-type]
    rows = []
    for row in table.select(names).to_pylist():
        rows.append(kind(**{k: tuple(v) if k in tuples else v for k, v in row.items()}))
    return rows, about


def read_arrow(path: Path, kind: str) -> tuple[Any, dict[str, Any]]:
    """The Arrow table and its metadata, checked for kind and schema version."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise Refusal(f"there is no table at {path}.")
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise Refusal(
            f"{path} is no readable Parquet file (truncated or damaged?): {error}"
        ) from None
    about = json.loads((table.schema.metadata or {}).get(b"whenhow", b"{}"))
    if about.get("kind") != kind:
        raise Refusal(f"{path} holds {about.get('kind') or 'a foreign table'}, not {kind} rows.")
    if about["version"] > SCHEMA_VERSION:
        raise Refusal(
            f"{path} follows schema {about['version']}, this whenhow knows up to {SCHEMA_VERSION}: "
            f"a newer whenhow wrote it."
        )
    return table, about


def read_toml(source: str | Path, shipped: Path, what: str) -> tuple[Path, dict[str, Any]]:
    """A shipped TOML file by its name, or one's own by its path; the path and its content.

    Args:
        source: a name without ending, or a path that ends in .toml.
        shipped: the folder of those that ship.
        what: what such a file holds, for the refusal.

    Raises:
        Refusal: there is none, or it is not valid TOML.
    """
    path = Path(source) if str(source).endswith(".toml") else shipped / f"{source}.toml"
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in shipped.glob("*.toml")))
        raise Refusal(
            f"there is no {what} {str(source)!r}: give the path of a {what}'s .toml file, or one "
            f"of the shipped ones ({names})."
        )
    try:
        return path, tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows editors
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refusal(f"{path} is not valid TOML: {error}") from None


def unique(items: Iterable[Row]) -> list[Row]:
    """The distinct items in the order of their first appearance."""
    return list(dict.fromkeys(items))
