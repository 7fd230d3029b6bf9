"""Which tuned copies there are, read from what each model folder says of itself."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.records import Refusal


@dataclass(frozen=True)
class Copy:
    """A tuned copy of a base, with its twin where there is one."""

    name: str
    """Folder and model, "chain/rl-0-0"."""
    task: str
    method: str
    """Of tuning: "rl", "sft" (a teacher's answers), "rft" (its own), "pretraining"."""
    seed: int
    """Of the pretraining."""
    base: Path
    tuned: Path
    twin: Path | None
    tuned_twin: Path | None
    regimes: tuple[tuple[str, str], ...]
    """Regime of every family in the base's recipe."""

    @property
    def organism(self) -> str:
        """The pretraining that it rests on; copies of one share whatever that came to know."""
        return f"{self.task}/{self.base.name}"


def shipped_copies(folders: Sequence[Path]) -> list[Copy]:
    """The tuned copies below folders of organisms, by their `training.json`.

    A copy of ``base-N`` has the twin ``twin-N``; its tuned twin is the copy of that by the same
    training: the same recipe but for the seed and, where a teacher wrote the texts, the same
    teacher.

    Raises:
        Refusal: a folder without a copy.
    """
    return [copy for folder in folders for copy in _below(folder)]


def _below(folder: Path) -> list[Copy]:
    about = {f.parent.name: json.loads(f.read_text()) for f in folder.glob("*/training.json")}
    copies = []
    for name, made in sorted(about.items()):
        start = Path(made["from"]).name if made["from"] else ""
        if not start.startswith("base-"):
            continue
        number = start.removeprefix("base-")
        twin = folder / f"twin-{number}"
        same = [
            other
            for other, its in sorted(about.items())
            if its["from"]
            and Path(its["from"]).name == twin.name
            and training(its) == training(made)
        ]
        copies.append(
            Copy(
                f"{folder.name}/{name}",
                about[start]["recipe"]["task"],
                "pretraining" if made["kind"] == "base" else str(made["kind"]),
                int(number),
                folder / start,
                folder / name,
                twin if twin.is_dir() else None,
                folder / same[0] if same else None,
                tuple(about[start]["recipe"]["regimes"].items()),
            )
        )
    if not copies:
        raise Refusal(f"{folder} holds no tuned copy of a base: no NAME/training.json says so.")
    return copies


def training(made: dict[str, Any]) -> tuple[Any, ...]:
    """What twins must agree in: kind, teacher, and everything of the recipe but the seed."""
    recipe = {key: value for key, value in made["recipe"].items() if key != "seed"}
    return made["kind"], made.get("teacher"), recipe
