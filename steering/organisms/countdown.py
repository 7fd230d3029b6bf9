"""What the countdown organism reads in pretraining, by its recipe.

Every example is a pure function of (seed, step, place). Problems come from the "pretrain" split of
the problem space, drills on two numbers apart, so no problem of another split is ever seen.

A writer works with what it believes: it can tell whether what is left can still come to the goal,
but not that a product was written wrongly; only a check shows that. In the head it is vague: an
answer at once is drawn from the values that come nearest to the goal, how many being a dial. So
there is something to gain from steps, returns and checks, each the rarer option where it is open.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from probes.records import Refusal
from probes.tasks import END
from probes.tasks.countdown import Countdown, state_words
from probes.tasks.countdown.expressions import Rules, Tree, moves, reach, replace, write

SHARES = ("drills", "backward", "check_answer", "back_dead", "back_alive", "aim")


def examples(task: Countdown, recipe: dict[str, Any]) -> Callable[[int], Sequence[tuple[str, str]]]:
    """The batches of a recipe: update number -> (prompt, completion) texts.

    Raises:
        Refusal: a share outside 0..1, or a table that lacks an entry it will be asked for.
    """
    data = recipe["data"]
    for key in SHARES:
        if not 0 <= data[key] <= 1:
            raise Refusal(f"[data] {key} = {data[key]} is no share: it must lie in 0..1.")
    largest = max(map(int, data["counts"]))
    sizes = [str(size) for size in range(2, largest + 1)]
    wanted = {"search": sizes, "head": sizes, "check": task.rules.operators}
    for key, entries in (wanted | {"slips": task.rules.operators}).items():
        if missing := [entry for entry in entries if entry not in data[key]]:
            raise Refusal(f"[data] {key} has no entry for {', '.join(missing)}.")

    def batch(step: int) -> Sequence[tuple[str, str]]:
        draw = Random(f"{recipe['seed']} pretrain {step}")
        return [example(task, data, draw) for _ in range(recipe["pretrain"]["batch"])]

    return batch


def example(task: Countdown, data: dict[str, Any], draw: Random) -> tuple[str, str]:
    """A drill, or one problem and one response to it, right or wrong."""
    if draw.random() < data["drills"]:
        return task.settings["drill"], " ".join([*drill(task, data, draw), END])
    count = int(draw.choices(list(data["counts"]), list(data["counts"].values()))[0])
    while True:
        numbers, target = task.draw(draw, count)
        if count not in task.settings["numbers"] or task.split_of(numbers, target) == "pretrain":
            break
    problem = task.problem(numbers, target)
    writer = Writer(task.rules, data, draw, [State(tuple((n, n) for n in numbers), target)])
    return problem.prompt, " ".join(writer.response(task.budget(problem)))


def drill(task: Countdown, data: dict[str, Any], draw: Random) -> list[str]:
    """Bare steps as they come up in problems; those that may slip are always checked."""
    words: list[str] = []
    pool: tuple[int, ...] = ()
    for _ in range(data["facts"]):
        while len(pool) < 2 or not moves(pool, task.rules):
            pool = task.draw(draw, draw.choice(task.settings["numbers"]))[0]
        a, operator, b, result = draw.choice(moves(pool, task.rules))
        pool = replace(pool, (a, b), result)
        if operator != "-" and draw.random() < 0.5:
            a, b = b, a
        told, slips = f"{a} {operator} {b} =", data["slips"][operator]
        slip = draw.random() < slips
        words += [*told.split(), str(decoy(told, result, task.rules.high) if slip else result)]
        words += ["?", str(result), ";"] if slips else [";"]
    return words


@dataclass
class State:
    """One level of what stands: what is left, and how to get from there to an answer."""

    pool: tuple[tuple[int, Tree], ...]
    """Value of each number left, and the expression that it stands for; sorted by value."""
    goal: int
    wraps: tuple[tuple[str, Tree], ...] = ()
    """Steps from the goal: the goal's value, then the first of these, then the next."""
    tried: set[tuple[Any, ...]] = field(default_factory=set)
    doubted: bool = False
    """An answer from here was found wrong although the steps said otherwise."""

    @property
    def values(self) -> tuple[int, ...]:
        """What is left."""
        return tuple(value for value, _ in self.pool)


@dataclass
class Writer:
    """Writes one response as the recipe says."""

    rules: Rules
    data: dict[str, Any]
    draw: Random
    stack: list[State]
    words: list[str] = field(default_factory=list)

    def response(self, budget: int) -> list[str]:
        """The words of a whole response, `END` included, `budget` at most."""
        size = len(self.stack[0].pool)
        answer = 6 * size - 2  # the longest: `go ans`, the expression, `? v`, the stop and END
        step = 13 + size  # the longest: `go try a o b = c ? c`, the look, and one `back`'s share
        while True:
            room = budget - len(self.words) - answer
            values = self.stack[-1].values
            wish = len(values) > 1 and self._chance(self.data["search"][str(len(values))])
            if not (wish and room >= step and self._try()):
                again = room >= 2 * step
                if not self._answer(again=again):
                    return [*self.words, END]
            self._look(lambda: budget - len(self.words) - answer >= step)
            self.words.append("go")

    def _chance(self, share: float) -> bool:
        return self.draw.random() < share

    def _alive(self, state: State) -> bool:
        return not state.doubted and state.goal in reach(state.values, self.rules)

    def _look(self, room: Callable[[], bool]) -> None:
        """State what is left; take back what stands, perhaps, and look again."""
        while True:
            state = self.stack[-1]
            self.words += state_words(state.values, state.goal)
            share = self.data["back_alive" if self._alive(state) else "back_dead"]
            if len(self.stack) == 1 or not room() or not self._chance(share):
                return
            self.words.append("back")
            self.stack.pop()

    def _try(self) -> bool:
        """Write a step from the goal or the givens; False where none is left untried."""
        state = self.stack[-1]
        backward = self._chance(self.data["backward"])
        steps = _from_goal(state, self.rules) if backward else _from_givens(state, self.rules)
        steps = [step for step in steps if step[:4] not in state.tried]
        if not steps:
            return False
        good = [s for s in steps if s[5] in reach(s[4], self.rules)]
        step = self.draw.choice(good if good and self._chance(self.data["aim"]) else steps)
        state.tried.add(step[:4])
        a, operator, b, result = step[:4]
        if a is not None and operator != "-" and self._chance(0.5):
            a, b = b, a
        told = f"by {operator} {b} need" if a is None else f"{a} {operator} {b} ="
        slip = self._chance(self.data["slips"][operator])
        stands = decoy(told, result, self.rules.high) if slip else result
        self.words += ["try", *told.split(), str(stands)]
        if self._chance(self.data["check"][operator]):
            self.words += ["?", str(result)]
            stands = result
        self.stack.append(_after(state, a, operator, b, stands))
        return True

    def _answer(self, *, again: bool) -> bool:
        """Write an answer; True where it was checked and taken back."""
        state, start = self.stack[-1], self.stack[0]
        count = self.data["head"][str(len(state.pool))] if len(state.pool) > 1 else 1
        tree = self._head(state, count)
        self.words += ["ans", *write(tree)]
        if (
            self._chance(self.data["check_answer"])
            and (value := self.rules.value(tree)) is not None
        ):
            self.words += ["?", str(value)]
            if value != start.goal and again and self._chance(self.data["back_dead"]):
                self.words.append("back")
                state.doubted = len(state.pool) == 1
                return True
        self.words.append(".")
        return False

    def _head(self, state: State, count: int) -> Tree:
        """An expression whose value is one of the `count` nearest to the goal, any of them."""
        values = sorted(reach(state.values, self.rules), key=lambda v: (abs(v - state.goal), v))
        goal = self.draw.choice(values[:count])
        pool = state.pool
        while len(pool) > 1:
            here = State(pool, goal)
            steps = [s for s in _from_givens(here, self.rules) if goal in reach(s[4], self.rules)]
            a, operator, b, result, *_ = self.draw.choice(steps)
            if operator != "-" and self._chance(0.5):
                a, b = b, a
            pool = _after(here, a, operator, b, result).pool
        tree = pool[0][1]  # type: ignore[misc]
        for operator, right in reversed(state.wraps):
            tree = (operator, tree, right)
        return tree


def _from_givens(state: State, rules: Rules) -> list[tuple[Any, ...]]:
    """Steps as (a, operator, b, result, what is left, goal)."""
    pool, goal = state.values, state.goal
    return [
        (*step, replace(pool, (step[0], step[2]), step[3]), goal) for step in moves(pool, rules)
    ]


def _from_goal(state: State, rules: Rules) -> list[tuple[Any, ...]]:
    """Steps as (None, operator, b, what is needed, what is left, what is needed)."""
    steps = []
    for b in sorted(set(state.values)):
        needs = {"+": state.goal - b, "-": state.goal + b}
        if b > 0 and state.goal % b == 0:
            needs["*"] = state.goal // b
        for operator in rules.operators:
            if 0 <= needs.get(operator, -1) <= rules.high:
                need = needs[operator]
                steps.append((None, operator, b, need, replace(state.values, (b,)), need))
    return steps


def _after(state: State, a: int | None, operator: str, b: int, stands: int) -> State:
    """The state that a step leads to."""
    pool = list(state.pool)
    right = pool.pop([value for value, _ in pool].index(b))[1]
    if a is None:
        return State(tuple(pool), stands, (*state.wraps, (operator, right)))
    left = pool.pop([value for value, _ in pool].index(a))[1]
    pool.append((stands, (operator, left, right)))
    return State(tuple(sorted(pool, key=lambda part: part[0])), state.goal, state.wraps)


def decoy(told: str, result: int, high: int) -> int:
    """The one wrong value that a step is often given: a slip of one, or of ten."""
    near = [result + slip for slip in (-10, -1, 1, 10)]
    return Random(f"decoy {told}").choice([value for value in near if 0 <= value <= high])
