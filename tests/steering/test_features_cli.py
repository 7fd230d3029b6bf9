"""`whenhow sae steer` on the base that ships and its own dictionary."""

import json

import pytest

from probes import DATA
from probes.records import Measurement, read_table
from probes.sae import load_sae
from steering import cli

CHAIN = DATA / "organisms" / "chain"
SAE = CHAIN / "base-0" / "sae" / "blocks.1.hook_resid_post"
SMALL = ("--problems", 3, "--samples", 1, "--strengths", 1, "--draws", 1, "--ending", "ans")


def run(*args):
    """The command in this process; its status."""
    with pytest.raises(SystemExit) as left:
        cli.main([str(arg) for arg in ("sae", "steer", *args)])
    return left.value.code


def latent():
    """Of a middling rate, so that there are others of the same."""
    found = [f for f in load_sae(SAE).features if f.max_activation > 0]
    return sorted(found, key=lambda f: f.firing_rate)[len(found) // 2].latent


def test_steer_leaves_numbers_and_a_figure_and_says_where(tmp_path, capsys):
    out = tmp_path / "doses"
    assert run("--sae", SAE, "--latents", latent(), *SMALL, "--out", out) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{out}\n"
    assert f"feature {latent()}" in shown.err
    rows, about = read_table(out / "sae-steer.parquet", Measurement)
    assert {r.setting for r in rows if "gain" not in r.measure} == {
        "feature",
        "random feature",
        "random direction",
        "length-matched",
        "unsteered",
    }
    assert about["settings"]["latents"] == [str(latent())]
    assert json.loads((out / "sae-steer.json").read_text())["rows"][0]["measure"] == "right"
    assert sorted(p.name for p in (out / "figures").iterdir()) == ["dose.png", "dose.svg"]


def test_another_models_latent_is_refused_unless_it_is_meant(tmp_path, capsys):
    other = ("--sae", SAE, "--latents", latent(), "--model", CHAIN / "rl-0-0", *SMALL)
    assert run(*other, "--out", tmp_path / "a") == 2
    assert "other weights, other latents" in capsys.readouterr().err
    assert run(*other, "--foreign", "--json", "--out", tmp_path / "b") == 0
    assert json.loads(capsys.readouterr().out)["settings"]["foreign"] is True


def test_a_latent_that_is_not_there_is_refused_before_any_sampling(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("steering.cli.sae_reading.answers", None)  # calling it would raise
    assert run("--sae", SAE, "--latents", 3, -1, *SMALL, "--out", tmp_path / "out") == 2
    assert "latent -1 is not one of the 512" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--latents", 100000), "latent 100000 is not one of the 512"),
        (("--latents", 3, "--problems", 1), "at least 2"),
        (("--latents", 3, "--ending", "fin"), "--ending fin: no token of"),
        (("--latents", 3, "--op", "add", "--strengths", 0), "add of strength 0"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(tmp_path, capsys, flags, message):
    small = [*SMALL[:4], *flags]
    assert run("--sae", SAE, *small, "--out", tmp_path / "out") == 2
    said = capsys.readouterr()
    assert message in said.err
    assert not said.out
    assert not (tmp_path / "out").exists()
