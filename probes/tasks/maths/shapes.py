r"""Points, sets, lists and intervals: what math-verify takes for each other, told apart.

    of_other_shape("(1,2)", r"\{1,2\}", ...)      # True: a point is no set
    as_interval(Interval.open(-oo, 3), x < 3)     # Interval.open(-oo, 3)

math-verify 0.9 parses `(1,2)` to an open interval, and `1,2` to the same set as `\{1,2\}` and
`2,1,1`. Whether that is what was written is seen in the text, so both are needed here.
"""

from typing import Any


def of_other_shape(wanted: str, given: str, ours: Any, theirs: Any) -> bool:
    r"""Whether one is a set in braces and the other a point, or one repeats what the other doesn't.

    Args:
        wanted: the gold answer.
        given: the answer.
        ours: what the gold answer is parsed to.
        theirs: what the answer is parsed to.
    """
    if {_around(wanted), _around(given)} in ({"{}", "()"}, {"{}", "[]"}):
        return True
    return _swallowed(wanted, ours) != _swallowed(given, theirs)


def as_interval(wanted: Any, given: Any) -> Any:
    """Bounds of one letter, such as 0 <= x < 1, as an interval where one is asked for.

    All else stays as it is: to solve an inequality may take for ever.
    """
    from sympy import And, Interval
    from sympy.core.relational import GreaterThan, LessThan, StrictGreaterThan, StrictLessThan

    orders = (GreaterThan, LessThan, StrictGreaterThan, StrictLessThan)
    bounds = all(
        isinstance(one, orders)
        and any(a.is_Symbol and b.is_number for a, b in (one.args, reversed(one.args)))
        for one in (given.args if isinstance(given, And) else (given,))
    )
    if bounds and isinstance(wanted, Interval) and len(given.free_symbols) == 1:
        return given.as_set()
    return given


def _around(text: str) -> str:
    r"""The brackets around all of it, "" where there are none.

    >>> _around(r"\{1,2\}"), _around("[1,2)"), _around("(1,2),(3,4)")
    ('{}', '()', '')
    """
    if not text or text.removeprefix("\\")[0] not in "{([" or text[-1] not in "})]":
        return ""
    depth = 0
    for place, character in enumerate(text, 1):
        depth += (character in "{([") - (character in "})]")
        if depth == 0 and character in "})]" and place < len(text):
            return ""
    pair = text.removeprefix("\\")[0] + text[-1]
    return pair if pair in ("{}", "[]") else "()"


def _swallowed(text: str, parsed: Any) -> int:
    """How many more elements are written than the set has that they are parsed to."""
    from sympy import Eq, FiniteSet

    parsed = parsed.rhs if isinstance(parsed, Eq) else parsed
    if not isinstance(parsed, FiniteSet):
        return 0
    depth = commas = 0
    for character in text.removeprefix(r"\{").removesuffix(r"\}"):
        depth += (character in "{([") - (character in "})]")
        commas += depth == 0 and character in ",;"
    return max(0, commas + 1 - len(parsed.args))
