"""Strategies of free text: read before a sentence that will use them, and counted in a sweep."""

import random
from types import SimpleNamespace

import pandas as pd
import pytest

from probes.models import encode, load
from probes.records import Refusal, Rollout
from probes.strategies.lexicon import load_lexicon
from probes.strategies.openings import openings
from probes.tasks import SHIPPED, load_task
from steering import own_directions as module
from steering.own_directions import own_directions
from steering.sweep import sweep

CHECK = "Let me check it."


def test_a_decision_stands_at_the_first_token_of_each_sentence(reader):
    model, lexicon = load(reader), load_lexicon("checking")
    text = f"2 + 2 is 4, I say. {CHECK} Être sûr, c'est mieux."
    found = openings(model, encode(model, text), lexicon)
    assert [(d.kind, d.choice) for d in found] == [
        ("verification", "no"),
        ("verification", "yes"),
        ("verification", "no"),
    ]
    # A token is a byte, and up to the third sentence a character is one too.
    assert [d.position for d in found] == [0, text.index("Let"), text.index("tre")]


def answers(model, problems, planted):
    """Answers in which a check follows "odd", if it is planted, else as a coin falls."""
    draw, rollouts = random.Random(1), []
    for problem in problems:
        for sample in range(6):
            told = []
            for _ in range(3):
                odd = draw.random() < 0.5
                told.append("zzzzzz is odd." if odd else "qqqqqq is eve.")
                if odd if planted else draw.random() < 0.5:
                    told.append(CHECK)
                told.append("And so on and on.")
            text = " ".join(told)
            tokens = encode(model, text)
            rollouts.append(
                Rollout(problem.id, sample, tokens, (0.0,) * len(tokens), text, "stop", "")
            )
    return SimpleNamespace(problems=tuple(problems), rollouts=tuple(rollouts))


@pytest.mark.parametrize("planted", [True, False])
def test_a_direction_reads_what_the_text_so_far_gives_away_and_nothing_else(
    reader, monkeypatch, planted
):
    """Before the sentence behind "odd" or "eve." only; elsewhere no check is ever open."""
    model, task = load(reader), load_task("gym-chain-sum")

    def written(model, task, problems, **_):
        return answers(model, problems, planted)

    def after_the_claim(model, tokens, lexicon):
        found = openings(model, tokens, lexicon)
        text = model.tokenizer.decode(tokens)
        return [d for d in found if text[: d.position].endswith(("odd. ", "eve. "))]

    monkeypatch.setattr(module, "evaluate", written)
    monkeypatch.setattr(module, "openings", after_the_claim)
    lexicon = load_lexicon("checking")
    (found,) = own_directions(model, task, lexicon=lexicon, problems=30, method="logistic")
    assert (found.strategy, found.layer, found.site) == ("verification", 0, "hook_resid_post")
    if planted:
        assert found.auc_low > 0.9 > found.null_high
    else:
        assert found.auc_low < 0.5 < found.auc_high


def test_free_text_without_a_lexicon_is_refused(reader):
    with pytest.raises(Refusal, match="no grammar names decisions: give a lexicon"):
        own_directions(load(reader), load_task("gym-chain-sum"))


def test_a_sweep_counts_the_answers_that_use_a_strategy(lab, tmp_path):
    words = tmp_path / "words.toml"
    words.write_text('source = "here"\n[labels]\nis = ["="]\nasks = ["?"]\n')
    given = lab.push(
        strengths=[0.0, 3.0], samples=3, metrics=["strategy", "right"], strategy=f"{words}:asks"
    )
    frame = sweep(given, tmp_path / "out", workers=0)
    answers = pd.read_parquet(tmp_path / "out" / "answers.parquet")
    answers["asks"] = [first(text.split()) == "?" for text in answers.text]
    expected = answers.groupby(["setting", "problem"]).asks.mean().groupby("setting").mean()
    assert 0.02 < expected.mean() < 0.98
    for row in frame.itertuples():
        assert row.strategy == pytest.approx(expected[row.setting])
        assert row.strategy_low <= row.strategy <= row.strategy_high


def first(words):
    """A text without stops is one sentence; its label is the word that comes first."""
    return next((w for w in words if w in ("=", "?")), "")


def test_the_shipped_lexicons_say_where_they_are_from():
    for path in (SHIPPED.parent / "lexicons").glob("*.toml"):
        assert load_lexicon(path).source


def test_a_lexicon_is_for_free_text_and_what_it_found_is_said(reader, monkeypatch):
    with pytest.raises(Refusal, match="a lexicon is for free text"):
        own_directions(load(reader), load_task("chain"), lexicon=load_lexicon("checking"))
    monkeypatch.setattr(module, "evaluate", lambda m, t, p, **_: answers(m, p[:2], True))
    with pytest.raises(Refusal, match=r"verification:no \d+, verification:yes \d+"):
        own_directions(
            load(reader), load_task("gym-chain-sum"), lexicon=load_lexicon("checking"), problems=4
        )
