"""The confusion matrix of every measure, as text that a README can hold."""

from collections import Counter
from collections.abc import Sequence

from probes.records import unique
from steering.calibration.thresholds import GAINS, Cell, agreement


def confusion(cells: Sequence[Cell]) -> dict[tuple[str, str, str], int]:
    """How often each (measure, truth) met each word."""
    return dict(Counter((c.measure, c.truth, c.said) for c in cells))


def markdown(cells: Sequence[Cell]) -> str:
    """One row a measure: for each truth, how often it said what.

    Where something was gained a cell counts "deployed / created / nothing gained / undecided";
    where nothing was, "nothing gained / deployed or created / undecided". The verdict's own rules
    were fixed on one pretraining seed, so it has a row more, without that seed.
    """
    lines = [
        "| measure | deployed | recombined | created | nothing gained | right of the decided, "
        "where something was gained |",
        "|---|---|---|---|---|---|",
    ]
    for measure in unique(c.measure for c in cells):
        of_it = [c for c in cells if c.measure == measure]
        lines.append(_line(measure, of_it))
        if measure == "verdict":
            held = [c for c in of_it if c.seed != FIXED_ON]
            lines.append(_line(f"{measure}, other seeds", held))
    return "\n".join(lines)


FIXED_ON = 0
"""The pretraining seed that may have fixed a threshold of the verdict's."""


def _line(name: str, cells: Sequence[Cell]) -> str:
    counted = Counter((c.truth, c.said) for c in cells)

    def of(truths: Sequence[str], *words: str) -> str:
        return str(sum(counted[truth, word] for truth in truths for word in words))

    flat = ("no gain", "lost")
    parts = [
        " / ".join([of([t], "deployed"), of([t], "created"), of([t], *flat), of([t], "undecided")])
        for t in GAINS
    ]
    still = [of(flat, *flat), of(flat, "deployed", "created"), of(flat, "undecided")]
    share = agreement(cells, gains=True)
    decided = sum(c.outcome != "undecided" and c.truth in GAINS for c in cells)
    right = f"{share} of {decided}" if share else "none decided"
    return f"| {' | '.join([name, *parts, ' / '.join(still), right])} |"
