"""Rollouts, and any other records, as Hugging Face datasets and back, without loss.

    shared = to_dataset(rollouts, Rollout, task="chain")        # datasets.Dataset
    shared.push_to_hub(...)                                      # or save_to_disk, to_parquet
    rollouts, about = from_dataset(shared, Rollout)

The columns are those of the Parquet tables (`probes.records.to_arrow`): tokens are lists of int32,
log-probabilities of float32, what is not known is null. What is said about all rows goes into the
description as JSON; `save_to_disk` and `select` keep it, `to_parquet` doesn't: it is {} then.

`datasets` is no requirement of whenhow: it comes with sae-lens, or by itself.
"""

import json
import types
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar, get_args, get_origin

from probes.records import SCHEMA_VERSION, Refusal, to_arrow

Row = TypeVar("Row")


def to_dataset(rows: Sequence[Row], kind: type[Row], **about: Any) -> Any:
    """A `datasets.Dataset` of records, one a row, in memory.

    Args:
        rows: instances of `kind`.
        kind: a frozen dataclass of strings, numbers, truth values and tuples of numbers.
        about: what is to be said of all of them; JSON-able.

    Raises:
        Refusal: `datasets` is not installed.
    """
    library = _library()
    said = {"version": SCHEMA_VERSION, "kind": kind.__name__, **about}
    table = to_arrow(rows, kind, {}).replace_schema_metadata(None)
    info = library.DatasetInfo(description=json.dumps({"whenhow": said}))
    return library.Dataset(table, info=info)


def from_dataset(dataset: Any, kind: type[Row]) -> tuple[list[Row], dict[str, Any]]:
    """The records of a dataset, and what is said about them.

    Any dataset with the columns will do, whoever made it; others are left out.

    Args:
        dataset: one split, in memory or on disk; what was selected or filtered stays so.
        kind: the dataclass of a row.

    Raises:
        Refusal: `datasets` is not installed, several splits or none, an empty one, one of another
            kind of record or of a newer whenhow, a column that is missing or of another type.
    """
    library = _library()
    if not isinstance(dataset, library.Dataset):
        splits = f" of splits {', '.join(map(str, dataset))}" if isinstance(dataset, dict) else ""
        raise Refusal(f"a {type(dataset).__name__}{splits} is no single split: choose one.")
    about = _about(dataset.info.description)
    if about.get("kind", kind.__name__) != kind.__name__:
        raise Refusal(f"the dataset holds {about['kind']} rows, not {kind.__name__} rows.")
    if about.get("version", 0) > SCHEMA_VERSION:
        raise Refusal("a newer whenhow made this dataset.")
    if not len(dataset):
        raise Refusal("the split is empty.")
    wanted = {field.name: field.type for field in fields(kind)}  # type: ignore[arg-type]
    if missing := sorted(set(wanted) - set(dataset.column_names)):
        raise Refusal(
            f"the dataset lacks the columns {', '.join(missing)} of {kind.__name__} rows; it has "
            f"{', '.join(dataset.column_names)}: rename_columns() gives them our names."
        )
    table = dataset.select_columns(list(wanted)).with_format("arrow")[:]
    columns = {name: _column(name, table[name], form) for name, form in wanted.items()}
    rows = [
        kind(**dict(zip(columns, cells, strict=True)))
        for cells in zip(*columns.values(), strict=True)
    ]
    told = {key: value for key, value in about.items() if key not in ("kind", "version")}
    return rows, told


def _column(name: str, cells: Any, form: Any) -> list[Any]:
    """The values of a column as the field has them: lists are tuples there."""
    import pyarrow.types as pt

    parts = get_args(form) if isinstance(form, types.UnionType) else (form,)
    (plain,) = (part for part in parts if part is not type(None))
    inner = get_args(plain)[0] if get_origin(plain) is tuple else plain
    stored = cells.type
    if get_origin(plain) is tuple:
        if not (pt.is_list(stored) or pt.is_large_list(stored)):
            raise Refusal(f"column {name} holds {stored}, and a list is needed.")
        stored = stored.value_type
    right = {
        str: pt.is_string(stored) or pt.is_large_string(stored),
        int: pt.is_integer(stored),
        float: pt.is_floating(stored) or pt.is_integer(stored),
        bool: pt.is_boolean(stored),
    }
    empty = pt.is_null(stored)  # a column, or lists, without a single value have no type
    if not (empty or right.get(inner, pt.is_string(stored))):
        raise Refusal(f"column {name} holds {stored}, and {inner.__name__} is needed.")
    if cells.null_count and type(None) not in parts:
        raise Refusal(f"column {name} has {cells.null_count} null(s), and a value is needed.")
    values = cells.to_pylist()
    if get_origin(plain) is not tuple:
        return [float(v) if inner is float and v is not None else v for v in values]
    if any(item is None for value in values if value for item in value):
        raise Refusal(f"column {name} has nulls within its lists.")
    return [None if value is None else tuple(map(inner, value)) for value in values]


def _about(description: str) -> dict[str, Any]:
    """What we said of the rows; {} where somebody else wrote the description."""
    try:
        said = json.loads(description or "{}")["whenhow"]
    except (ValueError, LookupError, TypeError):
        return {}
    return said if isinstance(said, dict) else {}


def _library() -> Any:
    try:
        import datasets
    except ImportError:
        raise Refusal(
            "datasets is not installed here: pip install datasets, or read the Parquet file, whose "
            "columns are the same."
        ) from None
    return datasets
