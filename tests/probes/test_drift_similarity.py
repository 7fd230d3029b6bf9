"""Laws of debiased CKA: its closed forms, its definition, and what the biased one gets wrong."""

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from probes.drift import cka, hsic, without_means
from probes.records import Refusal

FEW = 60
"""Resamples, where the interval is not the point."""


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def biased(x, y):
    """CKA as it is usually computed (Kornblith et al. 2019, equation 5)."""
    x, y = x - x.mean(0), y - y.mean(0)
    top = np.linalg.norm(x.T @ y) ** 2
    return top / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y)


def song(k, l):  # noqa: E741
    """HSIC_1 as it is printed."""
    n, one = len(k), np.ones(len(k))
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
    middle = (one @ k @ one) * (one @ l @ one) / (n - 1) / (n - 2)
    return (np.trace(k @ l) + middle - 2 / (n - 2) * one @ k @ l @ one) / n / (n - 3)


def test_hsic_is_the_mean_over_quadruples_of_different_rows():
    x, y = normal(6, 3), normal(6, 2, seed=1)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    terms = [
        k[i, j] * l[i, j] + k[i, j] * l[q, r] - 2 * k[i, j] * l[i, q]
        for i, j, q, r in permutations(range(6), 4)
    ]
    assert hsic(k, l) == pytest.approx(np.mean(terms), rel=1e-10)
    assert hsic(k, l) == pytest.approx(song(k, l), rel=1e-10)


def test_it_is_the_ratio_of_hsic_averaged_over_draws():
    x = normal(24, 4, 5)
    y = x[..., :3] + normal(24, 4, 3, seed=1)
    sums = np.zeros(3)
    for r in range(4):
        k, l = x[:, r] @ x[:, r].T, y[:, r] @ y[:, r].T  # noqa: E741
        sums += song(k, l), song(k, k), song(l, l)
    expected = sums[0] / np.sqrt(sums[1] * sums[2])
    assert cka(x, y, resamples=FEW).value == pytest.approx(expected, rel=1e-9)


def test_a_problem_drawn_twice_is_weighed_twice_and_never_compared_with_itself():
    """A resample's value is the mean over quadruples of copies of four different problems."""
    from probes.drift.similarity import _averaged

    x, y = normal(6, 3), normal(6, 2, seed=1)
    k, l, w = x @ x.T, y @ y.T, np.array([2, 0, 1, 3, 1, 1])  # noqa: E741
    copies = np.repeat(np.arange(6), w)
    terms = [
        k[i, j] * l[i, j] + k[i, j] * l[q, r] - 2 * k[i, j] * l[i, q]
        for i, j, q, r in permutations(copies, 4)
        if len({i, j, q, r}) == 4
    ]
    pairs = np.mean([k[i, j] * l[i, j] for i, j in permutations(copies, 2) if i != j])
    triples = [k[i, j] * l[i, q] for i, j, q in permutations(copies, 3) if len({i, j, q}) == 3]
    quadruples = [
        k[i, j] * l[q, r] for i, j, q, r in permutations(copies, 4) if len({i, j, q, r}) == 4
    ]
    assert terms
    expected = pairs + np.mean(quadruples) - 2 * np.mean(triples)
    assert _averaged([(k, l)])(w[None].astype(float))[0] == pytest.approx(expected, rel=1e-10)


def test_a_rotation_and_a_scale_leave_1_with_no_width():
    x = normal(30, 2, 8)
    turned = 3.7 * x @ stats.ortho_group.rvs(8, random_state=0)
    found = cka(x, turned, resamples=FEW)
    assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1), abs=1e-9)
    assert cka(x, 2 * x, resamples=FEW).value == pytest.approx(1, abs=1e-12)


def test_a_stretch_along_one_axis_is_seen():
    """Without this, the law above would hold of a measure that is always 1."""
    x = normal(200, 1, 8)
    stretched = x * np.array([6, 1, 1, 1, 1, 1, 1, 1])
    covariance = np.diag([36.0] + [1.0] * 7)  # cross-covariance's square is the root of this one's
    expected = np.trace(covariance) / np.sqrt(8 * np.trace(covariance**2))
    found = cka(x, stretched)
    assert found.low < expected < found.high
    assert found.value == pytest.approx(expected, abs=0.05)


def test_independent_activations_have_0_where_the_biased_estimate_is_far_from_it():
    """At n = d the usual CKA of noise is about a half; the debiased one has no such floor."""
    pairs = [(normal(64, 1, 64, seed=2 * s), normal(64, 1, 64, seed=2 * s + 1)) for s in range(12)]
    ours = [cka(x, y, resamples=2).value for x, y in pairs]
    usual = [biased(x[:, 0], y[:, 0]) for x, y in pairs]
    assert min(usual) > 0.4
    assert abs(np.mean(ours)) < 3 * np.std(ours, ddof=1) / np.sqrt(len(ours))
    assert np.std(ours) < 0.05


def test_the_interval_covers_the_closed_form():
    """y = x + noise of variance 1 in d independent dimensions: 1 / √(1 · 4) · ... = 1/2 · 1/1."""
    inside = 0
    for seed in range(40):
        x = normal(40, 2, 6, seed=seed)
        y = x + normal(40, 2, 6, seed=1000 + seed)
        found = cka(x, y, resamples=300)  # covariances 1, 2, and 1 between them: 6 / √(6 · 24)
        inside += found.low <= 0.5 <= found.high
    assert inside >= 34


def test_without_means_leaves_the_residuals_of_two_factors_at_once():
    rng = np.random.default_rng(0)
    tokens, places = rng.integers(0, 5, (80, 3)), rng.integers(0, 4, (80, 3))
    places[tokens == 2] = 1  # unbalanced: taking one mean after the other would leave something
    effect = normal(5, 6)[tokens] + normal(4, 6, seed=1)[places]
    rest = normal(80, 3, 6, seed=2)
    assert np.abs(without_means(effect, tokens, places)).max() < 1e-9
    both = without_means(effect + rest, tokens, places)
    assert np.allclose(both, without_means(rest, tokens, places))
    for label in range(5):
        assert np.abs(both[tokens == label].mean(0)).max() < 1e-9
    for label in range(4):
        assert np.abs(both[places == label].mean(0)).max() < 1e-9
    assert both.std() > 0.9


def test_what_two_models_share_through_the_token_alone_is_gone():
    rng = np.random.default_rng(0)
    tokens, places = rng.integers(0, 20, (150, 4)), rng.integers(0, 10, (150, 4))
    shared = [5 * normal(20, 12, seed=s)[tokens] for s in (0, 0)]
    x, y = (s + normal(150, 4, 12, seed=9 + i) for i, s in enumerate(shared))
    assert cka(x, y, resamples=FEW).value > 0.8
    x, y = (without_means(a, tokens, places) for a in (x, y))
    assert abs(cka(x, y, resamples=FEW).value) < 0.05


def test_a_token_seen_once_is_not_fitted_away():
    rng = np.random.default_rng(0)
    tokens, places = rng.integers(0, 3, (40, 2)), np.zeros((40, 2), int)
    tokens[0, 0] = 99
    assert np.abs(without_means(normal(40, 2, 4), tokens, places)[0, 0]).max() > 0.1


def test_what_cannot_be_compared_is_refused_or_undefined():
    with pytest.raises(Refusal, match="four"):
        cka(normal(3, 2, 3), normal(3, 2, 3))
    with pytest.raises(Refusal, match="four"):
        hsic(np.eye(3), np.eye(3))
    assert not cka(normal(24, 2, 3), np.ones((24, 2, 3)), resamples=FEW).defined
