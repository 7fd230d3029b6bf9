"""What the benchmarks of reinforcement learning practise: the recipe of the shipped RL copies."""

from dataclasses import replace

from probes.records import Problem
from probes.tasks import Task, load_task
from steering.organisms import load_recipe
from steering.organisms.runs import rl_parts
from steering.training.rewards import Reward, named_reward
from steering.training.rlvr import RlvrSettings


def practice(updates: int, prompts: int) -> tuple[Task, list[Problem], Reward, RlvrSettings]:
    """Task, problems, reward and settings; 16 answers to each prompt, all in one step.

    The base answers in 3 to 25 tokens, 11 on average. No problem is used twice.
    """
    task = load_task("chain")
    settings, reward, problems = rl_parts(load_recipe("chain-rl"), task)
    settings = replace(
        settings, updates=updates, prompts=prompts, minibatches=1, batch=prompts * settings.samples
    )
    assert settings.epochs == 1
    return task, problems[: updates * prompts], named_reward(reward), settings
