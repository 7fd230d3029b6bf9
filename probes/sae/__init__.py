"""Sparse dictionaries of a site's activations, in SAELens' format.

    sae = load_sae("data/organisms/chain/rl-0-0/sae/blocks.1.hook_resid_post", model)
    a = sae.encode(x)                                   # (rows, latents), 0 or above
    x_hat = sae.decode(a)                               # (rows, d)
    sae = train_sae(store, site, SaeSettings(latents=512, k=12), folder)

What is reported of a dictionary (`measures`) is measured on problems that it was not trained on.

    record      Sae, Feature
    files       load_sae; the folder
    measures    FVU, L0, dead latents, firing, with intervals over problems
    train       train_sae on an activation store, with SAELens' trainer

Not here: editing by a latent (`steering.features`), before and after tuning (`probes.drift`).
"""

from probes.sae.files import check_fits, load_sae
from probes.sae.measures import Sums, dead, firing, fvu, l0, sums
from probes.sae.record import KINDS, Feature, Sae
from probes.sae.train import SaeSettings, train_sae

__all__ = [
    "KINDS",
    "Feature",
    "Sae",
    "SaeSettings",
    "Sums",
    "check_fits",
    "dead",
    "firing",
    "fvu",
    "l0",
    "load_sae",
    "sums",
    "train_sae",
]
