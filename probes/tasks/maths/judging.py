r"""Whether two answers are the same: math-verify, and what it gets wrong put right.

    judge(r"\frac{1}{2}", "0.5")       # Grade.RIGHT
    judge("5", "6 = 5")                # Grade.WRONG: it states what is false

math-verify 0.9 (Kydlíček, Hugging Face) parses LaTeX to SymPy and compares numerically, then
symbolically. It takes units and currencies away, `1{,}000` as 1000, lists in any order, and a
percentage as its number and as its hundredth: to 5 and to 0.05, `5\%` is right; the graders of
Qwen2.5-Math and of limit-of-RLVR do the same, and take 5 for 0.05 besides, which this does not.

Its time limits are switched off: they need SIGALRM, fail in threads and can't stop C code. Whoever
calls this does so in a process that can be killed (`probes.verify`). Tried, and put right here:

- decimals are compared to six places, and what is small is chopped to 0: 2e-7 was 1e-7, 3e-19 was
  1.6e-19. Two numbers, and those in two pairs or sets, must also agree to `RELATIVE`.
- of a chain of equations the last side is taken: `6 = 5` was 5. A false equation is wrong.
- words are products of letters: "listen" was "silent". Words are compared as words.
- a list swallowed what it repeats, a point was a set, `x<3` no interval (`maths.shapes`).
- `1,200` is 1200 and `1, 200` two numbers: blanks count there.
- numbers beside each other are added or multiplied: `1 000` was 0, a 5 and a 6 on two lines 11.
  Thousands are joined; other digits with blanks between can't be read.
- digits of other scripts, superscripts and 1e5 could not be read, or were read as something else.
- what it can't parse it compares as text, and a number that is somewhere in it is taken for the
  answer: only the answer itself is handed over, and what can't be parsed is UNPARSED.
- nothing is cut: an answer of more than `LONGEST` characters is UNPARSED.
- `9^{9^{9^9}}` takes all memory: what is too large to compute is UNPARSED before it is tried.
- `12 m^2` was a polynomial: of an answer to a number, lengths squared or cubed are taken away.

Known limits, all of right answers that are WRONG: `1,000, 2,000` is read as four numbers, a union
of intervals can't be written with "or", and `5 more apples` is not 5, as `5 more than ten` is not.
"""

import logging
import re
import unicodedata
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any

from probes.records import Grade, Refusal
from probes.tasks.answers import LONGEST
from probes.tasks.magnitude import too_large
from probes.tasks.maths.shapes import as_interval, of_other_shape

RELATIVE = 1e-5
"""Largest difference of two equal numbers, relative to the gold one: 0.333333 is 1/3."""

DEEPEST = 12
"""Brackets within brackets: the parser takes 0.5 s for twelve, 18 s for fifty, and braces more."""

_SUPER = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_SIGNS = {
    "−": "-",
    "–": "-",
    "×": r"\times ",
    "·": r"\cdot ",
    "÷": r"\div ",
    "°": r"^\circ ",
    "π": r"\pi ",
    "∞": r"\infty ",
    "½": r"\frac{1}{2}",
    "⅓": r"\frac{1}{3}",
    "¼": r"\frac{1}{4}",
    "¾": r"\frac{3}{4}",
    "\u00a0": " ",
    "\u2009": " ",
    "\u202f": " ",
}
_WORDS = re.compile(r"[A-Za-z]{2,}(?:[\s'-]+[A-Za-z]+)*")
_NUMBER = r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?"
_TYPESET = re.compile(rf"(?:\\?\$\$?|\\\()({_NUMBER})(?:\$|\\\))(?=\s+[A-Za-z])")
_COUNTED = re.compile(rf"\\?\$?\s*({_NUMBER})\s+([A-Za-z]{{3,}}(?:\s+[A-Za-z]+){{0,2}})")
_REPEATING = re.compile(r"(?<![\d.])(\d+)\.(\d*)\\overline\{(\d+)\}(?![\d.])")
_NUMERAL = re.compile(
    r"half|halves|quarters?|thirds?|fourths?|(?!months?$|teeth$|widths?$)\w*[fnxhde]ths?"
    r"|ones?|twos?|threes?|fours?|fives?|six(?:es)?|sevens?|eights?|nines?|tens?|eleven|twelve"
    r"|\w+teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty|hundreds?|thousands?|\w*illions?"
    r"|dozens?|score|gross|grand|lakhs?|crores?|myriads?|googols?|less|fewer|more|than|least|most"
)
"""Words that make another number of the one before them."""
_NO_UNIT = """and or not but plus minus times over divided by to if for mod choose factorial squared
cubed percent per root sqrt sin cos tan log exp infinity"""
_IN_TEXT = re.compile(
    rf"({_NUMBER})\s*\\(?:text|textbf|mathrm|mbox|textit)\s*\{{\s*([A-Za-z][A-Za-z\s]*)\}}"
)
_SQUARED = re.compile(
    rf"({_NUMBER})(?:\s*(?:mm|cm|dm|km|in|ft|yd|mi)|\s+m)\s*\^\s*(?:[23]|\{{[23]\}})"
)
_INFINITY = re.compile(r"([-+]?)\s*(?:infinity|\\text\s*\{\s*infinity\s*\})", re.IGNORECASE)


def judge(gold: str, answer: str) -> Grade:
    """RIGHT, WRONG, or UNPARSED where the answer can't be read or is too large to compute."""
    if len(answer) > LONGEST:
        return Grade.UNPARSED
    wanted, given = plain(gold), plain(answer)
    if not given:
        return Grade.UNPARSED
    if _tight(wanted) == _tight(given):
        return Grade.RIGHT
    words = _as_words(wanted)
    if words:
        return Grade.RIGHT if words == _as_words(given) else Grade.WRONG
    if unreadable(given):
        return Grade.UNPARSED
    try:
        return _compared(wanted, given)
    except RecursionError:
        return Grade.UNPARSED


def _compared(wanted: str, given: str) -> Grade:
    ours = _parsed(wanted)
    measured = _SQUARED.fullmatch(given)
    if measured and measured[1] and getattr(ours, "is_number", False):
        given = measured[1]
    theirs = _parsed(given)
    if theirs is None:
        return Grade.UNPARSED
    if ours is None or _false(theirs) or of_other_shape(wanted, given, ours, theirs):
        return Grade.WRONG
    theirs = as_interval(ours, theirs)
    same = library().verify([ours], [theirs], timeout_seconds=None, raise_on_error=True)
    if same and not _close(ours, theirs, "%" in wanted + given):
        same = False
    return Grade.RIGHT if same else Grade.WRONG


def check_installed() -> None:
    """math-verify can be imported; it is not yet, for it brings SymPy.

    Raises:
        Refusal: it can't.
    """
    if find_spec("math_verify") is None:
        raise Refusal(
            "maths tasks are judged by math-verify, which is not installed: pip install -c "
            "constraints.txt math-verify."
        )


@cache
def library() -> Any:
    """math_verify, its warnings that time limits are off silenced."""
    import math_verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    logging.getLogger("latex2sympy2_extended").setLevel(logging.CRITICAL)
    return math_verify


def plain(text: str) -> str:
    r"""An answer in ASCII digits and LaTeX, without the marks of typesetting around it.

    >>> plain("$５.$"), plain("x²"), plain("1e5"), plain(r"2\,500"), plain("**7**")
    ('5', 'x^{2}', '1\\times10^{5}', '2500', '7')
    """
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+", lambda m: f"^{{{m[0].translate(_SUPER)}}}", text)
    text = "".join(_ascii(c) for c in text).strip()
    text = text.removesuffix(".").strip()
    for start, end in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**")):
        inner = text[len(start) : len(text) - len(end)]
        if text.startswith(start) and text.endswith(end) and start not in inner and inner:
            text = inner.strip().removesuffix(".")
    if match := _TYPESET.match(text):  # $18$ dollars is 18 dollars
        text = match[1] + text[match.end() :]
    if text.count("$") == 1:
        text = text.removeprefix("$").strip()
    text = re.sub(r"\\left|\\right|\\displaystyle|\\!", "", text)
    text = re.sub(r"(?<=\d)(?:\\[,; ]|\{,\}|~)(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"(?<![\d.])(\d{1,3})((?: \d{3})+)(?!\d)", _joined, text)
    text = re.sub(r"(?<=\d)[eE]([-+]?\d+)(?![\w.])", r"\\times10^{\1}", text)
    text = _REPEATING.sub(_fraction, text)
    text = _INFINITY.sub(r"\1\\infty", text) if _INFINITY.fullmatch(text) else text
    return _unwrapped(_uncounted(text))


def _uncounted(text: str) -> str:
    r"""A number without the word of what is counted; what changes the number stays.

    >>> _uncounted("42 apples"), _uncounted("5 tenths"), _uncounted(r"5\text{ million}")
    ('42', '5 tenths', '5 million')
    """
    said = _IN_TEXT.fullmatch(text)
    if said and any(map(_NUMERAL.fullmatch, said[2].lower().split())):
        text = f"{said[1]} {said[2].strip()}"  # math-verify takes \text{...} for a unit
    counted = _COUNTED.fullmatch(text)
    if counted is None or not counted[1]:
        return text
    words = counted[2].lower().split()
    changed = set(_NO_UNIT.split()) & set(words) or any(map(_NUMERAL.fullmatch, words))
    return text if changed else counted[1]


def _unwrapped(text: str) -> str:
    """Without brackets around all of it, unless they make it a pair, a set or an interval.

    >>> _unwrapped("((5))"), _unwrapped("(1,2)"), _unwrapped("(1)(2)")
    ('5', '(1,2)', '(1)(2)')
    """
    while text[:1] + text[-1:] in ("()", "{}") and not {",", ";"} & set(text):
        depth = 0
        for character in text[:-1]:
            depth += (character in "({") - (character in ")}")
            if depth == 0:
                return text
        text = text[1:-1].strip()
    return text


def _ascii(character: str) -> str:
    if character.isascii():
        return character
    if character in _SIGNS:
        return _SIGNS[character]
    digit = unicodedata.decimal(character, None)  # superscripts and roman numerals have none
    return character if digit is None else str(digit)


def _joined(match: re.Match[str]) -> str:
    return match[0].replace(" ", "")


def _fraction(match: re.Match[str]) -> str:
    """A repeating decimal: 0.1666... is (16 - 1) / 90."""
    whole, once, again = match.groups()
    top = int(whole + once + again) - int(whole + once or "0")
    return f"\\frac{{{top}}}{{{'9' * len(again) + '0' * len(once)}}}"


def _tight(text: str) -> str:
    """Without blanks, and with one spelling of a fraction, to see that two texts are the same."""
    text = re.sub(r"(?<=\d)\s+(?=\d)", "_", text)  # 5 6 is not 56
    if not re.search(r"[(\[{]", text):
        text = re.sub(r"(?<=\d),\s+(?=\d{3}(?!\d))", ",_", text)  # nor 1, 200 1200
    return re.sub(r"\s+", "", text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac"))


def _as_words(text: str) -> str:
    r"""The words of an answer of words, `\text{...}` and brackets taken off; "" for any other."""
    text = re.sub(r"\\(?:text|textbf|mathrm|mbox|textit)\s*\{([^{}]*)\}", r"\1", text)
    text = text.strip(" .()")
    return " ".join(text.casefold().split()) if _WORDS.fullmatch(text) else ""


def unreadable(text: str) -> bool:
    """Whether an answer is ambiguous, too deep to parse, or too large to compute."""
    if re.search(r"\d\s+(?:\d|(?:less|fewer|more)\b)", text):  # "5 less" is 5 for math-verify
        return True
    depth = deepest = 0
    for character in text:
        depth += (character in "{([") - (character in "})]")
        deepest = max(deepest, depth)
    return deepest > DEEPEST or too_large(text)


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Any:
    r"""The SymPy object of an answer; None where there is none.

    The answer is put into a box and only what is in it is read, as LaTeX: math-verify's own search
    would go on to any number in the text.
    """
    verifier = library()
    box = verifier.LatexExtractionConfig(boxed_match_priority=0, try_extract_without_anchor=False)
    found = verifier.parse(
        f"\\boxed{{{text}}}",
        [box],
        parsing_timeout=None,
        fallback_mode="no_fallback",
    )
    return found[0] if found else None


def _false(answer: Any) -> bool:
    """Whether an answer states an equation between numbers that don't agree."""
    from sympy import And, Eq

    parts = answer.args if isinstance(answer, And) else (answer,)
    return any(
        isinstance(one, Eq)
        and one.lhs.is_number
        and one.rhs.is_number
        and not _close(one.lhs, one.rhs, percent=False)
        for one in parts
    )


def _close(wanted: Any, given: Any, percent: bool) -> bool:
    """Whether two numbers agree to `RELATIVE`, or those within; True of what are not numbers."""
    from sympy import Eq, Set, Tuple

    wanted, given = (x.rhs if isinstance(x, Eq) else x for x in (wanted, given))
    if isinstance(wanted, (Set, Tuple)) and isinstance(given, (Set, Tuple)):
        if len(wanted.args) != len(given.args):
            return True
        pairs = zip(wanted.args, given.args, strict=True)  # in order; those of sets are sorted
        return all(_close(*pair, percent) for pair in pairs)
    if not (getattr(wanted, "is_number", False) and getattr(given, "is_number", False)):
        return True
    a, b = _value(wanted), _value(given)
    if a == b:
        return True
    scales = (1, 100, 0.01) if percent else (1,)
    return any(bool(abs(a * s - b) <= RELATIVE * abs(a * s)) for s in scales)


def _value(number: Any) -> Any:
    """A number to twenty digits."""
    return number.doit().evalf(20)
