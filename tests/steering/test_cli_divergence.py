"""`whenhow divergence` on small random models: what it writes, and what its numbers must be."""

import json
import math

import pytest

from probes.models import new_llama, new_tokenizer, save
from probes.records import Measurement, read_table
from probes.tasks import load_task
from steering import cli

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
    listed = json.loads((out / "divergence.json").read_text())
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
    again = json.loads(shown.out)["rows"]
    assert json.dumps(again) == json.dumps(before[: len(again)])
    assert len(again) < len(before)
    assert "KL of a token" in shown.err


def test_what_cannot_work_is_refused_before_any_work(models, tmp_path, capsys):
    pair = ("--base", models / "base", "--tuned", models / "tuned", "--out", tmp_path / "out")
    assert run("divergence", *pair, "--floor", "2") == 2
    assert run("divergence", *pair, "--texts", "0") == 2
    assert "at least 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
