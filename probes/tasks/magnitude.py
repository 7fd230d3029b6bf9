"""Whether a written number is too large to be computed, told without computing it.

Answers are computed by SymPy, which takes `9^{9^{9^9}}` at its word. That would be stopped by the
limits of the process (`probes.verify`), as an ERROR; here it is told in microseconds.
"""

import re
from math import factorial, lgamma, log, log2

BITS = 400_000
"""Longest integer that is computed: a hundred thousand digits."""

_POWER = re.compile(r"(?<![\d.])(\d+)\s*(?:\^|\*\*)\s*(\d+)(?![\d.])(?!\s*(?:\^|\*\*|!))")
_FACTORIAL = re.compile(r"(?<![\d.])(\d+)\s*!(?![!=])")


def too_large(text: str) -> bool:
    r"""Whether a power or factorial of numbers in it has more than `BITS` bits; innermost first.

    >>> too_large("2^{2005} + 1"), too_large("9^{9^{9^9}}"), too_large("((9!)!)!")
    (False, True, True)
    """
    while True:
        text = re.sub(r"[{(]\s*(\d+)\s*[)}]", r" \1 ", text)
        found = _FACTORIAL.search(text) or _POWER.search(text)
        if found is None:
            return False
        base, exponent = found[1], found[2] if found.lastindex == 2 else ""
        if max(len(base) if not exponent else 0, len(exponent)) > 6:
            return True
        digits = int(exponent) * len(base) if exponent else int(lgamma(int(base) + 1) / log(10)) + 1
        if digits * log2(10) > BITS or len(text) > BITS:
            return True
        if digits < 4000:  # Python writes no longer integers
            value = str(int(base) ** int(exponent) if exponent else factorial(int(base)))
        else:
            value = "9" * digits  # no smaller than it is
        text = f"{text[: found.start()]} {value} {text[found.end() :]}"
