"""Whether tuning made latents of its own, and whose activations a dictionary still explains.

Both models read the same texts of the tuned one. The null is a copy of the same tuning by another
seed, where there is one with a dictionary: what sets it apart from the tuned model means nothing.
"""

from typing import Any

import numpy as np

from probes.capture import from_rollouts
from probes.drift import fvu_table, latent_scaling
from probes.drift.scaling import Scaling
from probes.intervals import undefined
from probes.measurements import row
from probes.models import Model
from probes.records import Measurement
from probes.sae import Sae, load_sae
from probes.sae.active import Rows, read_rows
from steering.verdict.context import MODELS, Context
from steering.verdict.stages.rollouts import BATCH

TEXTS = 400
"""Answers of the tuned model: enough for a few latents to fire thirty times."""


def run(context: Context, tick: Any) -> list[Measurement]:
    """FVU of each dictionary on each model, and the share of latents that only one model has."""
    folders = context.dictionaries
    if missing := [name for name in ("base", "tuned") if name not in folders]:
        why = undefined(f"no dictionary beside the {' and the '.join(missing)}", 0)
        return [row("nu below 0.5", why, model="base / tuned", kind="tuned's dictionary")]
    models: dict[str, Model] = dict(zip(MODELS, context.pair, strict=True))
    if context.again is not None and "again" in folders:
        models["again"] = context.again
    saes = {name: load_sae(folders[name], model) for name, model in models.items()}
    judged = context.rollouts("tuned")
    stride = max(1, len(judged.rollouts) // TEXTS)
    texts = from_rollouts(models["tuned"], judged.problems, judged.rollouts[::stride])
    x = {}
    for name, model in models.items():
        x[name] = read_rows(model, saes["tuned"].site, texts, batch=BATCH)
        tick(len(x), len(models) + 1)
    rows = of_fvu(saes, x, context.settings.seed) + of_nu(saes, x, context.settings.seed)
    tick(len(models) + 1, len(models) + 1)
    return rows


def of_nu(saes: dict[str, Sae], x: dict[str, Rows], seed: int) -> list[Measurement]:
    """The share of latents that only one model has, and how far it is beyond another seed's."""
    pairs = [("tuned", "base"), ("base", "tuned")]
    pairs += [("tuned", "again"), ("again", "tuned")] if "again" in x else []
    scaled: dict[tuple[str, str], Scaling] = {}
    rows = []

    def about(own: str, found: Scaling) -> dict[str, Any]:
        note = f"{int(np.sum(found.known))} latents"
        where = {"site": saes[own].site, "setting": "tuned's texts", "note": note}
        return {"kind": f"{own}'s dictionary", **where}

    for own, other in pairs:
        found = scaled[own, other] = latent_scaling(saes[own], x[own], x[other])
        where = {"model": f"{other} / {own}", **about(own, found)}
        rows.append(row("nu below 0.5", found.share_below(seed=seed), **where))
        rows.append(row("nu median", found.median(seed=seed), **where))
    if ("tuned", "again") in scaled:
        found = scaled["tuned", "base"]
        # The same latents on the same texts: most of either share's interval is common to both.
        beyond = found.share_beyond(scaled["tuned", "again"], seed=seed)
        where = {"model": "base / tuned", **about("tuned", found)}
        rows.append(row("nu below 0.5, beyond another seed", beyond, **where))
    return rows


def of_fvu(saes: dict[str, Sae], x: dict[str, Rows], seed: int) -> list[Measurement]:
    """What each dictionary leaves unexplained of each model's activations."""
    site = saes["tuned"].site
    return [
        row("fvu", e, model=of, kind=f"{name}'s dictionary", site=site, setting="tuned's texts")
        for (name, of), e in fvu_table(saes, x, seed=seed).items()
    ]
