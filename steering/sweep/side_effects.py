"""How far a setting moves the model from what it is, along its own answers."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from probes.divergence import token_kl
from probes.generate import Request, replay
from probes.models import Model
from probes.records import Rollout
from steering.interventions import Operation, Steer

LOGITS = 1 << 26
"""Most logits of a pass of one model: 256 MB in float32."""


def kl_from_plain(
    model: Model,
    settings: Mapping[Hashable, Sequence[Operation]],
    requests: Sequence[Request],
    rollouts: Sequence[Rollout],
    *,
    batch: int = 64,
) -> tuple[Float[np.ndarray, " answers"], dict[Hashable, str]]:
    """KL(steered || unsteered) of the next token, in nats, averaged over each answer's tokens.

    Of whole distributions at temperature 1, both models reading the steered one's text.

    Args:
        model: both.
        settings: the edits of each.
        requests: of the answers; they say which setting holds.
        rollouts: the answers.
        batch: most rows of a pass.

    Returns:
        The means, and of each setting whose edit was not made what happened.
    """
    steer = Steer(model, settings)
    # What follows the last token was never chosen.
    texts = [r.prompt + a.tokens[:-1] for r, a in zip(requests, rollouts, strict=True)]
    steer.tell(requests, texts)
    count = np.array([len(a.tokens) for a in rollouts])
    longest = int(count.max(initial=1))
    width = max(map(len, texts), default=1)
    rows = max(1, min(batch, LOGITS // (model.vocab * width)))
    passes = zip(
        replay(model, texts, observers=[steer], requests=requests, batch=rows, keep=longest),
        replay(model, texts, requests=requests, batch=rows, keep=longest),
        strict=True,
    )
    found = np.full(len(texts), np.nan)
    for (at, pushed, _), (_, plain, _) in passes:
        assert pushed is not None, "a replay that isn't stopped has logits"
        assert plain is not None
        kl = token_kl(pushed, plain).cpu().numpy()  # (rows, kept), right-aligned
        own = np.arange(kl.shape[1])[::-1] < count[at][:, None]
        found[at] = np.where(own, kl, 0).sum(1) / count[at]
    return found, steer.missed()
