"""What the families of free text share: no grammar, no list of words, traces that nobody checks."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

from probes.records import Problem, Refusal, Span, Trace
from probes.tasks.templates import Template


@dataclass(frozen=True)
class FreeText:
    """The half of a `probes.tasks.Task` that is alike wherever only final answers are judged."""

    name: str
    settings: dict[str, Any]
    """The file's, with the template in full."""
    template: Template

    checks = False
    strategies = ()

    @property
    def decision_kinds(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """None: free text has no grammar that says where a decision is."""
        return {}

    def vocabulary(self) -> list[str]:
        """Refused: real text has no list of words to make a tokenizer of."""
        raise Refusal(
            f"{self.name} has no vocabulary: it is text for a model with a tokenizer of its own, "
            f"and no organism can be made for it."
        )

    def check(self, problem: Problem, response: str) -> Trace:  # noqa: ARG002
        """Refused: no checker reads free text."""
        raise Refusal(f"{self.name} checks no traces: only its final answers are judged.")

    def spans(self, problem: Problem, response: str) -> list[Span]:  # noqa: ARG002
        """None: see `probes.strategies` for what marks strategies in free text."""
        return []

    def next_decision(self, problem: Problem, words: Sequence[str]) -> str | None:  # noqa: ARG002
        """None: see `decision_kinds`."""
        return None

    def budget(self, problem: Problem) -> int:  # noqa: ARG002
        """The most tokens of a response."""
        return self.settings["budget"]

    def guess_rate(self, problem: Problem) -> float:  # noqa: ARG002
        """As the file says; nan where it doesn't: nobody knows it."""
        return self.settings.get("guess_rate", nan)
