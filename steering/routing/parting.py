"""Does a large KL find the decisions? Scored where the task's grammar knows them.

    rows = kl_as_decisions(divergences(base, tuned, task, problems, rollouts), thresholds)

Where no grammar says which tokens decide, the tokens of highest KL(tuned || base) can be given to
the tuned model in their place (`arms`: "tuned at KL > t", beside "tuned at decisions"). Here the
rule itself is judged, on texts that either model wrote: how well KL ranks decision tokens above the
others, and which of them a threshold finds.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from probes.directions.auc import auc_interval
from probes.divergence import Parted
from probes.intervals import Estimate, bootstrap, undefined
from probes.measurements import row
from probes.records import Measurement, Refusal


def kl_as_decisions(
    parted: Sequence[Parted],
    thresholds: Sequence[float] = (),
    *,
    setting: str = "",
    pair: str = "",
    seed: int = 0,
) -> list[Measurement]:
    """AUC of KL(tuned || base) for decision tokens, and precision and recall of each threshold.

    Measures "kl auc", "kl precision" and "kl recall" (`x`: the threshold in nats), over problems.
    A precision is undefined where no token lies above, or where some resamples have none.

    Args:
        parted: base and tuned model, in this order, along texts.
        thresholds: in nats.
        setting: whose texts they are.
        pair: name of the pair, for `model`.
        seed: of the resamples.

    Raises:
        Refusal: a text without tokens, or none at all: there is no step to judge.
    """
    if not parted or any(not len(one.decides) for one in parted):
        raise Refusal(
            f"{len(parted)} texts, and one of them has no token: there is no step to read."
        )
    # Row 1 is the second model's side: KL(tuned || base).
    kl = np.concatenate([one.of.kl[1] for one in parted])
    decides = np.concatenate([np.array(one.decides) for one in parted])
    problems = np.repeat([one.problem for one in parted], [len(one.decides) for one in parted])
    about: dict[str, Any] = {"model": pair, "setting": setting}
    names, codes = np.unique(problems, return_inverse=True)
    if decides.all() or not decides.any():
        why = undefined(
            f"all {len(decides)} tokens are{'' if decides.any() else ' no'} decisions", 0
        )
        return [row("kl auc", why, **about)]
    rows = [row("kl auc", auc_interval(kl, decides, problems, seed=seed), **about)]
    for threshold in thresholds:
        above = kl > threshold
        counts = [
            np.bincount(codes, weights=of.astype(float), minlength=len(names))
            for of in (above & decides, above, decides)
        ]
        rows += [
            row(f"kl {name}", _share(counts[0], whole, seed), x=threshold, **about)
            for name, whole in (("precision", counts[1]), ("recall", counts[2]))
        ]
    return rows


def _share(part: np.ndarray, whole: np.ndarray, seed: int) -> Estimate:
    if not whole.any():
        return undefined("no token lies above the threshold", len(whole))
    return bootstrap(lambda a, b: a / b, part, whole, seed=seed)
