"""The verdict as text and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from probes.records import finite
from steering.verdict.lines import Line
from steering.verdict.rules import Conclusion


def as_json(
    settings: dict[str, Any], conclusion: Conclusion, lines: Sequence[Line], about: dict[str, Any]
) -> dict[str, Any]:
    """The whole verdict; NaN, which JSON lacks, as null."""
    return finite(
        {
            "answer": conclusion.answer,
            "conclusion": list(conclusion.sentences),
            "silent": list(conclusion.silent),
            "skills": [asdict(skill) for skill in conclusion.skills],
            "evidence": [asdict(line) for line in lines],
            "about": about,
            "settings": settings,
        }
    )


def render(verdict: Any, width: int | None = None) -> Any:
    """A rich renderable: the table, the conclusion, where the evidence is silent.

    Args:
        verdict: a `steering.verdict.Verdict`.
        width: columns; None fits the terminal.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=verdict.heading, width=width, show_lines=False)
    for name in ("question", "measure", "value [95%]", "control", "speaks for"):
        grid.add_column(name, overflow="fold")
    last = ""
    for line in verdict.lines:
        question = "" if line.question == last else line.question
        grid.add_row(*map(Text, (question, line.measure, line.value, line.control, line.speaks)))
        last = line.question
    said_so = Text(f"\n{verdict.conclusion.answer.upper()}. ", style="bold")
    said_so.append(" ".join(verdict.conclusion.sentences), style="not bold")
    silent = Text("\nWhere the evidence is silent\n", style="bold")
    for one in verdict.conclusion.silent:
        silent.append(f"- {one}\n", style="not bold")
    return Group(grid, said_so, silent)
