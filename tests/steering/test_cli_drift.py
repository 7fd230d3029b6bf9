"""`whenhow drift`: what it leaves behind, and what a model against itself must give."""

import math
from collections import Counter

import numpy as np
import pytest

from probes.capture import from_rollouts
from probes.models import new_llama, new_tokenizer, save
from probes.plots.drift import DRIFT
from probes.records import Measurement, read_table
from probes.tasks import load_task
from steering import cli
from steering.cli.drift import NULLS, Drift, answered, decided, measure
from steering.verdict.context import Context
from steering.verdict.settings import VerdictSettings


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two untrained models with the task's own tokenizer."""
    tokenizer, made = new_tokenizer(load_task("chain").vocabulary()), []
    for seed in range(2):
        net = new_llama(len(tokenizer), width=16, depth=2, heads=2, mlp=16, context=96, seed=seed)
        folder = tmp_path_factory.mktemp("models") / f"m{seed}"
        save(net, tokenizer, folder)
        made.append(folder)
    return made


def run(*args):
    """The command in this process; its status."""
    with pytest.raises(SystemExit) as left:
        cli.main([str(arg) for arg in args])
    return left.value.code


SMALL = ("--problems", 2, "--texts", 2, "--rows", 4, "--rank", 2)


def test_it_leaves_numbers_and_figures_and_says_where(folders, tmp_path, capsys, monkeypatch):
    one = "similarity"  # all of them are drawn in their own tests
    monkeypatch.setattr("probes.plots.drift.DRIFT", {one: DRIFT[one]})
    base, other = folders
    pair = ("--base", base, "--tuned", other, "--null", base)
    assert run("drift", *pair, *SMALL, "--out", tmp_path / "d") == 0
    shown = capsys.readouterr()
    assert shown.out == f"{tmp_path / 'd'}\n"
    assert "no evidence for or against a skill" in shown.err
    rows, about = read_table(tmp_path / "d" / "drift.parquet", Measurement)
    assert about["settings"]["rank"] == 2
    measures = {r.measure for r in rows}
    assert {"cka", "activation norm", "moved overlap", "moved angle"} <= measures
    assert {r.setting for r in rows} == {"base's texts", "tuned's texts"}
    same = [r for r in rows if r.measure == "cka" and r.model == "base x m0"]
    assert [r.value for r in same] == pytest.approx([1.0] * 4)
    itself = {r.note for r in rows if r.kind == "m0 - base"}
    assert itself == {"m0 has the base's activations"}
    drawn = {p.name for p in (tmp_path / "d" / "figures").glob("*.png")}
    assert drawn == {f"drift-{one}.png"}


def test_a_model_against_itself_has_moved_by_exactly_nothing(folders, tmp_path):
    base = str(folders[0])
    asked = Drift(base, base, out=tmp_path, problems=2, texts=2, rows=4, rank=2)
    rows = measure(asked, lambda: None)
    by = {}
    for r in rows:
        by.setdefault(r.measure, []).append(r)
    assert {(r.value, r.low, r.high) for r in by["activation shift"]} == {(0, 0, 0)}
    assert [r.value for r in by["cka"]] == pytest.approx([1.0] * len(by["cka"]))
    assert all("nothing moved" in r.note for r in by["moved overlap"])
    told = [r.value for r in by["lens"] if not math.isnan(r.value)]
    assert set(told) == {0.0}


def test_the_shipped_pair_alone_has_shipped_nulls(tmp_path):
    assert Drift().nulls == NULLS
    assert Drift(tuned="elsewhere").nulls == ()
    assert Drift(null=("a",)).nulls == ("a",)


@pytest.mark.parametrize("flag", ["--problems", "--texts", "--rows", "--rank"])
def test_what_can_never_work_is_refused(flag, tmp_path, capsys):
    assert run("drift", flag, 0, "--out", tmp_path / "d") == 2
    assert "at least" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("nulls", [("a/tuned",), ("a/base",), ("a/seed", "b/seed/"), (".",)])
def test_a_null_whose_name_is_taken_is_refused(nulls, tmp_path, capsys):
    """It would stand in the place of the model of this name, and be measured as that."""
    assert run("drift", "--null", *nulls, "--out", tmp_path / "d") == 2
    assert "Rename the folder" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "d").exists()


def test_all_models_are_where_and_as_wide_as_asked(folders, tmp_path, monkeypatch):
    from steering.verdict import context as verdict

    def stop(*_):
        raise InterruptedError

    loaded, load_on = [], verdict.load_on
    monkeypatch.setattr(verdict, "load_on", lambda *about: loaded.append(about) or load_on(*about))
    monkeypatch.setattr("steering.cli.drift.answered", stop)
    base, other = map(str, folders)
    asked = Drift(base, other, null=(base,), device="cpu:0", dtype="bfloat16", out=tmp_path)
    with pytest.raises(InterruptedError):
        measure(asked, lambda: None)
    assert [tuple(how) for _, *how in loaded] == [("cpu:0", "bfloat16")] * 3


def test_more_texts_than_the_record_holds_are_sampled():
    """The shipped record has 32 answers a problem; an answer's index fixes it, so 32 are these."""
    asked = Drift(problems=2, texts=33)
    context = Context(VerdictSettings(asked.base, asked.tuned))
    counts = dict(Counter(r.problem for r in answered(asked, context, "base").rollouts))
    assert set(counts.values()) == {33}


def test_of_too_many_decisions_whole_problems_are_left_out(monkeypatch):
    asked = Drift(problems=2, texts=4)
    context = Context(VerdictSettings(asked.base, asked.tuned))
    judged = answered(asked, context, "base")
    texts = from_rollouts(context.pair[0], judged.problems, judged.rollouts)
    every = {one.kind: one for one in decided(context, judged, texts)[0]}
    monkeypatch.setattr("steering.cli.drift.MOST", 31)
    some = {one.kind: one for one in decided(context, judged, texts)[0]}
    assert some.keys() == every.keys()
    for kind, one in some.items():
        assert 0 < len(one.lines) <= 31
        kept = np.isin(every[kind].problems, one.problems)
        assert one.lines.tolist() == every[kind].lines[kept].tolist()
    assert any(len(one.lines) < len(every[kind].lines) for kind, one in some.items())
