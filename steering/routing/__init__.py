"""Decode with two models, choosing for each token which of them writes it.

    judged = cross(base, tuned, task, problems, samples=16)     # all four deciders x executors
    rows = when_or_how(judged) + pooled(judged)                 # deployment, execution, interaction

At decision tokens, which the task's grammar defines, one model samples; at all others the other
one does. Both read every token, whoever wrote it. If tuning only taught *when* to use what the
base could do, the base executing the tuned model's decisions is as good as the tuned model; if it
taught *how*, the tuned model executing the base's decisions is.

    crossed         Crossed: the writer, and who writes which token
    when_or_how     the four cells, their controls, and the three numbers
"""

from steering.routing.crossed import (
    Chooser,
    Crossed,
    at_decisions,
    at_random,
    by_setting,
    otherwise,
    recorded,
)
from steering.routing.when_or_how import CELLS, CONTROLS, cross, pooled, when_or_how

__all__ = [
    "CELLS",
    "CONTROLS",
    "Chooser",
    "Crossed",
    "at_decisions",
    "at_random",
    "by_setting",
    "cross",
    "otherwise",
    "pooled",
    "recorded",
    "when_or_how",
]
