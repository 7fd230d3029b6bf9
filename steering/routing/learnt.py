"""Gates that are fitted: a linear one, and where to cut the KL and the entropy.

    texts = greedy_texts(tuned, task, problems)
    gate = fit_gate(base, tuned, texts, site, of="base")
    kl, entropy = cuts(base, tuned, texts)
    Gated(gate, Steer(by_taxonomy(taxonomy, vectors)))

A linear gate reads off one model's residual where to steer. It is fitted on the select split to the
disagreement of the two models' likeliest tokens. On the base's residual it needs no tuned model to
know where: what the hybrid keeps with it was not told by the disagreement bit.

All three open as often as the two models disagree there, so that gates are compared at one rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.capture import Text, from_rollouts
from probes.divergence import token_kl
from probes.generate import Decoding, replay_answers
from probes.models import Model, check_pair, layer_index
from probes.records import Problem, Refusal, parse_site, site_name
from probes.tasks import Task
from steering.evaluate import evaluate
from steering.objectives import entropy
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


def greedy_texts(
    tuned: Model, task: Task, problems: Sequence[Problem], *, batch: int = 64
) -> list[Text]:
    """The tuned model's greedy answers to problems that nothing is reported on."""
    judged = evaluate(tuned, task, problems, samples=1, decoding=Decoding(0), batch=batch)
    return from_rollouts(tuned, problems, judged.rollouts)


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
    _check_apart(base, tuned, y)
    scale = x.std(0) + 1e-6  # the solver wants features of one size
    fitted = LogisticRegression(max_iter=2000).fit(x / scale, y)
    weights = fitted.coef_[0] / scale
    scores = x @ weights
    cut = float(np.quantile(scores, 1 - y.mean()))
    return LinearGate(
        of, site, torch.from_numpy(weights).float(), -cut, float((scores > cut).mean())
    )


def cuts(
    base: Model, tuned: Model, texts: Sequence[Text], *, batch: int = 64
) -> tuple[float, float]:
    """Thresholds of KL(tuned || base) and of the base's entropy, nats, to six digits.

    Each is exceeded at as many positions of the texts as the two models disagree at.

    Raises:
        Refusal: models that are no pair, or texts where they always agree or always differ.
    """
    check_pair(base, tuned)
    sequences, counts = [t.tokens for t in texts], [len(t.answer) for t in texts]
    passes = (replay_answers(m, sequences, counts, batch=batch) for m in (base, tuned))
    found = []
    for one, other in zip(*passes, strict=True):
        assert one.index == other.index, "passes of the same texts come in the same order"
        q, p = one.logits, other.logits.to(one.logits.device)
        apart = q.argmax(-1) != p.argmax(-1)
        found.append(torch.stack([apart.double(), token_kl(p, q), entropy(q.double())]).cpu())
    apart, *values = torch.cat(found, 1).numpy()
    _check_apart(base, tuned, apart > 0)
    kl, unsure = (float(f"{np.quantile(v, 1 - apart.mean()):g}") for v in values)
    return kl, unsure


def _check_apart(base: Model, tuned: Model, apart: Bool[np.ndarray, " positions"]) -> None:
    if apart.all() or not apart.any():
        raise Refusal(
            f"{base.name} and {tuned.name} {'differ' if apart.any() else 'agree'} at all "
            f"{len(apart)} positions: no gate can be fitted to that."
        )
