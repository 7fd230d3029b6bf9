"""What kinds of steps a model's traces have, found from the bottom up.

    steps = read_steps(tuned, texts, [task.spans(p, r.text) for ...], sites)
    best = choose(explore(steps, select, sites))
    best.taxonomy.category(x)            # raw activations of any position: (rows,) latents

A restricted TopK dictionary over step activations (Venhoff et al., arXiv:2510.07364, section 3):
few latents, so that the strongest one is a category. Where the true kinds are known (the task's own
spans) the categories are scored against them, beside k-means and a random assignment.

    record     Taxonomy: preparation and category, the same in training and in use
    steps      read_steps: the mean activation of each step
    fit        fit: one dictionary
    score      ari, nmi, purity with intervals over problems; baselines
    choosing   site and size chosen on one split, reported on another
    files      one safetensors file
    labeller   ByTaxonomy: sentences of any text, by category

Not here: steering by category (`steering.vectors`), figures (`probes.plots.taxonomy`).
"""

from probes.taxonomy.choosing import (
    OPENING,
    STRATEGY,
    Candidate,
    choose,
    confusion,
    explore,
    report,
)
from probes.taxonomy.files import load_taxonomy, save_taxonomy
from probes.taxonomy.fit import SIZES, Fitted, fit
from probes.taxonomy.labeller import ByTaxonomy
from probes.taxonomy.record import Taxonomy
from probes.taxonomy.score import scores
from probes.taxonomy.steps import Steps, aligned, openings, read_steps

__all__ = [
    "OPENING",
    "SIZES",
    "STRATEGY",
    "ByTaxonomy",
    "Candidate",
    "Fitted",
    "Steps",
    "Taxonomy",
    "aligned",
    "choose",
    "confusion",
    "explore",
    "fit",
    "load_taxonomy",
    "openings",
    "read_steps",
    "report",
    "save_taxonomy",
    "scores",
]
