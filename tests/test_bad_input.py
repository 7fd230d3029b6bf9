"""What can't work is refused: before any work, in one line that helps, with nothing left behind."""

import errno
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from probes import boundary
from probes.capture import capture, from_strings
from probes.directions import Source, auc, find
from probes.models import layer_index, load, new_llama, new_tokenizer, save
from probes.tasks import SHIPPED, load_task
from steering import cli
from steering.cli.sample import Sample
from steering.cli.train import TrainBase, TrainRl
from steering.cli.verdict import Verdict
from steering.verdict.settings import VerdictSettings


@dataclass(frozen=True)
class Given:
    """What a case works with."""

    place: Path
    """A folder of its own."""
    model: Path
    """A sound model folder, random weights."""

    @property
    def out(self) -> Path:
        return self.place / "out"

    def damaged(self, name="damaged"):
        """A copy of the model, to be damaged."""
        return Path(shutil.copytree(self.model, self.place / name))

    def sample(self, model=None, **flags):
        small = {"problems": 2, "samples": 2, **flags}
        return Sample(str(model or self.model), self.out / "answers.parquet", **small).run()

    def verdict(self, base=None, tuned=None, **settings):
        pair = str(base or self.model), str(tuned or self.model)
        return Verdict(VerdictSettings(*pair, out=self.out, workers=0, **settings)).run()


def folder_of(words, place, *, context=96):
    net = new_llama(len(words) + 2, width=8, depth=2, heads=2, mlp=8, context=context, seed=0)
    save(net, new_tokenizer(words), place)
    return place


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return folder_of(load_task("chain").vocabulary(), tmp_path_factory.mktemp("sound") / "model")


@pytest.fixture
def given(tmp_path, sound):
    return Given(tmp_path, sound)


def cut_short(given):
    file = given.damaged() / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    given.sample(file.parent)


def without_weights(given):
    folder = given.damaged()
    (folder / "model.safetensors").unlink()
    given.sample(folder)


def pickled(given):
    folder = given.damaged()
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    given.sample(folder)


def edited(given, edit):
    file = given.damaged() / "model.safetensors"
    weights = load_file(file)
    edit(weights)
    save_file(weights, file, {"format": "pt"})
    given.sample(file.parent)


def one_weight_less(given):
    edited(given, lambda weights: weights.pop("model.layers.1.mlp.down_proj.weight"))


def not_a_number(given):
    edited(given, lambda weights: weights["model.norm.weight"].fill_(float("nan")))


def without_tokenizer(given):
    folder = given.damaged()
    (folder / "tokenizer.json").unlink()
    given.sample(folder)


def other_tokenizer(given):
    words = list(reversed(load_task("chain").vocabulary()))
    given.verdict(tuned=folder_of(words, given.place / "other"))


def other_size(given):
    words = load_task("chain").vocabulary()
    net = new_llama(len(words) + 2, width=8, depth=1, heads=2, mlp=8, context=96, seed=0)
    save(net, new_tokenizer(words), given.place / "other")
    given.verdict(tuned=given.place / "other")


def model_of_another_task(given):
    given.sample(folder_of(["a", "b", "END"], given.place / "other"))


def short_context(given):
    words = load_task("chain").vocabulary()
    given.sample(folder_of(words, given.place / "short", context=12))


def recipe(given, text):
    file = given.place / "recipe.toml"
    file.write_text(text)
    return TrainBase(str(file), given.out).run()


def capturing(given, site):
    model = load(given.model)
    capture(model, [site], from_strings(model, ["Q 1 a0 >"]), given.out)


def labelled(labels):
    """Directions from made-up activations, two rows a problem."""
    x = {"blocks.0.hook_resid_post": np.random.default_rng(0).normal(size=(len(labels), 4))}
    problems = np.array([f"p{i // 2}" for i in range(len(labels))], dtype=str)
    labels = np.array(labels, dtype=int)
    find(x, labels, problems, strategy="check", source=Source("weights", "task"))


def own_task(given, right, wrong):
    """The shipped chain task with one thing changed."""
    text = (SHIPPED / "chain.toml").read_text()
    assert text.count(right) == 1
    (given.place / "own.toml").write_text(text.replace(right, wrong))
    return str(given.place / "own.toml")


def rewarded(given, reward):
    file = given.place / "recipe.toml"
    file.write_text(f'extends = "chain-rl"\n[rl]\nproblems = 10\nreward = "{reward}"')
    return str(file)


REFUSED = {
    "unknown model": (
        lambda g: g.sample("no/such/model"),
        "there is no model folder 'no/such/model'.*config.json.*Hugging Face name",
    ),
    "unknown task": (
        lambda g: g.sample(task="chian"),
        "no task 'chian'.*chain, chain-small, countdown",
    ),
    "unknown split": (lambda g: g.sample(split="exam"), "split 'exam'.*tune, select, test"),
    "unknown skill": (
        lambda _: load_task("chain").problems("test", 1, skill="q"),
        "skill 'q' is not one of a, ",
    ),
    "unknown recipe": (
        lambda g: TrainBase("chain-bse", g.out).run(),
        "no recipe 'chain-bse'.*chain-base.*chain-rl",
    ),
    "recipe of another kind": (
        lambda g: TrainBase("chain-rl", g.out).run(),
        "the recipe has no pretrain, only .*train rl needs",
    ),
    "unknown setting of a recipe": (
        lambda g: recipe(g, 'extends = "chain-base"\n[pretrain]\nrate = 1'),
        r"\[pretrain\] knows no rate; it has updates, lr",
    ),
    "unknown reward": (
        lambda g: TrainRl(rewarded(g, "praise"), str(g.model), g.out).run(),
        "reward 'praise' is not known; there are right, format, random",
    ),
    "broken TOML": (lambda g: recipe(g, "task = "), "recipe.toml is not valid TOML"),
    "unknown stage": (
        lambda g: g.verdict(skip=("boundry",)),
        "stage 'boundry' is not known; the stages are .*boundary",
    ),
    "unknown layer": (
        lambda g: capturing(g, "blocks.2.hook_resid_post"),
        r"layer 2 is not in this model, whose layers are 0\.\.1.*-1 is the last"
        r".*hidden_states\[2\] is layer 1",
    ),
    "unknown layer, from the end": (lambda _: layer_index(-3, 2), r"layer -3.*0\.\.1"),
    "unknown site": (
        lambda g: capturing(g, "blocks.0.hook_resid_mid"),
        "hook_resid_mid' is not known.*hook_resid_pre, hook_attn_out, hook_mlp_out",
    ),
    "unknown strategy": (
        lambda g: g.verdict(strategies=("chek",)),
        "strategy 'chek'.*check",
    ),
    "unknown device": (
        lambda g: g.verdict(device="gpu"),
        "device 'gpu' can't be used here; there is cpu",
    ),
    "wrong task": (
        lambda g: g.sample(task=own_task(g, "depth = [2, 3]", "depth = [5, 1]")),
        r"own: problems.depth = \[5, 1\] must be the lowest and the highest, rising",
    ),
    "unknown setting of a task": (
        lambda g: g.sample(task=own_task(g, "modulus = 31", "modulos = 7\nmodulus = 31")),
        "own: the file knows no modulos; it has family, modulus",
    ),
    "no elicitation": (
        lambda g: g.verdict(elicitation_updates=0),
        "elicitation_updates 0 and elicitation_batch 64 must be at least 1",
    ),
    "missing weights": (without_weights, "no .safetensors file; the weights are missing"),
    "corrupt weights": (cut_short, "model.safetensors is damaged or cut short"),
    "incomplete weights": (one_weight_less, "lacks 1 weights.*down_proj.*incomplete"),
    "pickled weights": (pickled, "pytorch_model.bin are pickled.*run any code: convert"),
    "NaN weights": (not_a_number, "model.norm.weight has values that are not finite.*diverged"),
    "no tokenizer": (
        without_tokenizer,
        "has no tokenizer",
    ),
    "different tokenizers": (other_tokenizer, "different tokenizers .*tokens differ, such as"),
    "different sizes": (other_size, "depth 2 and .*other 1: a pair must be one model before"),
    "model of another task": (model_of_another_task, "not in the vocabulary.*task of another"),
    "prompt longer than the context": (
        short_context,
        "prompt tokens and asks for .* new ones, but the model reads 12 in all",
    ),
    "k above n": (
        lambda _: boundary.pass_at_k(np.array([1]), 4, 8),
        r"k = 8 with 4 graded answers.*1\.\.4 .*not extrapolated.*Sample at least 8",
    ),
    "no labels": (lambda _: labelled([]), "no marked positions: the decision never came up"),
    "labels of one class": (
        lambda _: labelled([1] * 40),
        "all 40 labels are 1: the strategy was always used.*Sample more",
    ),
    "AUC of one class": (
        lambda _: auc(np.array([0.1, 0.2]), np.array([0, 0])),
        "an AUC needs both classes",
    ),
    "output that is something else": (
        lambda g: (g.out.mkdir(), (g.out / "x").touch(), TrainBase("chain-base", g.out).run()),
        "out exists and holds something else: nothing is overwritten",
    ),
}


@dataclass(frozen=True)
class Asked:
    """A case as the command line runs it."""

    run_case: object
    given: Given
    out: Path
    resume: str = "the same command goes on."

    def run(self):
        return str(self.run_case(self.given))


def no_space(*_args, **_more):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_space_in_safetensors(*_args, **_more):
    raise SafetensorError("Error while serializing: I/O error: No space left on device")


def interrupt(*_args, **_more):
    raise KeyboardInterrupt


def micro(given):
    """A training of two steps."""
    model = "[model]\nwidth = 8\ndepth = 1\nheads = 1\nmlp = 8\n"
    return recipe(given, f'extends = "chain-base"\n{model}[pretrain]\nupdates = 2\nbatch = 2')


FULL = "the disk is full; nothing was left half-written.*Free some space; the same command goes on"
STOPPED = {
    "full disk, answers": (Given.sample, "os.fsync", no_space, 1, FULL),
    "full disk, training": (micro, "os.fsync", no_space, 1, FULL),
    "full disk, weights": (micro, "safetensors.torch.save_file", no_space_in_safetensors, 1, FULL),
    "interrupt, answers": (Given.sample, "probes.generate.loop.decode", interrupt, 130, "goes on"),
    "interrupt, training": (micro, "steering.training.pretrain.update", interrupt, 130, "goes on"),
}


@pytest.mark.parametrize("name", [*REFUSED, *STOPPED])
def test_it_is_said_in_one_line_and_nothing_is_left_behind(name, given, capsys, monkeypatch):
    """Refusals end with status 2, a full disk with 1, an interrupt with 130."""
    if name in REFUSED:
        case, said = REFUSED[name]
        code = 2
    else:
        case, broken, breakage, code, said = STOPPED[name]
        monkeypatch.setattr(broken, breakage)
    assert cli.status(Asked(case, given, given.out)) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Traceback" not in shown.err
    assert re.search(said, shown.err), shown.err
    left = {p.name for p in given.out.rglob("*") if p.is_file()} if given.out.exists() else set()
    assert left <= {"x"}, left
    partial = [p for p in given.place.rglob(".*") if p.is_file()]
    assert not [p for p in partial if p.name != ".gitattributes"], partial


FOLDERS = {
    "verdict": ["--base", "no/such"],
    "train base": ["--recipe", "no-such"],
    "train rl": ["--recipe", "no-such", "--base", "no/such"],
    "boundary": ["--base", "no/such"],
    "divergence": ["--base", "no/such"],
    "drift": ["--base", "no/such"],
    "calibrate": ["--organisms", "no/such"],
}
"""Verbs that make a folder, each with something that it would refuse later."""

UNUSABLE = {
    **{verb: (verb, "file", "the results are a folder") for verb in FOLDERS},
    "in a file": ("verdict", "file/in", "file is a file, and the results are a folder"),
    "a file in a file": ("sample", "file/x.parquet", "the results are a file in a folder"),
    "where none can be made": ("sample", "/proc/nope/x", "can't be written.*No such file"),
    "this folder": ("sample", ".", "is a folder; a file's name is needed"),
    "too long a name": ("verdict", "x" * 300, "can't be written.*too long"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_output_that_can_not_be_written_is_refused_before_any_work(
    name, tmp_path, capsys, monkeypatch
):
    """What else is wrong with the request is not even looked at."""
    verb, out, said = UNUSABLE[name]
    if out.startswith("/proc") and not Path("/proc").is_dir():
        pytest.skip("there is no folder here that refuses even its owner")
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    more = FOLDERS.get(verb, ["--model", "no/such"])
    with pytest.raises(SystemExit) as end:
        cli.main([*verb.split(), *more, "--out", out])
    shown = capsys.readouterr()
    assert (end.value.code, shown.out) == (2, "")
    assert re.search(f"^whenhow: --out .*{said}", shown.err), shown.err
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_sound_model_is_accepted(given, capsys):
    """Without this, every case above would hold of a command that refuses everything."""
    assert cli.status(Asked(Given.sample, given, given.out)) == 0
    assert (given.out / "answers.parquet").is_file()
