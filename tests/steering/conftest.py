"""A tiny random model on a small task with pushes of its own; and one that reads any text."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from probes import DATA
from probes.directions import Direction
from probes.directions import save as save_direction
from probes.models import load, new_llama, new_tokenizer, save
from probes.tasks import load_task
from steering.vectors import Vectors, save_vectors

TASK = (DATA / "tasks" / "chain-small.toml").read_text()
WIDTH = 16


@dataclass(frozen=True)
class Lab:
    """A folder of models, pushes and a task, in the names that a sweep file gives them."""

    folder: Path

    def path(self, name):
        return str(self.folder / name)

    def file(self, fixed=None, grid=None, zipped=(), random=None, **whole):
        """A sweep of 8 problems and one sample, as a dict; paths are absolute."""
        fixed = {"model": self.path("model"), "task": self.path("tiny.toml")} | (fixed or {})
        given = {"problems": 2, "samples": 1, "controls": 1, "metrics": ["right", "length"]}
        given |= {"fixed": fixed, "grid": grid or {}, "zip": list(zipped)} | whole
        return {**given, "random": random} if random else given

    def push(self, name="d1.safetensors", strengths=(0.0, 1.0), **more):
        """A sweep of one direction."""
        fixed = {"push": self.path(name)} | more.pop("fixed", {})
        return self.file(fixed, {"strength": list(strengths)} | more.pop("grid", {}), **more)


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    words = load_task("chain-small").vocabulary()
    skills = TASK[TASK.index("[skills]") : TASK.index("[problems]")]
    few = TASK.replace(skills, "[skills]\na = [2, 2]\nn = [1, 2]\n\n")
    few = few.replace("budget = [4, 13]", "budget = [4, 3]")  # as few words as an answer needs
    (folder / "tiny.toml").write_text(few)
    (folder / "long.toml").write_text(few.replace("budget = [4, 3]", "budget = [4, 4]"))
    for seed, name in enumerate(("model", "other")):
        net = new_llama(
            len(words) + 2, width=WIDTH, depth=2, heads=2, mlp=32, context=96, seed=seed
        )
        with torch.no_grad():  # wide enough that distributions are far from uniform
            for weight in net.parameters():
                if weight.ndim == 2:
                    weight.mul_(8)
        save(net, new_tokenizer(words), folder / name, dtype=None)
    digest = load(folder / "model").digest
    for name, layer, seed in (("d0", 0, 0), ("d1", 1, 1), ("e1", 1, 2)):
        vector = np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32)
        save_direction(_direction(vector, layer, digest), folder / f"{name}.safetensors")
    vectors = Vectors(
        site="blocks.0.hook_resid_post",
        vectors=torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0)) * 2,
        coefficients=torch.ones(3),
        bias=None,
        names=("step", "check", "jump"),
        form="current",
        parameters=3 * WIDTH,
        base=digest,
        tuned="",
        taxonomy="",
        data="",
        counts=(5, 5, 5),
    )
    save_vectors(vectors, folder / "trained.safetensors")
    return Lab(folder)


@pytest.fixture
def reader(tmp_path):
    """A model that reads bytes, so any text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: i for i, word in enumerate(["</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(words, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>")
    net = new_llama(len(words), width=8, depth=1, heads=1, mlp=8, context=1024, seed=0)
    save(net, fast, tmp_path / "reader")
    return str(tmp_path / "reader")


@pytest.fixture
def direction_of():
    return _direction


def _direction(vector, layer, digest):
    """A direction of any vector, as if it had been extracted; no number in it means anything."""
    numbers = dict.fromkeys(
        ("auc", "auc_low", "auc_high", "auc_choice", "null_mean", "null_high"), 0.5
    )
    return Direction(
        vector=vector / np.linalg.norm(vector),
        layer=layer,
        site="hook_resid_post",
        strategy="check",
        method="difference",
        norm=4.0,
        rows=10,
        positives=5,
        problems=5,
        model=digest,
        task="",
        data="",
        seed=0,
        **numbers,
    )
