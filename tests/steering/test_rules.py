"""Every branch of the written rules, on rows made by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from probes.records import Measurement, Refusal
from steering.verdict.lines import table
from steering.verdict.page import as_json
from steering.verdict.rules import Thresholds, conclude, detectable, judge, pick, said, widened

LIMITS = Thresholds(tuning_rollouts=10_000, margin=0.05)
NAN = float("nan")


def cell(skill, part, base, tuned, change, guess=0.03):
    """The rows that the rules read of one half of a skill; triples are (value, low, high)."""
    about = {"skill": skill, "part": part, "x": 1.0}
    return [
        Measurement("guess rate", guess, guess, guess, 50, skill=skill, part=part),
        Measurement("valid@k", *base, 50, model="base", **about),
        Measurement("valid@k", *tuned, 50, model="tuned", **about),
        Measurement("valid@k", *change, 50, model="tuned - base", **about),
    ]


def pooled(base=(0.1, 0.08, 0.12), tuned=(0.4, 0.35, 0.45), change=(0.3, 0.25, 0.35)):
    return cell("", "", base, tuned, change)[1:]


def elicitation(skill, untouched, taught, chance=0.06):
    about = {"skill": skill, "setting": "elicitation", "x": chance, "model": "elicited"}
    return [
        Measurement("valid", *untouched, 50, part="untouched", note="told: so", **about),
        Measurement("valid", *taught, 50, part="touched", **about),
    ]


RISEN = ((0.2, 0.15, 0.25), (0.8, 0.75, 0.85), (0.6, 0.55, 0.65))
WRITTEN = ((0.005, 0.002, 0.01), (0.6, 0.5, 0.7), (0.595, 0.5, 0.69))
FLAT = ((0.2, 0.15, 0.25), (0.21, 0.16, 0.26), (0.01, -0.03, 0.04))
ABSENT_FLAT = ((0.005, 0.002, 0.01), (0.006, 0.002, 0.01), (0.001, -0.01, 0.012))
WIDE = ((0.2, 0.1, 0.3), (0.3, 0.2, 0.4), (0.1, -0.05, 0.25))
FALLEN = ((0.5, 0.45, 0.55), (0.2, 0.15, 0.25), (-0.3, -0.35, -0.25))


def label(rows, skill="n"):
    return judge(rows, skill, LIMITS, tests=4)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [(RISEN, "deployed"), (FLAT, "no gain"), (WIDE, "undecided"), (FALLEN, "lost")],
    ids=["risen", "flat", "wide", "fallen"],
)
def test_an_undivided_skill_is_read_by_its_interval_of_change(measured, expected):
    assert label(cell("n", "", *measured)).label == expected


def test_a_base_above_the_limit_deploys_only_on_entries_that_tuning_never_met():
    both = cell("n", "touched", *RISEN) + cell("n", "untouched", *RISEN)
    assert (label(both).label, label(both).touched_only) == ("deployed", False)
    half = cell("n", "touched", *RISEN) + cell("n", "untouched", *FLAT)
    assert (label(half).label, label(half).touched_only) == ("touched only", True)
    assert "twin" in label(half).needed


def test_the_limit_is_the_larger_of_guessing_and_one_in_all_rollouts():
    rows = cell("n", "", (0.02, 0.01, 0.025), *RISEN[1:], guess=0.03)
    assert label(rows).label == "not found"
    assert label(cell("n", "", (0.02, 0.01, 0.025), *RISEN[1:], guess=0.0)).label == "deployed"
    coarse = Thresholds(tuning_rollouts=20, margin=0.05)
    rows = cell("n", "", (0.02, 0.01, 0.025), *RISEN[1:], guess=0.0)
    assert judge(rows, "n", coarse, tests=1).label == "not found"


def test_the_gold_trace_alone_can_show_that_the_base_has_it():
    rows = cell("n", "", (0.02, 0.01, 0.025), *RISEN[1:])
    gold = Measurement("gold trace probability", 0.05, 0.04, 0.06, 50, model="base", skill="n")
    assert label(rows).label == "not found"
    assert label([*rows, gold]).label == "deployed"


def test_an_interval_that_holds_the_limit_is_undecided_and_says_what_would_decide():
    found = label(cell("n", "", (0.035, 0.02, 0.05), *RISEN[1:]))
    assert found.label == "undecided"
    assert "9 times as many problems" in found.needed  # half-width .015, .005 from the limit


def test_a_tuned_model_below_the_limit_shows_nothing():
    rows = cell("n", "", (0.001, 0.0, 0.002), (0.02, 0.015, 0.029), (0.019, 0.014, 0.028))
    assert label(rows).label == "undecided"
    assert "itself is not above" in label(rows).reason


@pytest.mark.parametrize(
    ("untouched", "taught", "expected"),
    [
        ((0.5, 0.4, 0.6), (0.9, 0.8, 0.95), "latent"),
        ((0.04, 0.02, 0.07), (0.9, 0.8, 0.95), "created"),
        ((0.1, 0.05, 0.2), (0.9, 0.8, 0.95), "not found"),
        ((0.04, 0.02, 0.07), (0.05, 0.03, 0.08), "not found"),
    ],
    ids=["succeeded", "failed", "unclear", "taught nothing"],
)
def test_created_needs_an_elicitation_budget_that_taught_and_failed(untouched, taught, expected):
    rows = cell("z", "touched", *WRITTEN) + cell("z", "untouched", *ABSENT_FLAT)
    assert label(rows, "z").label == "not found"
    found = label(rows + elicitation("z", untouched, taught), "z")
    assert (found.label, found.touched_only) == (expected, True)


def test_a_gain_that_sampling_leaves_undecided_is_latent_if_the_budget_brings_it_out():
    straddling = cell("k", "", (0.035, 0.02, 0.05), *RISEN[1:])
    assert label(straddling, "k").label == "undecided"
    taught = (0.9, 0.8, 0.95)
    assert label(straddling + elicitation("k", (0.5, 0.4, 0.6), taught), "k").label == "latent"
    failed = label(straddling + elicitation("k", (0.04, 0.02, 0.07), taught), "k")
    assert failed.label == "undecided"  # created needs a base that lies below the limit


def test_no_elicitation_makes_a_skill_created_in_which_nothing_was_gained():
    rows = cell("z", "touched", *ABSENT_FLAT) + cell("z", "untouched", *ABSENT_FLAT)
    rows += elicitation("z", (0.04, 0.02, 0.07), (0.9, 0.8, 0.95))
    assert label(rows, "z").label == "no gain"


def test_many_skills_at_once_need_a_surer_gain_each():
    """One of eleven halves of a null lies outside its own 95% interval in 43% of the runs."""
    rows = cell("n", "", (0.2, 0.15, 0.25), (0.3, 0.25, 0.35), (0.1, 0.01, 0.19))
    assert judge(rows, "n", LIMITS, tests=1).label == "deployed"
    assert judge(rows, "n", LIMITS, tests=11).label == "undecided"
    low, high = widened(Measurement("d", 0.1, 0.01, 0.19, 50), 11)
    assert (0.1 - low) / 0.09 == pytest.approx(2.836 / 1.960, abs=1e-3)  # z of .05/22, of .025
    assert high - 0.1 == pytest.approx(0.1 - low)


def test_a_null_claim_gives_the_change_that_it_could_have_found():
    flat = label(cell("n", "", *FLAT))
    assert f"{detectable(flat.readings[0].change, tests=4):.3f}" in flat.reason
    assert "margin of 0.05" in flat.reason
    # 2.80 standard errors, an interval of .07 being 3.92 of them
    assert detectable(flat.readings[0].change) == pytest.approx(2.8016 * 0.07 / 3.9199, rel=1e-3)
    # four at once: the quantile of .05/8, 2.498, in place of 1.960
    four = (2.4977 + 0.8416) * 0.07 / 3.9199
    assert detectable(flat.readings[0].change, tests=4) == pytest.approx(four, rel=1e-3)


def test_what_is_detectable_is_detected_four_times_in_five():
    """By simulation, at the level that eleven tests at once are held to."""
    error, tests = 0.02, 11
    width = 1.959964 * error
    true = detectable(Measurement("d", 0.0, -width, width, 50), tests)
    drawn = np.random.default_rng(0).normal(true, error, size=4000)
    shown = [widened(Measurement("d", x, x - width, x + width, 50), tests)[0] > 0 for x in drawn]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(
    ("cells", "answer"),
    [
        ([("n", RISEN), ("r", RISEN)], "deployed"),
        ([("n", RISEN), ("r", FLAT)], "deployed"),
        ([("n", FLAT), ("r", FLAT)], "no gain"),
        ([("n", FLAT), ("r", WIDE)], "undecided"),
        ([("n", WRITTEN)], "undecided"),
        ([("n", FALLEN), ("r", FLAT)], "lost"),
        ([], "undecided"),
        ([("n", RISEN), ("r", WRITTEN)], "mixed"),
    ],
)
def test_the_answer_follows_from_the_skills(cells, answer):
    rows = pooled() + [row for skill, of_it in cells for row in cell(skill, "", *of_it)]
    assert conclude(rows, LIMITS).answer == answer


def test_created_alone_is_the_answer_created():
    rows = pooled() + cell("z", "touched", *WRITTEN) + cell("z", "untouched", *ABSENT_FLAT)
    rows += elicitation("z", (0.04, 0.02, 0.07), (0.9, 0.8, 0.95))
    found = conclude(rows, LIMITS)
    assert found.answer == "created"
    assert "z is created" in " ".join(found.sentences)
    assert "touched entries only" in " ".join(found.sentences)


@pytest.fixture
def everything():
    rows = pooled()
    for part in ("touched", "untouched"):
        rows += cell("n", part, *RISEN) + cell("r", part, *WIDE)
    rows += cell("a", "", *FLAT)
    rows += cell("z", "touched", *WRITTEN) + cell("z", "untouched", *ABSENT_FLAT)
    rows += cell("s", "touched", *RISEN) + cell("s", "untouched", *FLAT)
    rows += elicitation("z", (0.04, 0.02, 0.07), (0.9, 0.8, 0.95))
    for name in ("deployment", "execution", "interaction"):
        about = {"part": "untouched", "setting": "decision tokens", "model": "tuned - base"}
        rows.append(Measurement(f"{name} valid", 0.2, 0.1, 0.3, 50, **about))
    rows.append(Measurement("auc", NAN, NAN, NAN, 0, model="base", kind="repair", note="one class"))
    return rows


def test_the_conclusion_has_at_most_four_sentences_and_names_every_gain(everything):
    found = conclude(everything, LIMITS)
    assert len(found.sentences) == 4
    text = " ".join(found.sentences)
    assert "deployed n" in text
    assert "z is created" in text
    assert "s is better on touched entries only" in text
    assert "0.20 [0.10, 0.30]" in text  # the crossing


def test_what_is_not_decided_or_not_measured_is_listed_as_silent(everything):
    silent = " ".join(conclude(everything, LIMITS).silent)
    assert "Skill r: gain neither shown nor excluded" in silent
    assert "Skill a: the change" in silent
    assert "one class" in silent


def test_every_reason_for_which_numbers_are_undefined_is_told_with_how_often(everything):
    blank = Measurement("recovered valid", NAN, NAN, NAN, 0, model="routing", note="no bias")
    other = [replace(blank, note=f"gap {i}") for i in (1, 2, 2, 3)]
    silent = conclude([*everything, *[blank] * 3, *other], LIMITS).silent
    (told,) = [s for s in silent if "recovered valid" in s]
    assert told == (
        "Undefined recovered valid (routing; 7 numbers): "
        "no bias (3); gap 2 (2); gap 1 (1); other reasons (1)"
    )
    assert "Undefined auc of repair (base; 1 numbers): one class" in silent


def test_every_line_of_the_table_has_a_value_and_what_it_speaks_for(everything):
    found = conclude(everything, LIMITS)
    lines = table(everything, found)
    assert [line.speaks for line in lines[:5]] == [s.label for s in found.skills]
    assert all(line.value and line.speaks for line in lines)
    content = as_json({"margin": NAN}, found, lines, {})
    assert content["settings"]["margin"] is None  # JSON has no NaN


def test_skills_that_were_not_measured_are_refused():
    with pytest.raises(Refusal, match="was not measured"):
        conclude([Measurement("guess rate", 0.1, 0.1, 0.1, 5, skill="n")], LIMITS)


def test_without_any_evidence_nothing_is_concluded():
    found = conclude([], LIMITS)
    assert found.answer == "undecided"
    assert "not measured" in found.silent[0]


def test_a_change_that_is_undefined_is_undecided_and_says_why():
    rows = pooled() + cell("n", "", *RISEN[:2], (NAN, NAN, NAN))
    rows[-1] = replace(rows[-1], note="one problem gives no interval")
    found = conclude(rows, LIMITS)
    assert found.skills[0].label == "undecided"
    assert "one problem gives no interval" in found.skills[0].reason


def test_numbers_are_said_with_their_interval_or_their_reason():
    assert said(Measurement("m", 0.1234, 0.1, 0.15, 9)) == "0.12 [0.10, 0.15]"
    assert said(Measurement("m", 0.001, 0.0, 0.004, 9)) == "0.001 [0.000, 0.004]"
    assert said(Measurement("m", NAN, NAN, NAN, 9, note="why")) == "undefined (why)"
    assert said(None) == "not measured"
    assert pick([Measurement("m", 1.0, 1.0, 1.0, 9, skill="n")], "m") is None
    assert math.isnan(Measurement("m", 1.0, 1.0, 1.0, 9).x)
