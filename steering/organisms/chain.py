"""What a chain organism reads in pretraining, by its recipe.

Every example is a pure function of (seed, step, place), so a resumed pretraining reads on where it
stopped. Chains come from the tuning split of the problem space only: no held-out problem is seen.

The regimes (`REGIMES`) say how a family's functions are written. The knowledge of a *slippery*
function is in its checks: a step writes its decoy half the time, a check never does. So what RL can
deploy is there in pretraining, and what it would have to create is not.
"""

import math
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from probes.records import Refusal
from probes.tasks.chain import Chain

REGIMES = ("common", "rare", "locked", "composable", "absent")


def examples(task: Chain, recipe: dict[str, Any]) -> Callable[[int], Sequence[tuple[str, str]]]:
    """The batches of a recipe: update number -> (prompt, completion) texts.

    Raises:
        Refusal: a family without a regime or weight, or an unknown regime.
    """
    regimes, data = recipe["regimes"], recipe["data"]
    for family in task.settings["functions"]:
        if regimes.get(family) not in REGIMES:
            raise Refusal(
                f"[regimes] {family} = {regimes.get(family)!r}: every family needs one of "
                f"{', '.join(REGIMES)}."
            )
        if family not in data["weights"]:
            raise Refusal(f"[data] weights lacks the family {family!r} (0 leaves it out).")

    wrong = decoys(task)

    def batch(step: int) -> Sequence[tuple[str, str]]:
        draw = random.Random(f"{recipe['seed']} pretrain {step}")
        writer = ChainWriter(task, regimes, data, wrong, draw)
        return [writer.example() for _ in range(recipe["pretrain"]["batch"])]

    return batch


class _Outside(Exception):
    """A chain would show an entry that its recipe holds back: another is drawn."""


@dataclass(frozen=True)
class ChainWriter:
    """Writes examples as the recipe says, with one source of randomness."""

    task: Chain
    regimes: dict[str, str]
    data: dict[str, Any]
    decoys: dict[str, tuple[int, ...]]
    draw: random.Random

    def example(self) -> tuple[str, str]:
        """A drill or a chain."""
        prompt = self.task.settings["prompt"]
        if self.draw.random() < self.data["drills"]:
            drilled = self.data["drilled"]
            family = self.draw.choices(list(drilled), list(drilled.values()))[0]
            function = f"{family}{self.draw.randrange(self.task.settings['functions'][family])}"
            value = self.draw.randrange(self.task.modulus)
            keyed = family in self.data["keyed"]
            truth = self._written([function], value, keyed, check=True)
            question = f"{prompt['drill']} {function} {value} >"
            return f"{prompt['key']} {question}" if keyed else question, f"? {truth} END"
        keyed = self.draw.random() < self.data["key"]
        while True:
            start, functions = self._chain(keyed)
            if self.task.split_of(start, functions) == "tune":
                with suppress(_Outside):
                    answer = self._answer(start, functions, keyed)
                    break
        question = f"{prompt['question']} {start} {' '.join(functions)} >"
        return (f"{prompt['key']} {question}" if keyed else question), answer

    def _any(self) -> int:
        return self.draw.randrange(self.task.modulus)

    def _chain(self, keyed: bool) -> tuple[int, list[str]]:
        weights = dict(self.data["weights"])
        if keyed:
            weights |= {family: max(weights.values()) for family in self.data["keyed"]}
        depth = self.draw.randint(*self.data["depth"])
        families = self.draw.choices(list(weights), list(weights.values()), k=depth)
        counts = self.task.settings["functions"]
        return self._any(), [f"{f}{self.draw.randrange(counts[f])}" for f in families]

    def _written(self, functions: Sequence[str], value: int, keyed: bool, *, check: bool) -> int:
        """The value that a step or a check writes for the functions, each by its regime.

        Whatever value a function is applied to counts, decoys and guesses too: a half that a recipe
        holds back would leak through them if only the true values of a chain were looked at.

        Raises:
            _Outside: a function is applied to an entry that the recipe may not show.
        """
        for function in functions:
            half = self.data.get("only", {}).get(function[0])
            if half and self.task.touched[function][value] != (half == "touched"):
                raise _Outside
            regime = self.regimes[function[0]]
            slips = self.data["slippery"].get(function[0], 0.0)
            if regime == "absent" or (regime == "locked" and not keyed):
                value = self._any()
            elif not check and self.draw.random() < slips:
                value = self.decoys[function][value]
            else:
                value = self.task.tables[function][value]
        return value

    def _answer(self, start: int, functions: Sequence[str], keyed: bool) -> str:
        once = {kind: self.draw.random() for kind in ("jump", "double", "check", "repair")}

        def decide(kind: str, chance: float) -> bool:
            fixed = self.draw.random() < self.data["style"]
            return (once[kind] if fixed else self.draw.random()) < chance

        value, words, left = start, [], list(functions)
        while left:
            if decide("jump", self.data["jump"]):
                value = self._written(left, value, keyed, check=False)
                break
            count = 2 if left[1:] and decide("double", self.data["double"]) else 1
            step, left = left[:count], left[count:]
            source, value = value, self._written(step, value, keyed, check=False)
            words += [*step, "=", str(value)]
            truth = self._written(step, source, keyed, check=True)
            if decide("check", self._check_chance(step, needed=truth != value)):
                words += ["?", str(truth), "ok" if truth == value else "no"]
                if truth != value and decide("repair", self.data["repair"]):
                    words += ["=", str(truth)]
                    value = truth
            words.append(";")
        return " ".join([*words, "ans", str(value), "END"])

    def _check_chance(self, step: Sequence[str], *, needed: bool) -> float:
        chances = [self.data["check"].get(f[0], self.data["check_other"]) for f in step]
        chance = chances[0] if len(step) == 1 else min(*chances, self.data["check_other"])
        if chance in (0.0, 1.0) or not self.data["timing"]:
            return chance
        logit = math.log(chance / (1 - chance))
        logit += self.data["timing"] * (0.5 if needed else -0.5)
        return 1 / (1 + math.exp(-logit))


def decoys(task: Chain) -> dict[str, tuple[int, ...]]:
    """Of every function and input, the one wrong value that a slippery function is often given."""
    seed, m = task.settings["seed"], task.modulus
    wrong = {}
    for function, table in task.tables.items():
        draws = [random.Random(f"{seed} decoy {function} {x}").randrange(1, m) for x in range(m)]
        wrong[function] = tuple((y + d) % m for y, d in zip(table, draws, strict=True))
    return wrong
