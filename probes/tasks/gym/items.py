"""Items of reasoning-gym's datasets, by place: item i is made from seed + i.

Some datasets make all their items at once, some refuse to be large, and one makes other items when
it is of another size. So each is opened in pieces of `SIZE`, the library's own default, of which
piece b starts at seed + b * SIZE: the stream has no end, and an item depends on its place only.
"""

import json
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

from probes.records import Refusal

SIZE = 500
"""Items of a piece; raising it would change items of datasets that look at their size."""


@cache
def library() -> Any:
    """reasoning_gym, imported where a task needs it.

    Raises:
        Refusal: it is not installed.
    """
    try:
        import reasoning_gym
    except ImportError as error:
        raise Refusal(
            f"gym tasks are reasoning-gym's, which is not installed ({error}): pip install -c "
            f"constraints.txt reasoning-gym."
        ) from None
    return reasoning_gym


@cache
def version() -> str:
    """The installed version: another one may make other items."""
    from importlib.metadata import version as of

    library()
    return of("reasoning-gym")


def names() -> tuple[str, ...]:
    """All datasets but mixtures of others."""
    return tuple(sorted(name for name in library().factory.DATASETS if name != "composite"))


def item(identity: str, level: int | None, index: int) -> dict[str, Any]:
    """One item: question, answer, metadata. Not to be changed.

    Args:
        identity: JSON of dataset, config and seed.
        level: of the dataset's curriculum; None for the config as it is.
        index: place in the stream.
    """
    return _item(identity, level, index)


@lru_cache(maxsize=4096)
def _item(identity: str, level: int | None, index: int) -> dict[str, Any]:
    return dataset(identity, level, index // SIZE)[index % SIZE]


@lru_cache(maxsize=16)
def dataset(identity: str, level: int | None, piece: int) -> Any:
    """A piece of a dataset's stream; also what scores its items."""
    gym, said = library(), json.loads(identity)
    about = {"seed": said["seed"] + piece * SIZE, "size": SIZE}
    if level is None:
        return gym.create_dataset(said["dataset"], **_tuples(said["config"]), **about)
    curriculum = gym.factory.create_curriculum(said["dataset"])
    curriculum.set_global_level(level)
    config = curriculum.generate_configuration(about)
    return gym.factory.DATASETS[said["dataset"]][0](config=config)


def _tuples(config: dict[str, Any]) -> dict[str, Any]:
    """TOML has lists where a config has tuples."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in config.items()}


def check_dataset(name: str, said: dict[str, Any]) -> None:
    """The dataset is known and takes this config, or has these levels.

    Raises:
        Refusal: it isn't, or doesn't.
    """
    wanted, config = said["dataset"], said["config"]
    if wanted not in names():
        raise Refusal(
            f"{name}: dataset = {wanted!r} is none of reasoning-gym {version()}'s: "
            f"{', '.join(names())}."
        )
    if not isinstance(config, dict) or {"seed", "size"} & set(config):
        raise Refusal(
            f"{name}: config = {config!r} must be a table of the dataset's own settings, without "
            f"seed (a key of the file) and size (there is no end)."
        )
    if "levels" in said:
        _check_levels(name, wanted, said["levels"], config)
    for level in said.get("levels", [None]):
        try:
            dataset(json.dumps({k: said[k] for k in ("dataset", "config", "seed")}), level, 0)
        except Exception as error:  # whatever a config's own checks raise
            raise Refusal(
                f"{name}: reasoning-gym's {wanted} refuses "
                f"{f'level {level}' if level is not None else f'config = {config}'}: "
                f"{str(error) or type(error).__name__}."
            ) from None


def _check_levels(name: str, wanted: str, levels: Any, config: dict[str, Any]) -> None:
    gym = library()
    if config:
        raise Refusal(f"{name}: config and levels can't both be given: a level is a config.")
    if not gym.factory.has_curriculum(wanted):
        raise Refusal(f"{name}: {wanted} has no levels; give its config, or neither.")
    attributes: Sequence[Any] = gym.factory.create_curriculum(wanted).attributes.values()
    most = max(len(attribute.levels) for attribute in attributes) - 1
    whole = isinstance(levels, list) and all(type(level) is int for level in levels)
    if not whole or not levels or len(set(levels)) < len(levels) or min(levels) < 0:
        raise Refusal(f"{name}: levels = {levels!r} must list levels of 0..{most}, each once.")
    if max(levels) > most:
        raise Refusal(f"{name}: levels = {levels} go beyond {most}, the last of {wanted}.")
