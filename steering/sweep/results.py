"""The tables of a finished sweep, and reading them again.

    settings.parquet   a row a setting: axes, metrics, intervals, the unsteered model, controls
    answers.parquet    a row an answer
    problems.parquet   a row a problem
    costs.parquet      a row a shard: seconds, tokens, worker, commit; outside every identity
    best.json          the best push of each model and task, on problems that did not choose it

With DuckDB, for instance::

    SELECT strength, avg(length) FROM 'runs/s/answers.parquet' a
    JOIN 'runs/s/settings.parquet' s USING (setting) WHERE grade = 'right' GROUP BY strength
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from probes.records import Grade, Refusal, atomic_write, read_arrow, write_json, write_table
from probes.strategies.lexicon import by_lexicon, load_lexicon
from probes.strategies.sentences import sentences
from steering.sweep.answers import merge
from steering.sweep.file import SweepFile
from steering.sweep.resolving import Asked, Resolved
from steering.sweep.scores import Tally, best, frame_of
from steering.sweep.settings import Setting

SETTINGS, ANSWERS, PROBLEMS, COSTS, BEST = (
    "settings.parquet",
    "answers.parquet",
    "problems.parquet",
    "costs.parquet",
    "best.json",
)
KIND = "SweepSettings"
VERSION = 1


@dataclass(frozen=True)
class Asking:
    """A problem of a sweep."""

    problem: str
    task: str
    half: str
    """"choose", "report", or "" of the task beside."""
    prompt: str
    answer: str
    skill: str
    part: str
    difficulty: int


def write_results(
    out: Path,
    file: SweepFile,
    resolved: Sequence[Resolved],
    asked: Mapping[str, tuple[Asked, ...]],
    shards: Sequence[Path],
) -> None:
    """Every table, each atomically; `settings.parquet` last, so that it vouches for the rest."""
    failed = failures(shards)
    settings: dict[str, dict[str, Setting]] = {name: {} for name in asked}
    for r in resolved:
        settings[r.setting.problems] |= {s.key: s for s in (r.setting, r.plain, *r.controls)}
    keys = {key for of_name in settings.values() for key in of_name}
    merge(shards, out / ANSWERS, keys - set(failed), file.samples)
    listed = {
        p.id: _asking(a, p, i, beside)
        for parts in asked.values()
        for beside, a in enumerate(parts)
        for i, p in enumerate(a.problems)
    }
    write_table(out / PROBLEMS, list(listed.values()), Asking)
    write_costs(out, shards)
    tallies = {
        name: tally(out / ANSWERS, asked[name], list(settings[name]), file.strategy)
        for name in asked
    }
    frame = frame_of(resolved, asked, tallies, failed, file.metrics)
    write_json(out / BEST, best(frame, asked, tallies, file.metrics))
    write_frame(out / SETTINGS, frame, metrics=list(file.metrics), axes=list(file.axes))


def tally(
    path: Path, asked: tuple[Asked, ...], settings: Sequence[str], strategy: str = ""
) -> Tally:
    """Means over samples of every setting and problem, counted by DuckDB out of core."""
    import duckdb

    codes = {key: row for row, key in enumerate(settings)}
    ids = {p.id: i for i, p in enumerate(p for a in asked for p in a.problems)}
    named = pd.DataFrame({"setting": list(codes), "row": range(len(codes))})
    places = pd.DataFrame({"problem": list(ids), "place": range(len(ids))})
    with duckdb.connect(config={"threads": 1}) as db:  # sums in one order: equal bits
        db.register("named", named)
        db.register("places", places)
        found = db.execute(
            """
            SELECT row, place, count(*) AS n,
                   sum((grade = 'right')::INT) AS right, sum(valid::INT) AS valid,
                   sum((grade <> 'unparsed')::INT) AS parsed, sum(length) AS length,
                   avg(kl) FILTER (NOT isnan(kl)) AS kl
            FROM read_parquet(?) JOIN named USING (setting) JOIN places USING (problem)
            WHERE grade <> 'error' GROUP BY row, place
            """,
            [str(path)],
        ).fetchnumpy()
    at = found["row"], found["place"]
    n = np.zeros((len(codes), len(ids)))
    n[at] = found["n"]
    means = {}
    for metric in ("right", "valid", "parsed", "length", "kl"):
        means[metric] = np.full(n.shape, np.nan)
        given = np.ma.filled(np.ma.asarray(found[metric], dtype=float), np.nan)
        means[metric][at] = given if metric == "kl" else given / found["n"]
    if strategy:
        means["strategy"] = _with_label(path, codes, ids, strategy) / np.where(n, n, np.nan)
    return Tally(codes, means, n)


def _with_label(
    path: Path, codes: Mapping[str, int], ids: Mapping[str, int], strategy: str
) -> Float[np.ndarray, "settings problems"]:
    """How many of the judged answers have a sentence of this label, given as LEXICON:LABEL."""
    import pyarrow.parquet as pq

    source, _, label = strategy.rpartition(":")
    lexicon = load_lexicon(source)
    count = np.zeros((len(codes), len(ids)))
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=["setting", "problem", "grade", "text"]):
            for setting, problem, grade, text in zip(*batch.to_pydict().values(), strict=True):
                if setting in codes and problem in ids and grade != Grade.ERROR:
                    found = label in by_lexicon(sentences(text), lexicon)
                    count[codes[setting], ids[problem]] += found
    return count


def failures(shards: Sequence[Path]) -> dict[str, str]:
    """Of settings that failed in any shard, why; the first reason counts."""
    import pyarrow.parquet as pq

    found: dict[str, str] = {}
    for path in shards:
        metadata = pq.read_schema(path).metadata or {}
        about = json.loads(metadata.get(b"whenhow", b"{}"))
        found = {**about.get("failed", {}), **found}
    return found


def write_costs(out: Path, shards: Sequence[Path]) -> None:
    """What every shard cost, read from the notes beside them."""
    rows = [
        {"shard": int(p.stem), **json.loads(p.with_suffix(".json").read_text())} for p in shards
    ]
    frame = pd.DataFrame(rows).drop(columns="hash")
    with atomic_write(out / COSTS) as file:
        frame.to_parquet(file, index=False)


def write_frame(path: Path, frame: pd.DataFrame, **about: Any) -> None:
    """A data frame as Parquet, atomically, with what is said about all of it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    told = {"version": VERSION, "kind": KIND, **about}
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({"whenhow": json.dumps(told)})
    with atomic_write(path) as file:
        pq.write_table(table, file, compression="zstd")


def read_settings(out: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table of settings of a finished sweep, and its metrics and axes.

    Raises:
        Refusal: no finished sweep there, a damaged table, or a newer one.
    """
    path = out / SETTINGS
    if not path.is_file():
        plan = (out / "plan").is_dir()
        hint = "it was begun and not finished: run it again" if plan else "whenhow sweep run FILE"
        raise Refusal(f"there is no finished sweep in {out} ({hint}).")
    table, about = read_arrow(path, KIND)
    frame = table.to_pandas()
    frame["layer"] = frame.layer.astype("Int64")
    return frame, about


def _asking(asked: Asked, problem: Any, index: int, beside: int) -> Asking:
    given = asdict(problem)
    kept = {k: given[k] for k in ("prompt", "answer", "skill", "part", "difficulty")}
    return Asking(problem.id, asked.task.name, "" if beside else asked.half(index), **kept)
