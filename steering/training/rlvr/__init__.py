"""Reinforcement learning with verifiable rewards: sample, grade, compare within the group, update.

    settings = RlvrSettings(updates=60)
    tuned, curve = rlvr(base, task, task.problems("tune", 2000), right, settings, Path("runs/rl"))

Group-relative policy optimisation (GRPO) and its variants (`steering.objectives`), on one device,
for models that sample 24 x 16 answers in seconds. The model that is given stays as it is: a copy
learns, and a KL penalty, where there is one, is towards the original.

Everything random follows from (seed, update): which problems, which sample indices (never used
twice in a run), which minibatches. With `steering.training.checkpoints` a resumed run is the
uninterrupted one, bit for bit.
"""

from steering.training.rlvr.loop import rlvr
from steering.training.rlvr.settings import RlvrRow, RlvrSettings

__all__ = ["RlvrRow", "RlvrSettings", "rlvr"]
