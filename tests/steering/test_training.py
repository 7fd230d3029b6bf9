import json
import math
import os
import signal
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from probes.generate import Request
from probes.models import Model, new_llama, new_tokenizer
from probes.records import Grade, Problem, Refusal, Rollout, Trace, read_table
from probes.verify import Graded, GraderFailure
from steering.objectives import grpo_advantages
from steering.training import training
from steering.training.checkpoints import weights_digest
from steering.training.pretrain import (
    CurveRow,
    PretrainSettings,
    chunks,
    completion_loss,
    learning_rate,
    pretrain,
    word_encoder,
)
from steering.training.rewards import Coin, form, named_reward, right
from steering.training.rlvr import RlvrRow, RlvrSettings, rlvr
from steering.training.rlvr.learning import Answer, compared, gradient, learn, parts
from steering.training.rlvr.loop import draw

WORDS = [*"abcdefgh", ">", "END"]


class OneWord:
    """Right is the answer whose first word is the problem's; the decision is whether it is "a"."""

    name, settings, skills = "one word", {"family": "chain"}, ("",)
    decision_kinds = {"first": {"a": ("a",), "not": tuple("bcdefgh")}}
    strategies = ("first",)
    checks = True

    def vocabulary(self):
        return WORDS

    def problems(self, split, count, *, skill=None, part=None, difficulty=None):
        return [
            Problem("one word", f"{'abcdefgh'[i]} >", "c", "", "", 1, "{}") for i in range(count)
        ]

    def gold(self, problem):
        return problem.answer

    def spans(self, problem, response):
        return []

    def guess_rate(self, problem):
        return 1 / 8

    def grade(self, problem, response):
        words = response.split()
        if problem.answer == "fails":
            raise ArithmeticError("a broken grader")
        return (
            Grade.UNPARSED
            if not words
            else Grade.RIGHT
            if words[0] == problem.answer
            else Grade.WRONG
        )

    def check(self, problem, response):
        return Trace((), valid=True)

    def next_decision(self, problem, words):
        return None if words else "first"

    def budget(self, problem):
        return 3


def new_model(seed=0):
    tokenizer = new_tokenizer(WORDS)
    net = new_llama(len(tokenizer), width=16, depth=2, heads=2, mlp=32, context=24, seed=seed)
    return Model(net, tokenizer, "tiny")


def copying(step):
    """Copy one to four letters; a pure function of the step."""
    random = np.random.default_rng([7, step])
    words = [" ".join(random.choice(list("abcdefgh"), random.integers(1, 5))) for _ in range(12)]
    return [(f"{w} >", w) for w in words]


def bits(net):
    return {name: weight.detach().clone() for name, weight in net.named_parameters()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def timeless(curve):
    return [replace(row, **dict.fromkeys(TIMES[type(row)], 0.0)) for row in curve]


TIMES = {CurveRow: ("seconds",), RlvrRow: ("sampling", "learning")}
LEARN = PretrainSettings(steps=6, warmup=2, rows=5, save_every=2)
PRACTISE = RlvrSettings(updates=4, prompts=3, samples=4, rate=3e-3, save_every=1)

# ---------------------------------------------------------------------- pretraining


def test_the_loss_is_that_of_the_completion_alone_and_padding_changes_nothing():
    model = new_model()
    encode = word_encoder(model.tokenizer)
    pairs = [(encode(p), encode(c, end=True)) for p, c in copying(0)]
    by_hand = 0.0
    for prompt, completion in pairs:
        logits = model.net(torch.tensor([[*prompt, *completion]])).logits.detach()
        logprobs = logits.log_softmax(-1)[0]
        at = range(len(prompt) - 1, len(prompt) + len(completion) - 1)
        by_hand -= sum(logprobs[i, t].item() for i, t in zip(at, completion, strict=True))
    found = sum(completion_loss(model.net, c.ids, c.learned).item() for c in chunks(pairs, 5))
    assert found == pytest.approx(by_hand, rel=1e-6)


def test_the_curve_tells_the_loss_the_rate_and_the_tokens_of_each_step():
    curve = pretrain(new_model().net, new_model().tokenizer, copying, LEARN, progress=False)
    lengths = [sum(len(c.split()) + 1 for _, c in copying(s)) for s in range(6)]
    assert [row.tokens for row in curve] == np.cumsum(lengths).tolist()
    assert [row.step for row in curve] == [1, 2, 3, 4, 5, 6]
    assert [row.rate for row in curve] == [learning_rate(s, LEARN) for s in range(6)]
    assert curve[0].loss == pytest.approx(math.log(len(WORDS) + 2), abs=0.1)  # random weights


def test_a_tiny_model_learns_to_copy():
    model = new_model()
    settings = PretrainSettings(steps=80, rate=2e-2, warmup=5)
    curve = pretrain(model.net, model.tokenizer, copying, settings, progress=False)
    assert curve[-1].loss < 0.6 * curve[0].loss
    assert not model.net.training
    assert not any(w.requires_grad for w in model.net.parameters())


def test_the_end_word_is_learned_whether_or_not_the_completion_has_it():
    encode = word_encoder(new_model().tokenizer)
    assert encode("a b", end=True) == encode("a b END", end=True) == encode("a b END")
    assert encode("a b") == encode("a b END")[:2]


def test_pretraining_resumed_is_pretraining_uninterrupted_bit_for_bit(tmp_path):
    whole, cut = new_model(), new_model()
    full = pretrain(whole.net, whole.tokenizer, copying, LEARN, tmp_path / "whole", progress=False)

    def breaks(step):
        if step == 5:
            raise KeyboardInterrupt
        return copying(step)

    with pytest.raises(KeyboardInterrupt):
        pretrain(cut.net, cut.tokenizer, breaks, LEARN, tmp_path / "cut", progress=False)
    assert [p.name for p in (tmp_path / "cut").glob("check*")] == ["checkpoint-000004"]
    asked = []
    fresh = new_model()
    resumed = pretrain(
        fresh.net,
        fresh.tokenizer,
        lambda step: asked.append(step) or copying(step),
        LEARN,
        tmp_path / "cut",
        progress=False,
    )
    assert asked == [0, 4, 5]  # the first only identifies the data
    assert same(bits(whole.net), bits(fresh.net))
    assert timeless(resumed) == timeless(full)
    assert timeless(read_table(tmp_path / "cut/curve.parquet", CurveRow)[0]) == timeless(full)


def test_a_finished_run_is_only_read_again(tmp_path):
    first, second = new_model(), new_model()
    pretrain(first.net, first.tokenizer, copying, LEARN, tmp_path, progress=False)
    pretrain(second.net, second.tokenizer, copying, LEARN, tmp_path, progress=False)
    assert same(bits(first.net), bits(second.net))


def test_a_folder_with_another_run_is_refused_by_what_differs(tmp_path):
    model = new_model()
    pretrain(model.net, model.tokenizer, copying, LEARN, tmp_path, progress=False)
    again, other = new_model(), new_model(seed=1)
    for net, data, settings, named in (
        (again.net, copying, replace(LEARN, rate=1e-4), "settings"),
        (again.net, lambda step: copying(step + 1), LEARN, "data"),
        (other.net, copying, LEARN, "start"),
    ):
        with pytest.raises(Refusal, match=f"other values of {named} "):
            pretrain(net, model.tokenizer, data, settings, tmp_path, progress=False)
    rarer = replace(LEARN, save_every=5)  # does not change the result
    pretrain(again.net, again.tokenizer, copying, rarer, tmp_path, progress=False)


@pytest.mark.parametrize("name", ["weights.safetensors", "moments.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_refused(tmp_path, name):
    model = new_model()
    pretrain(model.net, model.tokenizer, copying, LEARN, tmp_path, progress=False)
    file = tmp_path / "checkpoint-000006" / name
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(Refusal, match="damaged"):
        pretrain(new_model().net, model.tokenizer, copying, LEARN, tmp_path, progress=False)


def test_unknown_words_and_half_precision_are_refused():
    model = new_model()
    for data, match in (
        (lambda step: [("a z >", "a")], "'z' of 'a z >' is not in the vocabulary"),
        (lambda step: [("", "a")], "empty prompt"),
    ):
        with pytest.raises(Refusal, match=match):
            pretrain(model.net, model.tokenizer, data, LEARN, progress=False)
    with pytest.raises(Refusal, match=r"float16: load the model in torch\.float32"):
        pretrain(model.net.half(), model.tokenizer, copying, LEARN, progress=False)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(tmp_path):
    model = new_model()
    wild = replace(LEARN, rate=1e30, warmup=1, save_every=1, decay=1e8)
    with pytest.raises(FloatingPointError, match="lower rate"):
        pretrain(model.net, model.tokenizer, copying, wild, tmp_path, progress=False)
    assert list(tmp_path.glob("checkpoint-*"))


# ---------------------------------------------------------------------- reinforcement


def test_a_reward_that_only_one_word_satisfies_is_learned():
    model, task = new_model(), OneWord()
    before = bits(model.net)
    settings = RlvrSettings(updates=25, prompts=4, samples=8, rate=1e-2)
    tuned, curve = rlvr(model, task, task.problems("tune", 6), right, settings, progress=False)
    assert curve[0].reward < 0.3
    assert curve[-1].reward > 0.9
    assert curve[-1].entropy < curve[0].entropy
    assert curve[-1].flat > curve[0].flat
    assert same(before, bits(model.net))  # a copy learned
    assert not any(w.requires_grad for w in tuned.net.parameters())


@pytest.mark.parametrize("kl", [0.0, 0.1])
def test_reinforcement_resumed_is_reinforcement_uninterrupted_bit_for_bit(tmp_path, kl):
    model, task = new_model(), OneWord()
    settings = replace(PRACTISE, minibatches=3, epochs=2, kl=kl)
    arguments = (model, task, task.problems("tune", 5), right)
    whole, full = rlvr(*arguments, settings, progress=False)
    rlvr(*arguments, replace(settings, updates=2), tmp_path, progress=False)
    resumed, curve = rlvr(*arguments, settings, tmp_path, progress=False)
    assert same(bits(whole.net), bits(resumed.net))
    assert timeless(curve) == timeless(full)
    assert not same(bits(whole.net), bits(model.net))
    with pytest.raises(Refusal, match="holds 4 updates already"):
        rlvr(*arguments, replace(settings, updates=3), tmp_path, progress=False)
    with pytest.raises(Refusal, match="other values of reward"):
        rlvr(*arguments[:3], form, settings, tmp_path, progress=False)


def test_a_run_that_was_killed_goes_on_from_its_last_update(tmp_path):
    """The child is a fork of this process: a fresh one would spend ten seconds on its imports."""
    model, task = new_model(), OneWord()
    paid = []

    def reward(problem, rollout, graded):
        paid.append(1)
        if len(paid) == 2 * 12 + 6:  # in the middle of the third update
            os.kill(os.getpid(), signal.SIGKILL)
        return right(problem, rollout, graded)

    reward.__qualname__ = right.__qualname__
    arguments = (model, task, task.problems("tune", 5))
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        try:
            rlvr(*arguments, reward, PRACTISE, tmp_path, progress=False)
        finally:
            os._exit(1)  # it should have been killed; never return into the tests
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert [p.name for p in tmp_path.glob("check*")] == ["checkpoint-000002"]
    (tmp_path / ".checkpoint-left").mkdir()  # what a kill within `save` would leave
    resumed, curve = rlvr(*arguments, right, PRACTISE, tmp_path, progress=False)
    whole, full = rlvr(*arguments, right, PRACTISE, progress=False)
    assert same(bits(whole.net), bits(resumed.net))
    assert timeless(curve) == timeless(full)
    assert not (tmp_path / ".checkpoint-left").exists()


def test_on_policy_nothing_is_clipped_and_off_policy_something_is():
    model, task = new_model(), OneWord()
    settings = replace(PRACTISE, rate=3e-2)
    _, once = rlvr(model, task, task.problems("tune", 5), right, settings, progress=False)
    assert all(row.low == row.high == 0 for row in once)
    assert all(row.mismatch < 1e-4 for row in once)
    _, often = rlvr(
        model, task, task.problems("tune", 5), right, replace(settings, epochs=6), progress=False
    )
    assert sum(row.low for row in often) > 0 < sum(row.high for row in often)
    free = replace(settings, epochs=6, low=math.inf, high=math.inf)
    _, unbound = rlvr(model, task, task.problems("tune", 5), right, free, progress=False)
    assert all(row.low == row.high == 0 for row in unbound)


def even(problem, rollout, graded):
    return float(rollout.tokens[0] % 2 == 0)


def test_a_penalty_keeps_the_model_near_its_start():
    model, task = new_model(), OneWord()
    settings = replace(PRACTISE, updates=12, rate=1e-2)
    arguments = (model, task, task.problems("tune", 5), even)
    _, tied = rlvr(*arguments, replace(settings, kl=5.0), progress=False)
    _, loose = rlvr(*arguments, replace(settings, kl=1e-9), progress=False)
    assert tied[0].kl == pytest.approx(0.0, abs=1e-9)  # the model is its own reference
    assert tied[-1].kl < 0.5 * loose[-1].kl
    _, without = rlvr(*arguments, replace(settings, updates=1), progress=False)
    assert without[0].kl is None


def random_answers(groups=3, size=4, seed=0):
    """Rollouts of random lengths with the log-probabilities of the tiny model."""
    model, random = new_model(), np.random.default_rng(seed)
    answers = []
    for i in range(groups * size):
        prompt = tuple(random.integers(2, 10, random.integers(1, 4)).tolist())
        tokens = tuple(random.integers(2, 10, random.integers(1, 6)).tolist())
        logits = model.net(torch.tensor([prompt + tokens])).logits.detach().log_softmax(-1)[0]
        at = range(len(prompt) - 1, len(prompt) + len(tokens) - 1)
        logprobs = tuple(float(logits[a, t]) for a, t in zip(at, tokens, strict=True))
        answers.append(Answer(prompt, tokens, logprobs, float(random.normal()), i // size))
    return model, answers


def gradient_of(model, answers, settings):
    with training(model.net):
        model.net.eval()
        gradient(model.net, model.net, answers, settings)
        return torch.cat([w.grad.flatten() for w in model.net.parameters()])


@pytest.mark.parametrize("mean", ["token-mean", "sequence-mean"])
def test_the_gradient_is_the_policy_gradient_written_out_answer_by_answer(mean):
    model, answers = random_answers()
    tokens = sum(len(a.tokens) for a in answers)
    with training(model.net):
        loss = torch.zeros(())
        for a in answers:
            logprobs = model.net(torch.tensor([a.prompt + a.tokens])).logits.log_softmax(-1)[0]
            for i, token in enumerate(a.tokens):
                weight = 1 / tokens if mean == "token-mean" else 1 / len(answers) / len(a.tokens)
                loss = loss - weight * a.advantage * logprobs[len(a.prompt) - 1 + i, token]
        loss.backward()
        by_hand = torch.cat([w.grad.flatten() for w in model.net.parameters()])
    found = gradient_of(model, answers, RlvrSettings(mean=mean, rows=5))
    torch.testing.assert_close(found, by_hand, atol=1e-6, rtol=1e-4)


def test_a_shared_prompt_has_the_gradient_of_whole_sequences_in_every_architecture(any_model):
    """Prompts and answers are longer than a sliding window; one prompt is a single token."""
    model, random, net = any_model, np.random.default_rng(0), any_model.net
    answers = []
    for group, length in enumerate((1, 9, 4)):
        prompt = tuple(random.integers(2, 28, length).tolist())
        for size in (3, 8, 1):
            tokens = tuple(random.integers(2, 28, size).tolist())
            answers.append(Answer(prompt, tokens, (0.0,) * size, float(random.normal()), group))
    on_policy = []
    with training(net):
        net.eval()
        loss = torch.zeros(())
        for a in answers:
            sequence = torch.tensor([[*a.prompt, *a.tokens]])
            logits = net(sequence, use_cache=False).logits[0, len(a.prompt) - 1 : -1]
            logprobs = logits.log_softmax(-1).gather(1, torch.tensor(a.tokens)[:, None])[:, 0]
            loss = loss - a.advantage * logprobs.sum() / sum(len(b.tokens) for b in answers)
            on_policy.append(a._replace(logprobs=tuple(logprobs.tolist())))
        loss.backward()
        by_hand = torch.cat([w.grad.flatten() for w in net.parameters()])
    found = gradient_of(model, on_policy, RlvrSettings(rows=4))
    torch.testing.assert_close(found, by_hand, atol=2e-5 * float(by_hand.abs().max()), rtol=1e-3)


def test_a_prompt_goes_through_the_model_once_whatever_its_answers():
    model, (answer, *_) = new_model(), random_answers()[1]
    seen = []
    watch = model.net.get_input_embeddings().register_forward_hook(
        lambda _, args, __: seen.append(args[0].numel())
    )
    prompt = (2, 3, 4, 5, 6, 7, 8)
    group = [answer._replace(prompt=prompt, tokens=(5, i), logprobs=(-1.0,) * 2) for i in range(6)]
    gradient_of(model, group, RlvrSettings(rows=3))
    watch.remove()
    assert seen == [6, 3 * 2, 3 * 2]


@pytest.mark.parametrize("kl", [0.0, 0.5])
def test_answers_that_are_alike_are_computed_once_and_count_each(kl):
    """They may differ in what they earned (a coin), and in the last digit of the sampler's."""
    model, answers = random_answers()
    again = [a._replace(advantage=-2 * a.advantage) for a in answers[::2]]
    settings = RlvrSettings(rows=5, kl=kl)
    computed = parts(answers + again, settings, torch.device("cpu"))
    assert sum(len(p.ids) for p in computed) == len(answers)
    assert sum(len(p.advantages) for p in computed) == len(answers + again)
    apart = gradient_of(model, answers, settings) * sum(len(a.tokens) for a in answers)
    apart += gradient_of(model, again, settings) * sum(len(a.tokens) for a in again)
    tokens = sum(len(a.tokens) for a in answers + again)
    torch.testing.assert_close(gradient_of(model, answers + again, settings), apart / tokens)


def test_answers_without_advantage_are_left_out_of_the_work_and_not_of_the_mean():
    model, answers = random_answers()
    muted = [a._replace(advantage=0.0) if a.group == 1 else a for a in answers]
    settings = RlvrSettings(rows=5)
    assert sum(len(p.ids) for p in parts(muted, settings, torch.device("cpu"))) == 8
    with_all = parts(muted, replace(settings, kl=1e-30), torch.device("cpu"))
    assert sum(len(p.ids) for p in with_all) == 12
    torch.testing.assert_close(
        gradient_of(model, muted, settings), gradient_of(model, muted, replace(settings, kl=1e-30))
    )


def test_equal_rewards_change_no_bit_of_the_weights():
    model, task = new_model(), OneWord()
    tuned, curve = rlvr(
        model, task, task.problems("tune", 5), lambda p, r, g: 0.1, PRACTISE, progress=False
    )
    assert same(bits(tuned.net), bits(model.net))
    assert all(row.flat == 1 and row.norm == 0 for row in curve)


def test_an_answer_that_could_not_be_judged_is_in_no_group_and_in_no_gradient():
    rewards = torch.tensor([[1.0, math.nan, 0.0], [math.nan, math.nan, 1.0]])
    rollouts = [Rollout("p", i, (2,), (-1.0,), "a", "stop") for i in range(6)]
    requests = [Request("p", i, (3,), 3) for i in range(6)]
    answers = compared(requests, rollouts, rewards, "grpo")
    assert [a.group for a in answers] == [0, 0, 1]
    among_two = grpo_advantages(torch.tensor([[1.0, 0.0]]), torch.ones(1, 2).bool())[0].tolist()
    assert [a.advantage for a in answers] == [*among_two, 0.0]


def test_a_grader_that_fails_stops_the_run():
    model, task = new_model(), OneWord()
    broken = [replace(problem, answer="fails") for problem in task.problems("tune", 3)]
    with pytest.raises(GraderFailure, match="a broken grader"):
        rlvr(model, task, broken, right, PRACTISE, progress=False)


def test_a_sampler_that_disagrees_with_the_trainer_stops_the_run():
    model, answers = random_answers()
    settings = RlvrSettings(prompts=3)
    wrong = [a._replace(logprobs=tuple(x - 0.05 for x in a.logprobs)) for a in answers]
    optimiser = torch.optim.SGD(model.net.parameters(), lr=0.0)
    with training(model.net):
        learn(model.net, optimiser, model.net, answers, settings, 0)
        with pytest.raises(RuntimeError, match=r"differs .* by 0\.050 nats"):
            learn(model.net, optimiser, model.net, wrong, settings, 0)


def test_sampling_at_another_temperature_is_learned_from_at_that_temperature():
    model, task = new_model(), OneWord()
    model.net.lm_head.weight.data *= 8  # far from uniform, so that temperatures tell
    settings = replace(PRACTISE, temperature=0.5)
    _, curve = rlvr(model, task, task.problems("tune", 5), even, settings, progress=False)
    assert 0 < max(row.mismatch for row in curve) < 1e-3  # 0 would be: nothing was learned


def test_problems_take_turns_and_no_two_answers_share_random_numbers():
    settings = RlvrSettings(prompts=4, samples=3)
    drawn = [pair for update in range(10) for pair in draw(10, settings, update)]
    used = [problem for problem, _ in drawn[::3]]
    for turn in range(4):
        assert sorted(used[10 * turn : 10 * turn + 10]) == list(range(10))
    assert used[:10] != used[10:20]
    assert len({sample for _, sample in drawn}) == len(drawn) == 120
    assert draw(10, settings, 7) == drawn[7 * 12 : 8 * 12]
    assert draw(10, replace(settings, seed=1), 0) != drawn[:12]
    assert {problem for problem, _ in draw(1, settings, 0)} == {0}  # one problem, four groups


def test_a_coin_pays_at_its_rate_and_the_same_answer_alike():
    (problem,), graded = OneWord().problems("tune", 1), Graded(Grade.WRONG, False)
    answers = [Rollout("p", i, (2,), (-1.0,), "a", "stop") for i in range(600)]
    paid = [Coin(0.3)(problem, r, graded) for r in answers]
    assert sum(paid) / 600 == pytest.approx(0.3, abs=0.06)
    assert set(paid) == {0.0, 1.0}
    assert paid == [Coin(0.3)(problem, r, Graded(Grade.RIGHT, True)) for r in answers]
    assert paid != [Coin(0.3, seed=1)(problem, r, graded) for r in answers]
    with pytest.raises(Refusal, match="teaches nothing"):
        Coin(1.0)


def test_the_random_reward_has_a_curve_of_its_own():
    model, task = new_model(), OneWord()
    _, curve = rlvr(
        model, task, task.problems("tune", 5), named_reward("random"), PRACTISE, progress=False
    )
    assert np.mean([row.reward for row in curve]) == pytest.approx(0.5, abs=0.25)
    assert all(row.right < 0.4 for row in curve)  # what is graded is not what is paid


def test_form_is_paid_for_an_answer_that_can_be_read_and_ended_by_itself():
    (problem,) = OneWord().problems("tune", 1)
    rollout = Rollout("p", 0, (2,), (-1.0,), "a", "stop")
    assert form(problem, rollout, Graded(Grade.WRONG, False)) == 1
    assert form(problem, rollout, Graded(Grade.UNPARSED, False)) == 0
    assert form(problem, replace(rollout, stop="length"), Graded(Grade.RIGHT, True)) == 0
    with pytest.raises(Refusal, match="right, format, random"):
        named_reward("rihgt")


def test_the_curve_counts_what_was_written():
    model, task = new_model(), OneWord()
    kept = []

    def reward(problem, rollout, graded):
        kept.append((rollout, graded))
        return right(problem, rollout, graded)

    _, (row,) = rlvr(
        model, task, task.problems("tune", 5), reward, replace(PRACTISE, updates=1), progress=False
    )
    grades = Counter(graded.grade for _, graded in kept)
    rollouts = [rollout for rollout, _ in kept]
    spoken = [r.text.split()[0] for r in rollouts if r.text]
    assert len(kept) == 12
    assert row.right == row.reward == grades[Grade.RIGHT] / 12
    assert row.unparsed == grades[Grade.UNPARSED] / 12
    assert row.length == np.mean([len(r.tokens) for r in rollouts])
    assert row.cut == np.mean([r.tokens[-1] != model.tokenizer.eos_token_id for r in rollouts])
    assert row.entropy == pytest.approx(-np.mean([x for r in rollouts for x in r.logprobs]))
    assert json.loads(row.mix) == {
        "first": pytest.approx(spoken.count("a") / len(spoken), abs=1e-4)
    }


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"samples": 1}, "two samples"),
        ({"advantage": "ppo"}, "grpo, dr_grpo, rloo"),
        ({"minibatches": 4}, "4 minibatches of 3 prompts"),
        ({"mean": "mean"}, "token-mean and sequence-mean"),
        ({"temperature": 0.0}, "greedy answers"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, match):
    with pytest.raises(Refusal, match=match):
        replace(PRACTISE, **change)


def test_digests_tell_weights_apart():
    assert weights_digest(new_model().net) == weights_digest(new_model().net)
    assert weights_digest(new_model().net) != weights_digest(new_model(seed=1).net)
