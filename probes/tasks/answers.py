r"""The final answer in a text: where it stands, and which of several counts.

    final_answer(r"so 2 + 3 = \boxed{5}", ("boxed",))         # "5"
    final_answer("The answer is not 5 but 6.", ("phrase",))   # "6"

A template (`probes.tasks.templates`) says which marks its answers carry, the one that it asks for
first; where that mark is nowhere in the text, the next one is looked for:

    boxed    \boxed{...} or \fbox{...}, with balanced braces; of nested ones the innermost
    tag      <answer>...</answer>; of a box inside it, the content
    phrase   "the answer is ...", "answer: ...", up to the end of the sentence or line
    hashes   "#### ..." up to the end of the line, as GSM8K's own solutions end
    whole    the whole response

Of several the last counts. One that was begun and not ended (the budget ran out) is the last one
too and can't be read; an earlier one is not put in its place, for it was not final. No number is
taken from anywhere else: "the last number of the text", to which the graders of Qwen2.5-Math and
of lm-eval's `flexible-extract` fall back, makes answers of what only was mentioned.

Everything here takes time linear in the text, so megabytes are read to their end and not cut
(an answer in the first line of a megabyte is one).
"""

import re
from collections.abc import Callable, Sequence

LONGEST = 2000
"""More characters than a sentence or a number has."""

_BOX = re.compile(r"\\f?box(?:ed)?\s*\{")
_PHRASE = re.compile(r"\banswer\s*(?:(?:is|are)\b\s*:?|:)", re.IGNORECASE)
_DENIED = re.compile(r"\s*(?:is\s+)?not\b(?:.*\bbut(?:\s+rather)?\b\s*(?P<instead>.*))?", re.DOTALL)
_SENTENCE = re.compile(r"\.(?=\s|$)|\n|(?i:\bI hope\b)")
_CLAUSE = re.compile(r"[;,]?\s+(?:not|rather than|instead of)\s.*", re.DOTALL)


def final_answer(text: str, marks: Sequence[str], stop: Sequence[str] = ()) -> str | None:
    """The final answer, blanks around it removed; None where there is none that can be read.

    Args:
        text: the response.
        marks: of those above, the one that is asked for first.
        stop: what begins another question; a model given examples goes on with one of its own, and
            what it answers to that is no answer to this.
    """
    for mark in stop:
        text = text.partition(mark)[0]
    for mark in marks:
        found = MARKS[mark](text)
        if found is not None:
            return found.strip() or None
    return None


def boxed(text: str) -> str | None:
    r"""Content of the last box; "" where it is not closed, None where there is none.

    >>> boxed(r"\boxed{1}, no: \boxed{\frac{1}{2}}")
    '\\frac{1}{2}'
    """
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if start < 0:
        return None
    opened = _BOX.match(text, start)
    if opened is None:  # TeX takes one token without braces: \boxed 5
        bare = re.match(r"\\(?:boxed|fbox)\s*([^\s{}$\\])", text[start : start + 100])
        return bare[1] if bare else ""
    depth, at = 1, opened.end()
    for brace in re.finditer(r"\\.|[{}]", text[at:]):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)  # an escaped brace is content
        if depth == 0:
            return text[at : at + brace.start()]
    return ""


def tagged(text: str) -> str | None:
    """Content of the last <answer>; "" where it is not closed, None where there is none."""
    start = text.rfind("<answer>")
    if start < 0:
        return None
    inner, closed, _ = text[start + len("<answer>") :].partition("</answer>")
    if not closed:
        return ""
    box = boxed(inner)
    return inner if box is None else box


def phrased(text: str) -> str | None:
    """What the last "the answer is" says; of "not 5 but 6" the 6, of "not 5" nothing."""
    places = list(_PHRASE.finditer(text))
    if not places:
        return None
    said = text[places[-1].end() :].lstrip(" \t*")
    said = said.removeprefix("\n")  # "Answer:" may stand on a line of its own
    end = _SENTENCE.search(said)
    said = said[: end.start()] if end else said
    if len(said) > LONGEST:
        return said  # no answer; the expressions below would take their square in time
    denied = _DENIED.match(said)
    if denied:
        return denied["instead"] or ""
    return _CLAUSE.sub("", said).strip("* \t")


def hashed(text: str) -> str | None:
    """What stands behind the last ####."""
    start = text.rfind("####")
    return None if start < 0 else text[start + 4 :].partition("\n")[0]


MARKS: dict[str, Callable[[str], str | None]] = {
    "boxed": boxed,
    "tag": tagged,
    "phrase": phrased,
    "hashes": hashed,
    "whole": str,
}
"""How an answer is found by each mark: its text, "" where it can't be read, None where it is not
there."""


def mark_answer(answer: str, mark: str) -> str:
    """The answer as a response would give it under a mark."""
    marked = {
        "boxed": f"\\boxed{{{answer}}}",
        "tag": f"<answer>{answer}</answer>",
        "phrase": f"The answer is {answer}.",
        "hashes": f"#### {answer}",
        "whole": answer,
    }
    return marked[mark]
