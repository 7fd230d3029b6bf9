"""The confusion matrix of every measure, as text that a README can hold."""

from collections import Counter
from collections.abc import Sequence

from probes.records import unique
from steering.calibration.thresholds import Cell, agreement

TRUTHS = ("deployed", "recombined", "created", "no gain", "lost", "unknown")


def confusion(cells: Sequence[Cell]) -> dict[tuple[str, str, str], int]:
    """How often each (measure, truth) met each word."""
    return dict(Counter((c.measure, c.truth, c.said) for c in cells))


def markdown(cells: Sequence[Cell]) -> str:
    """One row a measure; a cell counts "deployed / created / undecided" for its truth.

    "no gain" and "lost" stand with "undecided" where something was gained, and have rows of their
    own truth: there the count is "no gain or lost / deployed / created / undecided".
    """
    counted = confusion(cells)
    lines = [
        "| measure | deployed | recombined | created | nothing gained | right of the decided, "
        "where something was gained |",
        "|---|---|---|---|---|---|",
    ]
    for measure in unique(c.measure for c in cells):

        def of(truth: str, *words: str, measure: str = measure) -> int:
            return sum(counted.get((measure, truth, word), 0) for word in words)

        silent = ("undecided", "no gain", "lost")
        parts = [
            f"{of(t, 'deployed')} / {of(t, 'created')} / {of(t, *silent)}"
            for t in ("deployed", "recombined", "created")
        ]
        flat = [
            sum(of(truth, *words) for truth in ("no gain", "lost"))
            for words in (("no gain", "lost"), ("deployed",), ("created",), ("undecided",))
        ]
        of_it = [c for c in cells if c.measure == measure]
        share = agreement(of_it, gains=True)
        decided = sum(c.outcome != "undecided" and c.truth in TRUTHS[:3] for c in of_it)
        right = f"{share} of {decided}" if share else "none decided"
        lines.append(
            f"| {measure} | {' | '.join(parts)} | {' / '.join(map(str, flat))} | {right} |"
        )
    return "\n".join(lines)
