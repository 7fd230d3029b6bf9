"""Steer by single features of a dictionary, its reconstruction error kept.

    edit = FeatureEdit("clamp", sae, 17, strength=2.0, window=GENERATED)
    rollouts = write(model, {"clamped": [edit], "plain": []}, requests, decoding)
    rows = dose_response(model, task, problems, sae, [17], DoseSettings(), activations=x)

With a the activation of feature i at x, d its row of the decoder, and s = strength x unit:

    clamp     x + (s - a) d                (the feature becomes s)
    add       x + s d                      (it becomes a + s)
    ablate    x - strength a d             (strength 1: it becomes 0)

So x is never replaced by its reconstruction: what the dictionary misses stays, and setting a
feature to the value it has changes nothing. This is decode(edited) + (x - decode(encode(x))),
without encoding and decoding: of a rectified or jump-relu dictionary one row of the encoder is
read, for any number of latents; a topk dictionary is encoded whole, at the positions that are
edited. (Galichin et al., arXiv:2503.18878, clamp the component: x - (x.d) d + s d. That is another
edit, `Intervention("clamp", ...)` on the decoder's row.)

Features of one dictionary that stand side by side in a setting's list all read the x before any of
them was edited, as decoding the edited activations has it. Everything else is as for interventions
(`steering.interventions`): rows, windows, checks, gradients.

    edits      FeatureEdit
    controls   a random feature of the same firing rate; a random direction as far at every place
    length     unsteered answers of the same mean length
    dose       dose_response: strengths beside their controls, sampled in one batch
    responses  what the answers come to: rows for tables and figures

Not here: which features to take (`probes.sae`, `probes.drift`).
"""

from steering.features.controls import same_rate, same_size
from steering.features.dose import DoseSettings, dose_response
from steering.features.edits import FeatureEdit
from steering.features.length import matched

__all__ = [
    "DoseSettings",
    "FeatureEdit",
    "dose_response",
    "matched",
    "same_rate",
    "same_size",
]
