import math

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from scipy import stats

from probes.intervals import (
    Estimate,
    bootstrap,
    detectable,
    detection_limit,
    difference,
    equivalent,
    exact_rate,
    rate,
    ratio,
    recovered,
    undefined,
    wilson,
)
from probes.records import Refusal


def mean(x):
    return x


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def rates(rng, n, a=0.3, b=1.5, answers=16):
    return rng.binomial(answers, rng.beta(a, b, n)) / answers


def test_95_percent_intervals_hold_the_truth_of_skewed_rates_95_percent_of_the_time(rng):
    runs = 600
    covered = 0
    for run in range(runs):
        found = bootstrap(mean, rates(rng, 80), seed=run, resamples=300)
        covered += found.low <= 0.3 / 1.8 <= found.high
    # Three binomial standard errors of 600 runs are .027; a 90% interval would be caught.
    assert 0.923 <= covered / runs <= 0.977


def test_intervals_of_rare_rates_hold_the_truth_too(rng):
    """Two problems in a hundred solved: the plain bootstrap covers 85% here."""
    truth, runs = 0.02, 600
    found = [rate((rng.random(50) < truth).astype(float)) for _ in range(runs)]
    assert sum(e.low <= truth <= e.high for e in found) / runs >= 0.95


@pytest.mark.parametrize("name", ["mean", "variance"])
def test_a_bootstrap_equals_scipys_bca(rng, name):
    """The variance of a resample is too low on average: without the correction it would show."""
    x = rates(rng, 30)
    if name == "mean":
        ours = bootstrap(mean, x, resamples=20_000)
    else:
        ours = bootstrap(lambda square, plain: square - plain**2, x**2, x, resamples=20_000)
    statistic = np.mean if name == "mean" else np.var
    theirs = stats.bootstrap((x,), statistic, n_resamples=20_000, method="BCa", rng=rng)
    width = ours.high - ours.low
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.06 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.06 * width)
    assert ours.se == pytest.approx(theirs.standard_error, rel=0.03)


def test_the_standard_error_of_a_mean_is_the_textbooks(rng):
    x = rates(rng, 500)
    assert bootstrap(mean, x).se == pytest.approx(x.std() / math.sqrt(500), rel=0.05)


def test_a_ratio_has_the_delta_methods_standard_error(rng):
    below = rng.uniform(0.4, 0.8, 400)
    above = below * rng.uniform(0.5, 0.9, 400)
    r = above.mean() / below.mean()
    expected = (above - r * below).std() / below.mean() / 20
    found = ratio(above, below)
    assert found.value == pytest.approx(r)
    assert found.se == pytest.approx(expected, rel=0.06)


def test_pairing_takes_the_difficulty_of_problems_out_of_a_difference(rng):
    hard = rng.random(200) * 0.8
    before, after = hard, np.clip(hard + 0.1 + rng.normal(0, 0.01, 200), 0, 1)
    paired, apart = difference(after, before), difference(after, rng.permutation(before))
    assert paired.value == pytest.approx(apart.value)
    assert (paired.high - paired.low) < 0.1 * (apart.high - apart.low)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another(rng):
    x = rates(rng, 50)
    assert rate(x, seed=1) == rate(x, seed=1)
    assert rate(x, seed=1) != rate(x, seed=2)


def test_blocks_of_resamples_change_nothing(rng, monkeypatch):
    x = rates(rng, 50)
    whole = bootstrap(mean, x, resamples=300)
    monkeypatch.setattr("probes.intervals._BLOCK", 700)
    assert bootstrap(mean, x, resamples=300).value == pytest.approx(whole.value)
    assert bootstrap(mean, x, resamples=300).se == pytest.approx(whole.se, rel=0.2)


def test_a_rate_without_any_success_is_bounded_by_the_exact_limit():
    found = rate(np.zeros(200))
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 200))


def test_two_models_that_never_differ_still_have_an_interval_of_some_width():
    same = rate(np.full(40, 0.5)), difference(np.full(40, 0.5), np.full(40, 0.5))
    assert same[1].value == 0
    assert same[1].low == -same[1].high < -0.05


def test_a_difference_on_few_problems_counts_rises_and_falls():
    before = np.zeros(100)
    after = np.array([1.0] * 6 + [0.0] * 94)
    found = difference(after, before)
    assert found.value == pytest.approx(0.06)
    assert found.low < 0.01
    assert found.high > 0.12
    assert difference(before, after).low == pytest.approx(-found.high)


@pytest.mark.parametrize(("successes", "trials"), [(0, 7), (1, 12), (5, 20), (20, 20)])
@pytest.mark.parametrize(("ours", "name"), [(exact_rate, "exact"), (wilson, "wilson")])
def test_intervals_of_one_rate_are_scipys(successes, trials, ours, name):
    theirs = stats.binomtest(successes, trials).proportion_ci(method=name)
    found = ours(successes, trials)
    assert found.low == pytest.approx(theirs.low, abs=1e-9)
    assert found.high == pytest.approx(theirs.high, abs=1e-9)


def test_the_detection_limit_is_the_rate_that_stays_unseen_in_5_percent_of_runs():
    limit = detection_limit(300)
    assert (1 - limit) ** 300 == pytest.approx(0.05)
    assert limit == pytest.approx(3 / 300, rel=0.01)


def test_the_recovered_share_is_signed_and_not_clipped(rng):
    base = rates(rng, 300)
    tuned = np.clip(base + 0.3 + rng.normal(0, 0.05, 300), 0, 2)
    for share in (-0.5, 0.0, 0.4, 1.3):
        found = recovered(base + share * (tuned - base), base, tuned)
        assert found.value == pytest.approx(share)
        assert not found.excludes(share) or found.high - found.low < 1e-9


def test_a_gap_within_noise_has_no_shares(rng):
    base = rates(rng, 40)
    found = recovered(base + 0.1, base, rng.permutation(base))
    assert math.isnan(found.value)
    assert "gap" in found.reason
    assert str(found).startswith("undefined (the gap is ")
    assert not found.excludes(0)


def test_a_statistic_that_few_problems_carry_is_undefined():
    carried = np.array([1.0] + [0.0] * 49)
    assert "too few" in bootstrap(lambda a, b: a / b, carried / 2, carried).reason
    assert "zero" in bootstrap(lambda a, b: a / b, carried, 0 * carried).reason


@pytest.mark.parametrize(
    ("low", "high", "margin", "expected"),
    [(-0.02, 0.03, 0.05, True), (-0.02, 0.06, 0.05, False), (0.01, 0.02, 0.05, True)],
)
def test_equivalence_is_an_interval_within_the_margin(low, high, margin, expected):
    assert equivalent(Estimate(0.0, low, high, 100), margin) is expected


def test_equivalence_is_wrongly_claimed_at_most_once_in_forty(rng):
    """At a true difference of exactly the margin."""
    claims = [
        equivalent(bootstrap(mean, rng.normal(0.1, 0.3, 60), resamples=300), 0.1)
        for _ in range(400)
    ]
    assert sum(claims) / 400 <= 0.025 + 0.025


def test_the_detectable_effect_is_found_four_times_in_five(rng):
    n, runs, spread = 60, 400, 0.3
    sample = rng.normal(0, spread, n)
    sample = (sample - sample.mean()) / sample.std() * spread
    effect = detectable(bootstrap(mean, sample))
    found = sum(
        bootstrap(mean, rng.normal(effect, spread, n), resamples=300).excludes(0)
        for _ in range(runs)
    )
    assert found / runs == pytest.approx(0.8, abs=0.07)


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(0.4213, 0.38, 0.46, 9), "0.42 [0.38, 0.46]"),
        (Estimate(0.01234, 0.0111, 0.0135, 9), "0.012 [0.011, 0.013]"),
        (Estimate(-0.0001, -0.3, 0.3, 9), "0.00 [-0.30, 0.30]"),
        (undefined("no checks", 0), "undefined (no checks)"),
    ],
)
def test_an_estimate_reads_as_number_and_interval(estimate, text):
    assert str(estimate) == text


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rate(np.array([1.0])), "1 problem"),
        (lambda: rate(np.array([0.1, np.nan])), "NaN|rates from"),
        (lambda: rate(np.array([3.0, 1.0])), "0..1"),
        (lambda: bootstrap(mean, np.ones((3, 3))), "can't be paired|problems"),
        (lambda: ratio(np.array([1, np.inf]), np.ones(2)), "1 of the numbers"),
        (lambda: exact_rate(5, 4), "5 successes of 4"),
        (lambda: equivalent(Estimate(0.0, 0.0, 0.0, 1), 0), "margin 0"),
        (lambda: bootstrap(mean, np.ones(3), level=95), "level 95"),
    ],
)
def test_refusals_say_what_is_possible(call, message):
    with pytest.raises((Refusal, TypeCheckError), match=message):  # shapes are checked in tests
        call()
