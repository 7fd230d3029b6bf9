"""Laws of a direction before and after: planted turns, nulls and ceilings."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from probes.directions import fit, thirds
from probes.drift import angle, transfer
from probes.records import Refusal

D = 16


def planted(turn, *, n=1200, strength=2.0, problems=60, seed=0):
    """Two models whose classes differ along directions at an angle of `turn` degrees."""
    rng = np.random.default_rng(seed)
    groups = np.array([f"p{i % problems}" for i in range(n)])
    y = rng.integers(0, 2, n)
    one, other = np.eye(D)[0], np.eye(D)[1]
    turned = np.cos(np.radians(turn)) * one + np.sin(np.radians(turn)) * other
    before = rng.standard_normal((n, D)) + strength * y[:, None] * one
    after = rng.standard_normal((n, D)) + strength * y[:, None] * turned
    return before, after, y, groups


@pytest.mark.parametrize("turn", [0, 60, 90, 180])
def test_a_planted_turn_is_found(turn):
    before, after, y, groups = planted(turn)
    found = angle(before, after, y, groups)
    expected = np.cos(np.radians(turn))
    assert found.cosine.value == pytest.approx(expected, abs=0.1)
    plain = [fit(x, y, groups, "difference") for x in (before, after)]
    assert found.cosine.value == pytest.approx(plain[0] @ plain[1], abs=1e-9)
    assert found.cosine.low <= found.cosine.value <= found.cosine.high
    assert found.halves.value == pytest.approx(expected, abs=0.12)
    assert found.ceiling.value > 0.9


def test_nothing_turned_gives_1_and_the_halves_their_ceiling():
    before, _, y, groups = planted(0)
    found = angle(before, before, y, groups)
    assert found.cosine.value == pytest.approx(1, abs=1e-12)
    assert found.halves == found.ceiling
    assert found.ceiling.value < 1
    assert (found.turn.value, found.turn.low, found.turn.high) == (0, 0, 0)


def test_halves_fall_to_the_ceiling_where_only_noise_differs():
    """The point of them: a cosine below 1 is no turn where one model's own halves do no better."""
    before, after, y, groups = planted(0, n=300, strength=0.5)
    found = angle(before, after, y, groups)
    assert found.ceiling.value < 0.9
    assert found.halves.value == pytest.approx(found.ceiling.value, abs=0.1)
    assert found.turn.value == pytest.approx(found.halves.value - found.ceiling.value)
    assert not found.turn.excludes(0)
    assert angle(*planted(60)).turn.high < -0.3


def test_shuffled_labels_point_where_activations_vary():
    before, after, y, groups = planted(0)
    plain = angle(before, after, y, groups).shuffled
    assert abs(plain.value) < 0.05
    assert 0.3 < plain.high < 0.7  # of 16 dimensions: 2 / √16
    stretched = before * np.array([20.0] + [1.0] * (D - 1))
    wide = angle(stretched, after, y, groups).shuffled
    assert wide.high > 0.95  # all of it lies along one axis, whatever the labels


def test_each_auc_is_that_of_its_probe_on_its_model_on_the_last_third():
    before, after, y, groups = planted(60)
    found = transfer(before, after, y, groups, nulls=3)
    part = thirds(groups)
    probes = [
        fit(x[part == 0], y[part == 0], groups[part == 0], "logistic") for x in (before, after)
    ]
    last = part == 2
    table = [[roc_auc_score(y[last], x[last] @ v) for x in (before, after)] for v in probes]
    aucs = [[found.base, found.moved], [found.back, found.tuned]]
    assert [[e.value for e in row] for row in aucs] == pytest.approx(np.array(table), abs=1e-9)
    assert found.change.value == pytest.approx(table[1][1] - table[0][0], abs=1e-9)
    assert found.base.value > found.moved.value + 0.1
    assert abs(found.shuffled.value - 0.5) < 0.25


def test_a_shift_costs_a_probe_nothing_and_a_right_angle_everything():
    before, _, y, groups = planted(0)
    shifted = transfer(before, before + 7, y, groups, nulls=0)
    assert shifted.moved.value == pytest.approx(shifted.base.value, abs=1e-9)
    assert shifted.change.value == pytest.approx(0, abs=0.01)
    turned = transfer(*planted(90), nulls=0)
    assert turned.moved.value == pytest.approx(0.5, abs=0.08)
    assert turned.tuned.value > 0.85


def test_the_paired_change_is_narrower_than_its_two_parts_allow():
    before, _, y, groups = planted(0)
    found = transfer(before, before + 0.1 * planted(0, seed=3)[0], y, groups, nulls=0)
    alone = found.base.high - found.base.low
    assert found.change.high - found.change.low < 0.5 * alone
    assert found.change.low <= found.change.value <= found.change.high


def test_one_class_only_is_refused():
    before, after, y, groups = planted(0)
    for of_it in (angle, transfer):
        with pytest.raises(Refusal, match="never"):
            of_it(before, after, np.zeros_like(y), groups)
