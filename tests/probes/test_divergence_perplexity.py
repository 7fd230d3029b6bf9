"""Perplexity of answers under another model, against numbers made by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from probes.divergence import Scored, crossed, halves, perplexity, perplexity_rows, score
from probes.models import Model, encode, new_llama, new_tokenizer
from probes.records import Refusal, Rollout
from probes.tasks import load_task


def answers(surprises, *, length=5, problems=30, shift=0.0):
    """Answers with these surprises under the first model to each problem, in order."""
    return [
        Scored(f"p{i}", s, length, (x + shift * i, 2 * x))
        for i in range(problems)
        for s, x in enumerate(surprises)
    ]


def test_a_surprise_is_the_mean_of_each_token_under_each_model():
    task = load_task("chain")
    tokenizer = new_tokenizer(task.vocabulary())
    pair = []
    for seed in (0, 1):
        net = new_llama(len(tokenizer), width=16, depth=2, heads=2, mlp=16, context=64, seed=seed)
        pair.append(Model(net.requires_grad_(False), tokenizer, f"tiny-{seed}"))
    problems = task.problems("test", 3)
    texts = [encode(pair[0], f"{task.gold(p)} END") for p in problems]
    rollouts = [
        Rollout(p.id, i, t, (0.0,) * len(t), "", "stop")
        for i, (p, t) in enumerate(zip(problems, texts, strict=True))
    ]
    found = score(*pair, problems, rollouts)
    for problem, text, one in zip(problems, texts, found, strict=True):
        prompt = encode(pair[0], problem.prompt)
        for model, surprise in zip(pair, one.surprise, strict=True):
            logits = model.net(torch.tensor([[*prompt, *text]])).logits[0, len(prompt) - 1 : -1]
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(text))
            assert surprise == pytest.approx(float(loss), abs=1e-5)
        assert one.length == len(text)
    with pytest.raises(Refusal, match="are not given"):
        score(*pair, problems[1:], rollouts)


def test_a_perplexity_is_the_exponential_of_the_mean_surprise():
    scored = answers([0.1, 0.3])
    assert perplexity(scored, under=0).value == pytest.approx(math.exp(0.2))
    assert perplexity(scored, under=1).value == pytest.approx(math.exp(0.4))
    assert not perplexity(scored, under=0, length=6).defined


def test_two_writers_are_compared_answer_by_answer_within_a_problem():
    """What differs between problems (here by `shift`) cancels."""
    one, other = answers([0.1, 0.5], shift=1.0), answers([0.4, 0.2, 0.6], shift=1.0)
    found = crossed(one, other, under=0)
    assert found.ratio.value == pytest.approx(math.exp(0.3 - 0.4))
    assert found.ratio.high - found.ratio.low < 1e-9
    wins = mannwhitneyu([0.4, 0.2, 0.6], [0.1, 0.5]).statistic / 6
    assert found.likelier.value == pytest.approx(wins)
    assert found.kept == (1, 1)


def test_matching_by_length_removes_what_length_alone_does():
    """Both writers find each length as likely; one of them writes long answers more often."""
    short, long = answers([0.4, 0.5], length=5), answers([0.1, 0.2], length=9)
    one, other = [*short, *long[:10]], [*short[:10], *long]
    assert crossed(one, other, under=0).ratio.value == pytest.approx(1)
    assert crossed(one, other, under=0).likelier.value == pytest.approx(0.5)
    plain = crossed(one, other, under=0, by_length=False)
    assert plain.ratio.value > 1.1
    assert plain.ratio.excludes(1)


def test_answers_without_a_partner_of_their_length_are_left_out_and_counted():
    one = [*answers([0.1]), *answers([9.0], length=7)]
    found = crossed(one, answers([0.2]), under=0)
    assert found.ratio.value == pytest.approx(math.exp(-0.1))
    assert found.kept == (0.5, 1)
    alone = crossed(one, answers([0.2], length=3), under=0)
    assert not alone.ratio.defined
    assert "one length" in alone.ratio.reason


def test_a_writer_against_its_own_other_answers_shows_nothing():
    rng = np.random.default_rng(0)
    scored = [
        Scored(f"p{i}", s, int(rng.integers(4, 6)), (float(rng.exponential()), 0.0))
        for i in range(150)
        for s in range(12)
    ]
    even, odd = halves(scored)
    assert len(even) == len(odd) == 900
    found = crossed(even, odd, under=0)
    assert not found.ratio.excludes(1)
    assert not found.likelier.excludes(0.5)


def test_the_same_text_is_a_tie_whatever_the_last_bits():
    one, other = answers([0.25]), answers([0.25 + 1e-7])
    assert crossed(one, other, under=0).likelier.value == 0.5


def test_rows_name_who_wrote_and_who_reads():
    by = {"base": answers([0.4, 0.5]), "tuned": answers([0.1, 0.2])}
    rows = perplexity_rows(by, ("base", "tuned"))
    ratio = [r for r in rows if r.measure == "perplexity ratio" and r.model == "base"]
    assert {r.setting for r in ratio} == {"tuned over base", "tuned over base, any length"}
    assert ratio[0].value == pytest.approx(math.exp(-0.3))
    plain = {(r.model, r.setting): r.value for r in rows if r.measure == "perplexity"}
    assert plain["base", "base's answers"] == pytest.approx(math.exp(0.45))
    assert plain["tuned", "tuned's answers"] == pytest.approx(math.exp(0.3))
    assert {r.x for r in rows if r.measure == "perplexity by length"} == {5.0}
