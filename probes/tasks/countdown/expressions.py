"""Arithmetic under the rules of countdown, and expressions: written, read, compared.

An expression is a given number or (operator, left, right). It is written with parentheses around
every operation but the outermost, so there is one way to write it and one to read it; text without
them is refused by `read` and not guessed at. Nothing here evaluates text.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any

Tree = int | tuple[str, Any, Any]

ARITHMETIC = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
LONGEST, DEEPEST = 4, 30
"""Digits of a number and levels of parentheses beyond which text is not read: it may be hostile."""


@dataclass(frozen=True)
class Rules:
    """Which operators there are; every value, on the way too, lies in 0..high."""

    operators: tuple[str, ...]
    high: int

    def apply(self, a: int, operator: str, b: int) -> int | None:
        """The result, or None where the rules forbid it."""
        if operator not in self.operators:
            return None
        result = ARITHMETIC[operator](a, b)
        return result if 0 <= result <= self.high else None

    def value(self, tree: Tree) -> int | None:
        """What an expression comes to, or None where it breaks a rule on the way."""
        if isinstance(tree, int):
            return tree
        a, b = self.value(tree[1]), self.value(tree[2])
        return None if a is None or b is None else self.apply(a, tree[0], b)


@lru_cache(maxsize=1 << 17)
def moves(pool: tuple[int, ...], rules: Rules) -> tuple[tuple[int, str, int, int], ...]:
    """Every allowed step (a, operator, b, result) on a sorted pool, with a >= b.

    >>> moves((2, 5), Rules(("+", "-"), high=99))
    ((5, '+', 2, 7), (5, '-', 2, 3))
    """
    steps = []
    for b, a in sorted(set(combinations(pool, 2))):
        for operator in rules.operators:
            result = ARITHMETIC[operator](a, b)  # `apply` in line: pretraining waits for this loop
            if 0 <= result <= rules.high:
                steps.append((a, operator, b, result))
    return tuple(steps)


@lru_cache(maxsize=1 << 18)
def reach(pool: tuple[int, ...], rules: Rules) -> frozenset[int]:
    """Every value that a sorted pool can come to, each of its numbers used once."""
    if len(pool) == 1:
        return frozenset(pool)
    found: set[int] = set()
    for a, _, b, result in moves(pool, rules):
        if len(pool) == 2:
            found.add(result)
        else:
            found |= reach(replace(pool, (a, b), result), rules)
    return frozenset(found)


def replace(pool: Sequence[int], gone: Sequence[int], new: int | None = None) -> tuple[int, ...]:
    """The sorted pool without `gone` (what is not there is passed over) and with `new`."""
    left = list(pool)
    for number in gone:
        if number in left:
            left.remove(number)
    return tuple(sorted(left if new is None else [*left, new]))


def outcomes(numbers: tuple[int, ...], rules: Rules) -> Counter[int | None]:
    """How many well-formed expressions over the numbers come to each value; None breaks a rule.

    All of them: every order of the numbers, every bracketing, every choice of operators, equal
    numbers told apart. n numbers have n! Catalan(n - 1) |operators|^(n - 1).
    """
    if len(numbers) == 1:
        return Counter(numbers)
    found: Counter[int | None] = Counter()
    for chosen in range(1, 2 ** len(numbers) - 1):
        sides = [[n for i, n in enumerate(numbers) if (chosen >> i & 1) == s] for s in (1, 0)]
        left, right = (outcomes(tuple(side), rules) for side in sides)
        for a, ways_a in left.items():
            for b, ways_b in right.items():
                for operator in rules.operators:
                    whole = a is not None and b is not None
                    value = rules.apply(a, operator, b) if whole else None  # type: ignore[arg-type]
                    found[value] += ways_a * ways_b
    return found


def write(tree: Tree, *, inner: bool = False) -> list[str]:
    """The words of an expression.

    >>> " ".join(write(("-", ("*", 7, 4), 9)))
    '( 7 * 4 ) - 9'
    """
    if isinstance(tree, int):
        return [str(tree)]
    words = [*write(tree[1], inner=True), tree[0], *write(tree[2], inner=True)]
    return ["(", *words, ")"] if inner else words


def read(words: Sequence[str]) -> Tree | None:
    """The operation that all the words spell, or None; the inverse of `write`."""
    tree, rest = _operation(words)
    return None if rest else tree


def operation_ends(words: Sequence[str]) -> int | None:
    """How many words the operation takes that the words begin with; None if it isn't complete."""
    tree, rest = _operation(words)
    return None if tree is None else len(words) - len(rest)


def number(word: str) -> int | None:
    """The number that a word is; None for other words and for absurdly long ones."""
    return int(word) if word.isdecimal() and len(word) <= LONGEST else None


def _operation(words: Sequence[str], depth: int = 0) -> tuple[Tree | None, Sequence[str]]:
    a, rest = _operand(words, depth)
    if a is None or not rest or rest[0] not in ARITHMETIC:
        return None, rest
    b, after = _operand(rest[1:], depth)
    return (None if b is None else (rest[0], a, b)), after


def _operand(words: Sequence[str], depth: int) -> tuple[Tree | None, Sequence[str]]:
    if words and (read_number := number(words[0])) is not None:
        return read_number, words[1:]
    if not words or words[0] != "(" or depth == DEEPEST:
        return None, words
    tree, rest = _operation(words[1:], depth + 1)
    return (tree, rest[1:]) if tree is not None and rest and rest[0] == ")" else (None, rest)


def leaves(tree: Tree) -> list[int]:
    """The numbers in an expression, from left to right."""
    return [tree] if isinstance(tree, int) else leaves(tree[1]) + leaves(tree[2])


def canonical(tree: Tree) -> Tree:
    """The same for expressions that differ by the order inside sums and products only."""
    if isinstance(tree, int):
        return tree
    pair = [canonical(tree[1]), canonical(tree[2])]
    first, second = pair if tree[0] == "-" else sorted(pair, key=repr)
    return (tree[0], first, second)
