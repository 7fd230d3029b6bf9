"""Planted changes of a dictionary: firing, explained variance, shared and own directions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sae_lens import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.sae import SAEMetadata
from scipy.sparse import csc_matrix

from probes.drift import firing_shift, fvu_table, latent_scaling
from probes.records import Refusal
from probes.sae import fvu, load_sae, sums
from probes.sae.active import Active, Rows

SITE = "blocks.1.hook_resid_post"
D, LATENTS = 16, 8
BIAS = 0.3


def dictionary(folder, decoder):
    """It reads each of its directions off: f = x . d, where that is above a half."""
    said = SAEMetadata(hook_name=SITE)
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=D, d_sae=len(decoder), metadata=said))
    with torch.no_grad():
        sae.W_dec.copy_(torch.tensor(decoder))
        sae.W_enc.copy_(torch.tensor(decoder).T)
        sae.b_enc.zero_()
        sae.threshold.fill_(0.5)
        sae.b_dec.fill_(BIAS)
    sae.save_model(folder)
    return load_sae(folder)


@pytest.fixture(scope="module")
def orthonormal():
    return np.linalg.qr(np.random.default_rng(0).normal(size=(D, D)))[0][:LATENTS]


@pytest.fixture(scope="module")
def sae(tmp_path_factory, orthonormal):
    return dictionary(tmp_path_factory.mktemp("sae") / "sae", orthonormal)


def amounts(problems=30, per_problem=20, seed=0):
    rng = np.random.default_rng(seed)
    n = problems * per_problem
    return rng.uniform(1, 2, (n, LATENTS)) * (rng.random((n, LATENTS)) < 0.4)


def placed(x, per_problem=20):
    n = len(x)
    names = np.array([f"p{i // per_problem:03}" for i in range(n)])
    return Rows(SITE, x.astype(np.float32), names, np.zeros(n, int), np.arange(n) % per_problem)


def fires(a, per_problem=20):
    x = placed(np.zeros((len(a), 1)), per_problem)
    return Active(csc_matrix(a), x.problems, x.samples, x.positions)


def test_a_direction_that_the_other_lacks_has_nu_0_and_a_shared_one_1(sae, orthonormal):
    f = amounts()
    own = placed(f @ orthonormal + BIAS)
    left = f.copy()
    left[:, 6:] = 0
    left[:, 5] *= 0.5
    scaled = latent_scaling(sae, own, placed(left @ orthonormal + BIAS))
    assert scaled.beta("own") == pytest.approx(np.ones(8), abs=1e-5)
    assert scaled.nu() == pytest.approx([1, 1, 1, 1, 1, 0.5, 0, 0], abs=1e-5)
    assert scaled.share_below(0.25).value == pytest.approx(2 / 8)
    assert scaled.median().value == pytest.approx(1, abs=1e-5)
    assert scaled.nu_interval(7).value == pytest.approx(0, abs=1e-5)
    assert scaled.nu_interval(0).low == pytest.approx(1, abs=1e-4)


def test_a_share_is_compared_with_a_nulls_problem_by_problem(sae, orthonormal):
    """Noise that both others share doesn't hide that one of them lacks a latent more."""
    f, rng = amounts(), np.random.default_rng(3)
    own, shared = placed(f @ orthonormal + BIAS), rng.random(30).repeat(20) < 0.5
    lacking = f.copy()
    lacking[shared, :4] = 0  # in half of the problems: nu is about a half, above or below
    lost = lacking.copy()
    lost[:, 7] = 0
    null, base = (latent_scaling(sae, own, placed(x @ orthonormal)) for x in (lacking, lost))
    apart, beyond = base.share_below(), base.share_beyond(null)
    assert beyond.value == pytest.approx(apart.value - null.share_below().value)
    assert beyond.low > 0
    assert not apart.low > null.share_below().high  # as two intervals they overlap
    assert (null.share_beyond(null).low, null.share_beyond(null).high) == (0, 0)
    with pytest.raises(Refusal, match="can't be paired"):
        base.share_beyond(base.halves()[0])


def test_halves_have_each_problem_once(sae, orthonormal):
    x = placed(amounts() @ orthonormal)
    whole = latent_scaling(sae, x, x)
    first, second = whole.halves()
    assert len(first.square) == len(second.square) == 15
    for of in ("own", "other"):
        for target in ("reconstruction", "error"):
            a, b, both = (getattr(s, of)[target].sum(0) for s in (first, second, whole))
            assert a + b == pytest.approx(both)


def test_it_goes_both_ways(sae, orthonormal):
    f = amounts()
    more = f.copy()
    more[:, :2] *= 2
    scaled = latent_scaling(sae, placed(f @ orthonormal), placed(more @ orthonormal))
    back = latent_scaling(sae, placed(more @ orthonormal), placed(f @ orthonormal))
    both = scaled.nu() * back.nu()
    assert (scaled.nu()[:2] > 1.2).all()
    assert (back.nu()[:2] < 0.8).all()
    assert both[2:] == pytest.approx(1, abs=0.2)


def test_a_model_against_itself_has_nu_1_everywhere(sae, orthonormal):
    x = placed(amounts() @ orthonormal + np.random.default_rng(1).normal(size=(600, D)) / 3)
    scaled = latent_scaling(sae, x, x)
    assert scaled.nu() == pytest.approx(np.ones(8), abs=1e-6)
    assert scaled.nu("error") == pytest.approx(np.ones(8), abs=1e-6)


def test_beta_is_the_least_squares_factor(tmp_path):
    """Of directions that overlap, on activations that the dictionary explains badly."""
    rng = np.random.default_rng(2)
    sae = dictionary(tmp_path / "sae", rng.normal(size=(LATENTS, D)) / 4)
    own, other = (placed(rng.normal(size=(300, D))) for _ in range(2))
    scaled = latent_scaling(sae, own, other)
    f = sae.encode(torch.tensor(own.x)).numpy().astype(float)
    d, b = sae.decoder.numpy().astype(float), sae.decoder_bias.numpy().astype(float)
    for which, rows in (("own", own), ("other", other)):
        h = rows.x.astype(float)
        back = sae.decode(sae.encode(torch.tensor(rows.x))).numpy()
        for i in range(LATENTS):
            piece = np.outer(f[:, i], d[i]).ravel()
            others = [j for j in range(LATENTS) if j != i]
            target = (h - b - f[:, others] @ d[others]).ravel()
            fitted = np.linalg.lstsq(piece[:, None], target, rcond=None)[0][0]
            assert scaled.beta(which)[i] == pytest.approx(fitted, rel=1e-3, abs=1e-4)
            missed = np.linalg.lstsq(piece[:, None], (h - back).ravel(), rcond=None)[0][0]
            assert scaled.beta(which, "error")[i] == pytest.approx(missed, rel=1e-3, abs=1e-4)


def test_nu_is_undefined_where_the_own_beta_is_noise(sae, orthonormal):
    """As on the error of a good dictionary, which has no more to do with a latent than chance."""
    x = placed(amounts() @ orthonormal + BIAS)
    scaled = latent_scaling(sae, x, x)
    around_zero = np.random.default_rng(0).normal(size=scaled.square.shape)
    around_zero -= around_zero.mean(0)
    noisy = replace(scaled, own={**scaled.own, "error": around_zero})
    for latent in range(LATENTS):
        found = noisy.nu_interval(latent, "error")
        assert not found.defined
        assert "not told from 0" in found.reason
        assert noisy.nu_interval(latent).defined


def test_latents_that_fire_too_rarely_are_left_out(sae, orthonormal):
    f = amounts()
    f[:, 0] = 0
    f[30:, 1] = 0  # often, in two problems
    x = placed(f @ orthonormal + BIAS)
    scaled = latent_scaling(sae, x, x)
    assert scaled.known.tolist() == [False, False] + [True] * 6
    assert np.isnan(scaled.nu()[:2]).all()
    assert scaled.nu_interval(0).reason == "it fires in too few rows"
    none = latent_scaling(sae, x, x, fewest=10_000)
    assert none.median().reason == "no latent fires often enough"


def test_a_latent_that_fires_more_is_found_and_the_others_are_not():
    rng = np.random.default_rng(0)
    before = (rng.random((1200, 20)) < 0.2).astype(float)
    flip = rng.random(before.shape) < 0.05
    after = np.where(flip, rng.random(before.shape) < 0.2, before).astype(float)
    after[:, 3] = np.maximum(after[:, 3], rng.random(1200) < 0.2)
    moved = firing_shift(fires(before), fires(after))
    assert moved[0].latent == 3
    assert [one.latent for one in moved if one.q < 0.05] == [3]
    rates = before[:, 3].mean(), after[:, 3].mean()
    assert (moved[0].before.value, moved[0].after.value) == pytest.approx(rates)
    assert moved[0].difference.value == pytest.approx(rates[1] - rates[0])
    assert moved[0].difference.low > 0


def test_nothing_moved_is_no_discovery_and_exactly_zero():
    a = fires((np.random.default_rng(0).random((600, 20)) < 0.2).astype(float))
    moved = firing_shift(a, a)
    assert {(one.difference.value, one.q) for one in moved} == {(0.0, 1.0)}


def test_a_shift_in_one_problem_alone_is_no_discovery():
    rng = np.random.default_rng(0)
    before = (rng.random((600, 20)) < 0.2).astype(float)
    after = before.copy()
    after[:20, 5] = 1
    assert not [one for one in firing_shift(fires(before), fires(after)) if one.q < 0.05]


def test_latents_of_few_problems_are_not_compared():
    a = np.zeros((600, 3))
    a[:, 0], a[:100, 1] = 1, 1
    moved = firing_shift(fires(a), fires(a))
    assert [one.latent for one in moved] == [0]
    with pytest.raises(Refusal, match="no latent fires in 10 of these 30 problems"):
        firing_shift(fires(a[:, 1:]), fires(a[:, 1:]))


def test_the_table_of_fvu_crosses_dictionaries_and_activations(sae, tmp_path, orthonormal):
    turned = np.linalg.qr(np.random.default_rng(9).normal(size=(D, D)))[0][:LATENTS]
    other = dictionary(tmp_path / "other", turned)
    x = {"a": placed(amounts() @ orthonormal + BIAS), "b": placed(amounts() @ turned + BIAS)}
    found = fvu_table({"a": sae, "b": other}, x)
    for (name, of), estimate in found.items():
        dictionary_of = {"a": sae, "b": other}[name]
        assert estimate == fvu(sums(dictionary_of, x[of].x, x[of].problems))
        assert (estimate.value < 1e-6) == (name == of)


def test_rows_of_other_texts_are_refused(sae):
    x = placed(np.zeros((40, D)))
    for what in ("samples", "positions"):
        moved = replace(x, **{what: getattr(x, what) + 1})
        with pytest.raises(Refusal, match="not the same positions of the same texts"):
            latent_scaling(sae, x, moved)
    with pytest.raises(Refusal, match="not the same positions"):
        firing_shift(fires(np.ones((40, 2))), fires(np.ones((60, 2))))
    with pytest.raises(Refusal, match=r"the rows of blocks\.0"):
        wrong = replace(x, site="blocks.0.hook_resid_post")
        latent_scaling(sae, wrong, wrong)
    with pytest.raises(Refusal, match="1 problem gives no interval"):
        one = placed(np.zeros((20, D)))
        latent_scaling(sae, one, one)
