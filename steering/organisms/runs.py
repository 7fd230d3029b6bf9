"""One run of a recipe: from its TOML to a model folder that says how it was made.

    train_base(load_recipe("chain-base"), Path("runs/base"), seed=1)
    train_base(load_recipe("chain-created"), Path("runs/created"), start="runs/base")
    train_rl(load_recipe("chain-rl"), "runs/base", Path("runs/rl"))
    train_supervised(load_recipe("chain-rft"), "runs/base", Path("runs/rft"))

Beside config, tokenizer and weights a folder holds `curve.parquet` (a row an update) and
`training.json` (the whole recipe, seed, command, commit, versions, what it started from). The
folder appears when all of it is there. Until then checkpoints are in a hidden neighbour, and the
same call goes on from them, with the same result to the last bit.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from probes.models import load, new_llama, new_tokenizer, save
from probes.records import Problem, Refusal, content_hash, write_json, write_table
from probes.tasks import Task, load_task
from steering.organisms import examples
from steering.training import progress_bar
from steering.training.pretrain import CurveRow, PretrainSettings, pretrain
from steering.training.rewards import named_reward
from steering.training.rlvr import RlvrRow, RlvrSettings, rlvr
from steering.training.supervised import SupervisedSettings, supervised, written

PACKAGES = ("whenhow", "torch", "transformers", "tokenizers", "safetensors", "numpy")


def train_base(
    recipe: Mapping[str, Any],
    out: Path,
    *,
    start: str | Path | None = None,
    seed: int | None = None,
    progress: bool = True,
) -> Path:
    """Pretrain a new model by a recipe, or go on with a finished one.

    Args:
        recipe: as `load_recipe` gives it.
        out: the model's folder.
        start: a model to continue from, with a fresh optimiser; None begins with random weights.
        seed: of initialisation and data, in place of the recipe's.
        progress: show one line of progress on standard error.

    Returns:
        `out`.

    Raises:
        Refusal: a setting that is missing or unknown, a model of another vocabulary, or `out`
            holds something else.
    """
    recipe = seeded(recipe, seed)
    task = load_task(_needed(recipe, "task"))
    settings = pretrain_settings(recipe)
    described: dict[str, Any] = {"kind": "base", "from": str(start) if start else None}
    if done(out, recipe, described):
        return out
    if start is None:
        tokenizer: PreTrainedTokenizerBase = new_tokenizer(task.vocabulary())
        net: nn.Module = new_llama(len(tokenizer), **model_size(recipe), seed=recipe["seed"])
    else:
        model = load(start)
        net, tokenizer = model.net, model.tokenizer
        described["from_digest"] = model.digest
    batches = examples(task, dict(recipe))
    checkpoints = partial(out)
    curve = pretrain(net, tokenizer, batches, settings, checkpoints, progress=progress)
    described |= {"task": content_hash(task.settings), "settings": asdict(settings)}
    described |= {"tuning_rollouts": 0, "seconds": sum(row.seconds for row in curve)}
    return keep(out, net, tokenizer, curve, CurveRow, recipe, described)


def train_rl(
    recipe: Mapping[str, Any],
    base: str | Path,
    out: Path,
    *,
    seed: int | None = None,
    progress: bool = True,
) -> Path:
    """Tune a copy of a base on its own answers by a recipe; see `train_base`."""
    recipe = seeded(recipe, seed)
    task = load_task(_needed(recipe, "task"))
    settings, kind, problems = rl_parts(recipe, task)
    reward = named_reward(kind, seed=settings.seed)
    described: dict[str, Any] = {"kind": "rl", "from": str(base)}
    if done(out, recipe, described):
        return out
    model = load(base)
    tuned, curve = rlvr(model, task, problems, reward, settings, partial(out), progress=progress)
    described |= {
        "from_digest": model.digest,
        "task": content_hash(task.settings),
        "settings": asdict(settings),
        "problems": len(problems),
        "tuning_rollouts": settings.updates * settings.prompts * settings.samples,
        "seconds": sum(row.sampling + row.learning for row in curve),
    }
    return keep(out, tuned.net, tuned.tokenizer, curve, RlvrRow, recipe, described)


def train_supervised(
    recipe: Mapping[str, Any],
    base: str | Path,
    out: Path,
    *,
    teacher: str | Path | None = None,
    seed: int | None = None,
    progress: bool = True,
) -> Path:
    """Tune a copy of a base on a teacher's answers by a recipe; see `train_base`.

    Without a teacher the base learns from its own answers. What it may have found by sampling is
    then bounded by how many were drawn; of a teacher's answers no such bound is known.
    """
    recipe = seeded(recipe, seed)
    task = load_task(_needed(recipe, "task"))
    settings, problems = supervised_parts(recipe, task)
    kind = "sft" if teacher else "rft"
    described: dict[str, Any] = {"kind": kind, "from": str(base)}
    described |= {"teacher": str(teacher) if teacher else None}
    if done(out, recipe, described):
        return out
    model = load(base)
    writer = load(teacher) if teacher else model
    answers = len(problems) * settings.samples
    with progress_bar(0, answers, progress) as bar:
        shards = partial(out) / "answers"
        texts = written(writer, task, problems, shards, settings, progress=bar.update)
    checkpoints = partial(out) / "checkpoints"
    tuned, curve = supervised(model, texts, settings, checkpoints, progress=progress)
    described |= {
        "from_digest": model.digest,
        "teacher_digest": writer.digest if teacher else None,
        "task": content_hash(task.settings),
        "settings": asdict(settings),
        "problems": len(problems),
        "texts": len(texts),
        "tuning_rollouts": 0 if teacher else answers,
        "seconds": sum(row.seconds for row in curve),
    }
    return keep(out, tuned.net, tuned.tokenizer, curve, CurveRow, recipe, described)


def seeded(recipe: Mapping[str, Any], seed: int | None) -> dict[str, Any]:
    """The recipe with its seed, or with another in its place."""
    return {**recipe, "seed": recipe.get("seed", 0) if seed is None else seed}


def pretrain_settings(recipe: Mapping[str, Any]) -> PretrainSettings:
    """The table [pretrain] of a recipe; `batch` belongs to the data."""
    names = {"updates": "steps", "lr": "rate"}
    names |= {name: name for name in ("warmup", "decay", "clip", "save_every")}
    given = dict(_needed(recipe, "pretrain"))
    given.pop("batch", None)
    _known("pretrain", given, names)
    return PretrainSettings(**{names[key]: value for key, value in given.items()})


def model_size(recipe: Mapping[str, Any]) -> dict[str, int]:
    """The table [model] of a recipe: what `new_llama` needs."""
    given = dict(_needed(recipe, "model"))
    sizes = ("width", "depth", "heads", "mlp", "context")
    _known("model", given, sizes)
    if missing := [name for name in sizes if name not in given]:
        raise Refusal(f"[model] of the recipe lacks {', '.join(missing)}.")
    return given


def rl_parts(recipe: Mapping[str, Any], task: Task) -> tuple[RlvrSettings, str, list[Problem]]:
    """The table [rl] of a recipe: settings, name of the reward, and the problems to practise on.

    `clip` is how far a token's probability ratio may leave 1, to either side; `low` and `high`
    set the sides apart. `mix` weighs the skills among the `problems`.
    """
    given = dict(_needed(recipe, "rl"))
    reward = given.pop("reward", "right")
    mix, part = given.pop("mix", {}), given.pop("part", None)
    count = given.pop("problems", 600)
    if "clip" in given:
        clip = given.pop("clip")
        given = {"low": clip, "high": clip, **given}
    if "lr" in given:
        given["rate"] = given.pop("lr")
    numbers = ("updates", "prompts", "samples", "rate", "decay", "low", "high", "save_every")
    known = (*numbers, "minibatches", "epochs", "kl", "temperature", "advantage", "mean")
    _known("rl", given, (*known, "lr", "clip", "reward", "mix", "part", "problems"))
    settings = RlvrSettings(**given, seed=recipe["seed"])
    return settings, reward, practice(task, count, mix, part)


def supervised_parts(
    recipe: Mapping[str, Any], task: Task
) -> tuple[SupervisedSettings, list[Problem]]:
    """The table [supervised] of a recipe: settings, and the problems that the teacher answers."""
    given = dict(_needed(recipe, "supervised"))
    mix, part = given.pop("mix", {}), given.pop("part", None)
    count = given.pop("problems", 600)
    if "lr" in given:
        given["rate"] = given.pop("lr")
    names = tuple(f.name for f in fields(SupervisedSettings) if f.name != "seed")
    _known("supervised", given, (*names, "lr", "mix", "part", "problems"))
    settings = SupervisedSettings(**given, seed=recipe["seed"])
    return settings, practice(task, count, mix, part)


def practice(task: Task, count: int, mix: Mapping[str, float], part: str | None) -> list[Problem]:
    """About `count` problems of the tuning split, skills by weight.

    Args:
        task: makes the problems.
        count: how many.
        mix: weight of each skill; empty takes the task's problems as they come.
        part: "touched" keeps to the entries that tuning may see; skills that are not divided into
            parts have all of theirs.
    """
    if unknown := sorted(set(mix) - set(task.skills)):
        raise Refusal(
            f"mix names the skills {', '.join(unknown)}; the task {task.name} has "
            f"{', '.join(task.skills) or 'none: leave mix out'}."
        )
    if not mix:
        return task.problems("tune", count)
    problems = []
    for skill, weight in mix.items():
        divided = task.problems("tune", 1, skill=skill)[0].part or part is None
        share = round(count * weight / sum(mix.values()))
        problems += task.problems("tune", share, skill=skill, part=part if divided else None)
    return problems


def partial(out: Path) -> Path:
    """Where the checkpoints of an unfinished run are."""
    return out.with_name(f".{out.name}.unfinished")


def done(out: Path, recipe: Mapping[str, Any], described: Mapping[str, Any]) -> bool:
    """Whether `out` is this very run, finished.

    Raises:
        Refusal: it holds anything else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        about = json.loads((out / "training.json").read_text())
    except (OSError, ValueError):
        about = {}
    wanted = {"recipe": json.loads(json.dumps(dict(recipe))), **described}
    if differing := [key for key, value in wanted.items() if about.get(key) != value]:
        raise Refusal(
            f"{out} exists and holds "
            + (f"a run with another {' and '.join(differing)}" if about else "something else")
            + ": nothing is overwritten; choose another --out, or remove it."
        )
    return True


def keep(
    out: Path,
    net: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    curve: Sequence[Any],
    kind: type,
    recipe: Mapping[str, Any],
    described: Mapping[str, Any],
) -> Path:
    """Give the finished run its place, all at once, and drop its checkpoints."""
    fresh = partial(out) / "model"
    save(net, tokenizer, fresh)
    write_table(fresh / "curve.parquet", curve, kind)
    write_json(fresh / "training.json", {**described, "recipe": dict(recipe), **provenance()})
    for file in fresh.iterdir():
        file.chmod(0o644)  # safetensors' files can be read by their owner only
    if out.is_dir():
        out.rmdir()  # it was empty
    os.replace(fresh, out)
    shutil.rmtree(partial(out))
    return out


def provenance() -> dict[str, Any]:
    """Command, commit and versions: what reproduces a run, beside its settings."""
    here = Path(__file__).resolve().parent
    ask = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        commit = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None  # installed from a wheel, or no git
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except ModuleNotFoundError:
            versions[package] = "not installed"
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": commit,
        "versions": versions,
        "threads": torch.get_num_threads(),
    }


def _needed(recipe: Mapping[str, Any], key: str) -> Any:
    if key not in recipe:
        raise Refusal(
            f"the recipe has no {key}, only {', '.join(recipe)}: is it one of another kind "
            f"(train base needs [model], [pretrain] and [data]; train rl needs [rl]; train sft and "
            f"train rft need [supervised])?"
        )
    return recipe[key]


def _known(table: str, given: Mapping[str, Any], known: Sequence[str] | Mapping[str, str]) -> None:
    if unknown := sorted(set(given) - set(known)):
        raise Refusal(f"[{table}] knows no {', '.join(unknown)}; it has {', '.join(known)}.")
