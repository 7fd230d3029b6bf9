"""`whenhow sample` on tasks of text: a model that reads any, and the record that it leaves."""

import json

import pytest

from probes.records import Refusal
from probes.tasks import SHIPPED
from steering.cli import status
from steering.cli.sample import Sample
from steering.evaluate import load_judged

ORGANISM = "data/organisms/chain/base-0"


def task_file(folder):
    rows = [{"problem": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(30)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = (SHIPPED / "minerva.toml").read_text()
    text = text.replace("math-ai/minervamath", str(folder / "rows.jsonl"))
    text = text.replace('"question", answer', '"problem", answer').replace("4096", "12")
    text = text.replace('"minerva-4-shot"', '"qwen-boxed"')
    (folder / "mine.toml").write_text(text)
    return str(folder / "mine.toml")


def test_template_sampling_and_prompt_are_in_the_result(reader, tmp_path):
    out, task = tmp_path / "answers.parquet", task_file(tmp_path)
    about = {"problems": 3, "samples": 2, "temperature": 0.6, "top_p": 0.95, "seed": 4}
    Sample(reader, out, task=task, split="select", **about).run()
    judged, told = load_judged(out)
    assert told["template"]["name"] == "qwen-boxed"
    assert told["settings"]["columns"] == {"question": "problem", "answer": "answer"}
    assert (told["temperature"], told["top_p"], told["seed"]) == (0.6, 0.95, 4)
    assert (told["samples"], told["split"], told["name"]) == (2, "select", "mine")
    assert len(judged.rollouts) == 6
    for problem in judged.problems:
        before, after = told["template"]["text"].split("{question}")
        assert problem.prompt == f"{before}{problem.parameters['question']}{after}"
    assert {g.valid for g in judged.graded} <= {None}
    with pytest.raises(Refusal, match="checks no traces"):
        judged.rates("valid")
    assert judged.rates("right").shape == (3,)


def test_a_task_of_reasoning_gym_is_sampled(reader, tmp_path):
    out = tmp_path / "answers.parquet"
    text = (SHIPPED / "gym-chain-sum.toml").read_text().replace("1024", "8")
    (tmp_path / "sums.toml").write_text(text)
    Sample(reader, out, task=str(tmp_path / "sums.toml"), problems=2, samples=2).run()
    assert load_judged(out)[1]["settings"]["dataset"] == "chain_sum"


def test_an_organism_can_not_read_text_and_that_is_said(tmp_path, capsys):
    out = tmp_path / "answers.parquet"
    small = {"problems": 2, "samples": 2}
    assert status(Sample(ORGANISM, out, task=task_file(tmp_path), **small)) == 2
    said = capsys.readouterr().err
    assert "not in the vocabulary" in said
    assert "is the task of another model?" in said
    assert len(said) < 600
    assert not out.exists()


def test_without_data_that_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    verb = Sample(ORGANISM, tmp_path / "a.parquet", task="gsm8k", problems=2, samples=2)
    assert status(verb) == 2
    assert "give a local .parquet or .jsonl" in capsys.readouterr().err
