"""`whenhow route`: what it leaves behind, and what it refuses before any work."""

from dataclasses import replace

import pytest
import torch

from probes.models import load, new_llama, new_tokenizer, save
from probes.plots.routing import ROUTING
from probes.records import Measurement, read_table
from probes.tasks import load_task
from probes.taxonomy import Taxonomy, save_taxonomy
from steering import cli
from steering.vectors import Vectors, save_vectors

SITE = "blocks.0.hook_resid_post"
NAMES = ("step", "check")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two untrained models, a taxonomy and vectors of the second in its folder."""
    tokenizer, made = new_tokenizer(load_task("chain").vocabulary()), []
    for seed in range(2):
        net = new_llama(len(tokenizer), width=16, depth=2, heads=2, mlp=16, context=96, seed=seed)
        with torch.no_grad():
            for name, weight in net.named_parameters():
                if weight.ndim == 2 and "embed" not in name:
                    weight.mul_(20)  # else the tied embeddings have every model repeat itself
        folder = tmp_path_factory.mktemp("models") / f"m{seed}"
        save(net, tokenizer, folder)
        made.append(folder)
    base, tuned = (load(folder) for folder in made)
    rows, zero = torch.randn(2, 16, generator=torch.Generator().manual_seed(0)), torch.zeros(16)
    unit = rows / rows.norm(dim=1, keepdim=True)
    about = (1, NAMES, tuned.digest, "", "data")
    save_taxonomy(
        Taxonomy(SITE, zero, rows, torch.zeros(2), unit, zero.clone(), *about),
        made[1] / "taxonomy.safetensors",
    )
    save_vectors(trained(base, tuned), made[1] / "vectors.safetensors")
    return made


def trained(base, tuned):
    pushes = torch.randn(2, 16, generator=torch.Generator().manual_seed(1))
    about = ("current", 34, base.digest, tuned.digest, "data", "", (5, 6))
    return Vectors(SITE, pushes, torch.ones(2), None, NAMES, *about)


def run(*args):
    """The command in this process; its status."""
    with pytest.raises(SystemExit) as left:
        cli.main([str(arg) for arg in args])
    return left.value.code


def pair(folders):
    return ("--base", folders[0], "--tuned", folders[1])


SMALL = ("--problems", 2, "--thresholds", 0.5, "--batch", 32)


def test_it_leaves_answers_numbers_figures_and_a_page(folders, tmp_path, capsys, monkeypatch):
    one = "recovered"  # all of them are drawn in their own tests
    monkeypatch.setattr("probes.plots.routing.ROUTING", {one: ROUTING[one]})
    out = tmp_path / "r"
    assert run("route", *pair(folders), *SMALL, "--out", out) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{out}\n"
    assert "every arm, all problems" in shown.err
    rows, about = read_table(out / "route.parquet", Measurement)
    assert about["settings"]["guardrail"] == 4
    assert {r.model for r in rows} == {"m1"}
    assert {"recovered valid", "steered share", "oracle bits", "kl auc"} <= {
        r.measure for r in rows
    }
    undefined = [r for r in rows if r.setting == "probe prompt" and r.measure == "recovered valid"]
    assert "no words that ask for reasoning" in undefined[0].note
    assert {p.name for p in (out / "figures").glob("*.png")} == {"route-recovered.png"}
    before = {p.name: p.stat().st_mtime_ns for p in (out / "arms").iterdir()}
    assert len(before) > 20
    other = tmp_path / "other"
    args = ("--json", "--out", out)
    assert run("route", *pair(folders), *SMALL, *args) == 0  # all arms are there already
    assert {p.name: p.stat().st_mtime_ns for p in (out / "arms").iterdir()} == before
    assert '"rows"' in capsys.readouterr().out
    assert run("route", *pair(folders), *SMALL, "--beside", out, "--out", other) == 2
    assert "they would be mixed" in capsys.readouterr().err
    assert not other.exists()


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--problems", 1), "at least 2"),
        (("--guardrail", 0), "at least 1"),
        (("--windows", 3), "the last w positions"),
        (("--samples", 2), "the same answer 2 times"),
        (("--vectors", "nowhere.safetensors"), "nowhere.safetensors"),
    ],
)
def test_what_can_never_work_is_refused(folders, tmp_path, capsys, flags, why):
    assert run("route", *pair(folders), *flags, "--gate", "", "--out", tmp_path / "r") == 2
    assert why in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "r").exists()


def test_vectors_and_taxonomies_of_others_are_refused(folders, tmp_path, capsys):
    base, tuned = (load(folder) for folder in folders)
    own = trained(base, tuned)
    wrong = {
        "base": (replace(own, base="0" * 64), "another model"),
        "tuned": (replace(own, tuned="0" * 64), "another tuned model"),
        "names": (replace(own, names=("step", "repair")), "no vector for 'check'"),
    }
    for name, (vectors, why) in wrong.items():
        path = save_vectors(vectors, tmp_path / f"{name}.safetensors")
        out = tmp_path / "r"
        assert run("route", *pair(folders), "--vectors", path, "--out", out) == 2
        assert why in " ".join(capsys.readouterr().err.split()), name
        assert not out.exists()
    swapped = ("--base", folders[1], "--tuned", folders[0])
    beside = ("--vectors", folders[1] / "vectors.safetensors")
    beside = (*beside, "--taxonomy", folders[1] / "taxonomy.safetensors")
    assert run("route", *swapped, *beside, "--out", tmp_path / "r") == 2
    assert "another model" in " ".join(capsys.readouterr().err.split())


def test_a_pair_of_different_tokenizers_is_refused(folders, tmp_path, capsys):
    words = [*load_task("chain").vocabulary()[::-1]]
    tokenizer = new_tokenizer(words)
    net = new_llama(len(tokenizer), width=16, depth=2, heads=2, mlp=16, context=96, seed=0)
    save(net, tokenizer, tmp_path / "foreign")
    flags = ("--base", tmp_path / "foreign", "--tuned", folders[1], "--out", tmp_path / "r")
    assert run("route", *flags) == 2
    assert "different tokenizers" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "r").exists()
