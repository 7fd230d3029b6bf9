"""`whenhow verdict`: the main job."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from probes import DATA
from steering.verdict.settings import VerdictSettings

ORGANISMS = DATA / "organisms" / "chain"
SHIPPED = VerdictSettings(
    str(ORGANISMS / "base-0"),
    str(ORGANISMS / "rl-0-0"),
    twin=str(ORGANISMS / "twin-0"),
    again=str(ORGANISMS / "rl-0-1"),
)


@dataclass(frozen=True)
class Verdict:
    """Say with evidence whether tuning created or deployed what a model gained.

    Without flags: of the base and its RL copy that ship with the project.
    """

    settings: Annotated[VerdictSettings, arg(name="")] = SHIPPED
    json: bool = False
    """Print the verdict as JSON, in place of the path of its folder."""

    resume = "the same command goes on with the first stage that was not finished."

    @property
    def out(self) -> Path:
        """Where the results are."""
        return self.settings.out

    def run(self) -> str:
        """Measure, conclude, show; the path of the folder, or the JSON."""
        from steering.cli.progress import console
        from steering.verdict import render, verdict

        found = verdict(own(self.settings))
        console().print(render(found))
        if not self.json:
            return str(self.out)
        return (self.out / "verdict.json").read_text().rstrip()


def own(settings: VerdictSettings) -> VerdictSettings:
    """The settings without the shipped twin where the base is another, or without the shipped
    second seed where the tuned model is.
    """
    if settings.twin == SHIPPED.twin and settings.base != SHIPPED.base:
        settings = replace(settings, twin="")
    if settings.again == SHIPPED.again and settings.tuned != SHIPPED.tuned:
        settings = replace(settings, again="")
    return settings
