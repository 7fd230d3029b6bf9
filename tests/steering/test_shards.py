"""Answers in shards: killed anywhere, they end as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from probes.boundary import counts
from probes.models import Model, load, new_llama, new_tokenizer, save
from probes.records import Grade, Refusal
from probes.tasks import load_task
from probes.verify import Graded
from steering import shards
from steering.evaluate import evaluate, load_judged, save_judged
from steering.shards import composition, sample_shards

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def task():
    return load_task("chain")


@pytest.fixture(scope="module")
def model(task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "model"
    tokenizer = new_tokenizer(task.vocabulary())
    net = new_llama(len(tokenizer), width=16, depth=2, heads=2, mlp=16, context=64, seed=0)
    with torch.no_grad():
        net.model.embed_tokens.weight.mul_(8)
    save(net, tokenizer, folder)
    return load(folder)


@pytest.fixture(scope="module")
def problems(task):
    return task.problems("test", 5, skill="a")


@pytest.fixture(scope="module")
def whole(model, task, problems, tmp_path_factory):
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "s"
    return sample_shards(model, task, problems, folder, samples=3, seed=4, size=6)


def content(found):
    return [path.read_bytes() for path in found.paths]


@pytest.mark.parametrize("numbers", [(5, 3, 6), (2, 10, 4), (1, 1, 100), (4, 4, 4), (3, 2, 1)])
def test_every_answer_is_in_exactly_one_shard_and_no_shard_is_too_large(numbers):
    problems, samples, size = numbers
    blocks = list(composition(problems, samples, size))
    answers = [(p, s) for asked, drawn in blocks for p in asked for s in drawn]
    assert answers == [(p, s) for p in range(problems) for s in range(samples)]
    assert max(len(asked) * len(drawn) for asked, drawn in blocks) <= size


def test_shards_hold_the_answers_that_one_batch_gives(whole, model, task, problems, tmp_path):
    at_once = evaluate(model, task, problems, samples=3, seed=4)
    whole.merge(tmp_path / "all.parquet", seed=4, note="merged")
    merged, about = load_judged(tmp_path / "all.parquet")
    assert about["note"] == "merged"
    assert merged.problems == at_once.problems
    assert merged.graded == at_once.graded
    assert [r.tokens for r in merged.rollouts] == [r.tokens for r in at_once.rollouts]
    assert whole.counts() == at_once.counts()
    assert len(whole.paths) == 3


def test_a_problem_may_fill_several_shards(whole, model, task, problems, tmp_path):
    split = sample_shards(model, task, problems, tmp_path / "s", samples=3, seed=4, size=2)
    assert len(split.paths) == 10
    for found, name in ((split, "split"), (whole, "whole")):
        found.merge(tmp_path / f"{name}.parquet")
    one, other = (load_judged(tmp_path / f"{name}.parquet")[0] for name in ("split", "whole"))
    assert [(r.sample, r.tokens) for r in one.rollouts] == [
        (r.sample, r.tokens) for r in other.rollouts
    ]


@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_interrupted_run_ends_bit_for_bit_as_one_that_was_not(
    whole, model, task, problems, tmp_path, monkeypatch, at
):
    args = (model, task, problems, tmp_path / "s")
    how = {"samples": 3, "seed": 4, "size": 6}
    left = [at]

    def interrupted(*given, **more):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return evaluate(*given, **more)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shards, "evaluate", interrupted)
        sample_shards(*args, **how)
    assert len(list((tmp_path / "s").glob("*.parquet"))) == at - 1
    monkeypatch.setattr(shards, "evaluate", interrupted)
    left[0], seen = 10, []
    assert content(sample_shards(*args, **how, progress=seen.append)) == content(whole)
    assert 10 - left[0] == 3 - (at - 1), "finished shards were done again"
    assert sum(seen) == 15


def test_a_killed_process_loses_the_shard_in_flight_at_most(model, whole, problems, tmp_path):
    """SIGKILL can't be caught: what counts is what lies on the disk."""
    program = (
        "import sys\nfrom pathlib import Path\nimport steering.shards as s\n"
        "from probes.models import load\nfrom probes.tasks import load_task\n"
        "task = load_task('chain')\n"
        "s.sample_shards(load(sys.argv[1]), task, task.problems('test', 5, skill='a'),\n"
        "    Path(sys.argv[2]), samples=3, seed=4, size=int(sys.argv[3]), batch=1)\n"
    )
    folder = tmp_path / "s"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = [sys.executable, "-c", program, model.name, str(folder), "1"]
    with subprocess.Popen(run, env=environment) as process:
        while not list(folder.glob("*.parquet")) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    assert 1 <= len(kept) <= 15
    resumed = sample_shards(
        model, load_task("chain"), problems, folder, samples=3, seed=4, size=1, batch=1
    )
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    fresh = tmp_path / "t"
    again = sample_shards(
        model, load_task("chain"), problems, fresh, samples=3, seed=4, size=1, batch=1
    )
    assert content(resumed) == content(again)
    assert resumed.counts() == whole.counts()


def test_a_damaged_shard_is_made_again(whole, model, task, problems, tmp_path):
    args = (model, task, problems, tmp_path / "s")
    found = sample_shards(*args, samples=3, seed=4, size=6)
    found.paths[1].write_bytes(found.paths[1].read_bytes()[:99])
    assert content(sample_shards(*args, samples=3, seed=4, size=6)) == content(whole)


def test_counting_shards_is_counting_their_answers(tmp_path, model, task, problems, whole):
    """Grades of every kind; the tiny model itself writes little that is right."""
    kinds = [
        Graded(Grade.RIGHT, True),
        Graded(Grade.RIGHT, False),
        Graded(Grade.WRONG, True),
        Graded(Grade.UNPARSED, False),
        Graded(Grade.ERROR, False, "broke"),
    ]
    paths, names, verdicts = [], [], []
    for i, path in enumerate(whole.paths):
        judged, _ = load_judged(path)
        graded = tuple(kinds[(i + j * j) % 5] for j in range(len(judged.graded)))
        paths.append(tmp_path / path.name)
        save_judged(paths[-1], type(judged)(judged.problems, judged.rollouts, graded))
        names += [r.problem for r in judged.rollouts]
        verdicts += graded
    assert shards.Shards(tuple(paths), tuple(problems)).counts() == counts(names, verdicts)


def test_shards_of_another_run_are_neither_mixed_in_nor_overwritten(
    model, task, problems, tmp_path
):
    args = (model, task, problems, tmp_path / "s")
    sample_shards(*args, samples=1, size=6)
    before = content(sample_shards(*args, samples=1, size=6))
    for change in ({"seed": 1}, {"first_sample": 1}, {"samples": 2}, {"size": 7}, {"size": 2}):
        with pytest.raises(Refusal, match="shard of another run"):
            sample_shards(*args, **({"samples": 1, "size": 6} | change))
    assert content(sample_shards(*args, samples=1, size=6)) == before
    unsaved = Model(model.net, model.tokenizer, "unsaved")
    with pytest.raises(Refusal, match="in memory only"):
        sample_shards(unsaved, *args[1:], samples=1)


def test_shards_in_another_precision_are_those_of_another_run(task, model, problems, tmp_path):
    sample_shards(model, task, problems, tmp_path / "s", samples=1)
    narrow = load(Path(model.name), dtype=torch.bfloat16)
    assert narrow.digest == model.digest
    with pytest.raises(Refusal, match="shard of another run"):
        sample_shards(narrow, task, problems, tmp_path / "s", samples=1)


def test_removing_shards_leaves_what_else_is_in_the_folder(model, task, problems, tmp_path):
    found = sample_shards(model, task, problems, tmp_path / "s", samples=1, size=6)
    (tmp_path / "s" / "note").write_text("mine")
    found.remove()
    assert [p.name for p in (tmp_path / "s").iterdir()] == ["note"]
