"""The exact checker of countdown traces: replay what was written, give every step a verdict.

A response is cut into parts at `go` and `back`; the parts tile it. What stands is a stack: a step
or an answer goes on top of it, `back` takes the top away with whatever was wrong about it. A wrong
result stands as it was written, so a later step that uses it is valid although the trace is not:
coherence is local, validity is not.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from probes.tasks.countdown.expressions import Rules, Tree, canonical, leaves, read, replace

N = r"\d{1,4}"
STATE = rf"left((?: {N})*) to ({N}) ;"
STEP = re.compile(rf"try (?:({N}) (\S+) ({N}) =|by (\S+) ({N}) need) ({N})(?: \? ({N}))? {STATE}")
BACK = re.compile(rf"back {STATE}")
ANSWER = re.compile(rf"ans ([^?.]+) (?:\.|\? ({N})( \.)?)")


@dataclass(frozen=True)
class Move:
    """A step as it was written; `a` is None where it works from the goal, by `operator` and `b`."""

    a: int | None
    operator: str
    b: int
    result: int
    """The value that stands: the check's, where there is one."""


@dataclass(frozen=True)
class Part:
    """Words `start` to `stop` of a response, judged."""

    start: int
    stop: int
    kind: str
    """"step", "backward", "back", "answer", or "format" for words that can't be read."""
    verdict: str
    standing: int
    """How many numbers stood before it."""


@dataclass
class Frame:
    """One level of the stack: what was put there, and the state it leads to."""

    pool: tuple[int, ...]
    goal: int
    put: Move | Tree | None = None
    sound: bool = True
    """Nothing is wrong about it."""

    def shows(self, numbers: str, goal: str) -> bool:
        """Whether `left ... to ...` tells this state."""
        return self.pool == tuple(map(int, numbers.split())) and self.goal == int(goal)


def replay(
    words: Sequence[str], numbers: tuple[int, ...], target: int, rules: Rules
) -> tuple[list[Part], bool]:
    """Every part of a response with its verdict, and whether the whole derives its answer."""
    stack, parts, closed = [Frame(numbers, target)], [], False
    cuts = list(_cuts(words))
    for start, stop in cuts:
        text = " ".join(words[start:stop]).removeprefix("go " if start else "")
        standing = len(stack[-1].pool)
        kind, verdict = "format", "format"
        turned = start == 0 or words[start] in ("go", "back")
        if not turned or closed:
            pass
        elif match := STEP.fullmatch(text):
            kind = "step" if match[1] else "backward"
            verdict = _step(stack, match, rules)
        elif match := BACK.fullmatch(text):
            kind, verdict = "back", _back(stack, match)
        elif match := ANSWER.fullmatch(text):
            retracted = words[stop : stop + 1] == ["back"]
            if (tree := read(match[1].split())) and retracted == text[-1].isdecimal():
                kind, verdict = "answer", _answer(stack, tree, match[2], rules)
                closed = not retracted
        if kind == "format":
            stack[-1].sound = False
        parts.append(Part(start, stop, kind, verdict, standing))
    return parts, closed and all(frame.sound for frame in stack)


def _cuts(words: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Start and stop of the parts: a part begins at the first word, at `go` and at `back`."""
    starts = [i for i, word in enumerate(words) if i == 0 or word in ("go", "back")]
    yield from pairwise([*starts, len(words)])


def _step(stack: list[Frame], match: re.Match[str], rules: Rules) -> str:
    a, forward, b, backward, by, first, again, left, goal = match.groups()
    top = stack[-1]
    result = int(again or first)
    if a:
        move, used = Move(int(a), forward, int(b), result), (int(a), int(b))
        after = Frame(replace(top.pool, used, result), top.goal, move)
        reached, wanted = rules.apply(int(a), forward, int(b)), result
    else:
        move, used = Move(None, backward, int(by), result), (int(by),)
        after = Frame(replace(top.pool, used), result, move)
        reached, wanted = rules.apply(result, backward, int(by)), top.goal
    verdict = "valid"
    if Counter(used) - Counter(top.pool):
        verdict = "premise"
    elif move.operator not in rules.operators or not after.pool or (a and reached is None):
        verdict = "rule"
    elif reached != wanted:
        verdict = "calculator"
    elif not after.shows(left, goal):
        verdict = "premise"
    after.sound = verdict == "valid"
    stack.append(after)
    return verdict


def _back(stack: list[Frame], match: re.Match[str]) -> str:
    if len(stack) == 1:
        stack[-1].sound = False
        return "rule"
    stack.pop()
    if stack[-1].shows(match[1], match[2]):
        return "valid"
    stack[-1].sound = False
    return "premise"


def _answer(stack: list[Frame], tree: Tree, again: str | None, rules: Rules) -> str:
    numbers, target = stack[0].pool, stack[0].goal
    value = rules.value(tree)
    steps = [frame.put for frame in stack if isinstance(frame.put, Move)]
    verdict = "valid"
    if set(leaves(tree)) - set(numbers):
        verdict = "premise"
    elif sorted(leaves(tree)) != sorted(numbers) or value is None:
        verdict = "rule"
    elif value != target or int(again or value) != value:
        verdict = "calculator"
    elif not leads_to(canonical(tree), [(n, n) for n in numbers], steps):
        verdict = "rule"
    stack.append(Frame(stack[-1].pool, stack[-1].goal, tree, verdict == "valid"))
    return verdict


def leads_to(tree: Tree, pool: Sequence[tuple[int, Tree]], steps: Sequence[Move]) -> bool:
    """Whether a canonical expression is made of the steps and of the pool that they leave.

    Where two numbers of the pool are equal, either may have been meant: both are tried.

    Args:
        tree: the answer.
        pool: value of each number and the expression that it stands for.
        steps: what stands, in the order in which it was written.
    """
    if not steps:
        return _left_over(tree, [part for _, part in pool]) == []
    step, rest = steps[0], steps[1:]
    for i, (b, right) in enumerate(pool):
        if b != step.b:
            continue
        others = [*pool[:i], *pool[i + 1 :]]
        if step.a is None:
            if any(leads_to(t, others, rest) for t in _without(tree, step.operator, right)):
                return True
            continue
        for j, (a, left) in enumerate(others):
            made = (step.result, canonical((step.operator, left, right)))
            if a == step.a and leads_to(tree, [*others[:j], *others[j + 1 :], made], rest):
                return True
    return False


def _without(tree: Tree, operator: str, right: Tree) -> list[Tree]:
    """Every X for which the tree is `X operator right`."""
    if isinstance(tree, int) or tree[0] != operator:
        return []
    ways = [tree[1:]] if operator == "-" else [tree[1:], tree[:0:-1]]
    return [inner for inner, last in ways if last == right]


def _left_over(tree: Tree, parts: list[Tree]) -> list[Tree] | None:
    """The parts that the expression does not use; None where it needs what is not among them."""
    if tree in parts:
        at = parts.index(tree)
        return [*parts[:at], *parts[at + 1 :]]
    if isinstance(tree, int):
        return None
    rest = _left_over(tree[1], parts)
    return None if rest is None else _left_over(tree[2], rest)
