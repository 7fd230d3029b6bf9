"""Axes: their values against arithmetic in fractions, their points against nested loops."""

from fractions import Fraction
from itertools import product

import pytest

from probes.records import Refusal
from steering.sweep.axes import MOST, Continuous, points, spread


@pytest.mark.parametrize(
    ("low", "high", "step"),
    [
        ("-2", "2", "0.5"),
        ("0", "0.3", "0.1"),
        ("-1", "1", "0.05"),
        ("0", "1", "0.3"),
        ("3", "3", "7"),
    ],
)
def test_a_range_holds_every_multiple_up_to_its_end_as_it_would_be_typed(low, high, step):
    """0.1 * 3 is not 0.3 in floats, and a setting of 0.30000000000000004 is another setting."""
    wanted, at = [], Fraction(low)
    while at <= Fraction(high):
        wanted.append(float(at))
        at += Fraction(step)
    found = spread({"from": float(low), "to": float(high), "step": float(step)})
    assert list(map(repr, found)) == list(map(repr, wanted))


def test_a_log_range_has_equal_ratios_and_both_ends():
    found = spread({"from": 0.01, "to": 100, "count": 5, "log": True})
    assert found == [0.01, 0.1, 1.0, 10.0, 100.0]
    found = spread({"from": -8, "to": -1, "count": 4, "log": True})
    assert found == [-8.0, -4.0, -2.0, -1.0]


def test_a_counted_range_has_equal_differences_and_both_ends():
    assert spread({"from": 0, "to": 0.7, "count": 8}) == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]


def test_a_list_keeps_its_order_and_types():
    assert repr(spread([3, 1.5, "x", {"stop": 1}])) == "[3, 1.5, 'x', {'stop': 1}]"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "no value"),
        ([0, 1, 0], "0 is there twice"),
        ([0, 0.0], "0 is there twice"),
        ([1, -0.0, 0.0], "-0.0 is there twice"),
        (["a", "b", "a"], "'a' is there twice"),
        (0.5, "belongs under [fixed]"),
        ("generated", "belongs under [fixed]"),
        ({"from": 0, "to": 1}, "is no axis"),
        ({"from": 0, "to": 1, "step": 0.1, "count": 3}, "is no axis"),
        ({"from": 0, "to": 1, "step": 0}, "no value"),
        ({"from": 0, "to": 1, "step": -0.1}, "no value"),
        ({"from": 1, "to": 0, "step": 0.1}, "no value"),
        ({"from": 0, "to": "1", "step": 0.1}, "is not a number"),
        ({"from": 0, "to": True, "step": 0.1}, "is not a number"),
        ({"from": 0, "to": float("nan"), "step": 0.1}, "is not a number"),
        ({"from": 0, "to": 10**400, "step": 0.1}, "is not a number"),
        ({"from": 0, "to": 1, "step": 1e-9}, "above 1,000,000 values"),
        ({"from": -1e308, "to": 1e308, "step": 1e-300}, "above 1,000,000 values"),
        ({"from": 0, "to": 1, "count": 0}, "count is a whole number"),
        ({"from": 0, "to": 1, "count": 2.5}, "count is a whole number"),
        ({"from": 0, "to": 1, "count": 10**9}, "count is a whole number"),
        ({"from": 0, "to": 1, "count": 3, "log": True}, "one sign, not 0"),
        ({"from": -1, "to": 1, "count": 3, "log": True}, "one sign, not 0"),
        ({"from": 1, "to": 2, "count": 3, "log": 1}, "log is true or false"),
        ({"uniform": [1, 0]}, "the first end is below"),
        ({"uniform": 3}, "give its two ends"),
        ({"uniform": [0, float("inf")]}, "give its two ends"),
        ({"loguniform": [0, 1]}, "above 0 for log"),
    ],
)
def test_what_is_no_axis_is_refused(given, said):
    with pytest.raises(Refusal) as refused:
        spread(given)
    assert said in str(refused.value)


def test_axes_that_move_together_may_have_a_value_twice():
    assert spread([1, 1, 2], together=True) == [1, 1, 2]


def test_a_grid_is_the_nested_loop_over_its_axes_the_last_one_fastest():
    grid = {"a": [1, 2], "b": ["x", "y", "z"], "c": [0.5]}
    found = list(points({"model": "m"}, grid, []))
    assert found == [{"model": "m", "a": a, "b": b, "c": c} for a, b, c in product(*grid.values())]


def test_axes_that_move_together_are_one_factor_behind_the_grid():
    zipped = [{"layer": [0, 1, 2], "push": ["p", "q", "r"]}, {"seed": [7, 8]}]
    found = list(points({}, {"strength": [0.0, 1.0]}, zipped))
    wanted = [
        {"strength": s, "layer": layer, "push": push, "seed": seed}
        for s in (0.0, 1.0)
        for layer, push in ((0, "p"), (1, "q"), (2, "r"))
        for seed in (7, 8)
    ]
    assert found == wanted


def test_no_axis_at_all_is_one_point():
    assert list(points({"model": "m"}, {}, [])) == [{"model": "m"}]


@pytest.mark.parametrize("seed", range(5))
def test_a_draw_is_without_replacement_and_of_the_grid(seed):
    grid = {"a": list(range(4)), "b": list(range(5))}
    zipped = [{"c": [0, 1], "d": [2, 3]}]
    whole = list(points({}, grid, zipped))
    drawn = list(points({}, grid, zipped, budget=40, seed=seed))
    assert sorted(map(str, drawn)) == sorted(map(str, whole))
    assert drawn != whole


def test_a_draw_takes_every_point_as_often():
    """Of 6 points two are drawn: each is in a third of the draws."""
    grid = {"a": [0, 1], "b": [0, 1, 2]}
    count = dict.fromkeys(product((0, 1), (0, 1, 2)), 0)
    for seed in range(3000):
        for point in points({}, grid, [], budget=2, seed=seed):
            count[point["a"], point["b"]] += 1
    assert all(abs(n - 1000) < 5 * (3000 * 2 / 9) ** 0.5 for n in count.values()), count


@pytest.mark.parametrize("continuous", [False, True])
def test_a_larger_budget_keeps_the_points_of_a_smaller_one(continuous):
    grid = {"a": list(range(6)), "b": list(range(5))}
    if continuous:
        grid["c"] = Continuous(0.0, 1.0, log=False)
    small = list(points({}, grid, [], budget=7, seed=3))
    large = list(points({}, grid, [], budget=30, seed=3))
    assert large[:7] == small
    assert list(points({}, grid, [], budget=7, seed=4)) != small


def test_continuous_axes_are_drawn_evenly_between_their_ends_log_ones_by_their_logarithm():
    grid = {"u": Continuous(-2.0, 6.0, log=False), "l": Continuous(0.01, 100.0, log=True)}
    drawn = list(points({}, grid, [], budget=4000, seed=0))
    for name, low, high in (("u", 0.0, 4.0), ("l", 0.1, 10.0)):  # the middle half of each
        share = sum(low <= p[name] <= high for p in drawn) / 4000
        assert abs(share - 0.5) < 0.04, (name, share)
    assert all(-2 <= p["u"] <= 6 and 0.01 <= p["l"] <= 100 for p in drawn)
    assert len({(p["u"], p["l"]) for p in drawn}) == 4000


def test_a_draw_of_more_points_than_a_whole_number_of_the_machine_can_count():
    grid = {name: list(range(100_000)) for name in "abcd"}  # 10^20
    assert len(list(points({}, grid, [], budget=3))) == 3


@pytest.mark.parametrize(
    ("grid", "zipped", "budget", "said"),
    [
        ({"a": [1, 2]}, [], 3, "a budget of 3 draws, and the axes span 2 points"),
        ({"a": Continuous(0.0, 1.0, log=False)}, [], None, "need a [random] budget"),
        ({"a": Continuous(0.0, 1.0, log=False)}, [], MOST + 1, "is above 1,000,000"),
        ({"a": list(range(1001)), "b": list(range(1000))}, [], None, "span 1,001,000 points"),
    ],
)
def test_too_much_or_too_little_is_refused(grid, zipped, budget, said):
    with pytest.raises(Refusal) as refused:
        list(points({}, grid, zipped, budget=budget))
    assert said in str(refused.value)
