from dataclasses import replace

import pytest
import torch

from probes.generate import Decoding
from probes.models import Model, new_llama, new_tokenizer
from probes.records import Refusal, Rollout
from probes.tasks import load_task
from steering.decoding import (
    best_temperatures,
    entropy,
    final_answer,
    match_entropy,
    sharpen,
    sharpening,
    votes,
)
from steering.evaluate import evaluate, judge_all


@pytest.fixture(scope="module")
def task():
    return load_task("chain")


def tiny(task, seed, scale=1.0):
    """A tiny model; its logits are `scale` times wider, as if it were that much colder."""
    tokenizer = new_tokenizer(task.vocabulary())
    net = new_llama(len(tokenizer), width=32, depth=2, heads=4, mlp=32, context=64, seed=seed)
    with torch.no_grad():
        net.get_input_embeddings().weight.mul_(4)
        net.model.norm.weight.mul_(scale)
    return Model(net.requires_grad_(False), tokenizer, f"tiny-{seed}")


@pytest.fixture(scope="module")
def base(task):
    return tiny(task, 0)


@pytest.fixture(scope="module")
def problems(task):
    return task.problems("test", 6, skill="n", part="touched")


def told(problems, texts):
    """Answers with these texts, the same for every problem."""
    return [
        Rollout(p.id, i, (1,), (0.0,), text.replace("RIGHT", p.answer), "stop")
        for p in problems
        for i, text in enumerate(texts)
    ]


def test_entropy_is_minus_the_mean_of_p_log_p_along_the_text(base, task, problems):
    warm = Decoding(1.5)
    judged = evaluate(base, task, problems[:3], samples=1, decoding=warm)
    total, count = 0.0, 0
    for problem, rollout in zip(problems, judged.rollouts, strict=False):
        prompt = base.tokenizer(problem.prompt)["input_ids"]
        for i in range(len(rollout.tokens)):
            p = (
                base.net(torch.tensor([[*prompt, *rollout.tokens[:i]]])).logits[0, -1] / 1.5
            ).softmax(-1)
            total -= float((p * p.log()).sum())
            count += 1
    found = entropy(base, problems, judged.rollouts, warm, batch=2)
    assert found == pytest.approx(total / count, abs=1e-5)


@pytest.mark.parametrize("factor", [2.0, 0.5], ids=["colder", "hotter"])
def test_a_model_that_is_colder_by_a_factor_is_matched_at_that_temperature(
    base, task, problems, factor
):
    other = tiny(task, 0, scale=factor)
    matched = match_entropy(other, base, task, problems[:2], tolerance=0.005, low=0.3, high=3.0)
    assert matched.temperature == pytest.approx(factor, rel=0.05)
    assert matched.entropy == pytest.approx(matched.target, rel=0.005)


def test_a_model_matches_itself_at_temperature_one(base, task, problems):
    matched = match_entropy(base, base, task, problems[:2])
    assert (matched.temperature, matched.entropy) == (1, matched.target)


def test_an_entropy_out_of_reach_is_refused(base, task, problems):
    cold = tiny(task, 0, scale=2.0)
    with pytest.raises(Refusal, match=r"never the .* of tiny-0"):
        match_entropy(cold, base, task, problems, high=1.2)


def test_each_skill_gets_the_temperature_at_which_it_is_right_most(task, problems):
    others = task.problems("test", 4, skill="a")
    both = [*problems, *others]

    def judged(of_n, of_a):
        return judge_all(task, both, told(problems, [of_n]) + told(others, [of_a]))

    grid = {0.5: judged("ans RIGHT", "ans 99"), 1.0: judged("ans 99", "ans 99")}
    assert best_temperatures(grid) == {"n": 0.5, "a": 1.0}


def test_a_vote_is_over_final_answers_and_the_unreadable_have_none(task, problems):
    judged = judge_all(
        task, problems, told(problems, ["ans RIGHT", "a0 =", "ans 99", "a0 =", "ans RIGHT"])
    )
    assert votes(judged).tolist() == [1.0] * 6
    judged = judge_all(task, problems, told(problems, ["ans RIGHT", "ans 99 ; ans 98", "ans 98"]))
    assert votes(judged).tolist() == [0.0] * 6
    assert final_answer("try 3 ; ans 4 - 2 ? 2 ok ;") == "4 - 2"
    assert final_answer("no answer") == ""


def test_all_decodings_are_of_the_same_problems_and_of_their_own_temperature(base, task, problems):
    select = task.problems("select", 3, skill="n")
    tuned = tiny(task, 0, scale=2.0)
    answers = sharpen(base, tuned, task, select, problems, samples=2, temperatures=(0.5, 1.0))
    greedy = evaluate(base, task, problems, samples=1, decoding=Decoding(0))
    assert [r.tokens for r in answers.greedy.rollouts] == [r.tokens for r in greedy.rollouts]
    best = Decoding(answers.temperatures["n"])
    again = evaluate(base, task, problems, samples=2, decoding=best)
    assert [r.tokens for r in answers.best.rollouts] == [r.tokens for r in again.rollouts]
    rows = sharpening(answers)
    named = {(r.measure, r.model, r.setting) for r in rows}
    assert ("right", "tuned - base", "majority vote") in named
    assert ("valid", "base", "greedy") in named
    assert ("valid", "base", "majority vote") not in named
    assert ("valid", "tuned - tuned", "matched entropy") in named
    assert next(r.x for r in rows if r.setting == "matched entropy") > 1.5
    with pytest.raises(Refusal, match="both splits"):
        sharpen(base, tuned, task, problems, problems, samples=1)


def test_planted_rates_and_their_differences_are_reported(task, problems):
    right, wrong = (judge_all(task, problems, told(problems, [t])) for t in ("ans RIGHT", "ans 99"))
    from steering.decoding import Matched, Sharpened

    answers = Sharpened(
        base=wrong,
        tuned=right,
        greedy=wrong,
        best=wrong,
        matched=replace(right),
        temperatures={"n": 0.4},
        matching=Matched(1.7, 1.0, 1.0, ()),
    )
    rows = {(r.measure, r.model, r.setting): r for r in sharpening(answers)}
    assert rows["right", "tuned - base", "greedy"].value == 1
    assert rows["right", "base", "best temperature"].x == 0.4
    assert rows["right", "tuned - tuned", "matched entropy"].value == 0
    assert rows["valid", "tuned", "T = 1"].value == 0  # an answer without steps derives nothing
    assert rows["right", "tuned - base", "greedy"].high == 1
