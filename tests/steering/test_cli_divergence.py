"""`whenhow divergence` on small random models: what it writes, and what its numbers must be."""

import json
import math

import pytest

from probes.models import new_llama, new_tokenizer, save
from probes.records import Measurement, read_table
from probes.tasks import load_task
from steering import cli
from steering.cli.divergence import Divergence, measure
from steering.verdict.context import Context
from steering.verdict.settings import VerdictSettings
from steering.verdict.stages import divergence as stage

SMALL = ("--problems", "3", "--samples", "2", "--texts", "1", "--solved", "1", "--floor", "1e-3")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Three models of the chain task on disk, with random weights."""
    folder = tmp_path_factory.mktemp("models")
    words = load_task("chain").vocabulary()
    for seed, name in enumerate(("base", "tuned", "null")):
        tokenizer = new_tokenizer(words)
        net = new_llama(len(tokenizer), width=16, depth=2, heads=2, mlp=16, context=64, seed=seed)
        save(net, tokenizer, folder / name)
    return folder


def run(*args):
    with pytest.raises(SystemExit) as left:
        cli.main([str(arg) for arg in args])
    return left.value.code


@pytest.fixture(scope="module")
def measured(models, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    pair = ("--base", models / "base", "--tuned", models / "tuned", "--null", models / "null")
    assert run("divergence", *pair, *SMALL, "--out", out) == 0
    return out, pair


def test_it_writes_numbers_and_every_figure(measured):
    out, _ = measured
    rows, about = read_table(out / "divergence.parquet", Measurement)
    assert about["settings"]["texts"] == 1
    listed = json.loads((out / "divergence.json").read_text(), parse_constant=pytest.fail)
    assert len(listed["rows"]) == len(rows)
    assert {"kl", "agreement", "rank share", "first parting", "selection bits"} <= {
        r.measure for r in rows
    }
    names = ("bits", "parting", "perplexity", "places", "strip")
    for name in names:
        assert (out / "figures" / f"divergence-{name}.png").stat().st_size > 1000


def test_the_base_against_itself_is_exactly_zero_and_the_pair_is_not(measured):
    rows, _ = read_table(measured[0] / "divergence.parquet", Measurement)
    same = [r for r in rows if r.measure == "kl" and r.model == "base || base"]
    assert [r.kind for r in same] == ["", "decision", "execution"]
    assert all(r.value == 0 or math.isnan(r.value) for r in same)
    assert same[0].value == same[0].high == 0
    pair = [r for r in rows if (r.measure, r.model, r.kind) == ("kl", "base || tuned", "")]
    assert all(r.low > 0 for r in pair)
    assert {r.setting for r in pair} >= {"base's texts", "tuned's texts"}


def test_the_verdict_has_no_row_of_the_base_against_itself(measured, models):
    """It is 0 by definition, and its share of no KL undefined: no evidence, and no silence."""
    about = {"out": measured[0], "problems": 3, "samples": 2}
    context = Context(VerdictSettings(str(models / "base"), str(models / "tuned"), **about))
    assert {r.model for r in stage.run(context, lambda *_: None)} == {
        "base || tuned",
        "tuned || base",
    }


def test_every_place_has_its_shuffled_null(measured):
    rows, _ = read_table(measured[0] / "divergence.parquet", Measurement)
    rows = [r for r in rows if (r.measure, r.model) == ("kl", "base || tuned")]
    null = {r.kind: r.value for r in rows if r.setting == "base's texts, shuffled places"}
    found = {r.kind: r.value for r in rows if r.setting == "base's texts"}
    assert null.keys() == found.keys()
    assert null[""] == pytest.approx(found[""])


def test_the_null_pair_is_measured_beside_it(measured):
    rows, _ = read_table(measured[0] / "divergence.parquet", Measurement)
    settings = {r.setting for r in rows if r.measure == "kl" and r.model == "tuned || null"}
    assert {"tuned's texts", "null's texts"} <= settings
    assert {r.setting for r in rows if r.measure == "selection bits"} == {
        "base and tuned",
        "tuned and null",
    }


def test_the_same_pair_gives_the_same_numbers_and_prints_them_as_json(measured, capsys):
    """From the answers that are there, and without the null, which is a pair of its own."""
    out, pair = measured
    before = json.loads((out / "divergence.json").read_text())["rows"]
    capsys.readouterr()
    assert run("divergence", *pair[:4], *SMALL, "--out", out, "--json") == 0
    shown = capsys.readouterr()
    again = json.loads(shown.out, parse_constant=pytest.fail)["rows"]
    assert json.dumps(again) == json.dumps(before[: len(again)])
    assert len(again) < len(before)
    assert "KL of a token" in shown.err


def test_what_cannot_work_is_refused_before_any_work(models, tmp_path, capsys):
    pair = ("--base", models / "base", "--tuned", models / "tuned", "--out", tmp_path / "out")
    assert run("divergence", *pair, "--floor", "2") == 2
    assert run("divergence", *pair, "--texts", "0") == 2
    assert "at least 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_null_that_is_no_pair_is_refused_before_any_answer(models, tmp_path, capsys):
    tokenizer = new_tokenizer(["of", "another", "task", "END"])
    net = new_llama(len(tokenizer), width=16, depth=2, heads=2, mlp=16, context=64, seed=0)
    save(net, tokenizer, tmp_path / "other")
    pair = ("--base", models / "base", "--tuned", models / "tuned", "--out", tmp_path / "out")
    assert run("divergence", *pair, *SMALL, "--null", tmp_path / "other") == 2
    assert "okenizer" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_all_models_are_where_and_as_wide_as_asked(models, tmp_path, monkeypatch):
    from steering.verdict import context as verdict

    loaded, load_on = [], verdict.load_on
    monkeypatch.setattr(verdict, "load_on", lambda *about: loaded.append(about) or load_on(*about))

    def stop(*_):
        raise InterruptedError

    monkeypatch.setattr("steering.cli.divergence.answered", stop)
    names = [str(models / name) for name in ("base", "tuned", "null")]
    asked = Divergence(*names[:2], null=names[2], device="cpu:0", dtype="bfloat16", out=tmp_path)
    with pytest.raises(InterruptedError):
        measure(asked)
    assert {source for source, *_ in loaded} == set(names)
    assert {tuple(how) for _, *how in loaded} == {("cpu:0", "bfloat16")}
