"""Tasks whose traces nobody checks: steering them works, and "valid" is refused, never a number."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from probes.directions import save as save_direction
from probes.models import load
from probes.records import Refusal
from probes.tasks import SHIPPED, load_task
from probes.verify import UNCHECKED
from steering.evaluate import evaluate
from steering.features import responses
from steering.sweep import prepare, sweep
from steering.sweep.file import Mistakes
from steering.training.supervised import SupervisedSettings, written


@pytest.fixture
def sums(tmp_path):
    text = (SHIPPED / "gym-chain-sum.toml").read_text().replace("1024", "6")
    (tmp_path / "sums.toml").write_text(text)
    return str(tmp_path / "sums.toml")


@pytest.fixture
def given(reader, sums, direction_of, tmp_path):
    push = tmp_path / "d.safetensors"
    vector = np.random.default_rng(0).standard_normal(8).astype(np.float32)
    save_direction(direction_of(vector, 0, load(reader).digest), push)
    fixed = {"model": reader, "task": sums, "push": str(push), "layer": 0}
    about = {"problems": 4, "samples": 2, "controls": 1}
    return {**about, "fixed": fixed, "grid": {"strength": [0.0, 4.0]}}


def test_a_sweep_of_a_task_of_text_runs(given, tmp_path):
    frame = sweep(given | {"metrics": ["right", "length", "kl"]}, tmp_path / "out", workers=0)
    pushed = frame[(frame["strength"] == 4) & (frame["control"] == "")]
    assert pushed["kl"].item() > 0
    answers = pd.read_parquet(tmp_path / "out" / "answers.parquet")
    assert answers["valid"].isna().all()
    assert len(answers) == 4 * 2 * len(frame)


def test_a_sweep_is_not_judged_by_valid_traces_there(given, tmp_path):
    with pytest.raises(Mistakes) as refused:
        prepare(given | {"metrics": ["right", "valid"]}, tmp_path / "out")
    assert [UNCHECKED in said for said in refused.value.wrong] == [True]


def test_too_few_problems_to_choose_and_to_report_are_told_before_any_work(given, tmp_path):
    with pytest.raises(Mistakes) as refused:
        prepare(given | {"problems": 3, "metrics": ["right"]}, tmp_path / "out")
    (said,) = refused.value.wrong
    assert "3 in all, and half of them report" in said
    assert not (tmp_path / "out").exists()


def test_valid_answers_of_it_are_not_kept_to_imitate(reader, sums, tmp_path):
    task = load_task(sums)
    settings = SupervisedSettings(tokens=100, updates=1, keep="valid")
    with pytest.raises(Refusal, match="checks no traces"):
        written(load(reader), task, task.problems("tune", 2), tmp_path / "answers", settings)
    assert not (tmp_path / "answers").exists()


def test_doses_there_have_right_answers_only(reader, sums):
    task = load_task(sums)
    judged = evaluate(load(reader), task, task.problems("test", 3), samples=2)
    rows = responses.measurements(task, judged, [], seed=0, about={})
    assert {row.measure for row in rows} == {"right", "length", "cut off"}
    checked = replace(judged, graded=tuple(replace(g, valid=False) for g in judged.graded))
    rows = responses.measurements(task, checked, [], seed=0, about={})
    (valid,) = [row for row in rows if row.measure == "valid"]
    assert valid.value == 0
    assert not math.isnan(valid.high)
