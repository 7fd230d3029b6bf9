"""Activations before and after tuning: how far they moved, in what, and what still reads them.

    moved = drift(base, tuned, texts)                  # a `Shift` a site: distance, norms, cosine
    spots = spread(texts, rows=8)                      # 8 positions of each problem
    x, y = (read(m, spots, [site])[site] for m in (base, tuned))      # (problems, rows, d)
    x, y = (without_means(a, spots.tokens, spots.places) for a in (x, y))
    cka(x, y)                                          # 0.93 [0.91, 0.94]
    Moved(y - x, rank=5).overlap(directions)           # the subspace that tuning moved
    angle(a, b, used, problems), transfer(a, b, used, problems)       # at marked decisions
    promoted(lens(base), a, b, problems)               # what the difference says, by logit lens
    firing_shift(active(sae, x), active(sae, y))       # how often each latent of a dictionary fires
    latent_scaling(sae, own, other).nu()               # 0: its own model's direction, 1: shared

Everything here is descriptive, and no line of a verdict: a large shift is no evidence of a new
skill and a small one none against it (a bias on one logit changes every decision). So each number
has its null: the two models exchanged for two RL seeds or for a copy tuned on random rewards,
labels shuffled, subspaces drawn at random, halves of the problems against each other.

Both models are teacher-forced on the same texts, so what differs is what the weights make of them
and not which path was sampled. What is common in the tuned model's texts may be rare in the
base's: measure on both, apart.

    shift        how far, over all positions; streams
    reading      the same positions of the same texts, through several models
    similarity   debiased linear CKA
    transfer     a strategy's direction before and after; each model's probe on the other
    subspace     what tuning moved: its dimension, its principal angles
    lens         which tokens the difference promotes
    features     a dictionary's latents: how often they fire, what they still explain
    scaling      whether a latent's direction is there in the other model
"""

from probes.drift.features import FiringShift, firing_shift, fvu_table
from probes.drift.lens import Lens, Promoted, lens, promoted, readout
from probes.drift.reading import Spots, marks, read, spread
from probes.drift.scaling import Scaling, latent_scaling
from probes.drift.shift import Shift, drift
from probes.drift.similarity import cka, hsic, without_means
from probes.drift.subspace import Moved, chance, random_overlap
from probes.drift.transfer import Angle, Transfer, angle, transfer

__all__ = [
    "Angle",
    "FiringShift",
    "Lens",
    "Moved",
    "Scaling",
    "Promoted",
    "Shift",
    "Spots",
    "Transfer",
    "angle",
    "chance",
    "cka",
    "drift",
    "firing_shift",
    "fvu_table",
    "hsic",
    "latent_scaling",
    "lens",
    "marks",
    "promoted",
    "random_overlap",
    "read",
    "readout",
    "spread",
    "transfer",
    "without_means",
]
