"""What an answer is paid for: the truth, its form, or nothing at all.

A reward is a function of a problem, a rollout and its grade. Answers that could not be judged
(ERROR) never reach one: the loop leaves them out of their group.

The spurious ones are those of Shao et al. 2025 (arXiv:2506.10947): what they teach, a model knew.
"""

from collections.abc import Callable
from dataclasses import dataclass

from probes.generate import uniforms
from probes.records import Grade, Problem, Refusal, Rollout
from probes.verify import Graded

Reward = Callable[[Problem, Rollout, Graded], float]


def right(_problem: Problem, _rollout: Rollout, graded: Graded) -> float:
    """1 for a right answer."""
    return float(graded.grade is Grade.RIGHT)


def form(_problem: Problem, rollout: Rollout, graded: Graded) -> float:
    """1 for an answer that can be read, right or wrong, and that ended by itself."""
    return float(graded.grade is not Grade.UNPARSED and rollout.stop == "stop")


@dataclass(frozen=True)
class Coin:
    """1 with probability gamma, whatever was answered; fixed by seed, problem and sample."""

    gamma: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.gamma < 1:
            raise Refusal(f"gamma = {self.gamma}: a coin that always falls alike teaches nothing.")

    def __call__(self, _problem: Problem, rollout: Rollout, _graded: Graded) -> float:
        drawn = uniforms(self.seed, rollout.problem, rollout.sample, "reward", 1)[0]
        return float(drawn < self.gamma)


def named_reward(name: str, *, gamma: float = 0.5, seed: int = 0) -> Reward:
    """The reward of a recipe or a flag: "right", "format" or "random"."""
    rewards: dict[str, Reward] = {"right": right, "format": form, "random": Coin(gamma, seed)}
    if name not in rewards:
        raise Refusal(f"reward {name!r} is not known; there are {', '.join(rewards)}.")
    return rewards[name]
