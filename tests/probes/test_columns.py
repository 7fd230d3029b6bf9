"""Many intervals at once equal those made one by one; the correction holds its level."""

import numpy as np
import pytest
from scipy import stats

from probes.columns import beyond_draws, columns, familywise
from probes.intervals import bootstrap, difference, rate
from probes.records import Refusal


def rates(settings, problems, *, seed=0, samples=8):
    rng = np.random.default_rng(seed)
    chance = rng.beta(0.4, 1.2, size=(settings, problems))
    return rng.binomial(samples, chance) / samples


@pytest.mark.parametrize("problems", [5, 40])
def test_rates_and_differences_are_those_of_one_setting_alone(problems):
    values, plain = rates(9, problems), rates(1, problems, seed=1)[0]
    values[0], values[1] = 0.0, 1.0  # off the edges: exact intervals
    found, gains = columns(values), columns(values - plain, "difference")
    for i, row in enumerate(values):
        alone, gain = rate(row), difference(row, plain)
        np.testing.assert_allclose(
            [found.value[i], found.low[i], found.high[i]],
            [alone.value, alone.low, alone.high],
            atol=1e-12,
        )
        np.testing.assert_allclose(
            [gains.value[i], gains.low[i], gains.high[i]], [gain.value, gain.low, gain.high], 1e-9
        )


def test_numbers_of_any_range_are_bootstrapped():
    values = np.random.default_rng(0).gamma(2.0, 20.0, size=(3, 30))
    found = columns(values, "any")
    for i, row in enumerate(values):
        alone = bootstrap(lambda mean: mean, row)
        np.testing.assert_allclose([found.low[i], found.high[i]], [alone.low, alone.high], 1e-12)


@pytest.mark.parametrize("problems", [2, 4, 9])
def test_few_numbers_of_any_range_have_students_interval(problems):
    values = np.random.default_rng(0).gamma(2.0, 20.0, size=(3, problems))
    found = columns(values, "any")
    low, high = stats.t.interval(0.95, problems - 1, values.mean(1), stats.sem(values, axis=1))
    np.testing.assert_allclose([found.low, found.high], [low, high], 1e-9)


@pytest.mark.parametrize("draws", [2, 4, 12])
def test_a_random_direction_is_seldom_beyond_others_and_a_push_that_does_more_is(draws):
    """Directions differ, and all of a direction's problems with it: one in twenty is beyond."""
    rng = np.random.default_rng(draws)
    own, drawn, spread = [], [], []
    for _ in range(400):
        effects = 0.3 * rng.normal(size=(draws + 1, 1))
        seen = rng.normal(size=(1, 24)) + effects + 0.2 * rng.normal(size=(draws + 1, 24))
        own.append(seen[0]), drawn.append(seen[1:].mean(0))
        spread.append(seen[1:].mean(1).std(ddof=1))
    own, drawn, spread = map(np.array, (own, drawn, spread))
    many, freedom = np.full(400, float(draws)), np.full(400, draws - 1.0)
    found = beyond_draws(own, drawn, spread, many, freedom, "any")
    beyond = ((found.low > 0) | (found.high < 0)).mean()
    assert 0.01 < beyond < 0.08
    naive = columns(own - drawn, "any")
    assert ((naive.low > 0) | (naive.high < 0)).mean() > 0.5, "which is why"
    found = beyond_draws(own + 30, drawn, spread, many, freedom, "any")
    assert (found.low > 0).mean() > 0.9


def test_one_random_direction_says_nothing_of_others():
    found = beyond_draws(np.ones((1, 4)), np.zeros((1, 4)), *np.array([[np.nan], [1.0], [0.0]]))
    assert found.value == 1
    assert np.isnan([found.low, found.high]).all()


def test_a_setting_with_a_hole_has_no_number_and_the_others_keep_theirs():
    values = rates(3, 20)
    whole = columns(values)
    values[1, 4] = np.nan
    found = columns(values)
    assert np.isnan([found.value[1], found.low[1], found.high[1]]).all()
    assert found.low[2] == whole.low[2]
    assert np.isnan(familywise(values - 0.5)).tolist() == [False, True, False]
    with pytest.raises(Refusal, match="two is the least"):
        columns(values[:, :1])


def test_the_correction_holds_its_level_where_nothing_works():
    """200 sweeps of 50 settings without effect: one in twenty has any p below .05."""
    rng = np.random.default_rng(3)
    first = []
    for seed in range(200):
        shared = rng.normal(size=(1, 40))  # settings of a sweep resemble each other
        gains = np.round(shared + rng.normal(size=(50, 40))) / 4
        first.append(familywise(gains, seed=seed, flips=199).min() <= 0.05)
    assert 0.01 <= np.mean(first) <= 0.10  # three standard errors of .05 among 200 are .046


def test_a_planted_effect_survives_the_correction_and_one_look_is_the_plain_test():
    rng = np.random.default_rng(0)
    gains = rng.choice([-0.25, 0.0, 0.25], size=(50, 60))
    gains[7] += 0.3
    p = familywise(gains)
    assert p[7] < 0.01
    assert np.delete(p, 7).min() > 0.05
    alone = familywise(gains[7:8])
    assert alone[0] <= p[7]
    one = np.full((1, 3), 0.25)
    # Of the 8 ways to flip 3 signs, 2 are as far: p is about 1/4, and never below.
    assert familywise(one)[0] == pytest.approx(0.25, abs=0.03)
