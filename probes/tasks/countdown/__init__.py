"""The countdown family: reach a target from a few numbers with + - *, each used exactly once.

    from 4 7 9 to 19 :
    try 9 + 4 = 13 left 7 13 to 19 ;             a step, then a look at what is left
    back left 4 7 9 to 19 ;                      7 and 13 don't make 19: the step is taken back
    go try 7 * 4 = 27 ? 28 left 9 28 to 19 ;     a result, and its check, which stands instead
    go ans ( 7 * 4 ) - 9 . END                   the last step is done in the head

Four decisions recur along a response, each made by one word:

    search    at the start and after `go`      try: a written step        ans: an answer, at once
    backward  after `try`                      by: from the goal          a number: from the givens
    check     after a value or an expression   ?: compute it again        left, or the full stop
    back      after `;` or a checked answer    back: take the last away   go, or the full stop

A step from the goal is `try by - 9 need 28 left 4 7 to 28 ;`: what is needed, minus 9, is the goal,
so 28 is the new goal. `back` takes the last step or answer that stands.

The rules: the file's operators only; every value on the way in 0..high, so nothing negative; each
number exactly once. The grader holds the last answer to them, whatever stands before it. An answer
that was taken back is none. `4 + 7 * 9` lacks parentheses: UNPARSED.

The checker gives each step the first verdict that applies:

    format      it can't be read
    premise     an operand is not there, or the state after `left` is not the one that stands
    rule        an operator or value that is not allowed; nothing to take back; an answer that does
                not use each number once, or that does not consist of the steps left standing
    calculator  the value that stands is wrong; an answer that misses the target

A trace is valid where it ends in an answer and no step left standing, the answer included, has an
error. A right answer in an invalid trace is lucky. An answer given at once is its own derivation.

Not here: how a model comes to write such traces (`steering.organisms.countdown`).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from random import Random
from typing import Any

from probes.records import Grade, Problem, Refusal, Span, Step, Trace, content_hash
from probes.tasks import END
from probes.tasks.countdown.expressions import (
    ARITHMETIC,
    Rules,
    Tree,
    leaves,
    moves,
    operation_ends,
    outcomes,
    reach,
    read,
    replace,
    write,
)
from probes.tasks.countdown.traces import replay
from probes.tasks.settings import (
    check_keys,
    check_list,
    check_made,
    check_pair,
    check_splits,
    check_text,
    check_whole,
)
from probes.tasks.splits import split_of

WORDS = ("try", "by", "need", "=", "?", "left", "to", ";", "go", "back", "ans", "(", ")", ".")

KEYS = ("family", "numbers", "smallest", "largest", "targets", "high", "operators", "budget")
KEYS = (*KEYS, "prompt", "drill", "seed", "splits")
"""Of the file."""


@dataclass(frozen=True)
class Countdown:
    """Problems over the numbers of one file."""

    name: str
    settings: dict[str, Any]

    skills = ()
    """Countdown singles no skill out."""
    strategies = ("direct", "search", "backward", "check")
    checks = True

    @cached_property
    def rules(self) -> Rules:
        """What arithmetic is allowed."""
        return Rules(tuple(self.settings["operators"]), self.settings["high"])

    @cached_property
    def decision_kinds(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """The four recurring decisions and the words that take them."""
        numbers = tuple(str(n) for n in range(self.rules.high + 1))
        return {
            "search": {"yes": ("try",), "no": ("ans",)},
            "backward": {"yes": ("by",), "no": numbers},
            "check": {"yes": ("?",), "no": ("left", ".")},
            "back": {"yes": ("back",), "no": ("go", ".")},
        }

    def vocabulary(self) -> list[str]:
        """Grammar, operators, numbers, and what else the prompts need."""
        numbers = [str(n) for n in range(self.rules.high + 1)]
        prompt = self.settings["prompt"].format(numbers="", target="").split()
        prompt += self.settings["drill"].split()
        return list(dict.fromkeys([END, *WORDS, *prompt, *self.rules.operators, *numbers]))

    # ------------------------------------------------------------------ problems

    def split_of(self, numbers: Sequence[int], target: int) -> str:
        """The split that a problem belongs to, by the hash of its content."""
        content = [self.settings["seed"], sorted(numbers), target]
        return split_of(content_hash(content), self.settings["splits"])

    def draw(self, random: Random, count: int) -> tuple[tuple[int, ...], int]:
        """Sorted numbers, and a target uniform among those that they can reach."""
        lowest, highest = self.settings["targets"]
        smallest, largest = self.settings["smallest"], self.settings["largest"]
        for _ in range(10_000):
            numbers = tuple(sorted(random.randint(smallest, largest) for _ in range(count)))
            targets = sorted(t for t in reach(numbers, self.rules) if lowest <= t <= highest)
            if targets:
                return numbers, random.choice(targets)
        raise Refusal(
            f"{self.name}: no {count} numbers of {smallest}..{largest} were found from which "
            f"{' '.join(self.rules.operators)} reach a target of {lowest}..{highest}."
        )

    def problem(self, numbers: Sequence[int], target: int) -> Problem:
        """The problem of these numbers; their order makes no difference."""
        numbers = sorted(numbers)
        if target not in reach(tuple(numbers), self.rules):
            raise Refusal(f"{target} can't be reached from {numbers} under the rules.")
        listed = " ".join(map(str, numbers))
        return Problem(
            task=self.name,
            prompt=self.settings["prompt"].format(numbers=listed, target=target),
            answer=str(target),
            skill="",
            part="",
            difficulty=len(numbers),
            spec=json.dumps({"numbers": numbers, "target": target}),
        )

    def problems(
        self,
        split: str,
        count: int,
        *,
        skill: str | None = None,
        part: str | None = None,
        difficulty: int | None = None,
    ) -> list[Problem]:
        """`count` distinct problems of a split; without a difficulty, each in turn.

        Raises:
            Refusal: an unknown split or difficulty, a skill or part (countdown has none), or more
                problems than the split is likely to hold.
        """
        known = self.settings["numbers"]
        if split not in self.settings["splits"]:
            raise Refusal(f"split {split!r} is none of {', '.join(self.settings['splits'])}.")
        if skill or part:
            raise Refusal(f"countdown has no skills or parts; asked for {skill!r}, {part!r}.")
        if difficulty is not None and difficulty not in known:
            raise Refusal(
                f"difficulty {difficulty} is none of {known}: it is how many numbers there are."
            )
        kinds = known if difficulty is None else [difficulty]
        streams = [self._stream(split, kind) for kind in kinds]
        return [next(streams[i % len(streams)]) for i in range(count)]

    def _stream(self, split: str, count: int) -> Iterator[Problem]:
        random = Random(f"{self.settings['seed']} {split} {count}")
        seen: set[tuple[tuple[int, ...], int]] = set()
        barren = 0
        while barren < 10_000:
            drawn = self.draw(random, count)
            barren += 1
            if drawn not in seen and self.split_of(*drawn) == split:
                seen.add(drawn)
                barren = 0
                yield self.problem(*drawn)
        raise Refusal(
            f"the {split} split seems to hold no more than {len(seen)} problems of {count} "
            f"numbers: widen smallest..largest, or ask for fewer."
        )

    # ------------------------------------------------------------------ responses

    def gold(self, problem: Problem) -> str:
        """The first way to the target, every step written out."""
        numbers, target = _spec(problem)
        pool: list[tuple[int, Tree]] = [(n, n) for n in numbers]
        words: list[str] = []
        while len(pool) > 1:
            values = tuple(value for value, _ in pool)
            steps = moves(values, self.rules)
            a, operator, b, c = next(
                s for s in steps if target in reach(replace(values, (s[0], s[2]), s[3]), self.rules)
            )
            left = pool.pop(max(i for i, (value, _) in enumerate(pool) if value == a))
            right = pool.pop(min(i for i, (value, _) in enumerate(pool) if value == b))
            pool = sorted([*pool, (c, (operator, left[1], right[1]))], key=lambda part: part[0])
            words += ["try", str(a), operator, str(b), "=", str(c)]
            words += [*state_words([value for value, _ in pool], target), "go"]
        return " ".join([*words, "ans", *write(pool[0][1]), "."])

    def grade(self, problem: Problem, response: str) -> Grade:
        """By the value of the last answer and the numbers in it."""
        words = _words(response)
        if "ans" not in words:
            return Grade.UNPARSED
        numbers, target = _spec(problem)
        last = words[len(words) - words[::-1].index("ans") :]
        tree = read(list(takewhile(lambda word: word not in ("?", ".", "back"), last)))
        if tree is None or "back" in last:
            return Grade.UNPARSED
        fair = sorted(leaves(tree)) == sorted(numbers)
        return Grade.RIGHT if fair and self.rules.value(tree) == target else Grade.WRONG

    def check(self, problem: Problem, response: str) -> Trace:
        """Every part of the response judged; the steps tile it."""
        parts, valid = replay(_words(response), *_spec(problem), self.rules)
        return Trace(tuple(Step(p.start, p.stop, p.verdict) for p in parts), valid)

    def spans(self, problem: Problem, response: str) -> list[Span]:
        """Where each strategy is used; spans don't overlap, and what can't be read has none.

        An answer is `direct` where two or more numbers still stand: with one, it only repeats
        what was derived.
        """
        words = _words(response)
        named = {"step": "search", "back": "search", "backward": "backward", "answer": "direct"}
        found = []
        for part in replay(words, *_spec(problem), self.rules)[0]:
            if part.kind == "format":
                continue
            pieces = [(part.start, part.stop)]
            if "?" in words[part.start : part.stop]:
                at = words.index("?", part.start)
                found.append(Span(at, at + 2, "check"))
                pieces = [(part.start, at), (at + 2, part.stop)]
            if part.kind != "answer" or part.standing > 1:
                found += [Span(*piece, named[part.kind]) for piece in pieces if piece[0] < piece[1]]
        return sorted(found, key=lambda span: span.start)

    def next_decision(self, problem: Problem, words: Sequence[str]) -> str | None:
        """By the last words; with one number left, or every step taken back, nothing is open."""
        last, before = [None, None, *words][-1], [None, None, *words][-2]
        if last == "try":
            return "backward"
        if last in (None, "go", ";"):
            behind = words[::-1].index("left") if "left" in words else None
            standing = problem.difficulty if behind is None else behind - 3 - (last == "go")
            if last == ";":
                return "back" if standing < problem.difficulty else None
            return "search" if standing > 1 else None
        answer = words[len(words) - words[::-1].index("ans") :] if "ans" in words else []
        length = operation_ends(answer)
        if length is not None and length == len(answer):
            return "check"
        if length is not None and answer[length] == "?" and len(answer) == length + 2:
            return "back"
        return "check" if before in ("=", "need") and last.isdecimal() else None

    def budget(self, problem: Problem) -> int:
        """Words allowed: so many a number and a few, so that not every way can be tried."""
        slope, constant = self.settings["budget"]
        return slope * problem.difficulty + constant

    def guess_rate(self, problem: Problem) -> float:
        """Share of all well-formed expressions over the numbers that reach the target.

        That is the chance of an answer that knows the format and the numbers and nothing else:
        every order, bracketing and choice of operators alike (`expressions.outcomes`).
        """
        numbers, target = _spec(problem)
        found = outcomes(numbers, self.rules)
        return found[target] / found.total()


def state_words(pool: Sequence[int], goal: int) -> list[str]:
    """The look at what is left."""
    return ["left", *map(str, pool), "to", str(goal), ";"]


def _spec(problem: Problem) -> tuple[tuple[int, ...], int]:
    return tuple(problem.parameters["numbers"]), problem.parameters["target"]


def _words(response: str) -> list[str]:
    return [word for word in response.split() if word != END]


def load(name: str, settings: dict[str, Any]) -> Countdown:
    """The countdown task of a parsed file; see `probes.tasks.load_task`.

    Raises:
        Refusal: a setting that makes no problems, or a word that would mean two things.
    """
    check_keys(name, "", settings, KEYS)
    for key in ("seed", "smallest", "largest", "high"):
        check_whole(name, key, settings[key])
    check_list(name, "operators", settings["operators"], ARITHMETIC)
    check_pair(name, "budget", settings["budget"], "words a number and words beside")
    check_pair(name, "targets", settings["targets"], "the lowest and the highest")
    check_splits(name, "splits", settings["splits"])
    check_text(name, "prompt", settings["prompt"])
    check_text(name, "drill", settings["drill"])
    smallest, largest, high = (settings[key] for key in ("smallest", "largest", "high"))
    lowest, highest = settings["targets"]
    if not 0 <= smallest <= largest <= high or not 0 <= lowest <= highest <= high:
        raise Refusal(
            f"{name}: smallest..largest is {smallest}..{largest} and targets {lowest}..{highest}; "
            f"both must be rising and within 0..{high} (high), where every value has its word."
        )
    numbers = settings["numbers"]
    if not isinstance(numbers, list) or not numbers:
        raise Refusal(f"{name}: numbers = {numbers!r} must list how many a problem may have.")
    for count in numbers:
        check_whole(name, "each of numbers", count, 2, 5)
    for key in ("{numbers}", "{target}"):
        if key not in settings["prompt"].split():
            raise Refusal(f"{name}: the prompt {settings['prompt']!r} lacks the word {key}.")
    words = f"{settings['prompt']} {settings['drill']}".split()
    if any(word.isdecimal() or word == END for word in words):
        raise Refusal(f"{name}: prompt and drill may hold no number of their own, and no {END}.")
    stray = [w for w in words if set(w) & set("{}") and w not in ("{numbers}", "{target}")]
    if stray or "{" in settings["drill"]:
        raise Refusal(f"{name}: the only braces are {{numbers}} and {{target}}, in the prompt.")
    task = Countdown(name, settings)
    check_made(task, sorted(set(numbers)))  # type: ignore[arg-type]  # cached properties
    return task
