"""Marked activations → the direction that separates them, and what its AUC is worth.

    found = find({"blocks.1.hook_resid_post": x}, y, problems, strategy="check", source=source)
    best = choose(found)                 # layer and method by the second third of the problems
    best.auc, best.null_high             # on the last third; what shuffled labels reach
    save(best, "check.safetensors")

The rows of `x` are activations at positions of one kind; `y` says which of them used the strategy.
They are to be read at the last position *before* the decision is determined: where the strategy's
own token is visible, an AUC of 1 says that the token can be read.

Conventions:

- a direction is a unit vector and points **towards the strategy being used** (y = 1);
- `norm` is the mean norm of the activations at its site, the unit of every strength;
- problems, never rows, are split: a third to fit on, a third to choose layer and method on, a
  third to report. Rows of one problem resemble each other, and across a split by rows a probe can
  score .9 by recognising the problem.

An AUC means little by itself: `auc_by_problem` gives, on the same thirds, that of the last tokens'
identities (`identities`), of the model's own decision logit, or of another model's activations.

`control_vectors` writes directions for llama.cpp and repeng; `exchange` takes over other people's.
This package imports no torch.
"""

from probes.directions.auc import auc, auc_by_problem, auc_interval, identities, thirds
from probes.directions.files import load, save
from probes.directions.fit import METHODS, fit
from probes.directions.search import choose, find
from probes.directions.vectors import Direction, Source, cosine

__all__ = [
    "METHODS",
    "Direction",
    "Source",
    "auc",
    "auc_by_problem",
    "auc_interval",
    "choose",
    "cosine",
    "find",
    "fit",
    "identities",
    "load",
    "save",
    "thirds",
]
