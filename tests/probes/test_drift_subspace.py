"""Laws of the moved subspace: planted ones, scipy's angles, and what random ones give."""

import numpy as np
import pytest
from scipy.linalg import subspace_angles
from scipy.stats import ortho_group

from probes.drift import Moved, chance, random_overlap
from probes.records import Refusal

D = 20


def change(axes, sizes, *, noise=0.05, problems=40, rows=4, seed=0):
    """A change inside the span of some axes, with a little everywhere."""
    rng = np.random.default_rng(seed)
    inside = rng.standard_normal((problems, rows, len(sizes))) * sizes
    return inside @ axes + noise * rng.standard_normal((problems, rows, D))


@pytest.fixture(scope="module")
def axes():
    return ortho_group.rvs(D, random_state=0)


def moved(of_it, rank=3):
    return Moved(of_it, rank, resamples=60)


def test_a_planted_subspace_is_found(axes):
    found = moved(change(axes[:3], [3, 2, 1]))
    assert np.degrees(subspace_angles(found.basis, axes[:3].T)).max() < 3
    assert np.allclose(found.basis.T @ found.basis, np.eye(3))
    assert abs(found.basis[:, 0] @ axes[0]) > 0.99  # the direction of largest change first
    overlap = found.overlap(axes[:3].T)
    assert overlap.value > 0.99
    assert found.overlap(axes[3:6].T).value < 0.01


def test_angles_and_overlap_are_those_of_scipy(axes):
    one, other = moved(change(axes[:3], [1, 1, 1])), axes[1:6].T + 0.2 * axes[6:11].T
    expected = np.sort(subspace_angles(one.basis, other))
    angles = one.angles(other)
    assert [a.value for a in angles] == pytest.approx(np.degrees(expected), abs=1e-6)
    assert all(a.low <= a.value <= a.high for a in angles)
    assert one.overlap(other).value == pytest.approx(np.mean(np.cos(expected) ** 2), abs=1e-9)
    second = moved(change(axes[2:5], [1, 1, 1], seed=1))
    both = np.sort(subspace_angles(one.basis, second.basis))
    assert [a.value for a in one.angles(second)] == pytest.approx(np.degrees(both), abs=1e-5)


def test_more_columns_than_dimensions_and_fewer_rows_than_width(axes):
    few = Moved(change(axes[:2], [2, 1], problems=4, rows=3), 2, resamples=60)
    assert np.degrees(subspace_angles(few.basis, axes[:2].T)).max() < 10
    twice = np.concatenate([axes[:2], axes[:2]]).T
    assert few.overlap(twice).value == pytest.approx(few.overlap(axes[:2].T).value)


def test_the_dimension_is_that_of_the_spectrum_however_few_the_rows(axes):
    sizes = np.array([3.0, 2.0, 1.0, 1.0])
    expected = (sizes**2).sum() ** 2 / (sizes**4).sum()
    found = moved(change(axes[:4], sizes, noise=0, problems=120)).dimension()
    assert found.low < expected < found.high
    isotropic = moved(change(axes, np.ones(D), problems=10, rows=2)).dimension()
    plain = change(axes, np.ones(D), problems=10, rows=2).reshape(-1, D)
    values = np.linalg.svd(plain, compute_uv=False) ** 2
    assert values.sum() ** 2 / (values**2).sum() < 12  # 20 rows in 20 dimensions: half of them
    assert isotropic.value == pytest.approx(D, rel=0.4)


def test_the_share_is_measured_on_other_problems(axes):
    planted = moved(change(axes[:3], [1, 1, 1], noise=0.0)).share()
    assert planted.value == pytest.approx(1, abs=1e-6)
    noise = moved(change(axes, np.ones(D), problems=20, rows=2))
    fitted = ((noise.change @ noise.basis) ** 2).sum() / (noise.change**2).sum()
    held = noise.share()
    assert fitted > 0.3
    assert held.low < 3 / D < held.high


def test_a_constant_shift_is_told_from_a_varying_one(axes):
    constant = np.broadcast_to(2 * axes[0], (40, 4, D)).copy()
    assert moved(constant).steady().value == pytest.approx(1)
    varying = change(axes[:3], [1, 1, 1])
    assert abs(moved(varying).steady().value) < 0.05
    both = moved(constant + np.sqrt(4 / 3) * change(axes[1:4], [1, 1, 1], noise=0))
    assert both.steady().value == pytest.approx(0.5, abs=0.1)
    assert abs(both.basis[:, 0] @ axes[0]) > 0.99  # it is part of the subspace


def test_random_subspaces_overlap_by_chance(axes):
    for rank, other in ((3, 1), (3, 5), (5, 3)):
        null = random_overlap(rank, other, D, draws=400)
        assert null.value == chance(rank, other, D)
        assert null.low < null.value < null.high
        drawn = [
            np.mean(np.cos(subspace_angles(np.eye(D)[:, :rank], q[:, :other])) ** 2)
            for q in ortho_group.rvs(D, size=300, random_state=1)
        ]
        assert np.mean(drawn) == pytest.approx(null.value, abs=4 * np.std(drawn) / 300**0.5)
        assert np.quantile(drawn, 0.975) == pytest.approx(null.high, rel=0.15)


def test_halves_of_one_copy_agree_and_of_noise_do_not(axes):
    one = moved(change(axes[:3], [3, 2, 1]))
    same, apart = moved(change(axes[:3], [3, 2, 1], seed=1)), moved(change(axes[5:8], [3, 2, 1]))
    assert one.halves(one).value > 0.98
    assert one.halves(same).value > 0.98
    assert one.halves(apart).value < 0.02
    noise = moved(change(axes, np.ones(D), problems=20, rows=2))
    assert noise.halves(noise).value < 0.4  # though it overlaps with itself by 1
    assert noise.overlap(noise).value == pytest.approx(1)


def test_what_has_no_subspace_is_refused(axes):
    of_it = change(axes[:3], [1, 1, 1])
    for rank in (0, D):
        with pytest.raises(Refusal, match="1..19"):
            moved(of_it, rank)
    with pytest.raises(Refusal, match="nothing moved"):
        moved(0 * of_it)
    with pytest.raises(Refusal, match="NaN"):
        moved(of_it * np.nan)
    with pytest.raises(Refusal, match="length 0"):
        moved(of_it).overlap(np.zeros((D, 1)))
