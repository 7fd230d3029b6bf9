"""Recipes of model organisms: what they read, what tuning rewards, what is true by construction.

    recipe = load_recipe("chain-base")                  # shipped: data/recipes/chain-base.toml
    batches = examples(load_task(recipe["task"]), recipe)
    batches(0)[:2]                                      # (prompt, completion) texts of update 0

A recipe is a TOML file; one that `extends` another overrides single settings of it. Truth about an
organism lives here and nowhere else: calibration reads it, the verdict never does.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from probes import DATA
from probes.records import Refusal, read_toml
from probes.tasks import Task

SHIPPED = DATA / "recipes"
FAMILIES = {"chain": "steering.organisms.chain", "countdown": "steering.organisms.countdown"}


def load_recipe(source: str | Path) -> dict[str, Any]:
    """A shipped recipe by name, or one's own by the path of its TOML file.

    Raises:
        Refusal: no such recipe, unreadable TOML, a chain of `extends` that leads nowhere.
    """
    path, recipe = read_toml(source, SHIPPED, "recipe")
    if parent := recipe.pop("extends", None):
        own = path.parent / f"{parent}.toml"
        recipe = _merge(load_recipe(own if own.is_file() else parent), recipe)
    return recipe


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with the settings of `above` in place of its own, table by table."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def examples(task: Task, recipe: dict[str, Any]) -> Callable[[int], Sequence[tuple[str, str]]]:
    """The pretraining batches of a recipe: update number -> (prompt, completion) texts."""
    module = importlib.import_module(FAMILIES[task.settings["family"]])
    try:
        return module.examples(task, recipe)
    except KeyError as error:
        raise Refusal(f"the recipe lacks the setting {error}.") from None
