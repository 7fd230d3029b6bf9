"""Answers token by token: who chose each, of which category, and what else was likely.

One HTML file without any resource but itself: no font, script or style from elsewhere, so it can be
opened, mailed and kept. The pointer over a token shows both models' probabilities of it and what
they found likeliest. It follows the reader's light or dark scheme, and choosers differ in more than
colour: tokens of the steered base have a dotted frame, those of the tuned model a solid one.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.records import Refusal, atomic_write, unique

CHOOSERS = {
    "base": "the base, unsteered",
    "steered": "the base, steered",
    "tuned": "the tuned model",
}
"""Who may have chosen a token, and what the legend says of it."""

HUES = 8
"""Colours of categories; a ninth category looks like the first, but for its number."""

Likely = tuple[tuple[str, float], ...]
"""Tokens and their probabilities, the likeliest first."""


@dataclass(frozen=True)
class TracedToken:
    """One token of an answer."""

    text: str
    chooser: str
    """One of `CHOOSERS`."""
    category: str = ""
    """Name of the step's category; "" where it has none."""
    base_prob: float | None = None
    """Probability that the unsteered base gave this token; None where it wasn't asked."""
    tuned_prob: float | None = None
    base_top: Likely = ()
    """What the base found likeliest here; three are shown."""
    tuned_top: Likely = ()


@dataclass(frozen=True)
class TracedRow:
    """One answer."""

    prompt: str
    tokens: tuple[TracedToken, ...]
    grade: str = ""
    """"right", "wrong", ...; "" where it wasn't graded."""
    setting: str = ""
    """What it was written under, as in `Rollout`."""


def trace_page(
    rows: Sequence[TracedRow],
    out: Path,
    title: str,
    about: Mapping[str, str | int | float] | None = None,
) -> Path:
    """Write the page, atomically.

    Args:
        rows: the answers; each is folded but the first, and can be picked by setting and grade.
        out: path of the page.
        title: its heading.
        about: what else to say in front: models, settings, seed.

    Raises:
        Refusal: no rows, a trace with no steps, an unknown chooser, or a number that is no
            probability.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    _check(rows)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(visible=visible, percent=percent)
    text = environment.get_template("trace.html.jinja").render(
        title=title,
        about={str(key): str(value) for key, value in (about or {}).items()},
        **_layout(rows),
    )
    with atomic_write(Path(out)) as file:
        file.write(text.encode())
    return Path(out)


def visible(text: str) -> str:
    r"""A token as one can see it: blanks and line ends as signs where there is nothing else.

    >>> visible("so"), visible(" "), visible("\n\n"), visible("")
    ('so', '␣', '⏎⏎', '∅')
    """
    if not text:
        return "∅"
    if text.isspace():
        return text.replace("\n", "⏎").replace(" ", "␣").replace("\t", "⇥")
    return text.replace("\n", "⏎")


def percent(probability: float | None) -> str:
    """A probability to read; what wasn't measured is no 0.

    >>> percent(0.5), percent(0.00012), percent(1e-9), percent(None)
    ('50.0%', '0.012%', '<0.001%', 'not asked')
    """
    if probability is None:
        return "not asked"
    if 0 < probability < 1e-5:
        return "<0.001%"
    return f"{100 * probability:.{1 if probability >= 0.01 or probability == 0 else 3}f}%"


def _check(rows: Sequence[TracedRow]) -> None:
    if not rows:
        raise Refusal("there is no answer to show: a page of traces needs at least one row.")
    for i, row in enumerate(rows):
        if not row.tokens:
            raise Refusal(
                f"row {i} (setting {row.setting!r}, prompt {row.prompt!r}) is a trace with no "
                f"steps: nothing was written, or its tokens were not kept."
            )
        for token in row.tokens:
            if token.chooser not in CHOOSERS:
                known = ", ".join(CHOOSERS)
                raise Refusal(
                    f"row {i}: chooser {token.chooser!r} is not known; there are {known}."
                )
            given = [token.base_prob, token.tuned_prob]
            given += [p for _, p in (*token.base_top, *token.tuned_top)]
            if bad := [p for p in given if p is not None and not 0 <= p <= 1 + 1e-6]:
                raise Refusal(
                    f"row {i}, token {token.text!r}: {bad[0]} is no probability; where a model "
                    f"wasn't asked give None"
                    f"{', and no NaN' if math.isnan(bad[0]) else ', and no logarithms'}."
                )


def _layout(rows: Sequence[TracedRow]) -> dict[str, Any]:
    """What the template reads, counted and numbered."""
    tokens = [token for row in rows for token in row.tokens]
    names = unique(token.category for token in tokens if token.category)
    number = {name: i + 1 for i, name in enumerate(names)}
    counts = Counter(token.chooser for token in tokens)
    of_category = Counter(token.category for token in tokens)
    return {
        "rows": [
            {
                "row": row,
                "counts": Counter(token.chooser for token in row.tokens),
                "length": len(row.tokens),
            }
            for row in rows
        ],
        "choosers": [(name, said, counts[name]) for name, said in CHOOSERS.items()],
        "categories": [(number[n], n, of_category[n]) for n in names],
        "number": number,
        "hues": HUES,
        "total": len(tokens),
        "settings": unique(row.setting for row in rows),
        "grades": unique(str(row.grade) for row in rows),
    }
