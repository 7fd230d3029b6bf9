"""The boundary of a pair from end to end: what is sampled, tested again, and compared with what."""

import json
import math
from dataclasses import replace

import pytest
import torch

from probes.boundary.rows import ITSELF, SHUFFLED
from probes.models import new_llama, new_tokenizer, save
from probes.records import Measurement, Refusal, read_table
from probes.tasks import load_task
from steering import cli
from steering.evaluate import load_judged
from steering.reach import AGAIN, Reach, reach

TASK = """
family = "chain"
modulus = 5
seed = 1
common = ["a"]

[functions]
a = 3
z = 3

[skills]
a = [1, 1]
z = [1, 1]

[problems]
depth = [1, 2]
budget = [2, 8]
splits = { tune = 6, select = 4, test = 4 }

[prompt]
question = "Q"
key = "KEY"
drill = "INV"
"""


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reach")
    (folder / "tiny.toml").write_text(TASK)
    tokenizer = new_tokenizer(load_task(folder / "tiny.toml").vocabulary())
    for seed, name in enumerate(("base", "tuned")):
        net = new_llama(len(tokenizer), width=16, depth=1, heads=2, mlp=16, context=48, seed=seed)
        with torch.no_grad():
            net.model.embed_tokens.weight.mul_(8)
        save(net, tokenizer, folder / name)
    pair = str(folder / "base"), str(folder / "tuned")
    return Reach(*pair, task=str(folder / "tiny.toml"), out=folder / "out", problems=4, samples=6)


@pytest.fixture(scope="module", autouse=True)
def _few_fits():
    """An interval of the fit is held elsewhere; here it only has to be there."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("steering.reach.FITS", 10)
        yield


@pytest.fixture(scope="module")
def rows(asked):
    return reach(asked)


def samples(folder):
    return [r for path in sorted(folder.glob("*.parquet")) for r in load_judged(path)[0].rollouts]


def test_every_draw_has_sample_indices_of_its_own(asked, rows):
    drawn = {p.name: samples(p) for p in (asked.out / "samples").iterdir()}
    assert set(drawn) >= {"base", "tuned", "base-again"}
    assert {r.sample for r in drawn["base"]} == set(range(6))
    assert {r.sample for r in drawn["base-again"]} == {AGAIN + i for i in range(6)}
    assert len(drawn["base"]) == len(drawn["base-again"]) == 6 * len(asked.context.test)


def test_every_comparison_stands_beside_its_nulls(rows):
    measures = {r.measure for r in rows}
    for measure in ("crossing valid", "solvable valid", "cover valid", "efficiency gap valid"):
        assert {ITSELF, SHUFFLED, ""} <= {r.setting for r in rows if r.measure == measure}
    assert {"solvable again right", "below limit valid", "never valid"} <= measures
    assert {"pass@k", "valid@k", "accuracy right", "crossing k right"} <= measures
    guessed = {r.measure for r in rows if "guessing" in (r.model, r.setting)}
    assert {"pass@k", "cover right", "accuracy right", "solvable right"} <= guessed
    groups = {(r.skill, r.part) for r in rows}
    assert ("", "") in groups
    assert len(groups) > 2


def test_a_finished_run_samples_nothing_again_and_gives_the_same(asked, rows):
    files = {p: p.stat().st_mtime_ns for p in (asked.out / "samples").rglob("*.parquet")}
    again = reach(asked)
    assert list(map(str, again)) == list(map(str, rows))
    assert {p: p.stat().st_mtime_ns for p in (asked.out / "samples").rglob("*.parquet")} == files


def test_a_model_against_itself_has_no_difference_in_truth(asked, tmp_path):
    rows = reach(replace(asked, tuned=asked.base, out=tmp_path / "null"))
    drawn = {p.name: samples(p) for p in (tmp_path / "null" / "samples").iterdir()}
    indices = {name: {r.sample for r in found} for name, found in drawn.items()}
    assert not indices["base"] & indices["tuned"]
    again = [found for name, found in indices.items() if name.startswith("tuned-again")]
    assert again
    assert not indices["base-again"] & set().union(*again)
    (change,) = [
        r
        for r in rows
        if (r.measure, r.model, r.x, r.skill, r.setting) == ("pass@k", "tuned - base", 1.0, "", "")
    ]
    assert change.low <= 0 <= change.high


def test_another_choice_of_what_is_tested_again_needs_no_other_folder(asked, rows):
    fewer = reach(replace(asked, others=0))
    kept = {(r.measure, r.model, r.skill, r.part, r.setting, r.x): r.value for r in fewer}
    for r in rows:
        if not r.measure.startswith("solvable again"):
            key = (r.measure, r.model, r.skill, r.part, r.setting, r.x)
            assert kept[key] == pytest.approx(r.value, nan_ok=True)


def test_a_negative_number_of_problems_is_refused(asked):
    with pytest.raises(Refusal, match="others = -1"):
        replace(asked, others=-1)


def test_other_settings_do_not_mix_with_the_samples_that_are_there(asked, rows):
    assert rows
    with pytest.raises(Refusal, match="shard of another run"):
        reach(replace(asked, seed=1))
    for wrong in ({"samples": 1}, {"k": 7}, {"samples": AGAIN}):
        with pytest.raises(Refusal, match="a k of at most as many"):
            replace(asked, **wrong)


def test_the_verb_writes_its_tables_and_figures_and_says_where(asked, rows, tmp_path, capsys):
    args = ["boundary", "--base", asked.base, "--tuned", asked.tuned, "--task", asked.task]
    args += ["--problems", "4", "--samples", "6", "--out", str(asked.out)]
    with pytest.raises(SystemExit) as left:
        cli.main(args)
    assert left.value.code == 0
    shown = capsys.readouterr()
    assert shown.out == f"{asked.out}\n"
    assert "against itself" in shown.err
    kept = read_table(asked.out / "boundary.parquet", Measurement)[0]
    assert list(map(str, kept)) == list(map(str, rows))
    content = json.loads((asked.out / "boundary.json").read_text())
    assert len(content["rows"]) == len(rows)
    finite = [r["value"] for r in content["rows"] if r["value"] is not None]
    assert all(map(math.isfinite, finite))
    figures = {p.name for p in (asked.out / "figures").iterdir()}
    assert figures >= {"pass_at_k.png", "solvable.png", "cover.png", "accuracy.png"}
