"""Sweeps of the shipped base: random directions saved as files, and the plans made of them."""

import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from probes import DATA
from probes.directions import Direction, save
from probes.records import parse_site
from steering.sweep import Prepared, prepare
from steering.sweep.running import work_of
from steering.sweep.working import Work

from ._shipped import base
from ._steered import LAYERS, NORM, STRENGTHS, settings

PROBLEMS = 32
BASE = DATA / "organisms" / "chain" / "base-0"


@cache
def _temporary() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="whenhow-bench-")


def folder() -> Path:
    """Kept as long as the process is."""
    return Path(_temporary().name)


def prepared(
    count: int,
    *,
    samples: int = 4,
    problems: int = PROBLEMS,
    batch: int = 512,
    kl: bool = True,
    shard: int = 1 << 20,
    out: str = "out",
) -> Prepared:
    """So many settings, of a direction and a strength each, asked so many problems."""
    zipped = [place(i) for i in range(count)]
    given = {
        "skills": ["n"],  # in two halves
        "problems": problems // 2,
        "samples": samples,
        "metrics": ["right", "valid", "length", *(["kl"] if kl else [])],
        "controls": 0,
        "batch": batch,
        "shard": shard,
        "fixed": {"model": str(BASE), "task": "chain"},
        "zip": [{"push": [p for p, _ in zipped], "strength": [s for _, s in zipped]}],
    }
    return prepare(given, folder() / out)


def work(ready: Prepared) -> Work:
    return work_of(ready, "cpu")


def place(index: int) -> tuple[str, float]:
    """File and strength of a setting, in the order of `settings`: units, layers, strengths."""
    unit, rest = divmod(index, len(LAYERS) * len(STRENGTHS))
    layer, strength = divmod(rest, len(STRENGTHS))
    path = folder() / f"{unit}-{LAYERS[layer]}.safetensors"
    if not path.exists():
        _save_all(unit)
    return str(path), STRENGTHS[strength]


def _save_all(unit: int) -> None:
    """Random directions up to this one and as many again, at every layer."""
    step = len(LAYERS) * len(STRENGTHS)
    many = settings(2 * (unit + 1) * step)
    for i in range(0, len(many), len(STRENGTHS)):
        (push,) = many[i]
        layer, site = parse_site(push.site)
        path = folder() / f"{i // step}-{layer}.safetensors"
        if not path.exists():
            save(_direction(np.asarray(push.vector, dtype=np.float32), layer, site), path)


def _direction(vector: np.ndarray, layer: int, site: str) -> Direction:
    nan = float("nan")
    return Direction(
        vector=vector / np.linalg.norm(vector),
        layer=layer,
        site=site,
        strategy="random",
        method="random",
        norm=NORM,
        auc=nan,
        auc_low=nan,
        auc_high=nan,
        auc_choice=nan,
        null_mean=nan,
        null_high=nan,
        rows=1,
        positives=0,
        problems=1,
        model=base().digest,
        task="",
        data="",
        seed=0,
        reason="drawn at random",
    )
