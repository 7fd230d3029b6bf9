"""`whenhow sae`: what its verbs leave behind, refuse, and print."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from sae_lens import SAE

from probes.drift.scaling import Scaling
from probes.models import load, new_llama, new_tokenizer, save
from probes.plots.features import FEATURES
from probes.records import Measurement, read_table
from probes.sae import load_sae
from probes.tasks import load_task
from steering import cli
from steering.cli.sae import SaeTrain, command
from steering.cli.sae_reading import Part
from steering.cli.sae_rows import nu_rows

SITE = "blocks.1.hook_resid_post"
SMALL = ("--latents", 24, "--k", 3, "--steps", 30, "--batch", 64, "--problems", 30, "--samples", 2)


def run(*args):
    """The command in this process; its status."""
    with pytest.raises(SystemExit) as left:
        cli.main([str(arg) for arg in args])
    return left.value.code


def trained(folder, *more):
    return run(
        *("sae", "train", "--model", folder, "--task", "chain", *SMALL),
        *("--out", folder / "sae" / SITE, *more),
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three untrained models with the task's own tokenizer, each with a dictionary."""
    tokenizer, made = new_tokenizer(load_task("chain").vocabulary()), []
    for seed in range(3):
        net = new_llama(len(tokenizer), width=16, depth=2, heads=2, mlp=16, context=96, seed=seed)
        folder = tmp_path_factory.mktemp("models") / f"m{seed}"
        save(net, tokenizer, folder)
        assert trained(folder) == 0
        made.append(folder)
    return made


def test_train_leaves_a_folder_that_saelens_loads_and_says_where(folders, capsys):
    folder = folders[0] / "sae" / SITE
    shutil.rmtree(folder)
    assert trained(folders[0], "--why", "a trial") == 0
    shown = capsys.readouterr()
    assert shown.out == f"{folder}\n"
    assert "fvu on held-out problems" in shown.err
    assert sorted(p.name for p in folder.iterdir()) == [
        "cfg.json",
        "features.parquet",
        "sae_weights.safetensors",
    ]
    facts = load_sae(folder).facts
    assert (facts["task"], facts["why"], facts["settings"]["k"]) == ("chain", "a trial", 3)
    assert "--k 3" in facts["command"]
    assert "--steps 30" in facts["command"]
    assert SAE.load_from_disk(folder).cfg.metadata.hook_name == SITE
    assert not [p.name for p in folder.parent.iterdir() if p.name != SITE]


def test_the_recorded_command_is_a_command_and_says_the_same(folders, tmp_path):
    asked = SaeTrain("m", "chain", tmp_path, k=5, seed=3)
    words = command(asked, "train").split()
    assert words[:3] == ["whenhow", "sae", "train"]
    flags = dict(zip(words[3::2], words[4::2], strict=True))
    assert (flags["--k"], flags["--seed"], flags["--site"]) == ("5", "3", SITE)
    again = load_sae(folders[1] / "sae" / SITE).facts["command"].split()
    out = tmp_path / "again"
    assert run(*again[1:], "--out", out) == 0
    first, second = load_sae(folders[1] / "sae" / SITE), load_sae(out)
    assert (first.encoder == second.encoder).all()


def test_train_prints_its_facts_as_json(folders, tmp_path, capsys):
    args = ("sae", "train", "--model", folders[0], "--task", "chain", *SMALL, "--json")
    assert run(*args, "--kind", "batchtopk", "--out", tmp_path / "s") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["fvu"]["low"] <= facts["fvu"]["value"] <= facts["fvu"]["high"]
    assert load_sae(tmp_path / "s").kind == "jumprelu"


def test_score_measures_one_dictionary(folders, tmp_path, capsys):
    sae = folders[0] / "sae" / SITE
    args = ("--problems", 24, "--samples", 2, "--top", 2, "--shuffles", 20)
    assert run("sae", "score", "--sae", sae, *args, "--out", tmp_path / "s") == 0
    shown = capsys.readouterr()
    assert shown.out == f"{tmp_path / 's'}\n"
    assert "the dictionaries" in shown.err
    rows, about = read_table(tmp_path / "s" / "sae.parquet", Measurement)
    assert about["settings"]["sae"] == str(sae)
    measures = {r.measure for r in rows}
    assert {"fvu", "l0", "dead", "reason score", "feature auc"} <= measures
    assert not measures & {"firing shift", "nu"}
    drawn = {p.name for p in (tmp_path / "s" / "figures").glob("*.png")}
    assert drawn == {f"sae-{name}.png" for name in FEATURES}


def test_score_compares_with_a_tuned_model_and_a_null(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("probes.plots.features.FEATURES", {"scaling": FEATURES["scaling"]})
    base, tuned, null = (f / "sae" / SITE for f in folders)
    args = ("--problems", 24, "--samples", 2, "--top", 2, "--shuffles", 20, "--json")
    pair = ("--sae", base, "--tuned-sae", tuned, "--null", null)
    assert run("sae", "score", *pair, *args, "--out", tmp_path / "s") == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    models = {r["model"] for r in rows if r["measure"] == "nu median"}
    assert models == {
        "base / tuned",
        "tuned / base",
        "m2 / tuned",
        "tuned / m2",
        "m2 / base",
    }
    assert {r["model"] for r in rows if r["measure"] == "nu on error median"} == models
    told = [r for r in rows if r["measure"] == "nu" and "other half" in r["note"]]
    assert told
    assert all(r["n"] == 12 for r in told)  # of 24 problems, those that did not choose
    table = [r for r in rows if r["measure"] == "fvu" and r["kind"]]
    assert len(table) == 2 * 3 * 3
    assert {r["setting"] for r in table} == {"base's texts", "tuned's texts"}
    assert {r["model"] for r in rows if r["measure"] == "firing shift"} >= {"tuned - base"}


def test_the_lowest_nu_is_reported_on_problems_that_did_not_choose_it(folders):
    """Where every nu is 1 and the rest is noise, the lowest that is reported is 1 too."""
    rng = np.random.default_rng(0)
    ones = np.ones((40, 400))
    noisy = {target: 1 + rng.normal(size=ones.shape) for target in ("reconstruction", "error")}
    found = Scaling(dict.fromkeys(noisy, ones), noisy, ones, np.ones(400, bool))
    sae, model = load_sae(folders[0] / "sae" / SITE), load(folders[0])
    own, other = Part("tuned", model, sae), Part("base", model, sae)
    rows = nu_rows(SimpleNamespace(seed=0, top=50), found, own, other, {})
    for name, target in (("nu", "reconstruction"), ("nu on error", "error")):
        told = [r for r in rows if r.measure == name and r.low == r.low]
        assert len(told) == 50
        assert np.mean([r.value for r in told]) == pytest.approx(1, abs=0.1)
        assert np.sort(found.nu(target))[:50].mean() < 0.8  # chosen and reported on the same


def test_a_null_that_says_nothing_is_refused(folders, tmp_path, capsys):
    base, tuned, null = (f / "sae" / SITE for f in folders)
    pair = ("sae", "score", "--sae", base, "--tuned-sae", tuned, "--out", tmp_path / "s", "--null")
    assert run(*pair, tuned) == 2
    assert "is the tuned model itself" in capsys.readouterr().err
    assert run(*pair, null, null) == 2
    assert "two models would be called 'm2'" in capsys.readouterr().err
    shutil.copytree(folders[0], tmp_path / "copy")
    assert run(*pair, tmp_path / "copy" / "sae" / SITE) == 2
    assert "--null copy is the base model itself" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_a_model_against_itself_moved_nothing_and_shares_everything(folders, tmp_path, capsys):
    one = folders[0] / "sae" / SITE
    args = ("--problems", 24, "--samples", 2, "--top", 2, "--shuffles", 20, "--json")
    assert run("sae", "score", "--sae", one, "--tuned-sae", one, *args, "--out", tmp_path) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {r["value"] for r in rows if r["measure"] == "firing shift"} == {0.0}
    assert {r["value"] for r in rows if r["measure"] == "firing discoveries"} == {0.0}
    nu = [r["value"] for r in rows if r["measure"] == "nu"]
    assert nu == pytest.approx([1.0] * len(nu), abs=1e-6)


def test_show_says_what_latents_fire_on(folders, tmp_path, capsys):
    sae = folders[0] / "sae" / SITE
    few = ("--problems", 4, "--samples", 2, "--latents", 3, 5)
    assert run("sae", "show", "--sae", sae, *few, "--json", "--out", tmp_path) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [line["latent"] for line in shown] == [3, 5]
    assert all("[" in line["where"] and 0 <= line["fires"] <= 1 for line in shown)
    assert run("sae", "show", "--sae", sae, "--problems", 4, "--samples", 2, "--out", tmp_path) == 0
    assert capsys.readouterr().out == f"{tmp_path}\n"


def test_a_dictionary_of_another_model_or_site_is_refused(folders, tmp_path, capsys):
    sae = folders[0] / "sae" / SITE
    out = ("--out", tmp_path / "o")
    assert run("sae", "score", "--sae", sae, "--model", folders[1], *out) == 2
    assert "other weights, other latents" in capsys.readouterr().err
    assert run("sae", "score", "--sae", tmp_path / "none", *out) == 2
    assert "there is no dictionary at" in capsys.readouterr().err
    shutil.copytree(sae, tmp_path / "stray")
    assert run("sae", "score", "--sae", tmp_path / "stray", *out) == 2
    assert "does not lie in a model's folder" in capsys.readouterr().err
    (tmp_path / "stray" / "cfg.json").write_text("{")
    assert run("sae", "show", "--sae", tmp_path / "stray", "--model", folders[0], *out) == 2
    assert "cfg.json is damaged" in capsys.readouterr().err
    low = tmp_path / "low"
    few = ("--site", "blocks.0.hook_resid_post", "--out", low)
    assert run("sae", "train", "--model", folders[1], "--task", "chain", *SMALL, *few) == 0
    capsys.readouterr()
    pair = ("--sae", sae, "--tuned-sae", low, "--tuned", folders[1])
    assert run("sae", "score", *pair, *out) == 2
    assert "one site" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("--k", 24), "k = 24 of 24 latents"),
        (("--k", 0), "k = 0 of 24 latents"),
        (("--site", "blocks.7.hook_resid_post"), "layer 7 is not in this model"),
        (("--site", "blocks.0.hook_q"), "is not known"),
        (("--problems", 3), "problems 3 (at least 12"),
        (("--problems", 30, "--samples", 1, "--latents", 600), "too few for 600 latents"),
        (("--task", "nonsense"), "there is no task 'nonsense'"),
        (("--model", "nowhere"), "there is no model folder"),
    ],
)
def test_train_refuses_what_can_not_work_and_leaves_nothing(args, why, folders, tmp_path, capsys):
    given = ("sae", "train", "--model", folders[0], "--task", "chain", *SMALL)
    assert run(*given, "--out", tmp_path / "s", *args) == 2
    assert why in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_problems_too_few_to_divide_are_refused_before_any_sampling(
    folders, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("steering.cli.sae_reading.answers", None)  # calling it would raise
    given = ("sae", "train", "--model", folders[0], "--task", "chain", *SMALL)
    most = [*given, "--samples", 1, "--latents", 5000]
    assert run(*most, "--out", tmp_path / "s") == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "1 answers to each of 30 problems are at most" in told
    assert "too few for 5000 latents" in told
    given = (*given, "--problems", 12)
    assert run(*given, "--out", tmp_path / "s") == 2
    assert "of 12 problems the hash of their names holds out 1 to measure on" in " ".join(
        capsys.readouterr().err.split()
    )


def test_a_folder_in_use_is_refused_before_any_work(folders, capsys):
    assert trained(folders[0]) == 2
    shown = capsys.readouterr().err
    assert "already holds something" in shown
    assert "answers" not in shown


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("--problems", 5), "problems 5 (at least 24"),
        (("--shuffles", 3), "shuffles 3 (at least 20"),
        (("--words", "wait"), "two words at least"),
        (("--tuned", "x"), "needs its dictionary"),
    ],
)
def test_score_refuses_what_can_not_work(args, why, folders, tmp_path, capsys):
    sae = folders[0] / "sae" / SITE
    assert run("sae", "score", "--sae", sae, *args, "--out", tmp_path / "s") == 2
    assert why in " ".join(capsys.readouterr().err.split())


def test_words_that_are_not_in_the_texts_are_refused(folders, tmp_path, capsys):
    sae = folders[0] / "sae" / SITE
    args = ("--words", "wait", "however", "--problems", 24, "--samples", 1, "--out", tmp_path)
    assert run("sae", "score", "--sae", sae, *args) == 2
    assert "none of the words wait, however" in " ".join(capsys.readouterr().err.split())


def test_a_latent_that_is_not_there_is_refused(folders, tmp_path, capsys):
    sae = folders[0] / "sae" / SITE
    assert run("sae", "show", "--sae", sae, "--latents", 99, "--out", tmp_path) == 2
    assert "latent 99 is not one of the 24" in capsys.readouterr().err
