"""What a number of the table may be said to speak for, on rows made by hand."""

import pytest

from probes.records import Measurement
from steering.verdict.lines import table
from steering.verdict.rules import Thresholds, conclude

NAN = float("nan")


def row(measure, value, low=NAN, high=NAN, **about):
    return Measurement(measure, value, low, high, 50, **about)


def lines(*rows):
    return table(rows, conclude([], Thresholds()))


def only(*rows):
    (line,) = lines(*rows)
    return line


def recovered(name, *triple, x=-0.25):
    return row("recovered", *triple, model="base", kind="double", setting=name, x=x)


PUSH = recovered("direction", 0.30, 0.25, 0.35)
BELOW = [
    recovered("random direction", 0.02, -0.01, 0.05),
    recovered("shuffled labels", 0.03, 0.00, 0.06),
    recovered("logit bias", 0.10, 0.05, 0.15),
]


def test_a_push_is_deployable_only_if_it_beats_every_control():
    assert only(PUSH, *BELOW).speaks == "deployable by a push"
    for i, name in enumerate(("random direction", "shuffled labels", "logit bias")):
        others = [r for j, r in enumerate(BELOW) if j != i]
        level = recovered(name, 0.28, 0.20, 0.36)
        assert only(PUSH, *others, level).speaks == f"not beyond {name}"
    weak = recovered("direction", 0.02, -0.02, 0.06)
    assert only(weak, *BELOW).speaks == "nothing shown (detectable: 0.057)"  # 2.80 x .08 / 3.92
    assert only(PUSH).speaks == "not compared"


def test_every_control_of_a_push_stands_beside_it():
    control = only(PUSH, *BELOW).control
    assert all(name in control for name in ("random direction", "shuffled labels", "logit bias"))


def own_latents(base, again, *beyond):
    about = {"kind": "tuned's dictionary", "site": "s"}
    return [
        row("nu below 0.5", *base, model="base / tuned", **about),
        row("nu below 0.5", *again, model="again / tuned", **about),
        *(
            row("nu below 0.5, beyond another seed", *b, model="base / tuned", **about)
            for b in beyond
        ),
    ]


def test_latents_of_its_own_are_more_than_another_seeds_by_the_paired_difference():
    near = (0.10, 0.06, 0.14), (0.07, 0.03, 0.11)
    apart = (0.10, 0.08, 0.12), (0.03, 0.02, 0.04)
    more, no, unknown = "more than another seed's", "not beyond another seed", "not compared"
    assert only(*own_latents(*near, (0.03, 0.01, 0.05))).speaks == more
    assert only(*own_latents(*apart, (0.07, -0.01, 0.15))).speaks == no
    assert only(*own_latents(*apart, (NAN,))).speaks == unknown
    assert only(*own_latents(*near)).speaks == no  # a table from before there was such a row
    assert only(*own_latents(*apart)).speaks == more


def crossed(*beyond):
    apart = "decision tokens - random tokens"
    about = {"part": "untouched", "model": "tuned - base"}
    return [
        row("deployment valid", 0.2, 0.16, 0.24, setting="decision tokens", **about),
        row("deployment valid", 0.17, 0.13, 0.21, setting="random tokens", **about),
        row("deployment valid", *beyond, setting=apart, **about),
    ]


def test_decisions_count_for_when_only_beyond_as_many_random_tokens():
    assert only(*crossed(0.10, 0.05, 0.15)).speaks == "when"
    speaks = only(*crossed(0.02, -0.02, 0.07)).speaks
    assert speaks == "not beyond random tokens (detectable: 0.064)"


def sharpened(model, *lead):
    about = {"model": model, "setting": "T"}
    return [
        row("sharpened valid", 0.3, 0.25, 0.35, **about),
        row("sharpened valid", *lead, model=f"tuned - {model}", setting="T"),
    ]


@pytest.mark.parametrize(
    ("lead", "speaks"),
    [
        ((0.3, 0.2, 0.4), "more than sharpening"),
        ((-0.3, -0.4, -0.2), "sharpening does more"),
        ((0.02, -0.05, 0.09), "not told from sharpening (detectable: 0.1)"),
    ],
)
def test_sharpening_is_judged_by_the_paired_lead(lead, speaks):
    assert only(*sharpened("base", *lead)).speaks == speaks


def test_what_the_tuned_model_loses_at_the_bases_entropy_is_said():
    line = only(*sharpened("tuned", 0.33, 0.30, 0.35))
    assert line.speaks == "sharpness is part of the gain"
    assert "loses 0.33" in line.control


def auc(setting, value, low=NAN, high=NAN):
    return row("auc", value, low, high, model="base", kind="check", setting=setting, site="s")


def test_a_decision_is_readable_only_beyond_every_baseline_and_the_unbeaten_are_named():
    found = auc("chosen", 0.8, 0.7, 0.9)
    beaten = [
        auc("last three tokens", 0.6),
        auc("twin", 0.5),
        auc("shuffled labels", 0.5, 0.4, 0.6),
    ]
    assert only(found, *beaten).speaks == "the base knows when"
    assert only(found, auc("last three tokens", 0.6), auc("twin", 0.75)).speaks == "not beyond twin"
    noisy = auc("shuffled labels", 0.5, 0.2, 0.72)  # its end counts, not its mean
    assert only(found, noisy).speaks == "not beyond shuffled labels"
    # The model's own logit is what it decides by: to be no better than it is no objection.
    assert only(found, beaten[0], auc("decision logit", 0.95)).speaks == "the base knows when"


def test_a_reach_that_is_not_shown_to_change_says_what_would_have_been_found():
    change = row("pass@k", 0.01, -0.04, 0.06, model="tuned - base", x=32.0)
    assert only(change).speaks == "no change of reach shown (detectable: 0.071)"


@pytest.mark.parametrize(
    ("ahead", "crosses", "speaks"),
    [
        (1.0, 0.0, "the base does not overtake"),
        (1.0, 0.99, "the base overtakes"),
        (1.0, 0.4, "open"),
        (0.0, 0.0, "no lead to lose"),
        (0.5, 0.0, "open"),
    ],
)
def test_only_a_lead_can_be_lost(ahead, crosses, speaks):
    rows = [row("crossing valid", crosses, x=32.0), row("ahead valid", ahead, x=1.0)]
    assert only(*rows).speaks == speaks


@pytest.mark.parametrize(
    ("below", "speaks"),
    [
        ((1.0, 0.94, 1.0), "seldom or never: not told apart"),
        ((0.02, 0.0, 0.1), "most problems are solved in time"),
        ((0.5, 0.3, 0.7), "open"),
    ],
)
def test_what_the_base_would_never_solve_depends_on_the_mass_below_the_limit(below, speaks):
    where = {"skill": "z", "part": "touched"}
    rows = [
        row("guess rate", 0.03, 0.03, 0.03, **where),
        row("valid@k", 0.005, 0.002, 0.01, model="base", x=1.0, **where),
        row("valid@k", 0.6, 0.5, 0.7, model="tuned", x=1.0, **where),
        row("valid@k", 0.595, 0.5, 0.69, model="tuned - base", x=1.0, **where),
        row("below limit valid", *below, model="base", x=0.09, **where),
        row("never valid", 0.2, 0.0, 0.4, model="base", x=0.09, **where),
        row("zero gain valid", 0.3, model="base", **where),
    ]
    found = table(rows, conclude(rows, Thresholds()))
    (line,) = [one for one in found if one.question == "Would the base ever solve it?"]
    assert line.speaks == speaks
    assert "adding 0.3" in line.control


def test_a_direction_is_deployable_in_the_model_whose_rate_it_moves():
    about = {"kind": "double", "setting": "direction"}
    cells = [
        row("option rate", 0.5, 0.45, 0.55, model="base's direction in tuned", x=0.0, **about),
        row("option rate", 0.2, 0.15, 0.25, model="base's direction in tuned", x=-1.0, **about),
        row("option rate", 0.5, 0.45, 0.55, model="base", x=0.0, **about),
        row("option rate", 0.48, 0.42, 0.54, model="base", x=1.0, **about),
    ]
    speaks = {line.measure: line.speaks for line in lines(*cells)}
    assert speaks["rate of double, base's direction in tuned at -1"] == "moves it"
    assert speaks["rate of double, base's direction in base at 1"] == "not shown to move it"


def test_where_the_models_part_is_described_both_ways_and_speaks_for_nothing():
    about = {"kind": "decision", "setting": "base's texts"}
    there = row("kl share", 0.75, 0.72, 0.78, model="base || tuned", **about)
    back = row("kl share", 0.55, 0.52, 0.58, model="tuned || base", **about)
    line = only(there, back)
    assert (line.value, line.speaks) == ("0.75 [0.72, 0.78]", "description only")
    assert "0.55 [0.52, 0.58]" in line.control
    assert lines(there) == []


def test_readability_luck_and_the_split_within_problems_have_their_lines():
    rows = []
    for measure in ("unparsed", "lucky"):
        rows += [
            row(measure, 0.3, 0.2, 0.4, model="base"),
            row(measure, 0.1, 0.05, 0.15, model="tuned"),
            row(measure, -0.2, -0.3, -0.1, model="tuned - base"),
        ]
    rows += [row("kitagawa", 0.5, 0.4, 0.6, setting="total")]
    rows += [row("kitagawa", 0.3, 0.2, 0.4, setting="mix")]
    found = lines(*rows)
    assert [line.speaks for line in found] == ["fewer", "fewer", "description only"]
    assert found[-1].measure == "gain by the mix of strategies"
