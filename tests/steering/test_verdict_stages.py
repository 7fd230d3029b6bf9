"""Choices inside the stages, on hand-made numbers: what is fitted, cut, refused and steered."""

import numpy as np
import pytest

from probes.capture import Store
from probes.directions import fit, load, thirds
from probes.directions.auc import FIT, REPORT
from probes.models import Model, new_llama, new_tokenizer
from probes.records import Grade, Problem, Refusal, Rollout, content_hash
from probes.verify import Graded
from steering.evaluate import Judged
from steering.interventions import Intervention, Window
from steering.verdict.context import Context
from steering.verdict.settings import VerdictSettings
from steering.verdict.stages import directions, steered

PLACES = ("blocks.0.hook_resid_post", "blocks.1.hook_attn_out", "blocks.1.hook_resid_post")


class Activations(Store):
    """A store in memory: every line has the strategy's mark as one noisy coordinate."""

    def __init__(self, used, width=6, noise=1.0):  # nothing is read
        draw = np.random.default_rng(0)
        self.sites = PLACES
        self.x = {site: draw.normal(size=(len(used), width)).astype(np.float32) for site in PLACES}
        for x in self.x.values():
            x[:, 0] = noise * x[:, 0] + 2 * used

    def numpy(self, site, rows=None):
        return self.x[site][rows]


def marks(problems, used):
    draw = np.random.default_rng(1)
    n = len(used)
    return directions.Marks(
        kind="check",
        lines=np.arange(n),
        used=np.array(used),
        problems=np.array(problems).astype(str),
        last=draw.integers(0, 3, size=(n, 3)),
        logit=draw.normal(size=n),
    )


class Run(Context):
    """A run with hand-made answers, whose models are never asked."""

    answers = {}  # noqa: RUF012 - each test gives its own

    def rollouts(self, which):
        return self.answers[which]


def run_in(folder, seed=0, **made):
    net = new_llama(4, width=8, depth=1, heads=1, mlp=8, context=8, seed=0)
    model = Model(net, new_tokenizer(["a", "END"]), "made up", "digest")
    context = Run(VerdictSettings("base", "tuned", out=folder, seed=seed))
    vars(context).update(pair=(model, model), **made)  # what would be loaded
    return context


def judged_rows(folder, given, seed=0):
    store, rows = Activations(given.used), []
    found = directions.judge(run_in(folder, seed), "base", given, store, {"twin": store}, rows)
    return found, rows


@pytest.fixture
def many():
    """24 problems, six decisions each, of both choices."""
    return marks(np.repeat(np.arange(24), 6), np.tile([0, 1, 1], 48))


def test_what_is_saved_has_the_null_of_the_place_that_was_chosen(many, tmp_path):
    found, rows = judged_rows(tmp_path, many)
    saved = [load(tmp_path / f"directions/base-check{end}.safetensors") for end in ("", "-chosen")]
    for one in saved:
        same = next(d for d in found if (d.place, d.method) == (one.place, one.method))
        assert np.array_equal(one.vector, same.vector)
        assert 0.3 < one.null_mean < 0.7
        assert one.null_mean < one.null_high < one.auc
    null = next(r for r in rows if r.setting == "shuffled labels")
    assert (null.value, null.high) == (saved[1].null_mean, saved[1].null_high)


def test_a_refusal_of_pca_leaves_the_other_methods(many, tmp_path, monkeypatch):
    def refuse(x, y, groups, method):
        if method == "pca":
            raise Refusal("no component")
        return fit(x, y, groups, method)

    monkeypatch.setattr("probes.directions.search.fit", refuse)
    found, rows = judged_rows(tmp_path, many)
    assert {d.method for d in found} == {"difference", "logistic"}
    told = next(r for r in rows if r.setting == "pca")
    assert np.isnan(told.value)
    assert told.note == "no component"


def test_pca_counts_its_problems_on_the_third_that_it_is_fitted_on(tmp_path):
    """Both choices are there on the fitting third of seed 3 alone, so seed 3 alone has it."""
    names = np.repeat(np.arange(36), 4)
    parts = {seed: thirds(names.astype(str), seed) for seed in (0, 3)}
    mixed = parts[3] == FIT
    used = np.where(mixed, np.tile([0, 1, 0, 1], 36), (names % 2))
    assert len(np.unique(names[mixed & (parts[0] == FIT)])) < directions.PAIRS
    methods = {
        seed: {d.method for d in judged_rows(tmp_path, marks(names, used), seed)[0]}
        for seed in parts
    }
    assert methods == {0: {"difference", "logistic"}, 3: {"difference", "logistic", "pca"}}


def test_where_no_method_has_a_direction_the_one_row_says_why(tmp_path):
    found, rows = judged_rows(tmp_path, marks(np.repeat(np.arange(24), 2), np.ones(48, int)))
    assert found == []
    assert len(rows) == 1
    assert "all 48 labels are 1" in rows[0].note
    assert not (tmp_path / "directions").exists()


def test_an_auc_that_is_undefined_says_so_in_its_own_words(tmp_path):
    """One problem alone holds the positives of the third to report on."""
    names = np.repeat(np.arange(24), 4)
    part = thirds(names.astype(str), 0)
    alone = names == names[part == REPORT][0]
    used = np.where(part == REPORT, alone & (np.arange(96) % 2 == 0), np.arange(96) % 2).astype(int)
    found, rows = judged_rows(tmp_path, marks(names, used))
    told = next(r for r in rows if r.setting == "chosen")
    assert np.isnan([told.value, told.low, told.high]).all()
    assert told.note == "too few problems carry it: some resamples have none"
    saved = load(tmp_path / "directions/base-check-chosen.safetensors")
    assert (saved.reason, np.isnan(saved.auc)) == (told.note, True)
    assert all(d.reason for d in found)


def test_decisions_are_cut_between_problems():
    draw = np.random.default_rng(0)
    problems = draw.choice([f"p{i}" for i in range(40)], size=900)
    kept = directions.whole(problems, 500)
    assert 400 < len(kept) <= 500
    assert not set(problems[kept]) & set(np.delete(problems, kept))
    hashes = {name: content_hash(name) for name in set(problems)}
    bound = max(hashes[name] for name in problems[kept])
    assert {name for name in hashes if hashes[name] <= bound} == set(problems[kept])
    assert (directions.whole(problems, 900) == np.arange(900)).all()
    assert len(set(problems[directions.whole(problems, 1)])) == 1


# ---------------------------------------------------------------------- steering


def arm(x, control="direction"):
    edit = Intervention("add", PLACES[0], np.eye(4, dtype=np.float32)[0], x, 1.0, Window())
    return steered.Arm("check", control, x, edit)


def sweep(**valid):
    """Answers of each setting, so many of ten valid; "plain" is the model as it is."""
    asked = [Problem("t", str(i), "1", "", "", 1, "{}") for i in range(10)]
    rollouts, graded = [], []
    for name, count in valid.items():
        setting = "" if name == "plain" else arm(float(name.replace("m", "-"))).name
        for i, p in enumerate(asked):
            rollouts.append(Rollout(p.id, 0, (1,), (0.0,), "", "stop", setting))
            graded.append(Graded(Grade.RIGHT if i < count else Grade.WRONG, i < count))
    return Judged(tuple(asked), tuple(rollouts), tuple(graded))


def test_the_best_push_must_beat_no_push():
    arms = [arm(-1.0), arm(1.0), arm(1.0, "logit bias")]
    assert steered.best(sweep(plain=5, m1=3, **{"1": 6}), arms) is arms[1]
    assert steered.best(sweep(plain=5, m1=3, **{"1": 4}), arms) is None
    assert steered.best(sweep(plain=5, m1=5, **{"1": 4}), arms) is None
    assert steered.best(sweep(plain=5), []) is None


def test_where_no_push_helped_the_share_is_undefined_and_the_gap_is_told(tmp_path):
    answers = {"base": sweep(plain=2), "tuned": sweep(plain=9)}
    context = run_in(tmp_path, answers=answers, select=list(answers["base"].problems))
    share, gap = steered.unhelped(context)
    assert (share.measure, share.setting, share.n) == ("recovered", "direction", 10)
    assert np.isnan(share.value)
    assert share.note == "no push helped on the select split"
    assert gap.value == pytest.approx(0.7)
