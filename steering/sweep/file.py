"""A sweep file: which settings, judged how, on what. Every mistake in it is told at once.

    problems = 8                        # of each skill and part
    samples = 4
    metrics = ["right", "valid", "length", "kl"]     # the first is what settings are ranked by
    controls = 2                        # random directions beside every push

    [fixed]
    model = "../organisms/chain/base-0" # paths are relative to the file
    task = "chain"

    [grid]                              # every combination
    strength = {from = -1, to = 1, step = 0.25}
    push = ["check-{layer}.safetensors"]

    [[zip]]                             # these move together
    layer = [0, 1, 2]

    [random]                            # draw, instead of taking all
    budget = 200

An axis is one of `AXES`. Names in braces inside a push stand for the values of other axes at the
same point. What is said outside [fixed], [grid], [[zip]] and [random] holds for the whole sweep.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from probes import DATA
from probes.records import Refusal, read_toml
from probes.strategies.lexicon import load_lexicon
from steering.sweep.axes import Continuous, Point, points, spread

SHIPPED = DATA / "sweeps"
WHOLE = 2**63
"""Whole numbers stay below it, or no table could hold them."""

AXES: dict[str, type | tuple[type, ...]] = {
    "model": str,
    "task": str,
    "push": str,
    "op": str,
    "layer": int,
    "site": str,
    "strength": (int, float),
    "window": (str, dict),
    "temperature": (int, float),
    "top_p": (int, float),
    "seed": int,
}
"""What may differ between settings, and of which type its values are."""

METRICS = ("right", "valid", "parsed", "length", "kl", "strategy")
"""Share of right answers; right by a valid trace; readable; tokens of an answer; nats a token from
the unsteered model, along the answers; share of answers with a sentence of one label."""

LEAST = {
    "problems": 2,
    "samples": 1,
    "kl_samples": 1,
    "batch": 1,
    "shard": 1,
    "controls": 0,
    "off_problems": 1,
}
MANY = 1_000_000
"""No such number is larger."""

SPLITS = ("test", "select", "tune")
DTYPES = ("float32", "bfloat16", "float16")
MADE = {"points", "axes", "folder", "name"}
"""Fields that no key of the file has."""
BLOCKS = ("fixed", "grid", "zip", "random")


@dataclass(frozen=True)
class SweepFile:
    """A sweep as it was written down."""

    points: tuple[Point, ...]
    """One value of every axis that is named, in the file's order."""
    axes: tuple[str, ...]
    """Those that vary."""
    folder: Path
    """What its paths are relative to."""
    problems: int = 8
    """Of each skill and part."""
    samples: int = 4
    """Answers to each problem in each setting."""
    split: str = "test"
    skills: tuple[str, ...] = ()
    """Of the task; all if none is named."""
    metrics: tuple[str, ...] = ("right", "valid", "length", "kl")
    kl_samples: int = 1
    """Of each problem's answers, how many the KL is measured on: of all it costs as much as writing
    them does."""
    controls: int = 4
    """Random directions beside every push. Few say little of what such a direction does: that is in
    the interval of what a push does beyond them."""
    strategy: str = ""
    """What the metric of this name counts, as LEXICON:LABEL: a label of a shipped lexicon
    (`probes.strategies.lexicon`), or of one's own by the path of its file."""
    off_task: str = ""
    """Another task, answered under every setting: what it costs elsewhere."""
    off_problems: int = 4
    """Of each of its skills and parts."""
    batch: int = 128
    """Rows decoded together; part of the plan, since with it a resumed run is bit for bit alike."""
    shard: int = 4096
    """Answers of a shard at most: what a kill can lose."""
    dtype: str = "float32"
    foreign: bool = False
    """Allow pushes that were made on another model than they are used on."""
    name: str = field(default="sweep", compare=False)


class Mistakes(Refusal):
    """Everything that is wrong with a sweep, one line each."""

    def __init__(self, wrong: Sequence[str], name: str) -> None:
        """Each mistake once."""
        self.wrong = tuple(dict.fromkeys(wrong))
        listed = "\n".join(f"- {one}" for one in self.wrong)
        many = f"{name}: {len(self.wrong)} mistakes:\n{listed}"
        super().__init__(f"{name}: {self.wrong[0]}" if len(self.wrong) == 1 else many)


def read_sweep(source: str | Path | Mapping[str, Any]) -> SweepFile:
    """A sweep file by path, a shipped one by name, or what such a file holds as a dict.

    Raises:
        Mistakes: everything that can be seen without opening a model.
    """
    file, wrong = draft(source)
    if wrong or file is None:
        raise Mistakes(wrong, file.name if file else name_of(source))
    return file


def name_of(source: str | Path | Mapping[str, Any]) -> str:
    """What a sweep is called."""
    return "sweep" if isinstance(source, Mapping) else Path(source).stem


def draft(source: str | Path | Mapping[str, Any]) -> tuple[SweepFile | None, list[str]]:
    """What can be read of a sweep file, and what is wrong with it; None where no point can be made.

    Raises:
        Refusal: no such file, or no TOML.
    """
    if isinstance(source, Mapping):
        given, folder = dict(source), Path.cwd()
    else:
        path, given = read_toml(source, SHIPPED, "sweep file")
        folder = path.resolve().parent
    wrong: list[str] = []
    whole = _whole(given, wrong)
    fixed, grid = _table(given, "fixed", wrong), _table(given, "grid", wrong)
    zipped = given.get("zip", [])
    if not isinstance(zipped, list) or not all(isinstance(b, Mapping) for b in zipped):
        wrong.append("[[zip]]: write each block of axes that move together as a [[zip]] table")
        zipped = []
    for key, value in fixed.items():
        _check(key, [value], "[fixed]", wrong)
    axes = {k: _values(k, v, wrong) for k, v in grid.items()}
    blocks = [{k: _values(k, v, wrong, together=True) for k, v in b.items()} for b in zipped]
    _contradictions(fixed, axes, blocks, wrong)
    budget, seed = _random(_table(given, "random", wrong), wrong)
    varied = (*axes, *(k for b in blocks for k in b))
    # Those without a value are told, and the rest of the file is looked at all the same.
    full, *moving = ({k: v for k, v in b.items() if v} for b in (axes, *blocks))
    try:
        found = list(points(fixed, full, moving, budget=budget, seed=seed))
    except Refusal as refusal:
        wrong.append(str(refusal))
        one = [{k: v[:1] for k, v in b.items() if isinstance(v, list)} for b in (full, *moving)]
        found = list(points(fixed, one[0], one[1:]))
    _check_strategy(whole, folder, wrong)
    if wrong:
        found = [_sound(p) for p in found]
    needed = [p for p in found if {"model", "task"} <= set(p)]
    file = SweepFile(
        points=tuple(needed), axes=varied, folder=folder, name=name_of(source), **whole
    )
    return (file if needed else None), wrong


def _whole(given: Mapping[str, Any], wrong: list[str]) -> dict[str, Any]:
    """The fields of the whole sweep, checked one by one."""
    known = {f.name: f for f in fields(SweepFile) if f.name not in MADE}
    kept: dict[str, Any] = {}
    for key, value in given.items():
        if key in BLOCKS:
            continue
        if key not in known:
            hint = " (an axis: put it under [fixed] or [grid])" if key in AXES else ""
            wrong.append(f"{key} is not known{hint}; there are {', '.join((*known, *BLOCKS))}")
            continue
        default = known[key].default
        listed = isinstance(default, tuple)
        right = isinstance(value, list) if listed else type(value) is type(default)
        if listed and right:
            right = all(isinstance(v, str) for v in value)
        if not right:
            kind = "a list of names" if listed else f"like {default!r}"
            wrong.append(f"{key} = {value!r}: it is {kind}")
            continue
        kept[key] = tuple(value) if listed else value
    for key, least in LEAST.items():
        if kept.get(key, least) < least:
            wrong.append(f"{key} = {kept.pop(key)}: it is {least} at least")
        elif kept.get(key, least) > MANY:
            wrong.append(f"{key} = {kept.pop(key)}: above {MANY:,} it is a slip")
    metrics = kept.get("metrics", ("right",))
    if unknown := [m for m in metrics if m not in METRICS]:
        wrong.append(f"metric {unknown[0]!r} is not known; there are {', '.join(METRICS)}")
    if metrics[:1] == ("kl",):
        wrong.append(
            "metrics: the first ranks, and kl can't: it is 0 for the unsteered model and more for "
            "any other"
        )
    if not metrics or len(set(metrics)) < len(metrics):
        wrong.append("metrics: name at least one, and each once")
    for key, known in (("dtype", DTYPES), ("split", SPLITS)):
        if (value := kept.get(key, known[0])) not in known:
            wrong.append(f"{key} {value!r} is not known; there are {', '.join(known)}")
            del kept[key]
    return kept


def _check_strategy(whole: dict[str, Any], folder: Path, wrong: list[str]) -> None:
    """What the metric counts is there, where the metric is; a path becomes absolute."""
    named, wanted = whole.get("strategy", ""), "strategy" in whole.get("metrics", ())
    if bool(named) != wanted:
        wrong.append(
            "strategy = 'LEXICON:LABEL' and the metric 'strategy' go together: name both or neither"
        )
    if not named:
        return
    source, _, label = named.rpartition(":")
    source = str(folder / source) if source.endswith(".toml") else source
    try:
        labels = load_lexicon(source).labels
    except Refusal as refusal:
        wrong.append(f"strategy = {named!r}: {refusal}")
        return
    if label not in labels:
        wrong.append(f"strategy = {named!r}: the lexicon has the labels {', '.join(labels)}")
    whole["strategy"] = f"{source}:{label}"


def _table(given: Mapping[str, Any], name: str, wrong: list[str]) -> dict[str, Any]:
    table = given.get(name, {})
    if not isinstance(table, Mapping):
        wrong.append(f"{name} is a table: write [{name}]")
        return {}
    return dict(table)


def _values(key: str, given: Any, wrong: list[str], *, together: bool = False) -> Any:
    try:
        values = spread(given, together=together)
    except Refusal as refusal:
        wrong.append(f"axis {key}: {refusal}")
        return []
    if isinstance(values, Continuous) and together:
        wrong.append(f"axis {key}: what moves together is listed, not drawn")
        return []
    if isinstance(values, Continuous):
        _check(key, [values.low, values.high], "axis", wrong)
        return values
    if AXES.get(key) is int:  # a range's values are floats
        values = [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]
    _check(key, values, "axis", wrong)
    if key == "strength" and not together and not any(v == 0 for v in values):
        wrong.append(
            f"axis strength: {values} lacks 0, the unsteered model, without which a dose-response "
            f"curve has no origin: add it"
        )
    return values


def _check(key: str, values: Sequence[Any], where: str, wrong: list[str]) -> None:
    if key not in AXES:
        hint = " (it holds for the whole sweep: put it above the tables)" if _is_whole(key) else ""
        wrong.append(f"axis {key} is not known{hint}; there are {', '.join(AXES)}")
        return
    if bad := [v for v in values if not _fits(v, AXES[key])]:
        wrong.append(f"{where} {key}: {bad[0]!r} is not {_said(AXES[key])}")


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(value, int):
        return isinstance(value, kind) and not isinstance(value, bool) and abs(value) < WHOLE
    return isinstance(value, kind) and not (isinstance(value, float) and not math.isfinite(value))


def _sound(point: Point) -> Point:
    """What can be looked at of a point of a file that has mistakes."""
    kept = {k: v for k, v in point.items() if k in AXES and _fits(v, AXES[k])}
    if not set(re.findall(r"{(\w+)}", kept.get("push", ""))) <= set(kept):
        del kept["push"]
    return kept


def _is_whole(key: str) -> bool:
    return key in {f.name for f in fields(SweepFile)} - MADE


def _said(kind: Any) -> str:
    names = {str: "text", int: "a whole number", (int, float): "a finite number"}
    return names.get(kind, "a name or a table of start, stop, origin, after")


def _contradictions(
    fixed: Mapping[str, Any],
    grid: Mapping[str, Any],
    blocks: Sequence[Mapping[str, Any]],
    wrong: list[str],
) -> None:
    places: dict[str, list[str]] = {}
    for where, keys in (("[fixed]", fixed), ("[grid]", grid), *(("[[zip]]", b) for b in blocks)):
        for key in keys:
            places.setdefault(key, []).append(where)
    for key, listed in places.items():
        if len(listed) > 1:
            wrong.append(f"axis {key} is in {' and in '.join(listed)}: which is meant?")
    for block in blocks:
        if not block:
            wrong.append("[[zip]]: name axes with a list of values each")
        lengths = {k: len(v) for k, v in block.items()}
        if len(set(lengths.values())) > 1 and all(lengths.values()):
            said = ", ".join(f"{k} has {n}" for k, n in lengths.items())
            wrong.append(f"[[zip]]: axes that move together have equally many values; {said}")
    for key in ("model", "task"):
        if key not in places:
            wrong.append(f"{key} is missing: name it under [fixed], or several under [grid]")
    push = [*_listed(fixed.get("push")), *_listed(grid.get("push"))]
    push += [v for b in blocks for v in _listed(b.get("push"))]
    for text in filter(lambda v: isinstance(v, str), push):
        for name in re.findall(r"{(\w*)}", text):
            if name not in places or name == "push":
                wrong.append(f"push {text!r}: {{{name}}} is no axis of this sweep")
    if not push:
        for key in ("op", "layer", "site", "strength", "window"):
            if key in places:
                wrong.append(f"{key} is an axis of a push, and no push is named")


def _listed(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    return [] if value is None or isinstance(value, Continuous) else [value]


def _random(given: Mapping[str, Any], wrong: list[str]) -> tuple[int | None, int]:
    if not given:
        return None, 0
    if unknown := set(given) - {"budget", "seed"}:
        wrong.append(f"[random] {min(unknown)} is not known; there are budget, seed")
    budget, seed = given.get("budget"), given.get("seed", 0)
    if type(budget) is not int or budget < 1 or type(seed) is not int or seed < 0:
        wrong.append(
            f"[random]: budget = {budget!r}, seed = {seed!r}: both whole, budget above 0, seed not "
            f"below"
        )
        return None, 0
    return budget, seed
