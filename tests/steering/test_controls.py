from dataclasses import replace

import numpy as np
import pytest
import torch

from probes.capture import Text
from probes.models import submodule
from probes.records import Refusal
from steering.controls import (
    decision_kl,
    match_kl,
    shaped_random,
    shuffled,
    unembeddings,
    without,
)
from steering.interventions import GENERATED, Intervention, LogitBias

POST = "blocks.2.hook_resid_post"
TEXTS = [
    Text("a", 0, (5, 6, 7), (8, 9, 10, 11)),
    Text("b", 0, (9, 3), (4, 5, 6, 7, 8)),
    Text("c", 0, (4,), (12, 3)),
]
POSITIONS = [[2, 4], [1, 3, 5], [0]]


def normal(seed, *shape):
    draws = np.random.Generator(np.random.Philox(seed)).standard_normal(shape)
    return torch.from_numpy(draws).float()


def unit(seed):
    return normal(seed, 32) / normal(seed, 32).norm()


def test_random_directions_are_spread_like_the_activations():
    mix = torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.0])) @ torch.linalg.qr(normal(0, 4, 4)).Q
    activations = normal(1, 100, 4) @ mix + 100
    draws = torch.stack([shaped_random(activations, seed=s) for s in range(600)])
    torch.testing.assert_close(draws.norm(dim=-1), torch.ones(600))
    # By definition: N(0, S) through S's own square root, then normalised.
    root = torch.linalg.cholesky(activations.T.cov() + 1e-6 * torch.eye(4))
    expected = normal(2, 20000, 4) @ root.T
    expected = expected / expected.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(
        draws.T @ draws / 600, expected.T @ expected / 20000, atol=0.06, rtol=0
    )
    assert (draws @ torch.linalg.eigh(activations.T.cov()).eigenvectors[:, 0]).abs().max() < 1e-3
    assert torch.equal(draws[3], shaped_random(activations, seed=3))
    with pytest.raises(Refusal, match="no covariance"):
        shaped_random(torch.ones(5, 4), seed=0)


def difference(activations, labels):
    chosen = torch.from_numpy(labels == "yes")
    return activations[chosen].mean(0) - activations[~chosen].mean(0)


def test_a_fit_on_shuffled_labels_misses_the_planted_direction():
    labels = np.array(["yes", "no"] * 100)
    groups = np.repeat(np.arange(20), 10)
    activations = normal(0, 200, 32)
    activations[::2] += 3 * unit(1)
    real = difference(activations, labels)
    assert float(real @ unit(1) / real.norm()) > 0.9
    cosines = [
        float(shuffled(difference, activations, labels, seed=s, groups=groups) @ unit(1))
        for s in range(40)
    ]
    assert abs(np.mean(cosines)) < 0.25
    assert np.max(np.abs(cosines)) < 0.9


def test_shuffling_within_groups_keeps_the_share_of_labels_of_each():
    labels = np.array(["yes"] * 3 + ["no"] * 7 + ["no"] * 10)
    seen = []
    fit = lambda x, y: seen.append(y) or x[0]  # noqa: E731
    shuffled(fit, normal(0, 20, 3), labels, seed=1, groups=np.repeat([1, 2], 10))
    assert sorted(seen[0][:10]) == sorted(labels[:10])
    assert seen[0].tolist() != labels.tolist()
    with pytest.raises(Refusal, match="one class only"):
        shuffled(fit, normal(0, 4, 3), np.array(["a", "a", "b", "b"]), seed=1,
                 groups=np.array([0, 0, 1, 1]))  # fmt: skip


def test_a_direction_without_unembeddings_is_orthogonal_to_them_and_nearest_to_itself():
    others = torch.stack([normal(1, 32), normal(2, 32), normal(1, 32) + normal(2, 32)])
    rest = without(normal(3, 32), others)
    assert float(rest.norm()) == pytest.approx(1)
    assert (others @ rest).abs().max() < 1e-5
    solution = torch.linalg.lstsq(others[:2].T, normal(3, 32)[:, None]).solution
    nearest = normal(3, 32) - (others[:2].T @ solution)[:, 0]
    torch.testing.assert_close(rest, nearest / nearest.norm())
    with pytest.raises(Refusal, match="lies in their span"):
        without(2 * others[0] - others[1], others)


def test_what_is_taken_out_of_a_direction_is_moved_to_where_the_direction_is(monkeypatch):
    """The meta device stands for another one, and has no values: so it ends at the first use."""

    class Used(Exception):
        pass

    def use(matrix, **_):
        assert matrix.device.type == "meta"
        raise Used

    monkeypatch.setattr(torch.linalg, "svd", use)
    with pytest.raises(Used):
        without(torch.empty(32, device="meta"), torch.stack([unit(1), unit(2)]))


def test_unembeddings_are_the_slopes_of_the_logits(any_model):
    """The gradient of a logit difference, where the norm's own curvature is projected out."""
    x = normal(4, 1, 1, 32).requires_grad_()
    module, _ = submodule(any_model, -1, "hook_resid_post")
    handle = module.register_forward_hook(
        lambda _, a, o: (x, *o[1:]) if isinstance(o, tuple) else x
    )
    logits = any_model.net(torch.tensor([[5]])).logits[0, 0]
    handle.remove()
    cap = getattr(any_model.config, "final_logit_softcapping", None)
    raw = cap * torch.atanh(logits / cap) if cap else logits  # Gemma 2 bends its logits
    (slope,) = torch.autograd.grad(raw[7], x)
    ours, point = unembeddings(any_model, [7])[0], x.detach()[0, 0]
    if any_model.name in ("gpt2", "gpt_neox"):
        point = point - point.mean()
    expected = without(ours, point[None])
    torch.testing.assert_close(slope[0, 0] / slope.norm(), expected, atol=2e-4, rtol=1e-3)
    with pytest.raises(Refusal, match=r"0\.\.28"):
        unembeddings(any_model, [29])


def push(strength=3.0):
    return Intervention("add", POST, unit(0), strength, norm=2.0, window=GENERATED)


def test_the_kl_is_the_sum_written_out_over_the_vocabulary(model):
    kl = decision_kl(model, TEXTS, POSITIONS, batch=2)
    module, _ = submodule(model, 2, "hook_resid_post")
    terms = []
    for text, positions in zip(TEXTS, POSITIONS, strict=True):
        first = len(text.prompt) - 1
        move = torch.zeros(len(text.tokens), 32)
        move[first:] = 6.0 * unit(0)
        p = model.net(torch.tensor([text.tokens])).logits[0].double().softmax(-1)
        handle = module.register_forward_hook(
            lambda _, a, o, m=move: (o[0] + m, *o[1:]) if isinstance(o, tuple) else o + m
        )
        q = model.net(torch.tensor([text.tokens])).logits[0].double().softmax(-1)
        handle.remove()
        terms += [
            sum(float(p[i, t] * (p[i, t] / q[i, t]).log()) for t in range(29)) for i in positions
        ]
    assert kl([push()]) == pytest.approx(np.mean(terms), rel=1e-3)
    assert kl([push()]) > 1e-3
    assert kl([]) == kl([push(0.0)]) == 0.0


def test_a_matched_control_moves_decisions_as_far_as_the_direction(model):
    kl = decision_kl(model, TEXTS, POSITIONS)
    target = kl([push()])
    for null in (
        replace(push(), vector=unit(9)),
        LogitBias({7: 1.0}),
    ):
        match = match_kl(lambda s, null=null: kl([replace(null, strength=s)]), target)
        assert kl([replace(null, strength=match.strength)]) == match.kl
        assert match.kl == pytest.approx(target, rel=0.02)
        assert match.tried[0] == (0.0, 0.0)


def test_a_match_solves_the_equation_and_says_whether_it_is_the_only_one():
    match = match_kl(lambda s: s**2 / 2, 0.72, tolerance=1e-6)
    assert match.strength == pytest.approx(1.2, rel=1e-5)
    assert match.monotone
    weak = match_kl(lambda s: s**2 / 2, 1e-8, tolerance=1e-3)  # below the first strength tried
    assert weak.strength == pytest.approx((2e-8) ** 0.5, rel=1e-3)
    bumpy = match_kl(lambda s: s + 0.9 * np.sin(4 * s), 3.0, tolerance=1e-4)
    assert bumpy.kl == pytest.approx(3.0, rel=1e-3)
    assert not bumpy.monotone


def test_a_control_that_cannot_do_as_much_is_refused():
    with pytest.raises(Refusal, match=r"up to strength 64 its KL is at most 0\.7.* is 0\.9"):
        match_kl(lambda s: 0.7 * np.tanh(s), 0.9)
    with pytest.raises(Refusal, match="jumps past 0.5 nats"):
        match_kl(lambda s: float(s > 0.3), 0.5)
    with pytest.raises(Refusal, match="changes no decision"):
        match_kl(lambda s: s, 0.0)


def test_texts_without_decisions_are_refused(model):
    with pytest.raises(Refusal, match="have no decision"):
        decision_kl(model, TEXTS, [[], [], []])
    with pytest.raises(Refusal, match="text b/0 has no position 7"):
        decision_kl(model, TEXTS, [[0], [7], [0]])
