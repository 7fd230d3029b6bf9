"""What a dataset's own scorer says of an answer, and what has to stand before some of them.

Read in reasoning-gym 0.1.25, each seen in the tests:

- `game_of_life_halting` gives 1 to any answer but the empty one (it compares bool of two strings):
  the text decides here.
- `puzzle24` does not look whether the four numbers are the puzzle's: that is looked at here.
- `coin_flip` gives 1 to a number that begins another ("0" for 0.3125), and its tolerance is
  absolute (0 for 0.00003): here a number is right to 1e-4 and to a hundredth of itself, and an
  exponent has three digits at most (1e99999999 would be written out).
- `complex_arithmetic` gives 1 to nan: only finite numbers pass.
- `letter_jumble` gives 1 where further words follow: there must be as many as were asked for.
- Nine scorers hand the answer to Python's `eval`, or to SymPy's `parse_expr`, which does the same,
  so an answer such as `exit()` or worse would be run. Those of lists read a literal only to give
  partial credit, so anything with a call in it is turned away; those of expressions get numbers,
  operators and the functions of `FUNCTIONS`, those of `ARITHMETIC` no powers, which their rules
  don't have and which may take for ever. What is turned away is UNPARSED.

The other scorers are trusted, and only a whole 1 is right.
"""

import json
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from probes.records import Grade
from probes.tasks.gym.items import SIZE, dataset, item
from probes.tasks.magnitude import too_large

RIGHT = 1.0
"""Score of a right answer: the most that any scorer gives."""

LITERAL = frozenset({"string_insertion", "spiral_matrix", "binary_matrix", "n_queens"})
"""Datasets whose scorer calls eval on an answer, to see whether it is a list."""

SYMBOLIC = frozenset(
    {
        "simple_integration",
        "intermediate_integration",
        "polynomial_multiplication",
        "puzzle24",
        "countdown",
    }
)
"""Datasets whose scorer calls sympy.parse_expr on an answer."""

ARITHMETIC = frozenset({"puzzle24", "countdown"})
"""Datasets whose puzzles allow + - * / and nothing else."""

FUNCTIONS = """sin cos tan cot sec csc asin acos atan sinh cosh tanh exp log ln sqrt Abs pi"""
"""Names longer than a letter that an expression may have."""

SOLUTIONS = {
    "graph_color": "possible_answer",
    "propositional_logic": "example_answer",
    "rubiks_cube": "example_correct_answer",
}
"""Where datasets whose `answer` is empty keep one that their scorer takes."""


def score(identity: str, level: int | None, index: int, answer: str) -> Grade:
    """RIGHT, WRONG, or UNPARSED where the scorer could not read the answer.

    Args:
        identity: as in `probes.tasks.gym.items.item`.
        level: of the item.
        index: of the item.
        answer: the final answer.
    """
    name, made = json.loads(identity)["dataset"], item(identity, level, index)
    if not harmless(name, answer):
        return Grade.UNPARSED
    judge = dataset(identity, level, index // SIZE)
    try:
        if name in CORRECTED and not CORRECTED[name](made, answer):
            return Grade.WRONG
        given = judge.score_answer(answer, made)
    except MemoryError:  # of this process, and no fact about the answer
        raise
    except Exception:  # of what someone else's scorer raises when it can't read an answer
        judge.score_answer(solution(name, made), made)  # unless it can read none: that raises
        return Grade.UNPARSED
    return Grade.RIGHT if given >= RIGHT else Grade.WRONG


def harmless(name: str, answer: str) -> bool:
    """Whether a scorer that runs its answers may be given this one."""
    if name in LITERAL:
        return "(" not in answer and not too_large(answer)
    if name in ARITHMETIC and re.search(r"\*\*|\^", answer):
        return False
    if name in SYMBOLIC:
        words = re.findall(r"[^\W\d]\w*", answer)
        known = all(len(word) == 1 or word in FUNCTIONS.split() for word in words)
        return known and not re.search(r"[^\w\s+\-*/^().]|__", answer) and not too_large(answer)
    return True


def _same_text(made: dict[str, Any], answer: str) -> bool:
    return answer.strip().casefold() == str(made["answer"]).casefold()


def _same_numbers(made: dict[str, Any], answer: str) -> bool:
    used = [int(number) for number in re.findall(r"\d+", answer)]
    return sorted(used) == sorted(made["metadata"]["numbers"])


def _close(made: dict[str, Any], answer: str) -> bool:
    given, wanted = (text.replace(",", "") for text in (answer, str(made["answer"])))
    if re.search(r"e[-+]?\d[\d_]{3}", given, re.IGNORECASE):
        raise ValueError(f"the exponent of {given[:40]!r} has more than three digits")
    given, wanted = Fraction(given), Fraction(wanted)
    return abs(given - wanted) <= min(Fraction(1, 10_000), wanted / 100)


def _finite(made: dict[str, Any], answer: str) -> bool:  # noqa: ARG001
    return re.search(r"nan|inf", answer.casefold()) is None


def _as_many_words(made: dict[str, Any], answer: str) -> bool:
    return len(answer.split()) == len(str(made["answer"]).split())


CORRECTED: dict[str, Callable[[dict[str, Any], str], bool]] = {
    "game_of_life_halting": _same_text,
    "puzzle24": _same_numbers,
    "coin_flip": _close,
    "complex_arithmetic": _finite,
    "letter_jumble": _as_many_words,
}
"""What must hold besides the scorer's word, where its word is not enough."""


def solution(name: str, made: dict[str, Any]) -> str | None:
    """A right answer; None where the dataset keeps none."""
    if name in SOLUTIONS:
        kept = made["metadata"][SOLUTIONS[name]]
        return kept if isinstance(kept, str) else json.dumps(kept)
    return made["answer"]
