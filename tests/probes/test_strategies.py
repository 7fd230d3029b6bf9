import numpy as np
import pytest
from sklearn import metrics

from probes.records import Decision, Problem, Refusal, Rollout, Span
from probes.strategies import (
    Answer,
    Marked,
    agreement,
    cell,
    mark,
    shares,
    shifts,
    split,
    word_labels,
)

KINDS = {"check": {"yes": ("?",), "no": (";",)}, "jump": {"yes": ("ans",), "no": ("f",)}}


def rows(chances, kind="check", decisions=8, seed=0):
    """`decisions` decisions on each problem, "yes" with the chance given for it."""
    rng = np.random.default_rng(seed)
    return [
        Marked(f"p{p}", 0, "", i, kind, "yes" if rng.random() < chance else "no")
        for p, chance in enumerate(chances)
        for i in range(decisions)
    ]


def one(found, kind="check", choice="yes"):
    return next(f for f in found if (f.kind, f.choice) == (kind, choice))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def problem(start):
    return Problem("t", f"Q {start} >", "1", "", "", 1, "{}")


def test_every_decision_of_every_rollout_is_a_row(monkeypatch):
    def found(task, problem, text):
        return [Decision(i, "check", word) for i, word in enumerate(text.split())]

    monkeypatch.setattr("probes.strategies.decisions", found)
    problems = [problem(1), problem(2)]
    rollouts = [
        Rollout(problems[1].id, 0, (), (), "yes no", "stop"),
        Rollout(problems[0].id, 3, (), (), "no", "stop", "steered"),
    ]
    from probes.tasks import load_task

    assert mark(load_task("chain"), problems, rollouts) == [
        Marked(problems[1].id, 0, "", 0, "check", "yes"),
        Marked(problems[1].id, 0, "", 1, "check", "no"),
        Marked(problems[0].id, 3, "steered", 0, "check", "no"),
    ]
    with pytest.raises(Refusal, match="another task"):
        mark(load_task("chain"), problems[:1], rollouts)


def test_the_marks_of_a_chain_are_those_one_reads_off_it():
    from probes.tasks import load_task

    task = load_task("chain")
    (asked,) = task.problems("test", 1, skill="n", difficulty=3)
    a, b, c = asked.parameters["functions"]
    text = f"{a} = 4 ? 4 ok ; {b} {c} = 7 ; ans 7"
    marked = mark(task, [asked], [Rollout(asked.id, 0, (), (), text, "stop")])
    assert [(m.position, m.kind, m.choice) for m in marked] == [
        (0, "jump", "no"),
        (1, "double", "no"),
        (3, "check", "yes"),
        (7, "jump", "no"),
        (8, "double", "yes"),
        (11, "check", "no"),
    ]
    assert cell(marked, task.decision_kinds) == "double+check"


def test_a_share_is_pooled_over_decisions_and_shares_of_a_kind_add_up():
    marked = [*rows([1.0] * 20, decisions=3), *rows([0.0] * 30, decisions=1)]
    found = shares(marked)
    assert one(found).estimate.value == pytest.approx(60 / 90)
    assert one(found).decisions == 90
    assert sum(f.estimate.value for f in found) == pytest.approx(1)


def test_intervals_of_shares_resample_problems_and_not_decisions(rng):
    """Problems that always or never check: eight decisions on one are a single piece of news."""
    truth, runs, covered = 0.4, 200, 0
    for run in range(runs):
        chances = rng.random(60) < truth
        found = one(shares(rows(chances, seed=run), seed=run)).estimate
        covered += found.low <= truth <= found.high
    assert 0.90 <= covered / runs <= 0.99


def test_an_option_that_is_never_taken_is_bounded_not_known():
    found = one(shares(rows([0.0] * 100)), choice="no").estimate
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(0.025 ** (1 / 100))


def test_an_option_that_was_never_seen_has_a_share_where_the_task_knows_of_it():
    never = rows([0.0] * 100)  # all "no"
    kind = never[0].kind
    assert [f.choice for f in shares(never)] == ["no"]
    found = one(shares(never, {kind: ("yes", "no"), "other": ("yes",)}), choice="yes")
    assert found.estimate.value == 0
    assert found.estimate.high == pytest.approx(1 - 0.025 ** (1 / 100))
    assert found.decisions == 800


def test_problems_without_the_decision_are_left_out():
    marked = [*rows([0.5] * 40), *rows([0.5] * 90, kind="jump")]
    assert one(shares(marked)).estimate.n == 40


def test_the_shift_of_a_mix_is_paired_and_has_the_sign_of_the_change(rng):
    chances = rng.random(80) * 0.6 + 0.05
    before, after = rows(chances, decisions=40), rows(chances + 0.25, decisions=40, seed=1)
    found = one(shifts(before, after))
    assert found.difference.value == pytest.approx(0.25, abs=0.03)
    assert found.difference.value == pytest.approx(found.after.value - found.before.value)
    assert found.difference.high - found.difference.low < 0.06, "problems vary by .17"
    back = one(shifts(after, before)).difference
    assert back.value == pytest.approx(-found.difference.value)


def test_a_mix_against_itself_has_not_shifted():
    same = rows([0.4] * 50)
    assert one(shifts(same, same)).difference.value == 0


def test_a_shift_from_never_to_always_keeps_the_doubt_about_never():
    found = one(shifts(rows([0.0] * 40), rows([1.0] * 40))).difference
    assert found.value == 1
    assert 0.7 < found.low < 0.9


def test_a_decision_that_one_model_never_meets_has_no_shift():
    found = one(shifts(rows([0.5] * 20), rows([0.5] * 20, kind="jump")))
    assert "one of the two" in found.difference.reason
    assert "never came up" in found.after.reason


def test_agreement_is_scikit_learns(rng):
    truth = [list(rng.choice(["", "check", "double"], 30, p=[0.5, 0.2, 0.3])) for _ in range(20)]
    found = [[t if rng.random() < 0.8 else "double" for t in text] for text in truth]
    flat_found, flat_truth = sum(found, []), sum(truth, [])
    ours = agreement(found, truth)
    assert ours.kappa.value == pytest.approx(metrics.cohen_kappa_score(flat_found, flat_truth))
    assert ours.kappa.low < ours.kappa.value < ours.kappa.high
    precision, recall, _, count = metrics.precision_recall_fscore_support(flat_truth, flat_found)
    assert [label.label for label in ours.labels] == ["", "check", "double"]
    assert [label.precision for label in ours.labels] == pytest.approx(list(precision))
    assert [label.recall for label in ours.labels] == pytest.approx(list(recall))
    assert [label.true for label in ours.labels] == list(count)


def test_labels_at_random_agree_by_chance_only(rng):
    draw = [[list(rng.choice(["a", "b"], 50, p=[0.9, 0.1])) for _ in range(30)] for _ in range(2)]
    assert not agreement(*draw).kappa.excludes(0)
    assert agreement(draw[0], draw[0]).kappa.value == 1


def test_one_label_throughout_is_nothing_to_agree_on():
    assert "labelled 'a'" in agreement([["a"], ["a"]], [["a"], ["a"]]).kappa.reason


def test_spans_become_the_labels_of_their_words():
    spans = [Span(1, 3, "check"), Span(4, 5, "jump")]
    assert word_labels(spans, 5) == ["", "check", "check", "", "jump"]
    with pytest.raises(Refusal, match="overlaps"):
        word_labels([Span(1, 3, "check"), Span(2, 4, "jump")], 5)
    with pytest.raises(Refusal, match="5 words"):
        word_labels([Span(4, 6, "check")], 5)


def answers(cells, problems=20):
    """Of each cell, how many answers a problem has and how many of them are right."""
    return [
        Answer(f"p{p}", name, i < right)
        for p in range(problems)
        for name, (n, right) in cells.items()
        for i in range(n)
    ]


def test_a_change_of_mix_alone_is_all_mix():
    found = split(
        answers({"direct": (16, 0), "steps": (4, 4)}),
        answers({"direct": (4, 0), "steps": (16, 16)}),
    )
    assert found.total.value == pytest.approx(0.6)
    assert found.mix.value == pytest.approx(0.6)
    assert found.within.value == found.interaction.value == found.alone.value == 0


def test_a_change_of_accuracy_alone_is_all_within():
    found = split(
        answers({"direct": (10, 2), "steps": (10, 4)}),
        answers({"direct": (10, 7), "steps": (10, 9)}),
    )
    assert found.within.value == pytest.approx(found.total.value) == pytest.approx(0.5)
    assert found.mix.value == pytest.approx(0)


def test_a_cell_that_one_model_alone_uses_is_neither():
    found = split(answers({"direct": (10, 3)}), answers({"steps": (10, 9)}))
    assert found.alone.value == pytest.approx(found.total.value) == pytest.approx(0.6)
    assert found.mix.value == found.within.value == 0


def test_the_four_terms_add_up_to_the_gain(rng):
    def draw(seed):
        r = np.random.default_rng(seed)
        names = np.array(["a", "b", "c", "d"])
        return [
            Answer(f"p{p}", str(r.choice(names)), bool(r.random() < 0.3 + 0.1 * seed))
            for p in range(30)
            for _ in range(5)
        ]

    base, tuned = draw(0), draw(3)
    found = split(base, tuned)
    parts = (found.mix, found.within, found.interaction, found.alone)
    gain = np.mean([a.right for a in tuned]) - np.mean([a.right for a in base])
    assert sum(part.value for part in parts) == pytest.approx(gain)
    assert found.total.value == pytest.approx(gain)
    assert all(abs(part.value) > 0.005 for part in parts), "a term is zero for want of a case"


def test_the_split_is_paired_by_problem():
    with pytest.raises(Refusal, match="such as p19"):
        split(answers({"a": (2, 1)}), answers({"a": (2, 1)}, problems=19))
