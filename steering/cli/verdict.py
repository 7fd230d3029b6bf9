"""`whenhow verdict`: the main job."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from probes import DATA
from steering.verdict.settings import VerdictSettings

ORGANISMS = DATA / "organisms" / "chain"
SHIPPED = VerdictSettings(str(ORGANISMS / "base-0"), str(ORGANISMS / "rl-0-0"))


@dataclass(frozen=True)
class Verdict:
    """Say with evidence whether tuning created or deployed what a model gained.

    Without flags: of the base and its RL copy that ship with the project.
    """

    settings: Annotated[VerdictSettings, arg(name="")] = SHIPPED
    json: bool = False
    """Print the verdict as JSON, in place of the path of its folder."""
