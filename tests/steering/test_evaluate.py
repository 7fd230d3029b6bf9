import pytest
import torch

from probes.boundary import counts
from probes.generate import Decoding, Request, generate
from probes.models import Model, encode, new_llama, new_tokenizer
from probes.records import Grade, Refusal, Rollout
from probes.tasks import load_task
from probes.verify import Graded
from steering.evaluate import Judged, evaluate, groups, judge_all, load_judged, save_judged
from steering.interventions import Intervention, Steer, Steered


@pytest.fixture(scope="module")
def task():
    return load_task("chain")


@pytest.fixture(scope="module")
def model(task):
    tokenizer = new_tokenizer(task.vocabulary())
    net = new_llama(len(tokenizer), width=32, depth=2, heads=4, mlp=32, context=64, seed=0)
    return Model(net.requires_grad_(False), tokenizer, "tiny")


@pytest.fixture(scope="module")
def problems(task):
    return [p for s in ("a", "n") for p in task.problems("test", 3, skill=s)]


@pytest.fixture(scope="module")
def judged(model, task, problems):
    return evaluate(model, task, problems, samples=2, seed=5)


def test_its_answers_are_those_of_generate_and_its_verdicts_those_of_the_task(
    model, task, problems, judged
):
    stop = Decoding(stop=(model.tokenizer.eos_token_id,))
    for rollout, graded in zip(judged.rollouts, judged.graded, strict=True):
        problem = next(p for p in problems if p.id == rollout.problem)
        prompt = encode(model, problem.prompt)
        request = Request(problem.id, rollout.sample, prompt, task.budget(problem))
        assert generate(model, [request], stop, seed=5)[0].tokens == rollout.tokens
        assert graded.grade is task.grade(problem, rollout.text)
        assert graded.valid is task.check(problem, rollout.text).valid
    assert len(judged.rollouts) == 12


def test_samples_begin_where_they_are_told_to(model, task, problems, judged):
    later = evaluate(model, task, problems, samples=1, seed=5, first_sample=1)
    seconds = [r for r in judged.rollouts if r.sample == 1]
    assert [r.tokens for r in later.rollouts] == [r.tokens for r in seconds]
    with pytest.raises(Refusal, match="count twice"):
        judged + later
    assert len((judged + evaluate(model, task, problems, samples=1, first_sample=2)).rollouts) == 18


def test_several_settings_in_one_batch_are_each_alone(model, task, problems, judged):
    push = Intervention("add", "blocks.0.hook_resid_pre", torch.ones(32), 3.0)
    steer = Steer(model, {"push": [push]})
    both = evaluate(Steered(steer), task, problems, samples=2, seed=5, settings=(None, "push"))
    assert steer.check()["push"] > 0
    plain, pushed = both.where(setting=None), both.where(setting="push")
    assert [r.tokens for r in plain.rollouts] == [r.tokens for r in judged.rollouts]
    alone = evaluate(Steered(steer), task, problems, samples=2, seed=5, settings=("push",))
    assert [r.tokens for r in pushed.rollouts] == [r.tokens for r in alone.rollouts]
    assert [r.tokens for r in pushed.rollouts] != [r.tokens for r in plain.rollouts]
    with pytest.raises(Refusal, match="choose one setting"):
        both.counts()


def planted(task, problems):
    """Answers of every kind, two a problem: sound and lucky, wrong and unreadable, ..."""
    gold = [task.gold(p) for p in problems]
    texts = [(g, f"ans {p.answer}") for g, p in zip(gold, problems, strict=True)]
    texts[1] = ("ans 99", "a0 =")
    rollouts = [
        Rollout(p.id, i, (1,), (0.0,), text, "stop")
        for p, pair in zip(problems, texts, strict=True)
        for i, text in enumerate(pair)
    ]
    return judge_all(task, problems, rollouts)


def test_rates_are_shares_of_each_problems_answers(task, problems):
    judged = planted(task, problems)
    assert judged.rates("right").tolist() == [1, 0, 1, 1, 1, 1]
    assert judged.rates("valid").tolist() == [0.5, 0, 0.5, 0.5, 0.5, 0.5]
    assert judged.rates("unparsed").tolist() == [0, 0.5, 0, 0, 0, 0]
    assert judged.rates("parsed").tolist() == [1, 0.5, 1, 1, 1, 1]
    assert judged.rates("right", skill="a").tolist() == [1, 0, 1]
    assert judged.counts() == counts([r.problem for r in judged.rollouts], judged.graded)


def test_rates_keep_the_order_of_the_problems_and_not_of_the_answers(task, problems):
    judged = planted(task, problems)
    turned = Judged(judged.problems, judged.rollouts[::-1], judged.graded[::-1])
    assert turned.rates("valid").tolist() == judged.rates("valid").tolist()


def test_an_answer_that_was_not_judged_is_in_no_rate(task, problems):
    judged = planted(task, problems)
    failed = (Graded(Grade.ERROR, False, "it fell over"), *judged.graded[1:])
    assert Judged(judged.problems, judged.rollouts, failed).rates("valid")[0] == 0
    assert Judged(judged.problems, judged.rollouts, failed).rates("right")[0] == 1


def test_a_selection_without_answers_says_what_there_is(judged):
    with pytest.raises(Refusal, match=r"skill 'k'.*\('a', ''\)"):
        judged.where(skill="k")
    assert groups(judged.problems)[0] == ("a", "")


def test_a_saved_record_is_read_back_whole(judged, tmp_path):
    save_judged(tmp_path / "answers.parquet", judged, seed=5)
    read, about = load_judged(tmp_path / "answers.parquet")
    assert about["seed"] == 5
    assert read.problems == judged.problems
    assert read.graded == judged.graded
    for one, other in zip(read.rollouts, judged.rollouts, strict=True):
        assert one.tokens == other.tokens
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-6)


def test_unchecked_traces_stay_unknown_through_a_file(judged, tmp_path):
    unchecked = tuple(Graded(g.grade, None) for g in judged.graded)
    told = Judged(judged.problems, judged.rollouts, unchecked)
    with pytest.raises(Refusal, match="checks no traces"):
        told.rates("valid")
    assert told.rates("right").tolist() == judged.rates("right").tolist()
    save_judged(tmp_path / "answers.parquet", told)
    assert load_judged(tmp_path / "answers.parquet")[0].graded == unchecked


def test_a_problem_twice_is_refused(model, task, problems):
    with pytest.raises(Refusal, match="each problem once"):
        evaluate(model, task, [*problems, problems[0]], samples=1)
