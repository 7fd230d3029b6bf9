from itertools import combinations, product

import numpy as np
import pytest

from probes.boundary import (
    Counts,
    compare,
    counts,
    cover,
    curve,
    fit_counts,
    guessed,
    histogram,
    majority,
    paired,
    pass_at_k,
    relabelled,
)
from probes.boundary.rows import of_accuracy, of_cover, of_curves, of_pair
from probes.records import Grade, Refusal
from probes.verify import Graded

RIGHT, LUCKY = Graded(Grade.RIGHT, True), Graded(Grade.RIGHT, False)
# A flawless trace to a wrong answer: the checker and the grader are not of one mind.
WRONG, UNPARSED = Graded(Grade.WRONG, True), Graded(Grade.UNPARSED, False)
ERROR = Graded(Grade.ERROR, False, "broke")


def measured(rights, n=16, valid=None):
    return [
        Counts(f"p{i}", n, int(c), int(c if valid is None else valid[i]), 0)
        for i, c in enumerate(rights)
    ]


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_it_is_the_share_of_subsets_holding_a_right_answer(n):
    for c in range(n + 1):
        answers = [True] * c + [False] * (n - c)
        for k in range(1, n + 1):
            subsets = list(combinations(answers, k))
            share = sum(map(any, subsets)) / len(subsets)
            assert pass_at_k(np.array([c]), n, k)[0] == pytest.approx(share, abs=1e-12)


def test_it_has_the_published_value():
    assert pass_at_k(np.array([3]), 10, 5)[0] == pytest.approx(1 - 21 / 252)


def test_it_is_exact_where_floating_products_lose_digits():
    """One right answer of n is found by k tries with chance k/n, whatever n."""
    assert pass_at_k(np.array([1]), 4096, 1024)[0] == 0.25
    assert pass_at_k(np.array([1]), 10**5, 1)[0] == 1e-5


def test_it_is_unbiased():
    """The mean over every outcome of 6 answers with p = .3 is 1 - .7^k; the plug-in's is not."""
    p, n = 0.3, 6
    for k in (2, 4, 6):
        outcomes = list(product([0, 1], repeat=n))
        chances = [p ** sum(o) * (1 - p) ** (n - sum(o)) for o in outcomes]
        values = pass_at_k(np.array([sum(o) for o in outcomes]), n, k)
        assert np.dot(chances, values) == pytest.approx(1 - 0.7**k)
        plug_in = [1 - (1 - sum(o) / n) ** k for o in outcomes]
        assert np.dot(chances, plug_in) < 1 - 0.7**k - 0.01


def test_problems_may_have_been_answered_unequally_often():
    found = pass_at_k(np.array([1, 1]), np.array([4, 8]), 2)
    assert found.tolist() == [0.5, 0.25]


def test_one_try_is_the_mean_and_more_tries_solve_no_less():
    rights = np.random.default_rng(0).binomial(16, 0.3, 40)
    points = curve(measured(rights))
    assert [point.k for point in points] == [1, 2, 4, 8, 16]
    assert points[0].estimate.value == pytest.approx(rights.mean() / 16)
    values = [point.estimate.value for point in points]
    assert values == sorted(values)
    assert values[-1] == pytest.approx((rights > 0).mean())


def test_valid_traces_solve_no_more_than_right_answers():
    rng = np.random.default_rng(0)
    rights = rng.binomial(16, 0.5, 40)
    some = measured(rights, valid=rng.binomial(rights, 0.3))
    for right, valid in zip(curve(some), curve(some, which="valid"), strict=True):
        assert valid.estimate.value < right.estimate.value
    every = measured(rights)
    assert curve(every) == curve(every, which="valid")


def test_the_interval_holds_the_truth_of_a_population_of_problems():
    rng = np.random.default_rng(0)
    truth = 1 - np.mean((1 - rng.beta(0.5, 2, 10**6)) ** 4)
    covered = 0
    for run in range(150):
        p = rng.beta(0.5, 2, 50)
        point = curve(measured(rng.binomial(16, p)), [4], seed=run)[0].estimate
        covered += point.low <= truth <= point.high
    assert 0.88 <= covered / 150 <= 0.995


def test_a_model_against_itself_differs_by_nothing():
    """On disjoint samples of the same 200 problems, over 60 draws: one interval in 20 misses 0."""
    rng = np.random.default_rng(0)
    misses = 0
    for run in range(60):
        p = rng.beta(0.5, 2, 100)
        one, other = (measured(rng.binomial(16, p)) for _ in range(2))
        misses += compare(one, other, [2], seed=run)[0].estimate.excludes(0)
    assert misses <= 8


def test_a_comparison_is_paired_by_problem_and_has_the_sign_of_the_gain():
    p = np.random.default_rng(0).beta(0.5, 2, 60) * 0.8
    base, tuned = measured(np.round(16 * p)), measured(np.round(16 * (p + 0.15)))
    gain = compare(base, tuned[::-1], [1])[0].estimate
    assert gain.value == pytest.approx(0.15, abs=0.02)
    assert gain.high - gain.low < 0.03, "problems vary by more: the pairs were torn apart"
    assert compare(tuned, base, [1])[0].estimate.value == pytest.approx(-gain.value)


def test_counting_keeps_failures_of_the_grader_out_and_luck_apart():
    problems = ["a", "b", "a", "a", "a", "b"]
    assert counts(problems, [RIGHT, WRONG, LUCKY, ERROR, UNPARSED, RIGHT]) == [
        Counts("a", n=3, right=2, valid=1, unparsed=1),
        Counts("b", n=2, right=1, valid=1, unparsed=0),
    ]


def test_guessing_solves_much_at_large_k():
    (_, once), (_, often) = guessed(np.full(3, 1 / 7), [1, 16])
    assert once == pytest.approx(1 / 7)
    assert often == pytest.approx(1 - (6 / 7) ** 16)


@pytest.mark.parametrize(
    ("answers", "gold", "expected"),
    [
        (["3", "3", "5"], "3", 1.0),
        (["3", "5", "5"], "3", 0.0),
        (["3", "5", "8"], "3", 1 / 3),
        ([None, None, None, "3"], "3", 1.0),
        ([None], "3", 0.0),
        ([], "3", 0.0),
    ],
)
def test_a_majority_vote_splits_ties_by_expectation(answers, gold, expected):
    assert majority(answers, [a == gold for a in answers]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pass_at_k(np.array([1]), 4, 5), r"k = 5 .* 1\.\.4"),
        (lambda: pass_at_k(np.array([1]), 4, 0), "k = 0"),
        (lambda: pass_at_k(np.array([5]), 4, 1), r"0\.\.n"),
        (lambda: pass_at_k(np.array([-1]), 4, 1), r"0\.\.n"),
        (lambda: curve([]), "no problems"),
        (lambda: curve(measured([1, 2], n=8), [16]), r"k = 16 .* better 64"),
        (lambda: compare(measured([1, 2]), measured([1, 2, 3])), "such as p2"),
        (lambda: paired(measured([1]) * 2, measured([1])), "twice"),
        (lambda: counts(["a"], []), "1 problem ids and 0"),
        (lambda: counts(["a"], [ERROR]), "no answer to 1"),
        (lambda: majority(["3", "3"], [True, False]), "both right and wrong"),
    ],
)
def test_refusals_say_what_is_possible(call, message):
    with pytest.raises(Refusal, match=message):
        call()


def test_where_no_trace_was_checked_valid_answers_are_no_number():
    """Neither 0 nor the right ones: whoever asks for them is told why there is none."""
    unchecked = [Graded(Grade.RIGHT, None), Graded(Grade.WRONG, None)]
    base = counts(["a", "a", "b", "b"], [*unchecked, *unchecked])
    assert [(c.right, c.valid, c.unparsed) for c in base] == [(1, None, 0)] * 2
    assert curve(base, [1])[0].estimate.value == 0.5
    for measure in (curve, cover, histogram):
        with pytest.raises(Refusal, match="checks no traces"):
            measure(base, which="valid")
    with pytest.raises(Refusal, match="checks no traces"):
        fit_counts(base)
    rows = [*of_curves(base, base, k=1), *of_pair(base, base, k=1), *of_cover(base, "base")]
    rows += of_accuracy(base, "base")
    untold = [r for r in rows if "valid" in r.measure]
    assert {r.measure for r in untold} == {
        "valid@k",
        "crossing valid",
        "solvable valid",
        "cover valid",
        "efficiency gap valid",
        "accuracy valid",
    }
    assert all(np.isnan(r.value) and "checks no traces" in r.note for r in untold)
    assert all(np.isfinite(r.value) for r in rows if r.measure == "pass@k")
    for pile in relabelled(base, base):
        assert [c.valid for c in pile] == [None, None]
        assert sum(c.n for c in pile) == 4


def test_one_unchecked_answer_makes_its_problem_unchecked():
    (mixed,) = counts(["a", "a"], [RIGHT, Graded(Grade.RIGHT, None)])
    assert mixed.valid is None
