"""A line, and what a number speaks for."""

import math
from dataclasses import dataclass

from probes.records import Measurement
from steering.verdict.rules import detectable


@dataclass(frozen=True)
class Line:
    """One line of the table of the evidence."""

    question: str
    measure: str
    value: str
    """With its interval."""
    control: str
    """What the value is to be compared with."""
    speaks: str
    """What it speaks for."""


def sign(r: Measurement, above: str, below: str, neither: str) -> str:
    """What a change speaks for; where its interval holds 0, with what would have been found."""
    if math.isnan(r.value):
        return "undefined"
    return above if r.low > 0 else below if r.high < 0 else f"{neither} {power(r)}"


def power(r: Measurement) -> str:
    return f"(detectable: {detectable(r):.2g})"
