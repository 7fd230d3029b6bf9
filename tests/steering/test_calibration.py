"""Truth by hand-made changes; copies by hand-made folders; thresholds by planted scores."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from sae_lens import SAE

from probes import DATA
from probes.intervals import Estimate
from probes.plots.calibration import calibration
from probes.records import Refusal, read_table
from steering.calibration import (
    Cell,
    agreement,
    calibrate,
    confusion,
    judged,
    markdown,
    running,
    shipped_copies,
    threshold,
    truth,
)
from steering.calibration.evidence import Evidence
from steering.calibration.scores import MEASURES, gain, scores
from steering.calibration.thresholds import says
from steering.cli.calibrate import MARKS, between
from steering.evaluate import load_judged
from steering.verdict import VerdictSettings, verdict

UP, FLAT = Estimate(0.5, 0.4, 0.6, 40), Estimate(0.0, -0.02, 0.02, 40)
DOWN, WIDE = Estimate(-0.2, -0.3, -0.1, 40), Estimate(0.0, -0.1, 0.1, 40)
NAN = float("nan")


def cell(true, score=0.0, *, seed=1, said="undecided", measure="boundary", copy="rl", gain=UP):
    return Cell(
        *(copy, "rl", f"chain/base-{seed}", seed, "n", "common", true, measure),
        *(gain.value, gain.low, gain.high, score, score - 0.1, score + 0.1),
        said=said,
    )


@pytest.mark.parametrize(
    ("touched", "untouched", "twin", "regime", "expected"),
    [
        (UP, UP, FLAT, "locked", "deployed"),
        (UP, UP, FLAT, "composable", "recombined"),
        (UP, UP, UP, "locked", "created"),
        (UP, FLAT, FLAT, "locked", "created"),
        (UP, FLAT, None, "absent", "created"),
        (FLAT, FLAT, FLAT, "common", "no gain"),
        (FLAT, UP, None, "common", "unknown"),
        (FLAT, DOWN, None, "common", "lost"),
        (UP, DOWN, FLAT, "absent", "created"),
        (WIDE, FLAT, FLAT, "common", "unknown"),
    ],
)
def test_truth_follows_from_the_halves_and_the_twin(touched, untouched, twin, regime, expected):
    assert truth(touched, untouched, twin, regime) == expected


@pytest.mark.parametrize(
    ("true", "said", "expected"),
    [
        ("deployed", "deployed", "right"),
        ("recombined", "deployed", "right"),
        ("created", "created", "right"),
        ("no gain", "no gain", "right"),
        ("lost", "lost", "right"),
        ("no gain", "lost", "wrong"),
        ("created", "deployed", "wrong"),
        ("deployed", "created", "wrong"),
        ("no gain", "deployed", "wrong"),
        ("created", "undecided", "undecided"),
        ("unknown", "deployed", "undecided"),
    ],
)
def test_a_cell_is_right_wrong_or_undecided(true, said, expected):
    assert cell(true, said=said).outcome == expected


def test_the_share_counts_decided_cells_and_its_interval_organisms():
    cells = [cell("deployed", said="deployed")] * 3 + [cell("created", said="deployed")]
    cells += [cell("created")] * 5
    assert confusion(cells)["boundary", "created", "undecided"] == 5
    share = agreement(cells)
    assert (share.value, share.n) == (0.75, 1)
    assert (share.low, share.high) == (pytest.approx(0.0, abs=0.03), pytest.approx(1.0, abs=0.03))
    more = cells + [cell("deployed", said="deployed", seed=s) for s in (0, 2)]
    assert agreement(more).n == 3
    assert agreement(more).low > share.low
    assert agreement(cells[4:]) is None


def test_the_share_where_something_was_gained_leaves_the_easy_cells_out():
    cells = [cell("no gain", said="no gain")] * 6 + [cell("created", said="deployed")]
    assert agreement(cells).value == pytest.approx(6 / 7)
    assert agreement(cells, gains=True).value == 0


def test_a_threshold_parts_what_can_be_parted_in_the_middle_of_the_gap():
    deployed = [cell("deployed", score) for score in (1.0, 0.9, 0.6)]
    created = [cell("created", score) for score in (0.0, 0.1, 0.2)]
    assert threshold(deployed + created) == pytest.approx(0.4)
    # one on the wrong side costs a third of one kind; no other cut does better
    assert threshold([*deployed, *created, cell("created", 0.95)]) == pytest.approx(0.4)
    assert math.isnan(threshold(deployed))
    assert math.isnan(threshold([*created, cell("no gain", 1.0), cell("deployed", NAN)]))


def test_a_threshold_is_fixed_on_other_seeds_only():
    cells = [cell("deployed", 1.0, seed=s) for s in (0, 1)]
    cells += [cell("created", 0.0, seed=s) for s in (0, 1)]
    # seed 2 lies the other way round: it may not speak for itself
    cells += [cell("deployed", -5.0, seed=2), cell("created", 5.0, seed=2)]
    found = judged(cells)
    assert [c.outcome for c in found[4:]] == ["wrong", "wrong"]
    assert found[4].threshold == pytest.approx(0.5)
    verdicts = judged([cell("created", said="created", measure="verdict")])
    assert verdicts[0].said == "created"


@pytest.mark.parametrize(
    ("score", "gained", "limit", "expected"),
    [
        (1.0, UP, 0.5, "deployed"),
        (0.0, UP, 0.5, "created"),
        (0.45, UP, 0.5, "undecided"),  # its interval holds the threshold
        (1.0, UP, NAN, "undecided"),
        (NAN, UP, 0.5, "undecided"),
        (1.0, FLAT, 0.5, "no gain"),
        (1.0, WIDE, 0.5, "undecided"),
        (1.0, DOWN, 0.5, "lost"),
    ],
)
def test_a_score_speaks_where_something_was_gained_and_its_interval_is_clear(
    score, gained, limit, expected
):
    assert says(cell("created", score, gain=gained), limit) == expected


def test_the_table_counts_every_cell_once():
    words = ("deployed", "created", "undecided", "no gain", "lost")
    truths = ("deployed", "recombined", "created", "no gain", "lost")
    cells = [cell(t, said=w) for t in truths for w in words]
    (line,) = [one for one in markdown(cells).splitlines() if one.startswith("| boundary")]
    numbers = [int(n) for n in line.split("|")[2:6] for n in n.split("/")]
    assert sum(numbers) == len(cells)
    assert line.split("|")[2].split("/") == [" 1 ", " 1 ", " 2 ", " 1 "]
    assert line.split("|")[5].split("/") == [" 4 ", " 4 ", " 2 "]


def test_the_verdict_has_a_row_without_the_seed_that_fixed_its_rules():
    cells = [cell("deployed", said="deployed", measure="verdict", seed=s) for s in (0, 1, 2)]
    rows = [line.split("|")[1:3] for line in markdown(cells).splitlines()[2:]]
    assert rows == [
        [" verdict ", " 3 / 0 / 0 / 0 "],
        [" verdict, other seeds ", " 2 / 0 / 0 / 0 "],
    ]


def test_the_table_replaces_the_last_one_and_nothing_else(tmp_path):
    file = tmp_path / "page.md"
    file.write_text(f"above\n{MARKS[0]}\nold\n{MARKS[1]}\nbelow\n")
    assert between(file, "new") == f"above\n{MARKS[0]}\nnew\n{MARKS[1]}\nbelow\n"
    file.write_text("no marks")
    with pytest.raises(Refusal, match="needs the lines"):
        between(file, "new")


def test_the_figure_is_drawn_of_any_cells(tmp_path):
    cells = judged(
        [cell(t, s, seed=i) for i in (0, 1) for t, s in (("deployed", 1.0), ("created", 0.0))]
    )
    rows = [{**c.__dict__, "outcome": c.outcome} for c in cells]
    for frame in (pd.DataFrame(rows), pd.DataFrame(rows)[:0]):
        assert all(path.stat().st_size for path in calibration(frame, tmp_path / "c"))


def make(folder, name, kind, start, recipe, **more):
    (folder / name).mkdir()
    made = {"kind": kind, "from": start, "recipe": recipe, "tuning_rollouts": 10, **more}
    (folder / name / "training.json").write_text(json.dumps(made))


def test_a_copy_is_found_with_the_twin_that_was_tuned_the_same_way(tmp_path):
    name = tmp_path.name
    regimes = {"regimes": {"n": "common"}, "task": "chain"}
    make(tmp_path, "base-1", "base", None, regimes)
    make(tmp_path, "twin-1", "base", None, regimes)
    make(tmp_path, "rl-1-0", "rl", "x/base-1", {"rl": {"reward": "right"}, "seed": 0})
    make(tmp_path, "coin-1", "rl", "x/base-1", {"rl": {"reward": "random"}, "seed": 0})
    make(tmp_path, "rl-twin-1", "rl", "x/twin-1", {"rl": {"reward": "right"}, "seed": 5})
    make(tmp_path, "sft-1", "sft", "x/base-1", {}, teacher="x/rl-1-0")
    make(tmp_path, "sft-twin-0", "sft", "x/twin-1", {}, teacher="x/another")
    make(tmp_path, "sft-twin-1", "sft", "x/twin-1", {}, teacher="x/rl-1-0")
    copies = {copy.name: copy for copy in shipped_copies([tmp_path])}
    assert set(copies) == {f"{name}/rl-1-0", f"{name}/coin-1", f"{name}/sft-1"}
    assert copies[f"{name}/rl-1-0"].tuned_twin == tmp_path / "rl-twin-1"
    assert copies[f"{name}/coin-1"].tuned_twin is None
    assert copies[f"{name}/sft-1"].tuned_twin == tmp_path / "sft-twin-1"
    assert copies[f"{name}/coin-1"].seed == 1
    assert copies[f"{name}/rl-1-0"].regimes == (("n", "common"),)


def test_a_folder_without_copies_is_refused(tmp_path):
    with pytest.raises(Refusal, match="no tuned copy"):
        shipped_copies([tmp_path])


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    """A small verdict on the shipped pair, without what no score needs."""
    chain = DATA / "organisms" / "chain"
    settings = VerdictSettings(
        base=str(chain / "base-0"),
        tuned=str(chain / "rl-0-2"),
        out=tmp_path_factory.mktemp("calibration"),
        problems=12,
        samples=8,
        crossed_samples=1,
        routed_problems=12,
        gates=True,
        skip=(*running.SKIP, "elicitation"),
        workers=0,
    )
    verdict(settings, progress=False)
    return Evidence(settings)


def test_scores_agree_with_the_answers_they_are_made_of(evidence):
    found = scores(evidence)
    assert {skill for _, skill in found} == {"n", "r", "k", "z", "s"}
    base, tuned = (evidence.answers[m].rates("valid", skill="z") for m in ("base", "tuned"))
    assert gain(evidence, "z").value == pytest.approx((tuned - base).mean())
    guess = evidence.context.task.guess_rate(evidence.context.test[0])
    assert found["base mass", "z"].value == pytest.approx(base.mean() - guess)
    of_8 = [
        np.mean([c.valid > 0 for c in evidence.answers[m].counts(skill="z")])
        for m in ("base", "tuned")
    ]
    assert found["boundary", "z"].value == pytest.approx(of_8[0] - of_8[1])
    for (name, skill), one in found.items():
        if one.defined:
            assert one.low <= one.value <= one.high, (name, skill)
    assert 0 < found["KL at decisions", "n"].value < 1
    assert found["shift", "n"].value < 0
    assert found["gold trace", "z"].reason == "not measured"  # by the stage that was skipped


def test_the_dictionary_s_scores_are_saelens_of_hugging_face_s_activations(evidence):
    base, tuned = evidence.context.pair
    site = "blocks.1.hook_resid_post"
    sae = SAE.load_from_disk(DATA / "organisms" / "chain" / "base-0" / "sae" / site)
    prompts = {p.id: p.prompt for p in evidence.answers["tuned"].problems}
    texts, unexplained, rates = evidence.texts("tuned", "n"), [], []
    for model in (base, tuned):
        rows = []
        for r in texts:
            prompt = model.tokenizer(prompts[r.problem])["input_ids"]
            ids = torch.tensor([[*prompt, *r.tokens]])
            with torch.no_grad():
                states = model.net(ids, output_hidden_states=True).hidden_states[2][0]
            rows.append(states[len(prompt) - 1 : -1])
        x = torch.cat(rows)
        with torch.no_grad():
            a = sae.encode(x)
            error = x - sae.decode(a)
        problem = np.repeat([r.problem for r in texts], [len(r.tokens) for r in texts])
        half = np.isin(problem, sorted(set(problem))[::2])
        unexplained.append(float(error.square().sum() / (x - x.mean(0)).square().sum()))
        rates += [(a[h] > 0).double().mean(0) for h in (half, ~half)]
    found = scores(evidence)
    expected = unexplained[0] - unexplained[1]
    assert expected < -0.005
    assert found["SAE reconstruction", "n"].value == pytest.approx(expected, rel=1e-3)
    a, c, b, d = rates
    moved = -float(((b - a) * (d - c)).sum() / ((a + b) * (c + d) / 4).sum())
    assert moved < -0.005
    assert found["SAE firing", "n"].value == pytest.approx(moved, rel=1e-3)


def test_latent_scaling_is_least_squares_on_saelens_of_hugging_face_s_activations(evidence):
    """Of every latent by itself: what is left for it is fitted with it alone."""
    site = "blocks.1.hook_resid_post"
    folder = DATA / "organisms" / "chain" / "rl-0-2" / "sae" / site
    sae = SAE.load_from_disk(folder)
    prompts = {p.id: p.prompt for p in evidence.answers["tuned"].problems}
    texts, states = evidence.texts("tuned", "n"), []
    for model in evidence.context.pair:
        rows = []
        for r in texts:
            prompt = model.tokenizer(prompts[r.problem])["input_ids"]
            ids = torch.tensor([[*prompt, *r.tokens]])
            with torch.no_grad():
                found = model.net(ids, output_hidden_states=True).hidden_states[2][0]
            rows.append(found[len(prompt) - 1 : -1])
        states.append(torch.cat(rows))
    base, tuned = states
    problem = np.repeat([r.problem for r in texts], [len(r.tokens) for r in texts])
    with torch.no_grad():
        f = sae.encode(tuned).double()
        d, bias = sae.W_dec.double(), sae.b_dec.double()
        wrong = {m: x.double() - sae.decode(sae.encode(x)).double() for m, x in enumerate(states)}
    nu = {"": [], ", error": []}
    for i in range(len(d)):
        on = f[:, i] > 0
        if on.sum() < 30 or len(set(problem[on.numpy()])) < 10:
            continue
        others = f[on] @ d - f[on, i : i + 1] * d[i] + bias
        alone = (f[on, i : i + 1] * d[i]).reshape(-1, 1).numpy()
        for name, targets in (
            ("", [x[on].double() - others for x in states]),
            (", error", [wrong[m][on] for m in (0, 1)]),
        ):
            beta = [np.linalg.lstsq(alone, t.reshape(-1).numpy())[0][0] for t in targets]
            nu[name].append(beta[0] / beta[1])
    assert len(nu[""]) > 20
    found = scores(evidence)
    for name, of_it in nu.items():
        share = -np.mean(np.array(of_it) < 0.5)
        assert found[f"latent scaling{name}", "n"].value == pytest.approx(share)
    assert found["latent scaling, error", "n"].value < 0
    middle = found["latent scaling, median", "n"]
    assert middle.value == pytest.approx(np.median(nu[""]), rel=1e-3)
    assert middle.low < middle.value < middle.high


@pytest.mark.parametrize("there", [(), ("base",), ("tuned",)])
def test_without_a_dictionary_there_is_no_score_of_it(evidence, there):
    bare = Evidence(evidence.context.settings)
    kept = {name: bare.context.dictionaries[name] for name in there}
    vars(bare.context)["dictionaries"] = kept  # what would be found beside the models
    of_base, of_tuned = (
        ("SAE reconstruction", "SAE firing"),
        ("latent scaling", "latent scaling, median"),
    )
    for name in (*of_base, *of_tuned):
        found, whose = MEASURES[name](bare, "n"), "base" if name in of_base else "tuned"
        assert found.defined == (whose in there)
        told = "tuned model" if whose == "tuned" else whose
        assert found.defined or found.reason == f"no dictionary beside the {told}"


ARMS = {
    "KL gate": "tuned-at-KL",
    "random tokens, KL": "as-many-tokens-as-tuned-at-KL",
    "entropy gate": "tuned-at-entropy",
    "random tokens, entropy": "as-many-tokens-as-tuned-at-entropy",
    "steered at KL": "steered-at-KL",
    "steered at entropy": "steered-at-entropy",
    "linear gate": "linear-gate",
    "substitution": "substitution",
    "oracle category": "oracle-category",
}


def test_the_score_of_an_arm_is_its_share_of_the_gap_whatever_its_threshold(evidence):
    folder = evidence.context.file("routing") / "arms"

    def rates(name):
        (file,) = [*folder.glob(f"??-{name}.parquet"), *folder.glob(f"??-{name}---*[0-9].parquet")]
        judged = load_judged(file)[0]
        return judged.rates("valid", skill=skill, part="touched").mean()

    found, compared, shares = scores(evidence), 0, set()
    for skill in ("n", "r", "k", "z", "s"):
        base, tuned = rates("base"), rates("tuned")
        for measure, name in ARMS.items():
            score = found[measure, skill]
            if score.defined:
                compared += 1
                assert score.value == pytest.approx((rates(name) - base) / (tuned - base))
                shares.add((measure, round(score.value, 3)))
            else:
                assert "the gap is" in score.reason
    assert compared > 2 * len(ARMS)
    assert len({value for _, value in shares}) > 5  # they are not all alike
    assert {value for measure, value in shares if measure == "substitution"} == {1.0}


def test_a_stopped_calibration_goes_on_and_cells_come_in_the_order_of_the_copies(
    tmp_path, monkeypatch
):
    copies = shipped_copies([DATA / "organisms" / "chain"])[:3]
    asked = []

    def cells_of(copy, out, problems, samples):
        asked.append(copy.name)
        return [cell("deployed", copy=copy.name)]

    monkeypatch.setattr(running, "cells_of", cells_of)
    found = calibrate(copies, tmp_path, workers=0)
    assert [c.copy for c in found] == asked == [c.name for c in copies]


def test_the_readme_holds_the_table_of_the_shipped_cells():
    """`make calibrate` puts both there; words follow from scores by the thresholds of today."""
    cells, _ = read_table(DATA / "calibration" / "calibration.parquet", Cell)
    readme = DATA.parent / "README.md"
    assert between(readme, markdown(judged(cells))) == readme.read_text()
