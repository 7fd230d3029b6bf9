"""`whenhow strategies`: from recorded answers to labels, and to the agreement of labellers."""

import json
import random

import pytest
from sklearn.metrics import cohen_kappa_score

from probes.records import Problem, Rollout, read_table
from probes.strategies import chat
from probes.strategies.labellers import Labelled
from probes.verify import Grade, Graded
from steering import cli
from steering.evaluate import Judged, save_judged

SAYS = ("But that is wrong here.", "It is five then.", "Let me see that again.", "We add two.")


def run(*args):
    """The command in this process; its status."""
    with pytest.raises(SystemExit) as left:
        cli.main([str(arg) for arg in args])
    return left.value.code


@pytest.fixture
def recorded(tmp_path):
    """Answers to 24 problems, four sentences each, any of four."""
    draw = random.Random(0)
    problems = [Problem("t", f"q{i}?", "1", "", "", 1, "{}") for i in range(24)]
    rollouts = [
        Rollout(p.id, 0, (), (), " ".join(draw.choices(SAYS, k=4)), "stop") for p in problems
    ]
    graded = (Graded(Grade.RIGHT, None),) * 24
    path = tmp_path / "answers.parquet"
    save_judged(path, Judged(tuple(problems), tuple(rollouts), graded), identity="abc")
    return path


@pytest.fixture
def judge(monkeypatch):
    """A judge without a server: it sees backtracking in every "But", deduction in every "add"."""
    asked = []

    def says(self, messages):
        asked.append(messages)
        sentence = messages[-1]["content"].split("<sentence>")[1]
        known = {"But": "backtracking", "add": "deduction", "five": "I am not sure"}
        return next((label for word, label in known.items() if word in sentence), "none")

    monkeypatch.setattr(chat.Chat, "__call__", says)
    return asked


def of(text, rows):
    return [r for r in rows if r.text == text]


def asking(recorded, tmp_path, *more):
    place = [
        "--judge",
        "http://127.0.0.1:9/v1",
        "--judge-model",
        "j",
        "--judged",
        tmp_path / "kept",
    ]
    return ["--rollouts", recorded, *place, "--out", tmp_path / "out", *more]


def test_words_alone_give_a_table_of_labels(recorded, tmp_path, capsys):
    assert run("strategies", "label", "--rollouts", recorded, "--out", tmp_path / "out") == 0
    shown = capsys.readouterr()
    assert shown.out.strip() == str(tmp_path / "out")
    assert "lexicon reasonscore" in shown.err
    rows, about = read_table(tmp_path / "out" / "labels.parquet", Labelled)
    assert len(rows) == 96
    assert {r.label for r in of(SAYS[0], rows)} == {"reflection"}
    assert {r.label for r in of(SAYS[1], rows)} == {""}
    assert about["sampled"] == "abc"


def test_a_judge_beside_the_words_has_its_kappa_and_its_failures(recorded, tmp_path, judge, capsys):
    asked = asking(
        recorded, tmp_path, "--rename", "backtracking=reflection", "deduction=", "--json"
    )
    assert run("strategies", "label", *asked) == 0
    told = json.loads(capsys.readouterr().out)["rows"]
    (kappa,) = [r for r in told if r["measure"] == "kappa"]
    assert kappa["n"] == 24
    rows = read_table(tmp_path / "out" / "labels.parquet", Labelled)[0][:96]
    back, again, add = (len(of(SAYS[i], rows)) for i in (0, 2, 3))  # it labels these three
    seen = [1] * back + [1] * again + [0] * add, [1] * back + [0] * (again + add)
    assert kappa["value"] == pytest.approx(cohen_kappa_score(*seen))
    assert kappa["low"] < kappa["value"] < kappa["high"]
    (lost,) = [r for r in told if r["measure"] == "unlabelled"]
    assert (lost["kind"], lost["value"]) == ("unparsable", len(of(SAYS[1], rows)) / 96)
    first = len(judge)
    assert run("strategies", "label", *asked) == 0
    assert len(judge) == first, "nothing is asked twice"
    for name in ("agreement.parquet", "figures/kappas.png", "figures/confusion.svg"):
        assert (tmp_path / "out" / name).is_file()


def test_other_words_for_labels_are_no_disagreement(recorded, tmp_path, judge, capsys):
    assert run("strategies", "label", *asking(recorded, tmp_path)) == 0
    assert "no label in common" in capsys.readouterr().err.replace("\n", " ").replace("  ", " ")


def test_tables_of_two_runs_are_compared(recorded, tmp_path, judge, capsys):
    assert run("strategies", "label", "--rollouts", recorded, "--out", tmp_path / "words") == 0
    assert run("strategies", "label", *asking(recorded, tmp_path, "--lexicon", "")) == 0
    tables = [tmp_path / name / "labels.parquet" for name in ("words", "out")]
    both = ["--labels", *tables, "--out", tmp_path / "both", "--rename", "backtracking=reflection"]
    capsys.readouterr()
    assert run("strategies", "agree", *both, "--json") == 0
    told = json.loads(capsys.readouterr().out)["rows"]
    assert [r["setting"] for r in told if r["measure"] == "kappa"] == ["judge j (venhoff)"]
    assert (
        run("strategies", "agree", "--labels", tables[0], tables[0], "--out", tmp_path / "x") == 0
    )


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--lexicon", ""], "nothing labels"),
        (["--taxonomy", "t.safetensors"], "give --model"),
        (["--probe", "blocks.0.hook_resid_post"], "give --model"),
        (["--rename", "a"], "old=new"),
        (["--lexicon", "none-such"], "reasonscore"),
        (["--judge", "localhost"], "no address"),
        (["--judge", "http://127.0.0.1:9/v1"], "name the model"),
    ],
)
def test_what_cannot_be_labelled_is_refused(recorded, tmp_path, more, says, capsys):
    asked = ["--rollouts", recorded, "--out", tmp_path / "out", *more]
    assert run("strategies", "label", *asked) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out" / "labels.parquet").exists()


def test_a_judge_that_is_away_is_a_failed_run_not_a_bug(recorded, tmp_path, monkeypatch, capsys):
    def away(self, messages):
        raise chat.TimedOut("nobody there")

    monkeypatch.setattr(chat.Chat, "__call__", away)
    assert run("strategies", "label", *asking(recorded, tmp_path)) == 1
    assert "whenhow: nobody there" in capsys.readouterr().err
