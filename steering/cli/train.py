"""`whenhow train base`, `rl`, `sft` and `rft`: a model organism from its recipe."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

RESUME = "the same command goes on from the last checkpoint."


@dataclass(frozen=True)
class TrainBase:
    """Pretrain a base by a recipe, or go on with a finished model."""

    recipe: str
    """A recipe that ships (chain-base, ...), or the path of a TOML file of your own."""
    out: Path
    """The model's folder: weights, tokenizer, curve.parquet and training.json."""
    start: Annotated[str | None, arg(name="from", metavar="MODEL")] = None
    """Go on with this model folder; else the weights begin at random."""
    seed: Annotated[int | None, arg(metavar="INT")] = None
    """Of weights and data, in place of the recipe's."""

    resume = RESUME

    def run(self) -> str:
        """Train; the path of the folder."""
        from steering.organisms import load_recipe
        from steering.organisms.runs import train_base

        return str(train_base(load_recipe(self.recipe), self.out, start=self.start, seed=self.seed))


@dataclass(frozen=True)
class TrainRl:
    """Tune a copy of a base on its own answers (GRPO), by a recipe."""

    recipe: str
    """A recipe that ships (chain-rl, ...), or the path of a TOML file of your own."""
    base: str
    """Folder of the model to start from; it is left as it is."""
    out: Path
    """The tuned model's folder: weights, tokenizer, curve.parquet and training.json."""
    seed: Annotated[int | None, arg(metavar="INT")] = None
    """Of everything random, in place of the recipe's."""

    resume = RESUME

    def run(self) -> str:
        """Train; the path of the folder."""
        from steering.organisms import load_recipe
        from steering.organisms.runs import train_rl

        return str(train_rl(load_recipe(self.recipe), self.base, self.out, seed=self.seed))


@dataclass(frozen=True)
class TrainSft:
    """Tune a copy of a base on a teacher's answers, by a recipe."""

    recipe: str
    """A recipe that ships (chain-distilled, ...), or the path of a TOML file of your own."""
    base: str
    """Folder of the model to start from; it is left as it is."""
    teacher: str
    """Folder of the model whose answers are learned from."""
    out: Path
    """The tuned model's folder: weights, tokenizer, curve.parquet and training.json."""
    seed: Annotated[int | None, arg(metavar="INT")] = None
    """Of everything random, in place of the recipe's."""

    resume = RESUME

    def run(self) -> str:
        """Train; the path of the folder."""
        return _supervised(self.recipe, self.base, self.out, self.teacher, self.seed)


@dataclass(frozen=True)
class TrainRft:
    """Tune a copy of a base on its own answers, the good ones, by a recipe."""

    recipe: str
    """A recipe that ships (chain-rft, ...), or the path of a TOML file of your own."""
    base: str
    """Folder of the model to start from, and to learn from; it is left as it is."""
    out: Path
    """The tuned model's folder: weights, tokenizer, curve.parquet and training.json."""
    seed: Annotated[int | None, arg(metavar="INT")] = None
    """Of everything random, in place of the recipe's."""

    resume = RESUME

    def run(self) -> str:
        """Train; the path of the folder."""
        return _supervised(self.recipe, self.base, self.out, None, self.seed)


def _supervised(recipe: str, base: str, out: Path, teacher: str | None, seed: int | None) -> str:
    from steering.organisms import load_recipe
    from steering.organisms.runs import train_supervised

    return str(train_supervised(load_recipe(recipe), base, out, teacher=teacher, seed=seed))
