import math
from itertools import product

import pytest
import torch

from probes.records import Refusal
from steering.objectives import (
    ADVANTAGES,
    dr_grpo_advantages,
    entropy,
    grpo_advantages,
    k3_penalty,
    policy_loss,
    rloo_advantages,
    token_logprobs,
    token_weights,
)


def one_success(size):
    return torch.eye(1, size, dtype=torch.float64), torch.ones(1, size, dtype=torch.bool)


@pytest.mark.parametrize(
    ("size", "right", "wrong"),
    [(4, 1.5, -0.5), (8, 2.4749, -0.3536), (16, 3.75, -0.25), (64, 7.875, -0.125)],
)
def test_grpo_divides_by_the_sample_deviation(size, right, wrong):
    advantages = grpo_advantages(*one_success(size))[0]
    assert advantages[0].item() == pytest.approx(right, abs=1e-4)
    assert advantages[1:].tolist() == pytest.approx([wrong] * (size - 1), abs=1e-4)


@pytest.mark.parametrize("size", [2, 5, 16])
def test_rloo_and_dr_grpo_of_one_success_have_their_closed_forms(size):
    loo, plain = rloo_advantages(*one_success(size))[0], dr_grpo_advantages(*one_success(size))[0]
    assert loo.tolist() == pytest.approx([1.0] + [-1 / (size - 1)] * (size - 1))
    assert plain.tolist() == pytest.approx([(size - 1) / size] + [-1 / size] * (size - 1))


def test_rloo_compares_each_answer_with_the_mean_of_the_others():
    rewards = torch.rand(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = [
        [row[i] - sum(row[:i] + row[i + 1 :]) / 5 for i in range(6)] for row in rewards.tolist()
    ]
    found = rloo_advantages(rewards, torch.ones(3, 6, dtype=torch.bool))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("method", ADVANTAGES)
def test_group_advantages_sum_to_zero_and_equal_rewards_give_exact_zeros(method):
    rewards = torch.rand(5, 7, generator=torch.Generator().manual_seed(1))
    rewards[2] = 0.1  # its mean over seven is not 0.1 in float32
    advantages = ADVANTAGES[method](rewards, torch.ones(5, 7, dtype=torch.bool))
    torch.testing.assert_close(advantages.sum(1), torch.zeros(5), atol=2e-6, rtol=0)
    assert advantages[2].eq(0).all()
    assert advantages[[0, 1, 3, 4]].ne(0).all()


@pytest.mark.parametrize("method", ADVANTAGES)
def test_an_answer_that_was_not_judged_is_as_if_it_had_not_been_sampled(method):
    rewards = torch.tensor([[1.0, 0.0, 99.0, 1.0, 0.0, 0.0]])
    counted = torch.tensor([[True, True, False, True, True, True]])
    alone = ADVANTAGES[method](rewards[counted][None], torch.ones(1, 5, dtype=torch.bool))
    among = ADVANTAGES[method](rewards, counted)
    assert torch.equal(among[counted], alone[0])
    assert among[0, 2] == 0
    lonely = ADVANTAGES[method](rewards, torch.tensor([[True] + [False] * 5]))
    assert lonely.eq(0).all()


def expected_gradient(logits, reward_of, size, method):
    """Gradient of the loss by the logits, averaged over every group of answers and of rewards.

    `reward_of(arm)` lists (reward, chance).
    """
    total = torch.zeros_like(logits)
    probabilities = logits.softmax(0)
    for arms in product(range(len(logits)), repeat=size):
        chance = math.prod(probabilities[a].item() for a in arms)
        for outcome in product(*(reward_of(a) for a in arms)):
            weight = chance * math.prod(p for _, p in outcome)
            rewards = torch.tensor([[r for r, _ in outcome]], dtype=torch.float64)
            advantages = ADVANTAGES[method](rewards, torch.ones(1, size, dtype=torch.bool))[0]
            leaf = logits.clone().requires_grad_(True)
            new = leaf.log_softmax(0)[list(arms)][:, None]
            policy_loss(new, new, advantages).loss.mean().backward()
            total += weight * leaf.grad
    return total


def test_on_a_two_armed_bandit_rloo_has_the_gradient_of_the_expected_reward():
    """Arm 0 pays 1, arm 1 nothing: J = p, and dJ/dlogit = p (1 - p), by hand."""
    logits = torch.tensor([0.3, -0.4], dtype=torch.float64)
    p = 1 / (1 + math.exp(-0.7))
    found = expected_gradient(logits, lambda arm: [(1.0 - arm, 1.0)], 3, "rloo")
    assert found.tolist() == pytest.approx([-p * (1 - p), p * (1 - p)], abs=1e-12)


def test_on_a_two_armed_bandit_dr_grpo_shrinks_that_gradient_by_one_answer_in_the_group():
    logits = torch.tensor([0.3, -0.4], dtype=torch.float64)
    loo = expected_gradient(logits, lambda arm: [(1.0 - arm, 1.0)], 4, "rloo")
    plain = expected_gradient(logits, lambda arm: [(1.0 - arm, 1.0)], 4, "dr_grpo")
    torch.testing.assert_close(plain, loo * 3 / 4)


@pytest.mark.parametrize("method", ADVANTAGES)
def test_a_random_reward_without_clipping_has_no_expected_gradient(method):
    logits = torch.tensor([0.85, 0.10, 0.05], dtype=torch.float64).log()
    coin = expected_gradient(logits, lambda arm: [(1.0, 0.5), (0.0, 0.5)], 3, method)
    assert coin.abs().max() < 1e-12
    informed = expected_gradient(logits, lambda arm: [(float(arm == 1), 1.0)], 3, method)
    assert informed.abs().max() > 1e-3  # or the law would hold of a loss that does nothing


def test_each_side_is_clipped_only_where_the_ratio_has_gone_the_way_it_is_pushed():
    ratios = torch.tensor([[0.7, 0.79, 0.81, 1.0, 1.19, 1.21, 1.3]] * 2)
    new = ratios.log().requires_grad_(True)
    found = policy_loss(new, torch.zeros(2, 7), torch.tensor([2.0, -2.0]))
    found.loss.sum().backward()
    assert found.high.tolist() == [[False] * 5 + [True] * 2, [False] * 7]
    assert found.low.tolist() == [[False] * 7, [True] * 2 + [False] * 5]
    clipped = found.high | found.low
    advantage = torch.tensor([[2.0], [-2.0]])
    torch.testing.assert_close(new.grad, torch.where(clipped, 0.0, -advantage * ratios))
    bounds = torch.where(advantage > 0, 1.2, 0.8)
    torch.testing.assert_close(
        found.loss, -advantage * torch.where(clipped, bounds, ratios).expand(2, 7)
    )


def test_bounds_may_differ_and_may_be_absent():
    ratios = torch.tensor([[0.5, 0.75, 1.25, 1.5]])
    for sign, low, high in product([1.0, -1.0], [0.2, 0.3, math.inf], [0.2, 0.28, math.inf]):
        found = policy_loss(
            ratios.log(), torch.zeros(1, 4), torch.tensor([sign]), low=low, high=high
        )
        assert found.high[0].tolist() == [sign > 0 and r > 1 + high for r in (0.5, 0.75, 1.25, 1.5)]
        assert found.low[0].tolist() == [sign < 0 and r < 1 - low for r in (0.5, 0.75, 1.25, 1.5)]


def test_on_policy_the_gradient_is_the_plain_policy_gradient():
    new = torch.randn(3, 4).requires_grad_(True)
    advantages = torch.tensor([1.0, -2.0, 0.0])
    found = policy_loss(new, new, advantages)
    found.loss.sum().backward()
    assert torch.equal(new.grad, -advantages[:, None].expand(3, 4))
    assert not (found.low | found.high).any()


def test_k3_averages_to_the_divergence_and_is_never_negative():
    random = torch.Generator().manual_seed(2)
    new, reference = torch.randn(2, 5, generator=random, dtype=torch.float64).log_softmax(-1)
    found = k3_penalty(new[None], reference[None])[0]
    exact = (new.exp() * (new - reference)).sum()
    torch.testing.assert_close((new.exp() * found).sum(), exact)
    assert (found > 0).all()
    assert k3_penalty(new[None], new[None]).eq(0).all()


def test_k3_pulls_towards_the_reference_and_not_the_reference_towards_the_model():
    new = torch.tensor([[-1.0, -3.0]], requires_grad=True)
    reference = torch.tensor([[-2.0, -2.0]], requires_grad=True)
    k3_penalty(new, reference).sum().backward()
    assert new.grad[0, 0] > 0 > new.grad[0, 1]  # descent makes the first rarer
    assert reference.grad is None


def test_the_mean_gradient_of_k3_is_that_of_the_divergence_from_the_reference():
    logits, other = torch.randn(2, 5, generator=torch.Generator().manual_seed(4)).double()
    logits.requires_grad_(True)
    new, reference = logits.log_softmax(-1), other.log_softmax(-1)
    (new.exp().detach() * k3_penalty(new[None], reference[None])[0]).sum().backward()
    # d/dlogits of -sum p_reference log p_new is p_new - p_reference
    torch.testing.assert_close(logits.grad, (new.exp() - reference.exp()).detach())


def test_entropy_is_the_sum_written_out():
    p = [0.5, 0.25, 0.125, 0.125]
    found = entropy(torch.tensor([p, [0.25] * 4]).log() + 3.0)
    assert found.tolist() == pytest.approx([1.75 * math.log(2), math.log(4)])


def test_log_probabilities_are_of_the_tempered_distribution():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(3))
    tokens = torch.tensor([[0, 4, 2], [1, 1, 3]])
    for temperature in (1.0, 0.6):
        found = token_logprobs(logits, tokens, temperature)
        for row, column in product(range(2), range(3)):
            p = (logits[row, column] / temperature).softmax(-1)[tokens[row, column]]
            assert found[row, column].item() == pytest.approx(math.log(p), abs=1e-6)


def test_weights_make_a_mean_over_tokens_or_over_answers():
    mask = torch.tensor([[True, True, False], [True, False, False], [False] * 3])
    values = torch.tensor([[1.0, 3.0, 99.0], [8.0, 99.0, 99.0], [99.0] * 3])
    assert (values * token_weights(mask, "token-mean")).sum().item() == pytest.approx(4.0)
    assert (values * token_weights(mask, "sequence-mean")).sum().item() == pytest.approx(5.0)
    assert token_weights(mask[2:], "token-mean").eq(0).all()  # nothing sampled, nothing learned
    with pytest.raises(Refusal, match="token-mean and sequence-mean"):
        token_weights(mask, "mean")
