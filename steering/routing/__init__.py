"""Decode with two models, choosing for each token which of them writes it.

    judged = cross(base, tuned, task, problems, samples=16)     # all four deciders x executors
    rows = when_or_how(judged) + pooled(judged)                 # deployment, execution, interaction

At decision tokens, which the task's grammar defines, one model samples; at all others the other
one does. Both read every token, whoever wrote it. If tuning only taught *when* to use what the
base could do, the base executing the tuned model's decisions is as good as the tuned model; if it
taught *how*, the tuned model executing the base's decisions is.

A hybrid asks a finer question: where the two would write something else, is the base, pushed along
a trained vector, as good as the tuned model? Who chose each token is recorded and can be replayed,
and all arms that it must be compared with are run beside it::

    done = run_arms(base, tuned, task, problems, Parts(taxonomy, vectors))
    rows = recovery(done, pair="rl-0-0")                # signed shares of the gap, and costs

    crossed         Crossed: the writer, and who writes which token
    when_or_how     the four cells, their controls, and the three numbers
    branches        what the base would say under many pushes at once, on its unsteered cache
    hybrid          Hybrid: the writer that also pushes; its record
    routers         who chooses: gates, categories, replay
    learnt          a linear probe as a gate
    arms            the hybrid and everything it is compared with
    running         all arms of a pair, resumable
    recovery        the share of the gap that each recovers, and what it was told
    reference       the plain, uncached loop that the cached one is tested against; other windows
"""

from steering.routing.arms import Arm, Parts
from steering.routing.crossed import (
    Chooser,
    Crossed,
    at_decisions,
    at_random,
    by_setting,
    otherwise,
    recorded,
)
from steering.routing.hybrid import Hybrid, Pushes
from steering.routing.recovery import recovery
from steering.routing.running import Done, run_arms
from steering.routing.when_or_how import CELLS, CONTROLS, cross, pooled, when_or_how

__all__ = [
    "CELLS",
    "CONTROLS",
    "Arm",
    "Chooser",
    "Crossed",
    "Done",
    "Hybrid",
    "Parts",
    "Pushes",
    "at_decisions",
    "at_random",
    "by_setting",
    "cross",
    "otherwise",
    "pooled",
    "recorded",
    "recovery",
    "run_arms",
    "when_or_how",
]
