"""A linear gate: where to steer, read off one model's residual instead of asking the other.

    gate = fit_gate(base, tuned, texts, site, of="base")
    Gated(gate, Steer(by_taxonomy(taxonomy, vectors)))

Fitted on the select split to the disagreement of the two models' likeliest tokens. On the base's
residual it needs no tuned model to know where: what the hybrid keeps with it was not told by the
disagreement bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.capture import Text
from probes.models import Model, check_pair, layer_index
from probes.records import Refusal, parse_site, site_name
from steering.routing.hybrid import MODELS, View
from steering.vectors.places import greedy


@dataclass(frozen=True, eq=False)
class LinearGate:
    """Opens where weights . residual + bias is above 0."""

    of: Literal["base", "tuned"]
    """Whose residual it reads."""
    site: str
    weights: Float[Tensor, " d"]
    bias: float
    rate: float
    """Share of the fitted positions at which it is open, that of the disagreements there."""

    @property
    def parameters(self) -> int:
        """Numbers that were fitted."""
        return len(self.weights) + 1

    def __call__(self, view: View) -> Bool[Tensor, " rows"]:
        """The open rows."""
        x = view.residual(self.of, self.site)
        return (x.float() @ self.weights.to(x.device) + self.bias > 0).to(view.device)


def fit_gate(
    base: Model,
    tuned: Model,
    texts: Sequence[Text],
    site: str,
    *,
    of: Literal["base", "tuned"] = "base",
    batch: int = 64,
) -> LinearGate:
    """Logistic regression of disagreement on a residual, at the positions that choose answers.

    Its threshold is put where it opens as often as the two models disagree, so that it is compared
    with the disagreement gate at one rate.

    Args:
        base: the one model.
        tuned: the other.
        texts: prompts with answers, of problems that nothing is reported on.
        site: full name.
        of: whose residual is read.
        batch: most texts of a pass.

    Raises:
        Refusal: models that are no pair, or texts where they always agree or always differ.
    """
    from sklearn.linear_model import LogisticRegression

    check_pair(base, tuned)
    layer, kind = parse_site(site)
    site = site_name(layer_index(layer, base.depth), kind)
    read = {
        m: greedy(model, texts, site, batch=batch)
        for m, model in zip(MODELS, (base, tuned), strict=True)
    }
    x = torch.cat(read[of][1]).float().numpy()
    base_top, tuned_top = (torch.cat(read[m][0]) for m in MODELS)
    y = (base_top != tuned_top).numpy()
    if y.all() or not y.any():
        raise Refusal(
            f"{base.name} and {tuned.name} {'differ' if y.any() else 'agree'} at all {len(y)} "
            f"positions: no gate can be fitted to that."
        )
    scale = x.std(0) + 1e-6  # the solver wants features of one size
    fitted = LogisticRegression(max_iter=2000).fit(x / scale, y)
    weights = fitted.coef_[0] / scale
    scores = x @ weights
    cut = float(np.quantile(scores, 1 - y.mean()))
    return LinearGate(
        of, site, torch.from_numpy(weights).float(), -cut, float((scores > cut).mean())
    )
