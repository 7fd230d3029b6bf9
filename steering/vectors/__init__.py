"""Steering vectors trained on a frozen base: one a category of what the tuned model is doing.

    places = find_places(base, tuned, texts, taxonomy, site)         # where their choices differ
    vectors = fit_current(base, tuned, places, held, taxonomy.names)
    vectors.pushes(taxonomy.category(x_tuned))                       # what a router adds
    judge(base, vectors, test_places)                                # loss before and after

Two forms of Venhoff et al. (arXiv:2510.07364). The *first* (v1): a bias on whole traces and a
vector for the steps of each category, trained and used at every position. The *current* (v4):
vectors that correct the base at the positions where it disagrees, trained and used at the newest
position alone.
Both train through the hooks that use them (`steering.interventions.Steer`), at the same site.

    record     Vectors: what is added
    places     where base and tuned model differ, and what the tuned one would say
    steered    logits under a push at the last position; the losses
    current    fit_current
    targets    stretches of text to be written
    first      fit_first
    judging    loss and agreement on test problems, with intervals
    files      one safetensors file; tokens nearest to a vector
    making     all of it from a pair and a task
"""

from steering.vectors.current import CurrentSettings, fit_current
from steering.vectors.files import load_vectors, nearest, save_vectors
from steering.vectors.first import FirstSettings, fit_everywhere, fit_first
from steering.vectors.judging import ONE_VECTOR, SHUFFLED, judge, with_losses
from steering.vectors.making import Made, Training, default_layer, made
from steering.vectors.places import Places, find_places
from steering.vectors.record import Vectors
from steering.vectors.steered import steered_logits
from steering.vectors.targets import stretches

__all__ = [
    "ONE_VECTOR",
    "SHUFFLED",
    "CurrentSettings",
    "FirstSettings",
    "Made",
    "Places",
    "Training",
    "Vectors",
    "default_layer",
    "find_places",
    "fit_current",
    "fit_everywhere",
    "fit_first",
    "judge",
    "load_vectors",
    "made",
    "nearest",
    "save_vectors",
    "steered_logits",
    "stretches",
    "with_losses",
]
