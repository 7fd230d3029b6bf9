"""Where in a step a word stands: what each word of a response does, by the task's grammar.

    places(task, problem, "b1 = 18 ; ans 18 END".split())
    # ["jump", "double", "value", "check", "grammar", "answer", "end"]

A word that takes a decision has the name of the decision's kind. All others execute: a *value* that
has to be worked out, the value that a check *claims*, its *verdict*, a *repaired value*, the rest
of an *operation*, the *state* that is copied, the *answer*; *grammar* is what could not be
otherwise, and *end* the stop. A word that fits no rule is *other*.

The place of a position is about the token that is chosen there, so a model that parts at "value"
has worked out something else, and one that parts at "check" wanted to do something else.
"""

from collections.abc import Sequence

from probes.records import Problem
from probes.tasks import END, Task

EXECUTION = (
    "word",
    "operation",
    "value",
    "claim",
    "verdict",
    "repaired value",
    "state",
    "answer",
    "grammar",
    "end",
    "other",
)
"""Places that decide nothing. "word" is which word, once a decision has taken its option."""

FORCED = {"=", ";", "ans", "left", "to", "go", "need", "(", ")", "."}
"""Words of the two families that only punctuate, where they decide nothing."""


def places(task: Task, problem: Problem, words: Sequence[str]) -> list[str]:
    """The place of each word of a response, the end included."""
    found = []
    for i, word in enumerate(words):
        kind = task.next_decision(problem, words[:i])
        found.append(kind or _executes(words, i, word))
    return found


def _executes(words: Sequence[str], i: int, word: str) -> str:
    last, before = [None, None, *words[:i]][-1], [None, None, *words[:i]][-2]
    stretch = _stretch(words[:i])
    if word == END:
        return "end"
    if word in ("ok", "no"):
        return "verdict"
    if last == "?" and word.isdecimal():
        return "claim"
    if stretch == "ans" and word not in (".", "?"):
        return "answer"
    if word in ("+", "-", "*"):
        return "operation"
    if word.isdecimal():
        if last in ("=", "need"):
            return "repaired value" if before == "no" else "value"
        return {"left": "state", "try": "operation"}.get(stretch, "other")
    return "grammar" if word in FORCED else "other"


def _stretch(words: Sequence[str]) -> str:
    """The last word that opened a stretch: an answer, a look at what is left, a step."""
    return next((w for w in reversed(words) if w in ("ans", "left", "try", ";")), "")
