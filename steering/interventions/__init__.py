"""Edit the residual stream while a model runs: what to do to it, where and at which positions.

    push = Intervention("add", "blocks.1.hook_resid_post", unit, 0.5, norm=norm, window=GENERATED)
    rollouts = write(model, {"push": [push], "plain": []}, requests, decoding)

On a residual x, with v the vector, u = v / |v| and s = strength x norm:

    add       x + s v                      (v must have length 1 where a norm is given)
    ablate    x - strength (x.u) u         (strength 1 removes the component)
    clamp     x + (s - x.u) u              (the component becomes s)
    project   x - B'B x                    (B an orthonormal basis of the rows of v)
    none      x

`norm` is the mean residual norm at the site, which a direction is stored with, so that strength 1
means the same at every layer and in every model; without it, s = strength.

Any mix of settings may share a batch. An intervention becomes one or several rank-one edits
x + (alpha + beta x.u) u, and vectors, alphas, betas and windows are gathered by row when rows are
seated. A pass then costs as much for 64 settings as for one, and as many edits as the row with the
most. Several interventions of a setting act one after another, in the order given.

A list may also hold edits of a dictionary's features (`steering.features.FeatureEdit`), in which
the feature's activation stands for x.u and its decoder's row for u.

Four promises, each held by a test:

- positions are the row's own, whatever the padding, the cache and the batch;
- a row without edits, or with edits of strength 0 (not clamp), is bit for bit what it would be;
- `at` is out of place and differentiable in the vectors;
- no silent failure: see `Steer.check`.

    operations  Intervention, LogitBias, and the Window they act in
    readings    what the size of an edit may depend on: a component, or a feature's activation
    rows        the tensors of one batch, the edit, and its count
    steer       Steer: the observer
    writing     write and replayed: the whole of it, checked

Not here: reading activations (`probes.capture`), what to compare with (`steering.controls`).
"""

from steering.interventions.operations import (
    ALL,
    GENERATED,
    OPERATIONS,
    PROMPT,
    Intervention,
    LogitBias,
    Window,
    decisions,
)
from steering.interventions.readings import FeatureOperation, Operation, Reading
from steering.interventions.rows import NotFired
from steering.interventions.steer import Steer
from steering.interventions.writing import Settings, Steered, replayed, write

__all__ = [
    "ALL",
    "GENERATED",
    "OPERATIONS",
    "PROMPT",
    "FeatureOperation",
    "Intervention",
    "LogitBias",
    "NotFired",
    "Operation",
    "Reading",
    "Settings",
    "Steer",
    "Steered",
    "Window",
    "decisions",
    "replayed",
    "write",
]
