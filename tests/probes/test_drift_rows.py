"""Laws of the rows: each names what it is of, and is what the measure says."""

import numpy as np
import pytest

from probes.capture import Text
from probes.drift import Moved, cka, drift, lens, promoted, read, spread, transfer, without_means
from probes.drift import rows as tidy

SITES = ["blocks.0.hook_resid_post", "blocks.2.hook_resid_post"]


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    drawn = [rng.integers(2, 28, 9 + i % 4).tolist() for i in range(72)]
    return [Text(f"p{i % 36}", i, tuple(d[:3]), tuple(d[3:])) for i, d in enumerate(drawn)]


@pytest.fixture(scope="module")
def spots(texts):
    return spread(texts, rows=4)


@pytest.fixture(scope="module")
def seen(model, other, spots):
    models = {"base": model, "tuned": other, "copy": other}
    return {name: read(m, spots, SITES) for name, m in models.items()}


def flat(of_it):
    """The same rows as if they were marked decisions."""
    return {
        name: {s: x.reshape(-1, x.shape[-1]) for s, x in at.items()} for name, at in of_it.items()
    }


@pytest.fixture(scope="module")
def marked(spots):
    problems = spots.problems.repeat(4)
    rng = np.random.default_rng(0)
    lines = np.arange(len(problems))
    return [
        tidy.Marked("check", lines, rng.integers(0, 2, len(lines)), problems),
        tidy.Marked("never", lines, np.zeros(len(lines), int), problems),
    ]


def one(rows, **columns):
    (found,) = [r for r in rows if all(getattr(r, k) == v for k, v in columns.items())]
    return found


def test_shifts_name_both_models_and_their_norms(model, other, texts):
    moved = drift(model, other, texts, sites=SITES)
    rows = tidy.shift_rows(moved, ("base", "tuned"), "base's texts")
    of_last = one(rows, measure="activation norm", model="tuned", site=SITES[1])
    assert (of_last.value, of_last.x, of_last.n) == (moved[1].after.value, 2.0, 36)
    assert one(rows, measure="norm ratio", x=0.0).model == "tuned / base"
    assert {r.setting for r in rows} == {"base's texts"}


def test_cka_is_that_of_each_pair_with_the_means_out(seen, spots):
    pairs = [("base", "tuned"), ("tuned", "copy")]
    rows = tidy.similarity_rows(seen, spots, pairs, "t")
    x, y = (without_means(seen[m][SITES[0]], spots.tokens, spots.places) for m in ("base", "tuned"))
    assert one(rows, model="base x tuned", site=SITES[0]).value == cka(x, y).value
    same = one(rows, model="tuned x copy", site=SITES[1])
    assert (same.value, same.low, same.high) == pytest.approx((1, 1, 1))


def test_transfer_names_whose_probe_is_on_whom_and_says_why_not(seen, marked):
    pair = {name: flat(seen)[name] for name in ("base", "tuned")}
    rows = tidy.transfer_rows(pair, marked, "t")
    x, y = (pair[m][SITES[1]] for m in pair)
    truth = transfer(x, y, marked[0].used, marked[0].problems)
    about = {"measure": "probe auc", "kind": "check", "site": SITES[1]}
    assert one(rows, model="base on tuned", **about).value == truth.moved.value
    assert one(rows, model="tuned on base", **about).value == truth.back.value
    none = one(rows, measure="probe auc", kind="never", site=SITES[0])
    assert np.isnan(none.value)
    assert "never used" in none.note


def test_the_subspace_stands_beside_copies_directions_and_chance(seen, marked):
    vectors = tidy.directions_of(flat(seen)["base"], marked)
    assert list(vectors[SITES[0]]) == ["direction check"]
    rows = tidy.subspace_rows(seen, 2, vectors, "t")
    moved = Moved(seen["tuned"][SITES[0]] - seen["base"][SITES[0]], 2)
    at = {"measure": "moved overlap", "site": SITES[0]}
    assert one(rows, kind="copy - base", **at).value == pytest.approx(1)
    vector = vectors[SITES[0]]["direction check"][:, None]
    assert one(rows, kind="direction check", **at).value == moved.overlap(vector).value
    assert one(rows, kind=tidy.RANDOM, **at).value == 2 / 32
    assert one(rows, kind="random directions", **at).value == 2 / 32
    angles = [r for r in rows if r.measure == "moved angle" and r.site == SITES[0]]
    assert {(r.kind, r.x) for r in angles} == {
        (kind, x) for kind in (tidy.OWN, "copy - base", tidy.RANDOM) for x in (1.0, 2.0)
    }


def test_a_model_against_itself_moved_nothing_and_says_so(seen):
    same = {"base": seen["base"], "tuned": seen["base"]}
    rows = tidy.subspace_rows(same, 2, {}, "t")
    assert len(rows) == len(SITES)
    assert all("nothing moved" in r.note and np.isnan(r.value) for r in rows)


def test_the_lens_reads_the_same_words_in_every_copy(model, seen, marked):
    see, of_it = lens(model), flat(seen)
    rows = tidy.lens_rows(see, of_it, marked[:1], "t", count=2)
    first = [r for r in rows if r.site == SITES[0]]
    x, y = (of_it[m][SITES[0]] for m in ("base", "tuned"))
    found = promoted(see, x, y, marked[0].problems, count=2)
    assert [(r.note, r.value) for r in first[:4]] == [(p.word, p.change.value) for p in found]
    assert [(r.note, r.value) for r in first[4:]] == [(r.note, r.value) for r in first[:4]]
    assert {r.model for r in first[4:]} == {"copy - base"}


def test_a_kind_that_came_up_in_one_problem_has_a_reason_and_stops_nothing(model, seen, marked):
    of_it, some = flat(seen), marked[0]
    alone = tidy.Marked("rare", some.lines[:4], some.used[:4], some.problems[:4])
    rows = tidy.lens_rows(lens(model), of_it, [alone, some], "t", count=2)
    assert np.isnan(one(rows, kind="rare", site=SITES[0]).value)
    assert "interval" in one(rows, kind="rare", site=SITES[0]).note
    assert len([r for r in rows if r.kind == "check"]) == 2 * 2 * 4
