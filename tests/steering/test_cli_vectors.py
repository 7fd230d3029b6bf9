"""`whenhow vectors`: what it leaves behind, and what it refuses."""

import json
from pathlib import Path

import pytest
import torch

from probes.models import load, new_llama, new_tokenizer, save
from probes.records import Measurement, read_table
from probes.tasks import load_task
from probes.taxonomy import load_taxonomy
from steering import cli
from steering.cli.vectors import VectorsTrain
from steering.vectors import load_vectors, stretches

SHIPPED = Path(VectorsTrain().tuned)
SMALL = ("--problems", 2, "--held", 2, "--epochs", 1, "--starts", 1, "--least", 1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two untrained models with the task's own tokenizer."""
    tokenizer, made = new_tokenizer(load_task("chain").vocabulary()), []
    for seed in range(2):
        net = new_llama(len(tokenizer), width=16, depth=2, heads=2, mlp=16, context=96, seed=seed)
        folder = tmp_path_factory.mktemp("models") / f"m{seed}"
        save(net, tokenizer, folder)
        made.append(folder)
    return made


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A training on the shipped pair, of a few answers."""
    out = tmp_path_factory.mktemp("run")
    assert run("vectors", "train", *SMALL, "--sizes", 3, "--allow-few", "--out", out) == 0
    return out


def run(*args):
    """The command in this process; its status."""
    with pytest.raises(SystemExit) as left:
        cli.main([str(arg) for arg in args])
    return left.value.code


def test_it_leaves_vectors_taxonomy_numbers_and_figures(run_folder):
    asked = VectorsTrain()
    taxonomy = load_taxonomy(run_folder / "taxonomy.safetensors", load(asked.tuned))
    vectors = load_vectors(run_folder / "vectors.safetensors", load(asked.base))
    assert vectors.names == taxonomy.names
    assert vectors.taxonomy == taxonomy.data
    assert (vectors.site, vectors.form) == ("blocks.0.hook_resid_post", "current")
    assert vectors.command == (
        "whenhow vectors train --sizes 3 --problems 2 --held 2 --epochs 1 --starts 1 --least 1 "
        "--allow-few"
    )
    rows, about = read_table(run_folder / "vectors.parquet", Measurement)
    assert about["settings"]["parameters"] == vectors.parameters
    settings = {r.setting for r in rows if r.measure == "vector loss"}
    controls = {"shuffled categories", "one vector"}
    assert settings == {"unsteered", "vectors", *controls, *(f"vectors - {c}" for c in controls)}
    assert {r.part for r in rows if r.measure == "ari"} == {"select", "test"}
    kinds = {r.kind for r in rows if (r.measure, r.part) == ("ari", "test")}
    assert kinds == {"strategy", "opening word"}
    losses = {r.x: r.value for r in rows if (r.measure, r.setting) == ("vector loss", "vectors")}
    for j, (_, after) in enumerate(vectors.losses):
        assert after == pytest.approx(losses[float(j)], nan_ok=True)
    drawn = {p.name for p in (run_folder / "figures").glob("*.png")}
    assert drawn == {f"vectors-{name}.png" for name in ("choice", "confusion", "loss")}


def test_a_taxonomy_that_is_given_is_the_one_used(run_folder, tmp_path, capsys):
    given = run_folder / "taxonomy.safetensors"
    how = (*SMALL, "--taxonomy", given, "--allow-few", "--no-controls", "--json")
    capsys.readouterr()
    assert run("vectors", "train", *how, "--out", tmp_path) == 0
    told = json.loads(capsys.readouterr().out)
    assert {r["setting"] for r in told["rows"]} == {"unsteered", "vectors"}
    assert not (tmp_path / "taxonomy.safetensors").exists()
    again = load_vectors(tmp_path / "vectors.safetensors")
    assert again.taxonomy == load_taxonomy(given).data
    # Same answers, same places, same start: bit for bit what the first run fitted.
    assert torch.equal(again.vectors, load_vectors(run_folder / "vectors.safetensors").vectors)


def test_the_first_form_has_a_bias_which_is_also_its_vector_everywhere(
    run_folder, tmp_path, capsys, monkeypatch
):
    given = run_folder / "taxonomy.safetensors"
    how = (*SMALL, "--form", "first", "--taxonomy", given, "--allow-few")
    read = []

    def noted(*args, **how):
        read.append(args)
        return stretches(*args, **how)

    monkeypatch.setattr("steering.vectors.making.stretches", noted)
    monkeypatch.setattr("steering.vectors.making.fit_everywhere", None)  # calling it would raise
    assert run("vectors", "train", *how, "--out", tmp_path) == 0
    assert "first form at blocks.0.hook_resid_post" in capsys.readouterr().err
    vectors = load_vectors(tmp_path / "vectors.safetensors")
    everywhere = load_vectors(tmp_path / "everywhere.safetensors")
    assert torch.equal(everywhere.vectors, vectors.bias[None])  # fitted once
    assert everywhere.command == vectors.command
    assert len(read) == 2  # tune and select, each once


def test_show_tells_of_every_category(run_folder, tmp_path, capsys):
    file = run_folder / "vectors.safetensors"
    assert run("vectors", "show", "--vectors", file, "--json", "--out", tmp_path) == 0
    shown = capsys.readouterr()
    told = json.loads(shown.out)["settings"]
    vectors = load_vectors(file)
    assert [c["positions"] for c in told["categories"]] == list(vectors.counts)
    assert told["parameters"] == vectors.parameters
    assert told["command"] == vectors.command
    assert "nearest" in " ".join(shown.err.split())
    assert (tmp_path / "figures" / "vectors-loss.png").is_file()


def test_the_vectors_that_ship_are_shown_without_flags(tmp_path, capsys):
    assert run("vectors", "show", "--out", tmp_path) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{tmp_path}\n"
    assert "fitted parameters" in shown.err


@pytest.mark.parametrize("tuned", sorted(p.parent.name for p in SHIPPED.parent.glob("*/vectors.*")))
def test_what_ships_belongs_together_and_says_how_it_was_made(tuned):
    folder = SHIPPED.parent / tuned
    model, vectors = load(folder), load_vectors(folder / "vectors.safetensors")
    taxonomy = load_taxonomy(folder / "taxonomy.safetensors", model)
    bases = [load(path).digest for path in sorted(SHIPPED.parent.glob("base-*"))]
    assert vectors.base in bases
    assert (vectors.tuned, vectors.taxonomy) == (model.digest, taxonomy.data)
    assert vectors.names == taxonomy.names
    assert vectors.command.startswith("whenhow vectors train")
    fitted = vectors.vectors.norm(dim=1) > 0
    assert fitted.tolist() == [c >= 20 for c in vectors.counts]
    assert vectors.parameters == 129 * int(fitted.sum())


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--problems", 1), "at least 2"),
        (("--starts", 0), "at least 1"),
        (("--lr", 0), "must be above 0"),
        (("--form", "first", "--network"), "are of the current form"),
        (("--form", "first", "--loss", "ce"), "are of the current form"),
        (("--taxonomy", "nowhere.safetensors"), "there is no taxonomy at"),
        (("--site", "blocks.9.hook_resid_post"), "layer 9 is not in this model"),
        (("--tuned", str(SHIPPED.parents[1] / "countdown" / "rl-0")), "different tokenizers"),
    ],
)
def test_what_can_never_work_is_refused(flags, told, tmp_path, capsys):
    assert run("vectors", "train", *flags, "--out", tmp_path / "v") == 2
    assert told in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "v").exists()


def test_untrained_models_have_no_steps_to_sort(folders, tmp_path, capsys):
    pair = ("--base", folders[0], "--tuned", folders[1])
    assert run("vectors", "train", *pair, *SMALL, "--out", tmp_path / "v") == 2
    assert "has a step" in " ".join(capsys.readouterr().err.split())


def test_a_model_against_itself_has_nothing_to_steer(run_folder, tmp_path, capsys):
    tuned = VectorsTrain().tuned
    how = ("--base", tuned, *SMALL, "--taxonomy", run_folder / "taxonomy.safetensors")
    assert run("vectors", "train", *how, "--out", tmp_path / "v") == 2
    assert "there is nothing to steer" in " ".join(capsys.readouterr().err.split())


def test_vectors_are_shown_with_the_model_that_they_steer(run_folder, tmp_path, capsys):
    file, other = run_folder / "vectors.safetensors", VectorsTrain().tuned
    assert run("vectors", "show", "--vectors", file, "--base", other, "--out", tmp_path) == 2
    assert "it is of another model" in " ".join(capsys.readouterr().err.split())
