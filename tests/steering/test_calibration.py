"""Truth and score, by hand-made changes; the discovery of copies, by hand-made folders."""

import json

import pytest

from probes.intervals import Estimate
from probes.records import Refusal
from steering.calibration import Half, Scored, agreement, confusion, shipped_copies, truth

UP, FLAT = Estimate(0.5, 0.4, 0.6, 40), Estimate(0.0, -0.02, 0.02, 40)
DOWN, WIDE = Estimate(-0.2, -0.3, -0.1, 40), Estimate(0.0, -0.1, 0.1, 40)


def line(true, said, seed=1):
    half = Half(FLAT, UP, UP)
    return Scored("rl", seed, "n", "common", half, half, None, true, said)


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
        ("deployed", "latent", "right"),
        ("recombined", "latent", "right"),
        ("created", "created", "right"),
        ("no gain", "no gain", "right"),
        ("lost", "lost", "right"),
        ("no gain", "lost", "wrong"),
        ("created", "deployed", "wrong"),
        ("deployed", "created", "wrong"),
        ("no gain", "deployed", "wrong"),
        ("created", "touched only", "undecided"),
        ("created", "not found", "undecided"),
        ("unknown", "deployed", "undecided"),
    ],
)
def test_a_line_is_right_wrong_or_undecided(true, said, expected):
    assert line(true, said).verdict == expected


def test_the_score_counts_decided_lines_only():
    lines = [line("deployed", "deployed")] * 3 + [line("created", "deployed")]
    lines += [line("created", "undecided")] * 5
    assert confusion(lines)["created", "undecided"] == 5
    share = agreement(lines)
    assert share.value == 0.75
    assert share.n == 4
    assert agreement(lines[4:]) is None


def test_the_score_where_something_was_gained_leaves_the_easy_lines_out():
    lines = [line("no gain", "no gain")] * 6 + [line("created", "deployed"), line("lost", "lost")]
    assert agreement(lines).value == pytest.approx(7 / 8)
    assert agreement(lines, gains=True).value == 0
    assert agreement(lines, gains=True).n == 1


def make(folder, name, kind, start, recipe):
    (folder / name).mkdir()
    made = {"kind": kind, "from": start, "recipe": recipe, "tuning_rollouts": 10}
    (folder / name / "training.json").write_text(json.dumps(made))


def test_a_copy_is_found_with_the_twin_that_was_tuned_the_same_way(tmp_path):
    regimes = {"regimes": {"n": "common"}}
    make(tmp_path, "base-1", "base", None, regimes)
    make(tmp_path, "twin-1", "base", None, regimes)
    make(tmp_path, "rl-1-0", "rl", "x/base-1", {"rl": {"reward": "right"}, "seed": 0})
    make(tmp_path, "coin-1", "rl", "x/base-1", {"rl": {"reward": "random"}, "seed": 0})
    make(tmp_path, "rl-twin-1", "rl", "x/twin-1", {"rl": {"reward": "right"}, "seed": 5})
    copies = {copy.name: copy for copy in shipped_copies(tmp_path)}
    assert set(copies) == {"rl-1-0", "coin-1"}
    assert copies["rl-1-0"].tuned_twin == tmp_path / "rl-twin-1"
    assert copies["coin-1"].tuned_twin is None
    assert copies["coin-1"].seed == 1
    assert copies["rl-1-0"].regimes == (("n", "common"),)


def test_a_folder_without_copies_is_refused(tmp_path):
    with pytest.raises(Refusal, match="no tuned copy"):
        shipped_copies(tmp_path)
