"""Agreement between labellers: kappa by others' formula, intervals over problems, reasons."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from probes.records import Refusal
from probes.strategies.between import agreements, between, renamed
from probes.strategies.labellers import Labelled


def rows_of(name, labels, *, per=10, fitted=(), failure="timeout"):
    """One row a label, ten segments a problem; None is a failure."""
    return [
        Labelled(
            f"p{i // per}",
            0,
            "",
            i,
            i + 1,
            "x",
            name,
            label,
            "" if label is not None else failure,
            "",
            f"p{i // per}" in fitted,
        )
        for i, label in enumerate(labels)
    ]


def draws(rng, n=400, agree=0.7, names=("", "a", "b")):
    one = rng.choice(names, size=n, p=[0.6, 0.3, 0.1][: len(names)])
    other = np.where(rng.random(n) < agree, one, rng.choice(names, size=n))
    return one.tolist(), other.tolist()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_kappa_is_scikit_learns(rng):
    for agree in (0.0, 0.3, 0.9):
        one, other = draws(rng, agree=agree)
        found = between(rows_of("A", one) + rows_of("B", other), "A", "B")
        assert found.kappa.value == pytest.approx(cohen_kappa_score(one, other), abs=1e-12)
        assert found.kappa.low < found.kappa.value < found.kappa.high
        assert found.kappa.n == 40
        assert found.agree.value == pytest.approx(np.mean(np.array(one) == np.array(other)))
        back = between(rows_of("B", other) + rows_of("A", one), "B", "A")
        assert back.kappa.value == pytest.approx(found.kappa.value)


def test_kappa_is_the_closed_form_of_a_two_by_two_table():
    """Cohen's own: 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no give .7 observed, .5 by chance."""
    pairs = [("y", "y")] * 20 + [("y", "")] * 5 + [("", "y")] * 10 + [("", "")] * 15
    one, other = zip(*pairs, strict=True)
    found = between(rows_of("A", one, per=2) + rows_of("B", other, per=2), "A", "B")
    assert found.kappa.value == pytest.approx((0.7 - 0.5) / (1 - 0.5))


def test_labellers_that_know_nothing_of_each_other_agree_by_chance(rng):
    one, other = rng.choice(["", "a"], size=(2, 600), p=[0.8, 0.2]).tolist()
    found = between(rows_of("A", one) + rows_of("B", other), "A", "B")
    assert not found.kappa.excludes(0)
    assert found.agree.value > 0.6, "which is why kappa is reported"


def test_the_interval_is_over_problems_and_not_over_segments(rng):
    """Ten copies of a segment in its problem are no news: the interval stays as it is."""
    one, other = draws(rng, n=60)
    alone = between(rows_of("A", one, per=1) + rows_of("B", other, per=1), "A", "B").kappa
    tenfold = [np.repeat(x, 10).tolist() for x in (one, other)]
    copied = between(rows_of("A", tenfold[0]) + rows_of("B", tenfold[1]), "A", "B").kappa
    assert copied.value == pytest.approx(alone.value)
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))
    spread = between(rows_of("A", tenfold[0], per=1) + rows_of("B", tenfold[1], per=1), "A", "B")
    assert spread.kappa.high - spread.kappa.low < 0.6 * (copied.high - copied.low)


def test_the_interval_covers_the_truth():
    """B repeats A with chance q, else draws from the same frequencies: its kappa is q."""
    covered, runs, q = 0, 80, 0.6
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        one = rng.choice(["", "a"], size=300, p=[0.7, 0.3])
        other = np.where(rng.random(300) < q, one, rng.choice(["", "a"], size=300, p=[0.7, 0.3]))
        found = between(rows_of("A", one.tolist()) + rows_of("B", other.tolist()), "A", "B").kappa
        covered += found.low <= q <= found.high
    assert 0.88 <= covered / runs <= 0.99


def test_complete_agreement_is_not_certain_agreement():
    labels = ["a", ""] * 100
    found = between(rows_of("A", labels) + rows_of("B", labels), "A", "B").kappa
    assert (found.value, found.high) == (1, 1)
    # None of 20 problems disagrees: up to 1 - .025^(1/20) of the share by chance, which is a half.
    assert found.low == pytest.approx(1 - (1 - 0.025 ** (1 / 20)) / 0.5)


def test_few_disagreeing_problems_are_bounded_exactly_and_the_wider_for_it(rng):
    labels = rng.choice(["", "a"], size=400).tolist()
    other = labels.copy()
    for i in (0, 50, 150):
        other[i] = "a" if labels[i] == "" else ""
    found = between(rows_of("A", labels) + rows_of("B", other), "A", "B").kappa
    assert found.value == pytest.approx(cohen_kappa_score(labels, other))
    assert found.low < found.value < found.high < 1.0001
    assert found.high - found.low > 0.1


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        (["a"] * 40, ["a"] * 40, "A calls every segment 'a'"),
        (["a"] * 40, ["a", ""] * 20, "A calls every segment 'a'"),
        (["a", ""] * 20, [""] * 40, "B calls every segment ''"),
        (["a", ""] * 20, ["b", ""] * 20, "no label in common: rename"),
        ([None] * 40, ["b", ""] * 20, "0 problem"),
        (["a", ""] * 5, ["a", ""] * 5, "1 problem"),
    ],
)
def test_where_there_is_no_kappa_there_is_a_reason(one, other, why):
    found = between(rows_of("A", one) + rows_of("B", other), "A", "B").kappa
    assert not found.defined
    assert why in found.reason
    assert np.isnan([found.value, found.low, found.high]).all()


def test_what_could_not_be_labelled_is_left_out_and_counted(rng):
    one, other = draws(rng)
    gaps = [None if i % 4 == 0 else label for i, label in enumerate(other)]
    found = between(rows_of("A", one) + rows_of("B", gaps), "A", "B")
    kept = [i for i in range(400) if i % 4]
    wanted = cohen_kappa_score([one[i] for i in kept], [other[i] for i in kept])
    assert found.kappa.value == pytest.approx(wanted)
    assert found.both.value == pytest.approx(0.75)
    told = agreements(rows_of("A", one) + rows_of("B", gaps))
    lost = [r for r in told if r.measure == "unlabelled"]
    assert [(r.model, r.kind, r.value) for r in lost] == [("B", "timeout", pytest.approx(0.25))]


def test_on_the_problems_of_its_lessons_a_labeller_only_recites(rng):
    one, other = draws(rng, agree=0.0)
    learnt = {f"p{i}" for i in range(30)}
    recited = one[:300] + other[300:]
    found = between(rows_of("A", one) + rows_of("B", recited, fitted=learnt), "A", "B")
    assert found.kappa.n == 10
    assert found.kappa.value == pytest.approx(cohen_kappa_score(one[300:], other[300:]))
    everywhere = {f"p{i}" for i in range(40)}
    none = between(rows_of("A", one) + rows_of("B", one, fitted=everywhere), "A", "B")
    assert "0 problem" in none.kappa.reason
    assert "learnt from" in none.both.reason


def test_labels_are_compared_under_their_new_names(rng):
    one, other = draws(rng)
    theirs = [{"a": "x", "b": "y", "": "z"}[label] for label in other]
    rows = rows_of("A", one) + rows_of("B", theirs)
    assert "no label in common" in between(rows, "A", "B").kappa.reason
    same = renamed(rows, {"x": "a", "y": "b", "z": ""})
    assert between(same, "A", "B").kappa.value == pytest.approx(cohen_kappa_score(one, other))
    assert [r.label for r in renamed(rows_of("A", [None, "a"]), {"a": "q"})] == [None, "q"]
    with pytest.raises(Refusal, match="labelled 'nothing'"):
        renamed(rows, {"nothing": "a"})


def test_rows_hold_every_pair_and_every_cell_and_sum_to_one(rng):
    one, other = draws(rng)
    third = draws(rng)[1]
    told = agreements(rows_of("A", one) + rows_of("B", other) + rows_of("C", third))
    pairs = [(r.model, r.setting) for r in told if r.measure == "kappa"]
    assert pairs == [("A", "B"), ("A", "C"), ("B", "C")]
    cells = [
        r for r in told if r.measure == "label given label" and (r.model, r.setting) == pairs[0]
    ]
    for first in ("(none)", "a", "b"):
        of_it = [r for r in cells if r.skill == first]
        assert sum(r.value for r in of_it) == pytest.approx(1)
        assert all(r.low <= r.value <= r.high for r in of_it)
        label = "" if first == "(none)" else first
        assert sum(r.x for r in of_it) == one.count(label)
    both = next(r for r in cells if (r.skill, r.kind) == ("a", "b"))
    wanted = sum(x == "a" and y == "b" for x, y in zip(one, other, strict=True))
    assert both.x == wanted
    shares = [r for r in told if r.measure == "label share" and r.model == "A"]
    assert sum(r.value for r in shares) == pytest.approx(1)


def test_what_cannot_be_compared_is_refused():
    rows = rows_of("A", ["a", ""] * 10) + rows_of("B", ["a", ""] * 10)
    with pytest.raises(Refusal, match="no row is by 'C'; there are A, B"):
        between(rows, "A", "C")
    with pytest.raises(Refusal, match="agrees with itself"):
        between(rows, "A", "A")
    with pytest.raises(Refusal, match="twice"):
        between(rows + rows, "A", "B")
    others = [Labelled("q", 0, "", 0, 1, "x", "D", "a", "", "", False)]
    with pytest.raises(Refusal, match="no segment in common"):
        between(rows + others, "A", "D")


def test_labels_of_other_answers_are_refused():
    one, other = rows_of("A", ["x", "y"] * 20), rows_of("B", ["x", "y"] * 20)
    other[7] = replace(other[7], text="another text")
    with pytest.raises(Refusal, match="'A' and 'B' labelled other answers"):
        between(one + other, "A", "B")
