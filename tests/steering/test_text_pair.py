"""A pair of one's own on a task of free text: what counts is right answers, and it is said so."""

import pandas as pd
import pytest
import torch

from probes.models import load, save
from probes.records import Refusal
from probes.tasks import SHIPPED
from steering.cli.boundary import Boundary, counted, of_kind
from steering.cli.divergence import Divergence
from steering.verdict import VerdictSettings, verdict


@pytest.fixture
def pair(reader, tmp_path):
    """A random model, the same with noise on its weights, and sums to ask both."""
    model = load(reader)
    torch.manual_seed(0)
    for weight in model.net.parameters():
        weight += 0.3 * weight.std() * torch.randn_like(weight)
    save(model.net, model.tokenizer, tmp_path / "noisy")
    text = (SHIPPED / "gym-chain-sum.toml").read_text().replace("1024", "6")
    (tmp_path / "sums.toml").write_text(text.replace('"tags"', '"question"'))
    return {
        "base": reader,
        "tuned": str(tmp_path / "noisy"),
        "task": str(tmp_path / "sums.toml"),
        "out": tmp_path / "out",
    }


def test_the_boundary_is_of_right_answers_and_says_why(pair, capsys):
    Boundary(**pair, problems=12, samples=4).run()
    rows = pd.read_parquet(pair["out"] / "boundary.parquet")
    valid = rows[rows.measure.str.contains("valid")]
    assert valid.value.isna().all()
    assert valid.note.str.contains("checks no traces").all()
    neither = rows[(rows.measure == "solvable right") & (rows.model == "neither")]
    assert (neither.value == 1).all()
    assert not (rows.model == "guessing").any(), "nobody knows the chance of guessing a sum"
    said = capsys.readouterr().err
    assert "measure, right" in said
    assert "solved by neither" in said
    assert len(list((pair["out"] / "figures").glob("*.png"))) >= 4


def test_where_two_models_part_in_free_text_has_no_places_of_a_grammar(pair):
    Divergence(**pair, problems=6, samples=2, null="").run()
    rows = pd.read_parquet(pair["out"] / "divergence.parquet")
    assert not rows.measure.str.contains("bits").any(), "no solutions can be enumerated"
    kl = rows[rows.measure.str.startswith("kl") & rows.value.notna()]
    assert len(kl)
    assert set(kl.kind) == {""}, "no grammar says what a token does"


def test_the_verdict_says_before_any_work_that_it_has_no_rules_for_it(pair):
    with pytest.raises(Refusal, match="reads? valid traces, and sums checks none"):
        verdict(VerdictSettings(**pair, workers=0), progress=False)
    assert not list(pair["out"].rglob("*.parquet"))


def test_measures_are_named_after_what_counts():
    assert [of_kind(m, "right") for m in ("valid@k", "crossing k valid")] == [
        "pass@k",
        "crossing k right",
    ]
    assert of_kind("valid@k", "valid") == "valid@k"
    assert counted([]) == "right"
