import subprocess
import sys
import textwrap
from dataclasses import fields, replace

import numpy as np
import pytest
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from probes.directions import (
    METHODS,
    Direction,
    Source,
    auc,
    auc_by_problem,
    auc_interval,
    choose,
    cosine,
    find,
    fit,
    identities,
    load,
    save,
    thirds,
)
from probes.directions.auc import CHOOSE, FIT, REPORT, _of_weights, _wins
from probes.records import Refusal

SOURCE = Source(model="abc", task="def")
SITE = "blocks.1.hook_resid_post"


def marks(seed=0, problems=60, rows=20, d=8, shift=2.0, between=1.0):
    """Activations with a planted direction, and an offset of each problem's own."""
    rng = np.random.default_rng(seed)
    planted = rng.normal(size=d)
    planted /= np.linalg.norm(planted)
    groups = np.repeat([f"p{i}" for i in range(problems)], rows)
    y = (rng.random(problems * rows) < 0.4).astype(int)
    offsets = np.repeat(between * rng.normal(size=(problems, d)), rows, axis=0)
    x = offsets + rng.normal(size=(len(y), d)) + shift * y[:, None] * planted
    return x.astype(np.float32), y, groups, planted


@pytest.mark.parametrize("method", METHODS)
def test_a_planted_direction_is_found(method):
    x, y, groups, planted = marks(problems=200, between=0.3)
    vector = fit(x, y, groups, method)
    assert cosine(vector, planted) > 0.99
    assert np.linalg.norm(vector) == pytest.approx(1)


@pytest.mark.parametrize("method", METHODS)
def test_swapped_labels_turn_the_sign(method):
    x, y, groups, _ = marks()
    there, back = fit(x, y, groups, method), fit(x, 1 - y, groups, method)
    assert back == pytest.approx(-there, abs=1e-3)
    assert (x @ there)[y == 1].mean() > (x @ there)[y == 0].mean()


@pytest.mark.parametrize("method", METHODS)
def test_shuffled_labels_have_an_auc_about_one_half(method):
    x, y, groups, _ = marks(d=48)
    (real,) = find({SITE: x}, y, groups, strategy="check", source=SOURCE, methods=[method])
    assert real.auc > 0.8
    assert abs(real.null_mean - 0.5) < 0.15
    assert real.null_mean < real.null_high < real.auc
    y = np.random.default_rng(1).permutation(y)
    (null,) = find({SITE: x}, y, groups, strategy="check", source=SOURCE, methods=[method], nulls=1)
    assert abs(null.auc - 0.5) < 0.08


def test_the_logistic_probe_is_scikit_learns_folded_back_to_the_raw_space():
    x, y, groups, _ = marks(d=5)
    x = x * np.array([1, 10, 0.1, 1, 3], dtype=np.float32) + 5
    standard = (x - x.mean(0)) / x.std(0)
    expected = LogisticRegression(tol=1e-6).fit(standard, y).decision_function(standard)
    ours = x @ fit(x, y, groups, "logistic")
    assert np.corrcoef(ours, expected)[0, 1] > 0.99999


def test_what_varies_between_problems_does_not_turn_the_component_within():
    """One coordinate that differs by 30 between problems, and in which the classes differ not."""
    x, y, groups, planted = marks(problems=150)
    loud = np.eye(8)[0] - planted[0] * planted
    loud /= np.linalg.norm(loud)
    level = np.random.default_rng(1).normal(size=150).repeat(20)
    x = (x + 30 * level[:, None] * loud).astype(np.float32)
    assert cosine(fit(x, y, groups, "pca"), planted) > 0.97
    spread = np.linalg.svd(x - x.mean(0), full_matrices=False)[2][0]
    assert abs(cosine(spread, planted)) < 0.3, "the plain first component would have done as well"


def test_recognising_the_problem_is_not_held_out():
    """Each problem has a fingerprint and one label for nearly all its rows.

    A probe cross-validated over rows knows the fingerprints of the rows it is judged on.
    """
    rng = np.random.default_rng(0)
    groups = np.repeat([f"p{i}" for i in range(60)], 20)
    prints = rng.normal(size=(60, 64)).repeat(20, axis=0)
    often = (rng.random(60) < 0.5).repeat(20)
    y = np.where(rng.random(1200) < 0.95, often, ~often).astype(int)
    x = prints + 0.1 * rng.normal(size=prints.shape)
    naive = cross_val_predict(LogisticRegression(), x, y, cv=5, method="decision_function")
    shuffled = rng.permutation(1200)
    naive[shuffled] = cross_val_predict(
        LogisticRegression(), x[shuffled], y[shuffled], cv=5, method="decision_function"
    )
    assert auc(naive, y) > 0.9
    honest = auc_by_problem(x, y, groups)
    assert honest.low < 0.55
    assert honest.value < 0.75


def test_no_problem_is_in_two_thirds_and_the_thirds_are_even():
    groups = np.random.default_rng(0).permutation(np.repeat([f"p{i}" for i in range(31)], 7))
    part = thirds(groups)
    assert all(len(set(part[groups == g])) == 1 for g in np.unique(groups))
    sizes = [len(np.unique(groups[part == third])) for third in (FIT, CHOOSE, REPORT)]
    assert sorted(sizes) == [10, 10, 11]
    assert (thirds(groups[::-1]) == part[::-1]).all()
    assert (thirds(groups, seed=1) != part).any()


def test_each_third_serves_its_own_purpose_only():
    x, y, groups, _ = marks()
    part = thirds(groups)

    def evidence(spoilt=None):
        spoilt_x = x.copy()
        if spoilt is not None:
            spoilt_x[part == spoilt] = np.random.default_rng(5).normal(
                size=(sum(part == spoilt), 8)
            )
        (found,) = find({SITE: spoilt_x}, y, groups, strategy="c", source=SOURCE, methods=["pca"])
        return found

    plain, choosing, reporting = evidence(), evidence(CHOOSE), evidence(REPORT)
    for spoilt in (choosing, reporting):
        assert (spoilt.vector == plain.vector).all()
    assert choosing.auc == plain.auc
    assert choosing.auc_choice < 0.65 < plain.auc_choice
    assert reporting.auc_choice == plain.auc_choice
    assert reporting.auc < 0.65 < plain.auc


def test_the_best_layer_is_chosen_by_the_second_third():
    x, y, groups, _ = marks()
    weak, *_ = marks(shift=0.5)
    places = {"blocks.0.hook_resid_post": weak, SITE: x}
    found = find(places, y, groups, strategy="check", source=SOURCE, nulls=1)
    assert len(found) == 2 * len(METHODS)
    best = choose(found)
    assert (best.layer, best.site, best.place) == (1, "hook_resid_post", SITE)
    lied = [replace(f, auc=1.0, auc_choice=0.1) if f is best else f for f in found]
    assert choose(lied) is not lied[found.index(best)]


def test_a_direction_carries_where_it_came_from():
    x, y, groups, _ = marks()
    (found,) = find({SITE: x}, y, groups, strategy="check", source=SOURCE, methods=["difference"])
    assert found.norm == pytest.approx(np.linalg.norm(x, axis=1).mean(), rel=1e-5)
    assert (found.rows, found.positives, found.problems) == (1200, y.sum(), 60)
    assert (found.model, found.task, found.strategy) == ("abc", "def", "check")
    other = x.copy()
    other[7, 3] += 1e-3
    (moved,) = find(
        {SITE: other}, y, groups, strategy="check", source=SOURCE, methods=["difference"]
    )
    assert moved.data != found.data


def test_an_auc_is_scikit_learns():
    rng = np.random.default_rng(0)
    scores, y = rng.integers(0, 6, 200).astype(float), rng.integers(0, 2, 200)
    assert auc(scores, y) == pytest.approx(metrics.roc_auc_score(y, scores))


def test_a_weighting_of_problems_weights_their_rows():
    rng = np.random.default_rng(0)
    scores, y, codes = rng.normal(size=90), rng.integers(0, 2, 90), rng.integers(0, 6, 90)
    weights = np.array([2.0, 0, 1, 3, 1, 1])
    ours = _of_weights(_wins(scores, y, codes))(weights[None])[0]
    theirs = metrics.roc_auc_score(y, scores, sample_weight=weights[codes])
    assert ours == pytest.approx(theirs)


def test_intervals_know_that_rows_of_a_problem_are_alike():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 15)
    lean = rng.normal(size=20).repeat(15)
    y = (lean + rng.normal(size=300) > 0).astype(int)
    scores = lean + 2 * rng.normal(size=300)
    together = auc_interval(scores, y, groups)
    apart = auc_interval(scores, y, np.arange(300))
    assert together.value == pytest.approx(apart.value)
    assert together.high - together.low > 1.3 * (apart.high - apart.low)


def test_token_identities_predict_what_hangs_on_a_token():
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 9, (1200, 3))
    groups = np.repeat(np.arange(60), 20).astype(str)
    y = (rng.random(1200) < np.where(tokens[:, 2] < 4, 0.9, 0.1)).astype(int)
    features = identities(tokens)
    assert features.shape == (1200, 27)
    assert (features.sum(axis=1) == 3).all()
    assert auc_by_problem(features, y, groups).low > 0.8
    # A single column, such as the model's own decision logit, whichever its sign.
    logit = -1.0 * (tokens[:, 2:] < 4) + 0.1 * rng.normal(size=(1200, 1))
    assert auc_by_problem(logit, y, groups).low > 0.8


def example():
    x, y, groups, _ = marks(problems=15)
    (found,) = find({SITE: x}, y, groups, strategy="check", source=SOURCE, methods=["difference"])
    return found


def test_what_is_saved_is_loaded(tmp_path):
    there = example()
    back = load(save(there, tmp_path / "new" / "check.safetensors"))
    assert (back.vector == there.vector).all()
    for field in fields(Direction):
        if field.name != "vector":
            assert getattr(back, field.name) == getattr(there, field.name), field.name


def test_any_safetensors_reader_sees_what_it_is(tmp_path):
    from safetensors import safe_open

    there = example()
    with safe_open(save(there, tmp_path / "d.safetensors"), framework="numpy") as file:
        about = file.metadata()
    assert about["layer"] == "1"
    assert about["site"] == "hook_resid_post"
    assert float(about["auc"]) == there.auc


def test_a_file_that_is_damaged_anywhere_is_refused(tmp_path):
    path = save(example(), tmp_path / "d.safetensors")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in [0, 9, len(whole) - 1, *rng.integers(0, len(whole), 60)]:
        # Another bit of blanks between header and data would change nothing that is read.
        if whole[place] == ord(" "):
            continue
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(Refusal, match="d.safetensors"):
            load(path)
    path.write_bytes(whole[:-5])
    with pytest.raises(Refusal, match="damaged"):
        load(path)


def test_a_foreign_or_missing_file_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(Refusal, match="no direction"):
        load(tmp_path / "other.safetensors")
    with pytest.raises(Refusal, match="there is no direction"):
        load(tmp_path / "none.safetensors")


def broken(**change):
    x, y, groups, _ = marks()
    values = {"x": x, "y": y, "groups": groups} | {k: f(x, y, groups) for k, f in change.items()}
    return find(
        {SITE: values["x"]}, values["y"], values["groups"], strategy="c", source=SOURCE, nulls=1
    )


def with_nan(x, *_):
    x = x.copy()
    x[3, 1] = np.nan
    return x


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: broken(y=lambda x, y, g: 0 * y), "all 1200 labels are 0: .* never"),
        (lambda: broken(y=lambda x, y, g: 0 * y + 1), "all 1200 labels are 1: .* always"),
        (lambda: broken(y=lambda x, y, g: 2 * y), "0 or 1"),
        (lambda: broken(y=lambda x, y, g: (g == "p0").astype(int)), "one class only"),
        (lambda: broken(x=with_nan), "1 of 1200 rows"),
        (lambda: broken(groups=lambda x, y, g: np.repeat(list("abcdef"), 200)), "6 problems"),
        (lambda: broken(x=lambda x, y, g: 0 * x), "no direction"),
        (lambda: find({"blocks.1.out": np.ones((1, 1))}, np.ones(1), np.ones(1), strategy="c",
                      source=SOURCE), "blocks.1.out"),
        (lambda: auc_by_problem(np.zeros((0, 2)), np.zeros(0), np.zeros(0)), "no marked"),
        (lambda: fit(*marks()[:3], "lda"), "difference, pca, logistic"),
        (lambda: fit(np.eye(4), np.array([0, 1, 0, 1]), np.arange(4), "pca"), "0 problem"),
        (lambda: auc(np.ones(3), np.ones(3)), "both classes"),
        (lambda: cosine(np.ones(3), np.ones(4)), "width 3 and 4"),
        (lambda: cosine(np.ones(3), np.zeros(3)), "length 0"),
        (lambda: choose([]), "no directions"),
        (lambda: replace(example(), vector=np.ones(3)), "unit vector"),
    ],
)  # fmt: skip
def test_refusals_say_what_is_possible(call, message):
    with pytest.raises(Refusal, match=message):
        call()


def test_directions_load_no_torch():
    code = """
        import sys
        import probes.directions
        assert "torch" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
