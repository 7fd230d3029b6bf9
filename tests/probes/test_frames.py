"""Frames and what a notebook shows: the numbers that are there, escaped, with their reasons."""

from dataclasses import dataclass
from xml.etree import ElementTree

import pytest
import torch

from probes.capture import capture, from_strings
from probes.frames import card, frame
from probes.intervals import Estimate, exact_rate, undefined
from probes.records import Grade, Problem, Refusal, Rollout
from probes.sae import load_sae
from probes.strategies import Share
from probes.strategies.between import between
from probes.strategies.labellers import Labelled
from probes.strategies.probing import LabelEvidence, SentenceProbe
from probes.taxonomy import Taxonomy
from probes.verify import Graded
from steering.evaluate import Judged
from steering.training import progress_bar


def shown(thing):
    """The first table of what a notebook shows: well-formed, two columns."""
    table = ElementTree.fromstring(f"<div>{thing._repr_html_()}</div>").find("table")
    return {row.find("th").text: row.find("td").text for row in table}


def test_a_frame_has_an_estimate_as_its_numbers():
    rows = [
        Share("check", "yes", 7, exact_rate(3, 10)),
        Share("jump", "yes", 0, undefined("no", 0)),
    ]
    found = frame(rows)
    assert found.estimate.tolist()[0] == pytest.approx(0.3)
    assert found.estimate_low[0] == pytest.approx(rows[0].estimate.low)
    assert found.estimate_reason.tolist() == ["", "no"]
    assert found.decisions.tolist() == [7, 0]
    assert list(frame([])) == []


def test_arrays_are_no_cells_and_grades_are_words():
    @dataclass(frozen=True)
    class Kept:
        name: str
        grade: Grade
        weights: torch.Tensor

    found = frame([Kept("a", Grade.RIGHT, torch.zeros(3))])
    assert found.to_dict("records") == [{"name": "a", "grade": "right"}]


def test_records_of_several_kinds_are_no_frame():
    with pytest.raises(Refusal, match="one kind; these are of Estimate, Graded"):
        frame([exact_rate(1, 2), Graded(Grade.RIGHT, True)])
    with pytest.raises(Refusal, match="int"):
        frame([1])


def test_nothing_in_a_card_is_markup():
    told = card("<script>", {"<b>": "<i>&", "n": 0.25})
    assert "<script>" not in told
    assert "&lt;b&gt;" in told
    assert "&lt;i&gt;&amp;" in told


def test_an_estimate_shows_its_interval_or_its_reason():
    assert "0.30 [0.07, 0.65]" in Estimate(0.3, 0.067, 0.652, 10)._repr_html_()
    assert "n = 10, 95%" in exact_rate(3, 10)._repr_html_()
    assert "undefined (x &lt; 0)" in undefined("x < 0", 3)._repr_html_()


def answers():
    problems = tuple(Problem("t", f"q{i}", "1", "", "", 1, "{}") for i in range(2))
    rollouts = tuple(Rollout(p.id, 0, (1, 2), (-1.0, -2.0), "a b", "stop") for p in problems)
    return Judged(problems, rollouts, (Graded(Grade.RIGHT, None), Graded(Grade.WRONG, None)))


def test_answers_are_a_frame_and_a_card():
    found = answers().frame()
    assert found.grade.tolist() == ["right", "wrong"]
    assert found.prompt.tolist() == ["q0", "q1"]
    assert not {"tokens", "logprobs"} & set(found)
    told = shown(answers())
    assert (told["answers"], told["right"], told["settings"]) == ("2", "1", "plain")


def test_a_pair_of_labellers_shows_kappa_and_their_table():
    rows = [
        Labelled(f"p{i}", 0, "", 0, 1, "x", name, label, "", "", False)
        for name, every in (("A", 2), ("B", 4))
        for i in range(40)
        for label in ["a" if i % every == 0 else ""]
    ]
    pair = between(rows, "A", "B")
    assert shown(pair)["kappa"] == str(pair.kappa)
    assert "<td>10</td>" in pair._repr_html_()
    assert pair.frame().loc["a", "(none)"] == 10
    assert pair.frame().to_numpy().sum() == 40


def test_a_probe_a_taxonomy_and_a_store_say_what_they_are(model, tmp_path):
    one = LabelEvidence("back", exact_rate(9, 10), 0.5, 0.61, 7)
    probe = SentenceProbe(
        ("", "back"), torch.zeros(2, 3).numpy(), torch.zeros(2).numpy(), "me", frozenset(), (one,)
    )
    assert "(0.61)" in probe._repr_html_()
    site = "blocks.1.hook_resid_post"
    e = torch.ones(2, 4)
    taxonomy = Taxonomy(
        site,
        torch.zeros(4),
        e,
        torch.zeros(2),
        e,
        torch.zeros(4),
        1,
        ("step", "<check>"),
        "m",
        "t",
        "d",
    )
    assert "&lt;check&gt;" in taxonomy._repr_html_()
    store = capture(model, [site], from_strings(model, ["a b c"]), tmp_path / "s")
    told = shown(store)
    assert told["lines"] == "3"
    assert told["label (none)"] == "3"


def test_a_shipped_dictionary_says_what_it_is():
    from probes import DATA

    sae = load_sae(DATA / "organisms" / "chain" / "base-0" / "sae" / "blocks.1.hook_resid_post")
    told = shown(sae)
    assert told["at"] == "blocks.1.hook_resid_post"
    assert int(told["latents"]) == sae.encoder.shape[1]
    assert len(frame(sae.features)) == sae.encoder.shape[1]


def test_in_a_notebook_a_training_run_has_the_notebooks_bar(monkeypatch):
    """tqdm.auto decides when it is imported; what is asked of the bar follows from its kind."""
    from tqdm.notebook import tqdm as theirs

    import steering.training as training

    asked = {}

    class Bar(theirs, training.tqdm):
        def __init__(self, **about):
            asked.update(about)

        def __del__(self):
            pass

    monkeypatch.setattr(training, "tqdm", Bar)
    progress_bar(0, 10, True)
    assert asked["mininterval"] == 0.2
    monkeypatch.undo()
    bar = progress_bar(0, 10, True)
    bar.close()
    assert bar.mininterval == 30, "in a log, twice a minute"
