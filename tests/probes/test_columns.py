"""Many intervals at once equal those made one by one; the correction holds its level."""

import numpy as np
import pytest

from probes.columns import columns, familywise
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
