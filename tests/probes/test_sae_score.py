"""ReasonScore by hand, AUC by brute force; planted latents found, and nothing in noise."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csc_matrix

from probes.directions import auc
from probes.records import Refusal
from probes.sae import Sae
from probes.sae.active import Active, Rows, active, shuffles, texts_of
from probes.sae.reason import (
    entropies,
    reason_interval,
    reason_null,
    reason_score,
    windows,
    word_marks,
)
from probes.sae.spans import aucs, halves, labels_of, p_values, told

LATENTS = 40


def rows(a, problems=None, samples=None, positions=None):
    n = len(a)
    return Active(
        csc_matrix(a),
        np.array(["p"] * n if problems is None else problems),
        np.zeros(n, int) if samples is None else np.asarray(samples),
        np.arange(n) if positions is None else np.asarray(positions),
    )


def texts(problems=80, samples=2, length=24, seed=0, lengths=None):
    """Problems, samples and positions of texts of one length, or of given ones."""
    found = [
        (f"p{i:03}", s, at)
        for i in range(problems)
        for s in range(samples)
        for at in range(length if lengths is None else lengths[i])
    ]
    names, of, at = zip(*found, strict=True)
    return np.array(names), np.array(of), np.array(at)


def spans(names, samples, rng, width=4):
    """A run of a label somewhere in each text."""
    found = np.zeros(len(names), bool)
    for lines in texts_of(names, samples):
        start = rng.integers(len(lines) - width)
        found[lines[start : start + width]] = True
    return found


def noise(n, rng, latents=LATENTS, rate=0.1):
    """Latents that fire in runs of three, about nothing."""
    starts = rng.random((n, latents)) < rate / 3
    fires = starts | np.roll(starts, 1, 0) | np.roll(starts, 2, 0)
    return fires * rng.uniform(0.5, 2, (n, latents))


def test_reason_score_by_hand():
    a = np.array([[2.0, 1, 0], [2, 0, 1], [0, 1, 3]])
    around = np.array([[1, 0], [0, 1], [0, 0]], bool)
    found = reason_score(csc_matrix(a), around)
    # mu+ is [2, .5, .5] over 3, mu- [0, 1, 3] over 4; latent 0 is alike in both groups, the
    # others are of one group each.
    assert found.near == pytest.approx([2 / 3, 1 / 6, 1 / 6])
    assert found.elsewhere == pytest.approx([0, 1 / 4, 3 / 4])
    assert found.entropy == pytest.approx([1, 0, 0])
    assert found.score == pytest.approx([2 / 3, -1 / 4, -3 / 4])
    plain = reason_score(csc_matrix(a), around, alpha=0.0).score
    assert plain == pytest.approx([2 / 3, 1 / 6 - 1 / 4, 1 / 6 - 3 / 4])


def test_reason_score_takes_the_entropy_to_alpha():
    a = np.array([[3.0, 1], [1, 1], [0, 1]])
    around = np.array([[1, 0], [0, 1], [0, 0]], bool)
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25)) / np.log(2)
    found = reason_score(csc_matrix(a), around, alpha=0.7)
    assert found.entropy == pytest.approx([entropy, 1])
    assert found.score == pytest.approx([2 / 3 * entropy**0.7, 1 / 3 - 1])


def test_a_row_around_two_tokens_counts_once_near_and_in_both_groups():
    a = np.array([[1.0, 2], [4, 1], [0, 3]])
    both = np.array([[1, 1], [0, 1], [0, 0]], bool)
    found = reason_score(csc_matrix(a), both)
    assert found.near == pytest.approx([2.5 / 4, 1.5 / 4])
    assert found.entropy[0] == pytest.approx(entropies(np.array([[1, 2.5]]))[0])


def test_windows_are_one_before_and_two_behind_and_end_with_the_text():
    given = rows(np.ones((8, 1)), ["p"] * 8, [0] * 5 + [1] * 3, [3, 4, 5, 6, 7, 3, 4, 5])
    found = windows(given, {("p", 0): [(4, 0), (7, 1)], ("p", 1): [(5, 1)]}, 2)
    assert found[:, 0].tolist() == [True, True, True, True, False, False, False, False]
    assert found[:, 1].tolist() == [False, False, False, True, True, False, True, True]


def test_a_score_that_can_not_be_had_is_refused():
    a = csc_matrix(np.ones((3, 2)))
    with pytest.raises(Refusal, match="1 group"):
        reason_score(a, np.ones((3, 1), bool))
    for all_or_none in (np.zeros((3, 2), bool), np.ones((3, 2), bool)):
        with pytest.raises(Refusal, match="rows are around a reasoning token"):
            reason_score(a, all_or_none)


def test_words_are_found_whatever_their_case_and_blanks():
    texts = {("p", 0): ["so", " Wait", "no"], ("q", 1): ["however", "x"]}
    found = word_marks(["wait", "However"], texts, {("p", 0): 10, ("q", 1): 3})
    assert found == {("p", 0): [(11, 0)], ("q", 1): [(3, 1)]}
    with pytest.raises(Refusal, match="none of the words hmm"):
        word_marks(["hmm", "perhaps"], texts, {("p", 0): 10, ("q", 1): 3})


def test_the_interval_of_a_score_is_around_the_score():
    rng = np.random.default_rng(0)
    names, samples, positions = texts(40, 1)
    around = np.column_stack([spans(names, samples, rng) for _ in range(3)])
    a = noise(len(names), rng, 6)
    a[:, 2] += around.any(1) * rng.uniform(0, 1, len(names))
    given = rows(a, names, samples, positions)
    scored = reason_score(given.a, around).score
    for latent in range(6):
        found = reason_interval(given, around, latent)
        assert found.value == pytest.approx(scored[latent])
        assert found.low < found.value < found.high
    assert scored.argmax() == 2
    best = reason_null(given, around, list(shuffles(names, samples, 50))).max(1)
    assert reason_interval(given, around, 2).low > np.quantile(best, 0.95)


@pytest.mark.parametrize("seed", range(3))
def test_auc_of_sparse_latents_equals_brute_force_with_ties(seed):
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 4, (60, 7)) * (rng.random((60, 7)) < 0.5).astype(float)
    a[:, 5], a[:, 6] = 0, 1 + rng.random(60)
    labels = rng.random((60, 3)) < 0.4
    labels[:, 2] = True
    found = aucs(csc_matrix(a), labels)
    for latent in range(7):
        for column in range(2):
            assert found[latent, column] == pytest.approx(auc(a[:, latent], labels[:, column]))
    assert np.isnan(found[:, 2]).all()


def test_a_planted_latent_is_found_and_measured():
    rng = np.random.default_rng(1)
    names, samples, positions = texts()
    label = spans(names, samples, rng)
    a = noise(len(names), rng)
    a[:, 7] = label * (rng.random(len(names)) < 0.8) * 3 + (a[:, 7] > 1.5)
    found = told(rows(a, names, samples, positions), label, top=3)
    best = found.top[0]
    assert best.latent == 7
    assert best.q < 0.01
    assert best.auc.low > found.best_of_shuffled.high
    last = ~halves(names)
    fires = a[last, 7] > 0
    assert best.precision.value == pytest.approx(label[last][fires].mean())
    assert best.recall.value == pytest.approx(fires[label[last]].mean())
    assert found.rate.value == pytest.approx(label[last].mean())
    assert best.precision.low > found.rate.high
    assert found.discoveries <= 3
    assert found.shuffled_discoveries < 0.5


def test_labels_of_nothing_give_no_discoveries():
    found = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        names, samples, positions = texts(60, 2)
        given = rows(noise(len(names), rng), names, samples, positions)
        found.append(told(given, spans(names, samples, rng), top=1, count=100).discoveries)
    assert sum(found) <= 1


def test_what_follows_from_the_place_in_a_text_alone_is_no_discovery():
    """The label stands in the middle of every text and so does the latent, independently."""
    rng = np.random.default_rng(3)
    names, samples, positions = texts(80, 2)
    middle = (positions > 8) & (positions < 16)
    label = middle & (rng.random(len(names)) < 0.5)
    a = noise(len(names), rng)
    a[:, 4] = middle * (rng.random(len(names)) < 0.5)
    assert auc(a[:, 4], label) > 0.6
    assert not told(rows(a, names, samples, positions), label, count=100).discoveries


def test_rows_of_one_problem_are_no_independent_evidence():
    """A latent and a label that are each a coin of the problem; their rows agree by chance."""
    found = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        names, samples, positions = texts(30, 4)
        codes = np.unique(names, return_inverse=True)[1]
        label = (rng.random(30) < 0.5)[codes]
        a = (rng.random((30, LATENTS)) < 0.5)[codes].astype(float)
        found.append(told(rows(a, names, samples, positions), label, count=100).discoveries)
    assert sum(found) <= 3  # rows as if independent: a dozen in each


def test_shuffles_exchange_whole_problems_at_the_same_places():
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 40, 37)
    names, samples, positions = texts(37, 2, lengths=lengths)
    moved = 0
    for take in shuffles(names, samples, 5, seed=1):
        for lines in texts_of(names, samples):
            source = take[lines]
            assert len(set(zip(names[source], samples[source], strict=True))) == 1
            length = lengths[int(names[source[0]][1:])]
            assert positions[source].tolist() == [i % length for i in range(len(lines))]
            moved += names[source[0]] != names[lines[0]]
        partners = dict(zip(names, names[take], strict=True))
        assert sorted(partners.values()) == sorted(partners)
    assert moved > 5 * 2 * 37 * 0.7
    again = [take.tolist() for take in shuffles(names, samples, 2, seed=1)]
    assert again == [take.tolist() for take in shuffles(names, samples, 2, seed=1)]


def test_p_values_of_the_null_itself_are_uniform():
    rng = np.random.default_rng(0)
    null = rng.normal(0.5, 0.02, (200, 300)) * np.linspace(0.5, 1.5, 300)
    own = rng.normal(0.5, 0.02, 300) * np.linspace(0.5, 1.5, 300)
    known = np.arange(300) < 250
    p, of_null = p_values(own, null, known)
    assert np.isnan(p[250:]).all()
    assert np.quantile(p[:250], [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.07)
    assert p_values(own + 1, null, known)[0][:250].max() < 1e-3
    assert len(of_null) == 200


def test_a_half_without_the_label_is_refused():
    names, samples, positions = texts(60, 1)
    a = noise(len(names), np.random.default_rng(0))
    with pytest.raises(Refusal, match="0 of .* rows with the label"):
        told(rows(a, names, samples, positions), np.zeros(len(names), bool))
    few = texts(12, 1)
    with pytest.raises(Refusal, match="half of the problems has 6 problems"):
        told(rows(a[: len(few[0])], *few), few[2] % 2 == 0)


def test_halves_are_of_whole_problems_and_alike_in_size():
    names = np.repeat([f"p{i}" for i in range(21)], 5)
    first = halves(names)
    assert all(len(set(first[names == name])) == 1 for name in set(names))
    assert first.sum() in (50, 55)
    assert (halves(names, seed=1) != first).any()


def test_labels_are_of_the_row_with_that_position_and_name():
    given = rows(np.ones((4, 1)), ["p", "p", "q", "q"], [0, 0, 0, 1], [5, 6, 5, 5])
    marks = {("p", 0): [(5, "check"), (6, "step")], ("q", 1): [(5, "check")]}
    assert labels_of(given, marks, "check").tolist() == [True, False, False, True]


def test_rows_of_another_site_are_refused():
    nothing = torch.zeros(4, 2)
    sae = Sae(
        "blocks.0.hook_resid_post",
        Path(),
        "",
        None,
        nothing,
        torch.zeros(2),
        nothing.T,
        torch.zeros(4),
        None,
        "standard",
        True,
    )
    x = Rows("blocks.1.hook_resid_post", np.zeros((1, 4), np.float32), *texts(1, 1, 1))
    with pytest.raises(Refusal, match=r"is of blocks\.0"):
        active(sae, x)
