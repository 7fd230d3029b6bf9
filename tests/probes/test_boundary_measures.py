"""Laws of the measures beyond pass@k, each against planted truth, brute force or a closed form."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import integrate, stats

from probes.boundary import (
    Counts,
    Fit,
    compare,
    compare_cover,
    cover,
    crossing,
    curve,
    efficiency_gap,
    estimates,
    fit_counts,
    histogram,
    pass_at_k,
    relabelled,
    retest,
    solvable,
    to_retest,
)
from probes.boundary.beta_binomial import probability
from probes.boundary.coverage import guessed_cover, guessed_histogram
from probes.boundary.crossing import pass_curves
from probes.boundary.efficiency import guessed_gap
from probes.boundary.rows import (
    of_cover,
    of_fit,
    of_guessing,
    of_later,
    of_pair,
    of_retest,
    seen,
)
from probes.boundary.solvable import CELLS, KEPT_BY_LUCK
from probes.records import Refusal


def measured(rights, n=16, valid=None, names="p"):
    return [
        Counts(f"{names}{i}", n, int(c), int(c if valid is None else valid[i]), 0)
        for i, c in enumerate(rights)
    ]


def drawn(rng, rates, n=32):
    return measured(rng.binomial(n, rates), n)


# crossing


def test_the_curves_of_all_k_are_those_of_the_estimator():
    some = measured([0, 1, 7, 16, 3]) + [Counts("q", 20, 5, 2, 0)]
    rights, answers = np.array([c.right for c in some]), np.array([c.n for c in some])
    by_k = np.stack([pass_at_k(rights, answers, k) for k in range(1, 17)], axis=1)
    assert pass_curves(some, 16, "right") == pytest.approx(by_k, abs=1e-12)
    large = [Counts("p", 1024, 1, 1, 0)]
    assert pass_curves(large, 1024, "right")[0] == pytest.approx(np.arange(1, 1025) / 1024)


def wide_and_narrow(problems=80, n=64):
    """The base solves everything seldom, the tuned model half of it nearly always."""
    rng = np.random.default_rng(0)
    base = drawn(rng, np.full(problems, 0.1), n)
    tuned = drawn(rng, np.where(np.arange(problems) % 2, 0.9, 0.0), n)
    return base, tuned


def test_a_planted_crossing_is_found_where_the_curves_cross():
    """1 − .9^k passes 1/2 · (1 − .1^k), about 1/2, between k = 6 and 7."""
    found = crossing(*wide_and_narrow())
    assert found.probability == 1.0
    assert found.ahead == 1.0
    assert found.low <= 7 <= found.high < 14
    assert abs(found.k - 7) <= 1
    assert not found.censored
    base, tuned = wide_and_narrow()
    leads = [p.estimate.value for p in compare(base, tuned, range(1, 65))]
    assert found.k == 1 + next(i for i, lead in enumerate(leads) if lead < 0)


def test_where_they_do_not_cross_it_is_censored_and_nothing_is_extrapolated():
    base, tuned = wide_and_narrow()
    early = crossing(base, tuned, 4)
    assert early.probability < 0.05
    assert early.censored
    assert math.isinf(early.k)
    assert math.isinf(early.high)
    assert str(early).endswith("not by k = 4")
    half = crossing(base, tuned, 7)
    assert 0.1 < half.probability < 1
    assert math.isinf(half.high), "resamples that don't cross stand at infinity"
    assert half.low <= 7


def test_who_has_no_lead_can_not_lose_it():
    base, tuned = wide_and_narrow()
    turned = crossing(tuned, base)
    assert turned.ahead == 0.0
    assert turned.probability == 0.0


def test_meeting_at_one_is_no_crossing():
    found = crossing(measured([8] * 12), measured([16] * 12))
    assert found.probability == 0.0


def test_a_crossing_is_paired_by_problem():
    base, tuned = wide_and_narrow()
    assert crossing(base, tuned[::-1]) == crossing(base, tuned)
    with pytest.raises(Refusal, match="different problems"):
        crossing(base, tuned[1:])
    with pytest.raises(Refusal, match=r"k_max = 65.*2\.\.64"):
        crossing(base, tuned, 65)


# solvable by


def test_the_four_cells_are_those_counted_by_hand():
    base, tuned = measured([0, 1, 5, 0, 2]), measured([0, 0, 3, 1, 0])
    found = {cell: share.value for cell, share in solvable(base, tuned).items()}
    assert found == {"both": 0.2, "base only": 0.4, "tuned only": 0.2, "neither": 0.2}
    assert sum(found.values()) == pytest.approx(1)


def test_valid_traces_fill_the_cells_by_valid_answers():
    base = measured([3, 3], valid=[0, 1])
    assert solvable(base, base, which="valid")["neither"].value == 0.5
    assert solvable(base, base)["both"].value == 1.0


def test_every_exclusive_problem_is_tested_again_and_some_of_the_others():
    rng = np.random.default_rng(0)
    base, tuned = (drawn(rng, np.full(200, 0.03)) for _ in range(2))
    cell = dict(zip((b.problem for b in base), (b.right > 0 for b in base), strict=True))
    other = {t.problem: t.right > 0 for t in tuned}
    chosen = to_retest(base, tuned, others=5, seed=1)
    exclusive = [p for p in cell if cell[p] != other[p]]
    assert set(exclusive) <= set(chosen)
    assert sum(cell[p] and other[p] for p in chosen) == 5
    assert sum(not cell[p] and not other[p] for p in chosen) == 5
    assert chosen == to_retest(base, tuned, others=5, seed=1)
    assert chosen != to_retest(base, tuned, others=5, seed=2)


def test_what_equal_models_solve_alone_they_lose_in_the_re_test():
    """Regression to the mean: each keeps q(1 − q) of it, a quarter at most, q a chance to solve."""
    rng = np.random.default_rng(0)
    rates = np.full(2000, 0.03)
    base, tuned, again, tuned_again = (drawn(rng, rates) for _ in range(4))
    found = {one.cell: one for one in retest(base, tuned, again, tuned_again)}
    q = 1 - 0.97**32
    for cell, kept in {"base only": q * (1 - q), "tuned only": q * (1 - q), "both": q * q}.items():
        assert found[cell].stayed.low <= kept <= found[cell].stayed.high
        assert found[cell].tested == found[cell].found
        assert sum(found[cell].moved.values()) == found[cell].tested
    assert found["base only"].stayed.value <= KEPT_BY_LUCK + 0.05


def test_what_one_model_truly_solves_alone_stays():
    rng = np.random.default_rng(0)
    able, unable = np.full(60, 0.5), np.zeros(60)
    base, again = (drawn(rng, able) for _ in range(2))
    tuned, tuned_again = (drawn(rng, unable) for _ in range(2))
    found = {one.cell: one for one in retest(base, tuned, again, tuned_again)}
    assert found["base only"].stayed.value == 1.0
    assert not found["neither"].stayed.defined
    assert found["neither"].tested == 0


def test_a_re_test_of_some_problems_counts_these_only():
    base, tuned = measured([1, 0, 1, 0]), measured([0, 1, 1, 0])
    again = retest(base, tuned, base[:1], measured([1]))
    by_cell = {one.cell: one for one in again}
    assert by_cell["base only"].moved == {c: int(c == "both") for c in CELLS}
    assert [by_cell[c].tested for c in CELLS] == [0, 1, 0, 0]


def test_unequal_budgets_and_unknown_problems_are_refused():
    with pytest.raises(Refusal, match="asked more often"):
        solvable(measured([1, 2], n=16), measured([1, 2], n=32))
    with pytest.raises(Refusal, match="never tested"):
        retest(measured([1]), measured([1]), measured([1], names="q"), measured([1], names="q"))


# coverage


def test_cover_is_the_share_of_problems_at_tau_or_above():
    some = measured([0, 4, 7, 10], n=10)
    assert [c.estimate.value for c in cover(some, (0.1, 0.4, 0.7, 0.71, 1.0))] == [
        0.75,
        0.75,
        0.5,
        0.25,
        0.25,
    ]


def test_pass_at_k_is_an_integral_of_cover():
    """∫ G(tau) k (1 − tau)^(k − 1) dtau, of accuracies that are known: 1 − (1 − p)^k."""
    rights, n, k = np.array([0, 1, 5, 9, 16]), 16, 4
    some, steps = measured(rights, n), np.unique(np.append(rights / n, [0, 1]))

    def weighted(tau):
        return cover(some, (tau,))[0].estimate.value * k * (1 - tau) ** (k - 1)

    pieces = zip(steps[:-1], steps[1:], strict=True)  # G is constant between the accuracies
    total = sum(integrate.fixed_quad(np.vectorize(weighted), a, b, n=4)[0] for a, b in pieces)
    assert total == pytest.approx(np.mean(1 - (1 - rights / n) ** k), abs=1e-9)


def test_the_difference_of_covers_is_paired_and_signed():
    base, tuned = measured([2, 4, 6] * 8), measured([12, 12, 6] * 8)
    change = compare_cover(base, tuned[::-1], (0.5,))[0].estimate
    assert change == compare_cover(base, tuned, (0.5,))[0].estimate
    with pytest.raises(Refusal, match="different problems"):
        compare_cover(base, tuned[1:], (0.5,))
    assert change.value == pytest.approx(2 / 3)
    assert change.excludes(0)


def test_a_histogram_holds_every_problem_once_with_the_ends_apart():
    some = measured([0, 0, 1, 2, 9, 10], n=10)
    bins = histogram(some)
    counts = [round(6 * one.estimate.value) for one in bins]
    assert sum(counts) == 6
    assert (counts[0], counts[1], counts[2], counts[-1]) == (2, 1, 1, 1)
    assert counts[9] == 1, "9 of 10 is in (.8, .9]"
    assert [one.middle for one in bins][:3] == pytest.approx([0, 0.05, 0.15])


def test_a_guesser_is_smeared_like_its_samples():
    """Against a simulation of n guesses, both for Cover@tau and for the histogram."""
    rng = np.random.default_rng(0)
    rates, n = np.array([1 / 31, 1 / 7]), 16
    told = drawn(rng, np.tile(rates, 300), n)
    for (tau, wanted), found in zip(
        guessed_cover(rates, n, (0.1, 0.3)), cover(told, (0.1, 0.3)), strict=True
    ):
        assert found.tau == tau
        assert found.estimate.value == pytest.approx(wanted, abs=0.05)
    for (middle, wanted), one in zip(guessed_histogram(rates, n), histogram(told), strict=True):
        assert one.middle == middle
        assert one.estimate.value == pytest.approx(wanted, abs=0.05)


@pytest.mark.parametrize("tau", [0.0, -0.1, 1.1])
def test_a_tau_that_covers_nothing_or_everything_is_refused(tau):
    with pytest.raises(Refusal, match=r"lies in \(0, 1\]"):
        cover(measured([1, 2]), (tau,))


# the sampling-efficiency gap


def test_the_gap_is_the_base_s_reach_less_the_tuned_model_s_first_try():
    base, tuned = measured([2, 4, 0, 8] * 10), measured([8, 8, 0, 16] * 10)
    gap = efficiency_gap(base, tuned[::-1], 4)
    reach, once = curve(base, [4])[0].estimate.value, curve(tuned, [1])[0].estimate.value
    assert gap.value == pytest.approx(reach - once)
    assert gap.low < gap.value < gap.high
    rates = np.array([1 / 31, 1 / 7])
    assert guessed_gap(rates, 4) == pytest.approx(np.mean(1 - (1 - rates) ** 4 - rates))


# nulls


def test_shuffled_labels_keep_every_answer_and_lose_every_difference():
    rng = np.random.default_rng(0)
    base = [Counts(f"p{i}", 16, 4, int(rng.integers(4)), 2) for i in range(300)]
    tuned = [Counts(f"p{i}", 16, 14, 12, 0) for i in range(300)]
    one, other = relabelled(base, tuned, seed=3)
    pairs = zip(base, tuned, strict=True), zip(one, other, strict=True)
    for before, after in zip(*pairs, strict=True):
        for name in ("n", "right", "valid", "unparsed"):
            assert sum(getattr(c, name) for c in after) == sum(getattr(c, name) for c in before)
        assert [c.n for c in after] == [16, 16]
    assert all(0 <= c.valid <= c.right <= c.n - c.unparsed for c in [*one, *other])
    assert abs(compare(one, other, [1])[0].estimate.value) < 0.03
    assert compare(base, tuned, [1])[0].estimate.value > 0.5
    assert relabelled(base, tuned, seed=3) == (one, other)


def test_shuffled_labels_are_dealt_as_one_by_one():
    """Against dealing the cards: three right of eight, four to each hand."""
    base, tuned = measured([1] * 4000, n=4), measured([2] * 4000, n=4)
    hands = [sum(hand[:4]) for hand in set(product([0, 1], repeat=8)) if sum(hand) == 3]
    wanted = np.bincount(hands, minlength=4) / len(hands)
    dealt = np.bincount([c.right for c in relabelled(base, tuned)[0]], minlength=4) / 4000
    assert dealt == pytest.approx(wanted, abs=0.03)


# would it ever


@pytest.mark.parametrize("zero", [0.0, 0.3])
@pytest.mark.parametrize(("a", "b", "n"), [(0.7, 2.0, 10), (3.0, 0.5, 33), (40.0, 60.0, 7)])
def test_the_likelihood_is_scipy_s_with_zeros_put_in(zero, a, b, n):
    fit = Fit(zero, a, b, math.nan)
    wanted = (1 - zero) * stats.betabinom.pmf(np.arange(n + 1), n, a, b)
    wanted[0] += zero
    assert [probability(fit, c, n) for c in range(n + 1)] == pytest.approx(wanted.tolist())


def planted(problems, n, zero, a, b, seed=0):
    rng = np.random.default_rng(seed)
    return drawn(rng, np.where(rng.random(problems) < zero, 0, rng.beta(a, b, problems)), n)


def test_planted_parameters_are_recovered():
    fit = fit_counts(planted(3000, 64, 0.3, 0.8, 3.0))
    assert fit.zero == pytest.approx(0.3, abs=0.03)
    assert fit.a == pytest.approx(0.8, rel=0.1)
    assert fit.b == pytest.approx(3.0, rel=0.1)
    assert fit.gain > 50
    truth = 0.3 + 0.7 * stats.beta.cdf(0.05, 0.8, 3)
    assert fit.below(0.05) == pytest.approx(truth, abs=0.02)
    assert fit.cover(0.05) == pytest.approx(1 - truth, abs=0.02)


def test_the_likeliest_parameters_are_nowhere_bettered():
    some = planted(150, 32, 0.2, 0.9, 4.0)
    fit = fit_counts(some)

    def likelihood(zero, a, b):
        at = Fit(zero, a, b, 0.0)
        return sum(math.log(probability(at, c.valid, c.n)) for c in some)

    assert fit.log_likelihood == pytest.approx(likelihood(fit.zero, fit.a, fit.b))
    for dz, da, db in product((-0.02, 0, 0.02), (0.9, 1, 1.1), (0.9, 1, 1.1)):
        near = max(0.0, fit.zero + dz), fit.a * da, fit.b * db
        assert likelihood(*near) <= fit.log_likelihood + 1e-6


def test_an_exact_zero_is_not_told_from_a_tiny_rate_but_the_mass_below_the_limit_is_known():
    never = planted(3000, 32, 0.4, 4.0, 4.0)
    rng = np.random.default_rng(1)
    rates = np.where(rng.random(3000) < 0.4, 1e-6, rng.beta(4, 4, 3000))
    seldom = drawn(rng, rates)
    one, other = fit_counts(never), fit_counts(seldom)
    assert other.zero == pytest.approx(one.zero, abs=0.04), "no rate of the second is 0"
    assert other.zero > 0.3
    for fit in (one, other):
        assert fit.below(0.05) == pytest.approx(0.4, abs=0.03)


def test_it_says_what_more_answers_would_solve():
    """In and beyond the answers it was fitted to, against fresh ones of the same problems."""
    rng = np.random.default_rng(2)
    rates = np.where(rng.random(1000) < 0.2, 0, rng.beta(0.6, 3, 1000))
    first, later = drawn(rng, rates), drawn(rng, rates)
    fit = fit_counts(first)
    assert fit.within(8) == pytest.approx(curve(first, [8])[0].estimate.value, abs=0.01)
    assert fit.within(1000) == pytest.approx(np.mean(1 - (1 - rates) ** 1000), abs=0.06)
    told = of_later(first, later, "base")[0]
    assert fit.again(32, 32) == pytest.approx(told.value, abs=0.06)
    assert told.low < told.value < told.high


def test_the_interval_holds_the_planted_mass_as_often_as_it_says():
    truth = 0.3 + 0.7 * stats.beta.cdf(0.05, 1.0, 4.0)
    held = 0
    for run in range(8):
        some = planted(80, 32, 0.3, 1.0, 4.0, seed=run)
        found = estimates(some, {"below": lambda fit: fit.below(0.05)}, resamples=40)["below"]
        held += found.low <= truth <= found.high
    assert held >= 6  # of 8 at 95%, P = .006 for fewer


def test_a_share_of_sixty_problems_is_not_known_without_an_interval():
    """All rates near .03 are below .09 in every resample: the exact interval takes over."""
    rng = np.random.default_rng(0)
    row = of_fit(drawn(rng, np.full(60, 0.03)), "base", resamples=20)[0]
    assert row.x == pytest.approx(1 - 0.05 ** (1 / 32))
    assert row.value > 0.99
    assert row.low < 0.96


def test_what_guessing_solves_is_not_seen_as_solved_however_often_it_is_asked():
    rates = np.array([0.1, 0.02])
    assert seen(measured([1, 1], n=16), rates) == pytest.approx(1 - 0.05 ** (1 / 16))
    assert seen(measured([1, 1], n=1024), rates) == pytest.approx(0.06)


def test_where_nothing_was_ever_solved_nothing_is_fitted():
    with pytest.raises(Refusal, match="none of 5 problems"):
        fit_counts(measured([3] * 5, valid=[0] * 5))
    found = estimates(measured([0] * 5), {"x": lambda fit: fit.zero})["x"]
    assert found.reason == "none of 80 answers is valid"
    few = estimates(measured([0] * 40 + [2]), {"x": lambda fit: fit.zero}, resamples=40)["x"]
    assert "some resamples have none" in few.reason


# rows


def test_rows_are_the_measures_with_their_names():
    base, tuned = wide_and_narrow()
    rows = of_pair(base, tuned, k=8, taus=(0.5,), about={"skill": "a"})
    (chance,) = [r for r in rows if r.measure == "crossing right"]
    (place,) = [r for r in rows if r.measure == "crossing k right"]
    found = crossing(base, tuned)
    assert (chance.value, chance.x, chance.skill) == (found.probability, 64.0, "a")
    assert (place.value, place.low, place.high) == (found.k, found.low, found.high)
    shares = {r.model: r.value for r in rows if r.measure == "solvable valid"}
    assert shares == {c: s.value for c, s in solvable(base, tuned, which="valid").items()}
    assert [r.x for r in of_cover(base, "base", taus=(0.5,))] == [0.5, 0.5]
    again = of_retest(retest(base, tuned, base, tuned), samples=64, which="right")
    assert [r.model for r in again] == list(CELLS)
    assert {r.value for r in again if not math.isnan(r.value)} == {1.0}


def test_guesses_that_solve_alone_are_two_independent_guessers():
    rows = of_guessing(np.array([0.1, 0.3]), 4, k=2, taus=(0.5,))
    cells = {r.model: r.value for r in rows if r.measure == "solvable right"}
    reach = 1 - np.array([0.9, 0.7]) ** 4
    assert cells["both"] == pytest.approx(np.mean(reach**2))
    assert cells["base only"] == cells["tuned only"] == pytest.approx(np.mean(reach * (1 - reach)))
    assert sum(cells.values()) == pytest.approx(1)
