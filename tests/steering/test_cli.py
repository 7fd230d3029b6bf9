"""The command line: what it loads, says and leaves behind, run as a user runs it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from steering import cli
from steering.cli.train import TrainBase

ROOT = Path(__file__).resolve().parents[2]
MEASURING = ("verdict", "boundary", "divergence", "drift", "sample", "calibrate")
BASE = """
extends = "chain-base"
[model]
width = 16
depth = 2
heads = 2
mlp = 16
[pretrain]
updates = {updates}
batch = 4
save_every = {save_every}
"""
RL = """
extends = "chain-rl"
[rl]
updates = 2
prompts = 2
samples = 2
problems = 10
"""


def whenhow(*args, **how):
    """The command in a process of its own, as the console script starts it."""
    started = [sys.executable, "-c", "from steering.cli import main; main()", *map(str, args)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(started, capture_output=True, text=True, env=environment, **how)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A base and its RL copy, made by the command line in a process that stays."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "base.toml").write_text(BASE.format(updates=3, save_every=3))
    (folder / "rl.toml").write_text(RL)
    run("train", "base", "--recipe", folder / "base.toml", "--out", folder / "base")
    run(
        "train",
        "rl",
        "--recipe",
        folder / "rl.toml",
        "--base",
        folder / "base",
        "--out",
        folder / "rl",
    )
    return folder


def run(*args):
    """The command in this process; its status."""
    with pytest.raises(SystemExit) as left:
        cli.main([str(arg) for arg in args])
    return left.value.code


def test_help_names_every_verb_and_loads_no_torch():
    asked = (
        "import sys\nfrom steering.cli import main\n"
        "try: main(['--help'])\n"
        "finally: print([m for m in ('torch', 'pandas', 'scipy') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert all(f"• {verb} " in ran.stdout for verb in ("train", *MEASURING))
    assert ran.stdout.rstrip().endswith("[]")


@pytest.mark.parametrize(
    "verb", [("train", "base"), ("train", "rl"), *((verb,) for verb in MEASURING)]
)
def test_every_flag_of_every_verb_is_explained(verb, capsys):
    assert run(*verb, "--help") == 0
    text = re.sub(r"[│|\s]+", " ", capsys.readouterr().out.split(" options ", 1)[1])
    flags = re.findall(r"(?<= )--([a-z][a-z-]+)(.*?)(?= --[a-z]|$)", text)
    assert len(flags) >= 4
    for name, explained in flags:
        assert len(re.findall(r"[a-z]{2,}", explained)) >= 3, (name, explained)


def test_a_misspelt_flag_is_answered_with_status_2():
    ran = whenhow("verdict", "--fressh")
    assert ran.returncode == 2
    assert "--fressh" in ran.stderr
    assert "--fresh" in ran.stderr.replace("--fressh", "")


def test_a_trained_folder_says_how_it_was_made(made):
    assert {p.name for p in (made / "rl").iterdir()} >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "curve.parquet",
        "training.json",
    }
    base, tuned = (json.loads((made / m / "training.json").read_text()) for m in ("base", "rl"))
    assert base["recipe"]["data"]["double"] > 0  # the whole recipe, what it extends included
    assert base["recipe"]["seed"] == 0
    assert tuned["tuning_rollouts"] == 2 * 2 * 2
    assert (base["tuning_rollouts"], base["kind"], tuned["kind"]) == (0, "base", "rl")
    assert {"python", "torch", "transformers"} <= set(tuned["versions"])
    assert not list(made.glob(".*"))  # checkpoints are gone


def test_a_finished_run_is_not_done_again_and_another_is_refused(made, capsys):
    weights = made / "base" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    again = ("train", "base", "--recipe", made / "base.toml", "--out", made / "base")
    assert run(*again) == 0
    assert capsys.readouterr().out == f"{made / 'base'}\n"
    assert run(*again, "--seed", 5) == 2
    assert "another recipe" in capsys.readouterr().err
    assert weights.stat().st_mtime_ns == before


def test_a_seed_makes_another_model(made, tmp_path):
    from probes.models import load

    recipe = made / "base.toml"
    assert run("train", "base", "--recipe", recipe, "--out", tmp_path / "m", "--seed", 1) == 0
    assert load(tmp_path / "m").digest != load(made / "base").digest


def test_pretraining_goes_on_from_a_finished_model(made, tmp_path):
    import torch

    from probes.models import load

    recipe = made / "base.toml"
    args = ("train", "base", "--recipe", recipe, "--out", tmp_path / "m", "--from", made / "base")
    assert run(*args) == 0
    before, after = load(made / "base"), load(tmp_path / "m")
    pairs = list(zip(before.net.parameters(), after.net.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in pairs)
    moved = sum(float((a - b).norm()) for a, b in pairs)
    fresh = sum(float(a.norm()) for a, _ in pairs)
    assert moved < 0.2 * fresh  # a new one would be as far away as it is long
    about = json.loads((tmp_path / "m" / "training.json").read_text())
    assert about["from_digest"] == before.digest


def test_standard_output_is_the_path_and_nothing_else(made, tmp_path):
    out = tmp_path / "answers.parquet"
    args = ("--model", made / "base", "--out", out, "--problems", 2, "--samples", 2)
    ran = whenhow("sample", *args)
    assert (ran.returncode, ran.stdout) == (0, f"{out}\n"), ran.stderr
    assert "answers" in ran.stderr
    from steering.evaluate import load_judged

    judged, about = load_judged(out)
    assert len(judged.rollouts) == 2 * len(judged.problems)
    assert about["temperature"] == 1.0


def test_an_interrupted_training_goes_on_and_ends_with_the_same_weights(made, monkeypatch):
    """The law of resuming, through the command line."""
    from probes.models import load
    from steering.training import pretrain

    (made / "long.toml").write_text(BASE.format(updates=8, save_every=3))
    args = ("train", "base", "--recipe", made / "long.toml", "--out")
    whole, left = pretrain.update, [5]

    def interrupted(*given):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return whole(*given)

    with monkeypatch.context() as patched:
        patched.setattr(pretrain, "update", interrupted)
        assert run(*args, made / "m") == 130
    assert not (made / "m").exists()
    assert [p.name for p in (made / ".m.unfinished").glob("checkpoint-*")] == ["checkpoint-000003"]
    left[0] = 8
    monkeypatch.setattr(pretrain, "update", interrupted)
    assert run(*args, made / "m") == 0
    assert left[0] == 8 - 5  # three of eight steps were not done again
    left[0] = 8
    assert run(*args, made / "n") == 0
    assert load(made / "m").digest == load(made / "n").digest


def test_a_signal_ends_a_training_with_status_130_and_says_how_to_go_on(tmp_path):
    (tmp_path / "r.toml").write_text(BASE.format(updates=1_000_000, save_every=2))
    command = [sys.executable, "-c", "from steering.cli import main; main()"]
    command += ["train", "base", "--recipe", f"{tmp_path}/r.toml", "--out", f"{tmp_path}/m"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def heed():
        """Whoever starts the tests in the background has them ignore the signal; children would."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=heed
    ) as process:
        while not list(tmp_path.glob(".m.unfinished/checkpoint-*")) and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        try:
            said = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == 130, said
    assert "interrupted; the same command goes on from the last checkpoint" in said
    assert "Traceback" not in said
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (OSError(28, "No space left on device"), 1, "the disk is full.*the same command goes on"),
        (RuntimeError("worker: OSError: No space left on device"), 1, "the disk is full"),
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on"),
        (FloatingPointError("the loss of step 3 is nan"), 1, "the loss of step 3 is nan"),
    ],
    ids=["full disk", "full disk in a worker", "interrupt", "divergence"],
)
def test_what_went_wrong_is_said_in_one_line(raised, code, said, monkeypatch, capsys, tmp_path):
    def run(_verb):
        raise raised

    monkeypatch.setattr(TrainBase, "run", run)
    assert cli.status(TrainBase("chain-base", tmp_path / "m")) == code
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert re.search(said, shown.err)


def test_a_bug_keeps_its_traceback(monkeypatch, tmp_path):
    def run(_verb):
        raise ValueError("not one of ours")

    monkeypatch.setattr(TrainBase, "run", run)
    with pytest.raises(ValueError, match="not one of ours"):
        cli.status(TrainBase("chain-base", tmp_path / "m"))
