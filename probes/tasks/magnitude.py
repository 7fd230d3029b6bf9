r"""Whether a written expression is too large to be computed, told without computing it.

Answers are computed by SymPy, which takes `9^{9^{9^9}}` at its word. That would be stopped by the
limits of the process (`probes.verify`), after seconds and gigabytes; here it takes microseconds.

Any text is read, LaTeX or plain, roughly and to the safe side: of each part the most digits that
its value and its denominator can have. What is no number counts as 1. Too large are

- an exponent, a number in a binomial, a subscript or a bound of a sum or product above 10^`MOST`,
  whatever the rest is: `1^{10^9}` is refused as well;
- a power, factorial or product of more than 10^`MOST` digits;
- more than `DEEPEST` levels of brackets and exponents, on which SymPy recurses.
"""

import re
from math import lgamma, log, log10

MOST = 5
"""A hundred thousand, and as many digits: SymPy takes a second for those."""

DEEPEST = 40
"""Brackets are a level each, exponents four: ten of a bare `x^x^x^...`."""

_TOKEN = re.compile(
    r"\\[A-Za-z]+|\\.|(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+|\*\*|\S", re.DOTALL
)
_OPENING = frozenset({"(", "{", "[", r"\{"})
_CLOSING = frozenset({")", "}", "]", r"\}"})
_BETWEEN_TERMS = frozenset({*"+-,;:=<>&|", r"\pm", r"\mp", r"\choose"})
_SIGNS = frozenset({"^", "**", "_", "!"})
_FRACTIONS = frozenset({r"\frac", r"\dfrac", r"\tfrac", r"\cfrac"})
_BINOMIALS = frozenset({r"\binom", r"\dbinom", r"\tbinom"})

Size = tuple[float, float]
"""Logarithms to base 10, not below 0, of what value and denominator are at most."""


class _TooLargeError(Exception):
    """Raised where it is seen, to be caught in `too_large`."""


def too_large(text: str) -> bool:
    r"""Whether anything in a text is an exponent or a number too large to be computed.

    >>> too_large("2^{2005} + 1"), too_large("9^{9^{9^9}}"), too_large("((9!)!)!")
    (False, True, True)
    """
    reader = _Reader(_TOKEN.findall(text))
    try:
        while reader.next():
            reader.terms(0)
            reader.take()  # a bracket that closes nothing
    except _TooLargeError:
        return True
    return False


class _Reader:
    """Reads the sizes of tokens from left to right."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.at = tokens, 0

    def next(self) -> str:
        """The token that comes; "" behind the last."""
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        token = self.next()
        self.at += 1
        return token

    def terms(self, depth: int) -> Size:
        """Up to a bracket that closes, or the end: terms, added or not."""
        if depth > DEEPEST:
            raise _TooLargeError
        found = [self.product(depth)]
        while self.next() and self.next() not in _CLOSING:
            if self.take() == r"\choose":
                _counted(found[-1])
            found.append(self.product(depth))
        return max(value for value, _ in found) + log10(len(found)), sum(d for _, d in found)

    def product(self, depth: int) -> Size:
        """Factors, with or without a sign between them."""
        value = denominator = 0.0
        divides = False
        while self.next() and self.next() not in _CLOSING | _BETWEEN_TERMS:
            if self.next() in ("/", r"\div"):
                divides = bool(self.take())
                continue
            above, below = self.factor(depth)
            value += below if divides else above
            denominator += above if divides else below
            divides = False
        return _computed(value, denominator)

    def factor(self, depth: int, signs: frozenset[str] = _SIGNS) -> Size:
        """An atom with its powers, factorials and subscripts."""
        if depth > DEEPEST:
            raise _TooLargeError
        name = self.next()
        size = self.atom(depth)
        while self.next() in signs:
            sign = self.take()
            if sign == "!":
                size = _factorial(size)
            elif name == r"\int":  # its bounds are numbers like others
                self.argument(depth)
            elif sign == "_":
                _counted(self.argument(depth))
            else:
                size = self.power(size, depth + 4)
        return size

    def power(self, base: Size, depth: int) -> Size:
        start = self.at
        while self.next() in ("+", "-"):
            self.take()
        times = 10 ** _counted(self.factor(depth, _SIGNS - {"!"}))  # 2^3! is 8!
        value, denominator = base
        if "-" in self.tokens[start : self.at]:
            value = denominator = max(base)
        return _computed(times * value, times * denominator)

    def argument(self, depth: int) -> Size:
        r"""What a command takes: a bracket, or one token; of digits the first, as `\frac12` has."""
        token = self.next()
        if token.isdecimal() and len(token) > 1:
            self.tokens[self.at] = token[1:]
            return _number(token[0])
        return self.atom(depth)

    def atom(self, depth: int) -> Size:
        token = self.take()
        if token in _OPENING:
            size = self.terms(depth + 1)
            self.take()
            return size
        if token in _FRACTIONS:
            above, below = self.argument(depth), self.argument(depth)
            return above[0] + below[1], above[1] + below[0]
        if token in _BINOMIALS:
            top, chosen = _counted(self.argument(depth)), _counted(self.argument(depth))
            return min(10**top * log10(2), top * 10**chosen), 0.0  # at most 2^n and n^k
        return _number(token) if re.match(r"\.?\d", token) else (0.0, 0.0)


def _counted(size: Size) -> float:
    """The value's logarithm, where it may be an exponent."""
    if size[0] > MOST:
        raise _TooLargeError
    return size[0]


def _computed(value: float, denominator: float) -> Size:
    if value + denominator > 10**MOST:
        raise _TooLargeError
    return value, denominator


def _factorial(size: Size) -> Size:
    return _computed(lgamma(10 ** _counted(size) + 1) / log(10), 0.0)


def _number(token: str) -> Size:
    whole, _, part = token.replace(",", "").partition(".")
    whole = whole.lstrip("0")
    if len(whole) > 15:  # more than a float holds
        return float(len(whole)), float(len(part))
    return log10(max(1.0, float(f"{whole or 0}.{part[:15] or 0}"))), float(len(part))
