"""The table of the evidence: a line a number, each with its control; from measurements only.

A line whose interval holds 0 claims nothing: it says so, with the true change that would have been
found four times in five. What must beat a control says which controls it does not beat.

    line          Line, and what a number speaks for
    answers       what the models answer
    reach         how far they reach: crossing, coverage, what the base would never solve
    activations   what is inside
    inside        what pushes recover where the tuned model says, and latents of one model only
"""

from collections.abc import Sequence

from probes.records import Measurement
from steering.verdict.lines.activations import crosswise, directions, drift, steering
from steering.verdict.lines.answers import (
    crossed,
    elicited,
    ends,
    parting,
    sharpening,
    skill,
    strategies,
    texts,
)
from steering.verdict.lines.inside import latents, routing
from steering.verdict.lines.line import Line
from steering.verdict.lines.reach import reach, unsolved
from steering.verdict.rules import Conclusion

__all__ = ["Line", "table"]


def table(rows: Sequence[Measurement], conclusion: Conclusion) -> list[Line]:
    """The evidence, a line a number, in the order in which the questions are asked."""
    found = [skill(of_it) for of_it in conclusion.skills]
    found += [*ends(rows), *reach(rows), *unsolved(rows, conclusion.skills)]
    found += [*sharpening(rows), *crossed(rows), *strategies(rows)]
    found += [*texts(rows), *directions(rows), *steering(rows), *crosswise(rows)]
    found += [*routing(rows), *latents(rows), *elicited(rows), *parting(rows), *drift(rows)]
    return found
