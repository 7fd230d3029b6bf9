import itertools
import math

import numpy as np
import pytest
import torch

from probes.divergence import (
    Parted,
    divergences,
    gold_logprobs,
    mean_kl,
    token_kl,
    token_logprobs,
)
from probes.generate import Decoding, Request, generate
from probes.models import Model, encode, new_llama, new_tokenizer
from probes.records import Refusal
from probes.tasks import decisions, load_task


@pytest.fixture(scope="module")
def task():
    return load_task("chain")


def tiny(words, seed):
    tokenizer = new_tokenizer(words)
    net = new_llama(len(tokenizer), width=16, depth=2, heads=2, mlp=16, context=64, seed=seed)
    with torch.no_grad():
        net.get_input_embeddings().weight.mul_(8)
    return Model(net.requires_grad_(False), tokenizer, f"tiny-{seed}")


@pytest.fixture(scope="module")
def pair(task):
    return tiny(task.vocabulary(), 0), tiny(task.vocabulary(), 1)


def test_kl_is_the_sum_written_out_on_four_words():
    p, q = [0.5, 0.25, 0.125, 0.125], [0.7, 0.1, 0.1, 0.1]
    by_hand = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    logits = [torch.tensor([x]).log() + 3 for x in (p, q)]  # a shift of all logits says nothing
    assert float(token_kl(*logits)[0]) == pytest.approx(by_hand, abs=1e-7)
    assert float(token_kl(logits[0], logits[0])[0]) == 0
    assert float(token_kl(*reversed(logits))[0]) != pytest.approx(by_hand, abs=1e-3)


def test_probabilities_of_all_answers_of_three_words_sum_to_one():
    """A completion's probability is the product of its tokens': enumerated, they exhaust it."""
    model = tiny(["a", "b", "END"], 0)
    every = list(itertools.product(range(5), repeat=3))
    prompts = [(2, 3)] * len(every)
    total = sum(math.exp(x.sum()) for x in token_logprobs(model, prompts, every, batch=17))
    assert total == pytest.approx(1, abs=1e-5)


def test_texts_of_any_length_in_one_batch_have_the_log_probabilities_they_have_alone():
    model = tiny(["a", "b", "END"], 0)
    prompts, texts = [(2,), (3, 2, 2), (2, 3)], [(3, 3, 3, 4), (2,), (3, 4)]
    for prompt, text, found in zip(
        prompts, texts, token_logprobs(model, prompts, texts), strict=True
    ):
        logits = model.net(torch.tensor([[*prompt, *text]])).logits[0, len(prompt) - 1 : -1]
        wanted = logits.log_softmax(-1)[range(len(text)), list(text)]
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)
    with pytest.raises(Refusal, match="at least one token"):
        token_logprobs(model, [(2,)], [()])


def test_the_log_probability_of_a_rollout_is_what_it_was_sampled_with(pair, task):
    model = pair[0]
    problem = task.problems("test", 1, skill="n")[0]
    request = Request(problem.id, 0, encode(model, problem.prompt), 12)
    rollout = generate(model, [request], Decoding(stop=(model.tokenizer.eos_token_id,)))[0]
    found = token_logprobs(model, [request.prompt], [rollout.tokens])[0]
    np.testing.assert_allclose(found, rollout.logprobs, atol=1e-5)


def test_traces_are_summed_and_each_ends(pair, task):
    model, problems = pair[0], task.problems("test", 3, skill="a")
    checked = [task.gold(p).replace(" ;", f" ? {_first(task, p)} ok ;", 1) for p in problems]
    both = {p.id: [task.gold(p), c] for p, c in zip(problems, checked, strict=True)}
    prompts = [encode(model, p.prompt) for p in problems]
    parts = [
        [
            x.sum()
            for x in token_logprobs(
                model, prompts, [encode(model, f"{both[p.id][i]} END") for p in problems]
            )
        ]
        for i in (0, 1)
    ]
    np.testing.assert_allclose(gold_logprobs(model, task, problems), parts[0], atol=1e-6)
    summed = gold_logprobs(model, task, problems, traces=lambda p: both[p.id])
    np.testing.assert_allclose(np.exp(summed), np.exp(parts[0]) + np.exp(parts[1]), rtol=1e-5)
    with pytest.raises(Refusal, match="not distinct"):
        gold_logprobs(model, task, problems, traces=lambda p: [task.gold(p)] * 2)
    with pytest.raises(Refusal, match="no valid answer"):
        gold_logprobs(model, task, problems, traces=lambda p: [f"ans {p.answer}"])


def _first(task, problem):
    return task.gold(problem).split()[2]


def test_kl_is_split_by_what_each_token_does(pair, task):
    """Against one uncached pass a rollout, its decisions found in the finished text."""
    p, q = pair
    problems = task.problems("test", 3, skill="n")
    prompts = [encode(p, one.prompt) for one in problems]
    requests = [Request(a.id, 0, b, 14) for a, b in zip(problems, prompts, strict=True)]
    rollouts = generate(p, requests, Decoding(stop=(p.tokenizer.eos_token_id,)))
    found = divergences(p, q, task, problems, rollouts, batch=2)
    for problem, prompt, rollout, parted in zip(problems, prompts, rollouts, found, strict=True):
        text = torch.tensor([[*prompt, *rollout.tokens]])
        one, other = (m.net(text).logits[0, len(prompt) - 1 : -1].softmax(-1) for m in pair)
        kl = (one * (one / other).log()).sum(-1)
        words = p.tokenizer.convert_ids_to_tokens(list(rollout.tokens))
        at = [d.position for d in decisions(task, problem, " ".join(words))]
        assert parted.decisions == len(at)
        assert parted.executions == len(words) - len(at)
        assert parted.decision == pytest.approx(float(kl[at].sum()), abs=1e-4)
        assert parted.execution == pytest.approx(float(kl.sum() - kl[at].sum()), abs=1e-4)
    for parted in divergences(p, p, task, problems, rollouts):
        assert parted.decision == parted.execution == 0


def test_a_mean_is_of_tokens_and_its_interval_over_problems():
    parted = [Parted(f"p{i}", s, 2.0 * i, 4, 1.0, 1 + s) for i in range(12) for s in range(2)]
    found = mean_kl(parted, "decision")
    assert found.value == pytest.approx(np.mean([0.5 * i for i in range(12)]))
    assert found.n == 12
    assert found.low < found.value < found.high
    assert mean_kl(parted, "execution").value == pytest.approx(2 / 3)
    assert not mean_kl(parted[:2], "decision").defined
