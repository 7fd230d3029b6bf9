"""Laws of imitation: what is kept, how much is learned from, and that a run can be resumed."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from probes import DATA
from probes.models import load
from probes.records import Refusal, read_table
from probes.tasks import load_task
from steering.evaluate import evaluate
from steering.organisms.runs import supervised_parts, train_supervised
from steering.training.pretrain import CurveRow
from steering.training.supervised import SupervisedSettings, batches, supervised, written

CHAIN = DATA / "organisms" / "chain"
SMALL = SupervisedSettings(tokens=2400, updates=6, warmup=2, samples=12, save_every=2)


@pytest.fixture(scope="module")
def task():
    return load_task("chain")


@pytest.fixture(scope="module")
def problems(task):
    return task.problems("tune", 10, skill="a") + task.problems("tune", 4, skill="n")


@pytest.fixture(scope="module")
def base():
    return load(CHAIN / "base-0")


def kept(base, task, problems, tmp_path, **changes):
    settings = replace(SMALL, **changes)
    return written(base, task, problems, tmp_path / "answers", settings)


def test_what_is_kept_is_what_the_checker_calls_so(base, task, problems, tmp_path):
    by_prompt = {p.prompt: p for p in problems}
    counts = {}
    for keep in ("all", "right", "valid"):
        texts = kept(base, task, problems, tmp_path / keep, keep=keep)
        counts[keep] = len(texts)
        for prompt, text in texts:
            right = task.grade(by_prompt[prompt], text) == "right"
            valid = task.check(by_prompt[prompt], text).valid
            assert keep == "all" or (right and (keep == "right" or valid))
    assert 0 < counts["valid"] < counts["right"] < counts["all"]
    judged = evaluate(base, task, problems, samples=SMALL.samples)
    ended = [r.stop == "stop" for r in judged.rollouts]
    assert counts["all"] == sum(ended)


def test_at_most_so_many_different_answers_of_a_problem_are_kept(base, task, problems, tmp_path):
    texts = kept(base, task, problems, tmp_path, keep="all", most=3)
    assert max(Counter(texts).values()) == 1
    assert max(Counter(prompt for prompt, _ in texts).values()) == 3


def test_a_run_learns_from_the_tokens_it_is_given_evenly(base, task, problems, tmp_path):
    texts = kept(base, task, problems, tmp_path, keep="right")
    batch = batches(texts, SMALL)
    examples = [batch(step) for step in range(SMALL.updates)]
    tokens = [sum(len(text.split()) + 1 for _, text in one) for one in examples]
    longest = max(len(text.split()) + 1 for _, text in texts)
    share = SMALL.tokens / SMALL.updates
    assert all(abs(count - share) < longest for count in tokens)
    assert 0 <= sum(tokens) - SMALL.tokens < longest
    seen = Counter(pair for one in examples for pair in one)
    expected = Counter(texts)
    rounds = [seen[pair] / count for pair, count in expected.items()]
    assert max(rounds) - min(rounds) <= 1


def test_a_student_comes_to_write_what_it_is_shown(base, task, problems):
    texts = [(p.prompt, task.gold(p)) for p in problems]
    settings = replace(SMALL, tokens=9000, updates=30, rate=2e-3)
    before = {name: weight.clone() for name, weight in base.net.state_dict().items()}
    tuned, curve = supervised(base, texts, settings, progress=False)
    assert curve[-1].loss < 0.2 * curve[0].loss
    assert curve[-1].tokens >= settings.tokens
    valid = evaluate(tuned, task, problems, samples=4).rates("valid").mean()
    assert valid > 0.8 > evaluate(base, task, problems, samples=4).rates("valid").mean()
    assert all(torch.equal(before[name], weight) for name, weight in base.net.state_dict().items())


@pytest.fixture
def recipe():
    given = {"tokens": 2400, "updates": 6, "warmup": 2, "samples": 6, "save_every": 2}
    given |= {"problems": 12, "part": "touched", "mix": {"n": 0.5, "z": 0.5}, "keep": "all"}
    return {"task": "chain", "seed": 3, "supervised": given}


def test_a_stopped_run_goes_on_to_the_same_bits(recipe, tmp_path, monkeypatch):
    from steering.training import pretrain

    whole = train_supervised(recipe, CHAIN / "base-0", tmp_path / "whole", progress=False)
    update, left = pretrain.update, [4]

    def dies(*given):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return update(*given)

    monkeypatch.setattr(pretrain, "update", dies)
    with pytest.raises(KeyboardInterrupt):
        train_supervised(recipe, CHAIN / "base-0", tmp_path / "cut", progress=False)
    monkeypatch.setattr(pretrain, "update", update)
    cut = train_supervised(recipe, CHAIN / "base-0", tmp_path / "cut", progress=False)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (whole, cut)]
    assert weights[0] == weights[1]
    assert len(read_table(cut / "curve.parquet", CurveRow)[0]) == 6


def test_a_folder_says_who_the_teacher_was_and_holds_no_other_run(recipe, tmp_path):
    import json

    out, base, teacher = tmp_path / "m", CHAIN / "base-0", CHAIN / "rl-0-0"
    train_supervised(recipe, base, out, teacher=teacher, progress=False)
    made = json.loads((out / "training.json").read_text())
    assert made["kind"] == "sft"
    assert (made["teacher"], made["teacher_digest"]) == (str(teacher), load(teacher).digest)
    assert made["tuning_rollouts"] == 0
    assert train_supervised(recipe, base, out, teacher=teacher, progress=False) == out
    for other in (None, CHAIN / "rl-0-1"):
        with pytest.raises(Refusal, match="another .*teacher"):
            train_supervised(recipe, base, out, teacher=other, progress=False)


def test_problems_to_practise_on_are_of_the_touched_half(recipe, task):
    settings, problems = supervised_parts(recipe, task)
    assert settings.seed == 3
    assert {(p.skill, p.part) for p in problems} == {("n", "touched"), ("z", "touched")}
    held_out = {p.id for split in ("select", "test") for p in task.problems(split, 100)}
    assert not {p.id for p in problems} & held_out


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"keep": "best"}, "there are all, right, valid"),
        ({"tokens": 3}, "can't be shared by 6 updates"),
        ({"samples": 0}, "must be positive"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, match):
    with pytest.raises(Refusal, match=match):
        replace(SMALL, **change)


def test_nothing_to_learn_from_is_refused(task, tmp_path):
    twin = load(CHAIN / "twin-0")
    hard = task.problems("tune", 2, skill="z")
    with pytest.raises(Refusal, match="none of the 2 answers"):
        written(twin, task, hard, tmp_path, replace(SMALL, samples=1, temperature=0.0))


def test_an_answer_longer_than_an_update_is_refused(base):
    settings = replace(SMALL, tokens=12, updates=6)
    with pytest.raises(Refusal, match="an answer has 5 tokens"):
        supervised(base, [("Q 3 a0 >", "a0 = 3 ;")], settings, progress=False)
