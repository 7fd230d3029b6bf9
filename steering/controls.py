"""What an intervention is compared with: its nulls, and the strength at which a null is fair.

    kl = decision_kl(model, texts, positions)            # of anything, from the unsteered model
    null = replace(push, vector=shaped_random(activations, seed=1))
    match = match_kl(lambda s: kl([replace(null, strength=s)]), target=kl([push]))
    null = replace(null, strength=match.strength)

Each null answers one objection to "adding this direction raises the rate of the strategy":

- `shaped_random`: would any direction do? Drawn from N(0, covariance of the layer), as an
  isotropic one lies mostly where activations never go and does nothing;
- `shuffled`: does the fitting itself find something? The same fit on permuted labels;
- another strategy's direction: is it about this strategy? (`dataclasses.replace` suffices);
- `without`: is it more than the logit? What the decision tokens' unembeddings span is taken out;
- `steering.interventions.LogitBias`: is it more than a thumb on the scale?

They are compared at equal effect on the next token, not at equal norm: `match_kl` finds the
strength at which a null moves the next-token distribution at the decision positions as far from
the unsteered one as the real direction does, by mean KL(unsteered || steered). Whatever differs
then, on later unsteered decisions or on execution tokens, is not the size of the push.

Not here: the edits (`steering.interventions`), rates and intervals (`steering.evaluate`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from probes.capture import Text
from probes.generate import Request
from probes.models import Model
from probes.records import Refusal
from steering.interventions import Operation, replayed

Fit = Callable[[Float[Tensor, "rows d"], Shaped[np.ndarray, " rows"]], Float[Tensor, " d"]]
"""From activations and their labels to a direction."""


def shaped_random(activations: Float[Tensor, "rows d"], *, seed: int) -> Float[Tensor, " d"]:
    """A unit direction drawn from N(0, S), then normalised; S is the activations' covariance.

    With X the centred activations and g standard normal, X'g / sqrt(rows - 1) has covariance S
    exactly: no factorisation, and no trouble where S is singular.

    Raises:
        Refusal: fewer than two distinct activations, which have no covariance.
    """
    centred = activations.double().cpu() - activations.double().cpu().mean(0)
    if len(centred) < 2 or not (centred != 0).any():
        raise Refusal(f"{len(activations)} equal activations have no covariance to draw from.")
    draws = np.random.Generator(np.random.Philox(seed)).standard_normal(len(centred))
    drawn = torch.from_numpy(draws) @ centred / (len(centred) - 1) ** 0.5
    return (drawn / drawn.norm()).to(activations.device, activations.dtype)


def shuffled(
    fit: Fit,
    activations: Float[Tensor, "rows d"],
    labels: Shaped[np.ndarray, " rows"],
    *,
    seed: int,
    groups: Shaped[np.ndarray, " rows"] | None = None,
) -> Float[Tensor, " d"]:
    """The unit direction that `fit` finds when the labels are permuted.

    Args:
        fit: what fitted the real direction.
        activations: one a row.
        labels: of each row.
        seed: of the permutation.
        groups: permute within each (a problem), which keeps the share of labels in each and so
            leaves to the null whatever the direction owes to the problems' differences.

    Raises:
        Refusal: no permutation can change the labels (one class, or one a group).
    """
    groups = (
        np.zeros(len(labels), int) if groups is None else np.unique(groups, return_inverse=True)[1]
    )
    random = np.random.Generator(np.random.Philox(seed))
    permuted = labels.copy()
    movable = False
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        movable |= len(np.unique(labels[rows])) > 1
        permuted[rows] = labels[random.permutation(rows)]
    if not movable:
        raise Refusal("every group has labels of one class only: shuffling them changes nothing.")
    direction = fit(activations, permuted)
    return direction / direction.norm()


def without(
    vector: Float[Tensor, " d"], others: Float[Tensor, "k d"], *, least: float = 1e-3
) -> Float[Tensor, " d"]:
    """The unit vector left of `vector` when the span of `others` is projected out.

    Raises:
        Refusal: less than `least` of its length is left: it is a direction of that span.
    """
    others = others.to(vector.device, torch.float64)
    basis, sizes, _ = torch.linalg.svd(others.T, full_matrices=False)
    basis = basis[:, sizes > sizes.max() * 1e-6]  # float32 vectors that depend on each other
    wide = vector.double()
    rest = wide - basis @ (basis.T @ wide)
    rest = rest - basis @ (basis.T @ rest)  # once more: rounding of the first is relative to `wide`
    share = float(rest.norm() / wide.norm())
    if share < least:
        raise Refusal(
            f"{share:.1e} of the direction is left without these {len(others)} vectors: it lies in "
            f"their span, and what is left is rounding."
        )
    return (rest / rest.norm()).to(vector.dtype)


def unembeddings(model: Model, tokens: Sequence[int]) -> Float[Tensor, "tokens d"]:
    """The directions of the last layer's residual along which the logits of tokens rise.

    A logit is w.N(x), with N the final norm, whose gain scales w (and whose centring, if it is a
    LayerNorm, takes out w's mean); division by the norm of x is common to all tokens. At earlier
    layers this is the direct path only.

    Raises:
        Refusal: a token outside the vocabulary, or a model without one final norm.
    """
    if not tokens or not all(0 <= token < model.vocab for token in tokens):
        raise Refusal(f"tokens {list(tokens)}: the vocabulary has 0..{model.vocab - 1}.")
    weight = model.net.get_output_embeddings().weight.detach()[list(tokens)]  # type: ignore[operator]
    stack = model.net.base_model.children()  # type: ignore[operator]
    norms = [m for m in stack if "norm" in type(m).__name__.lower()]
    if len(norms) != 1:
        raise Refusal(f"{model.name} has {len(norms)} final norms; the gain of one is needed.")
    if isinstance(norms[0], nn.LayerNorm):
        scaled = weight * norms[0].weight.detach()
        return scaled - scaled.mean(-1, keepdim=True)
    with torch.no_grad():  # of a vector of ones, an RMS norm is its gain, however it is stored
        return weight * norms[0](torch.ones_like(weight[:1]))


def decision_kl(
    model: Model,
    texts: Sequence[Text],
    positions: Sequence[Sequence[int]],
    *,
    batch: int = 64,
) -> Callable[[Sequence[Operation]], float]:
    """A function that gives the mean KL(unsteered || steered) of interventions, in nats.

    The texts are replayed, so every intervention is judged at the same positions of the same
    texts. The mean is over positions; at position p the distributions are of token p + 1. The
    unsteered ones are computed once and kept: positions x vocabulary x 4 bytes.

    Args:
        model: what is steered.
        texts: prompts with answers, written by the unsteered model.
        positions: own positions of each text at which a decision is taken.
        batch: most rows of a pass.

    Raises:
        Refusal: no position at all, or one that a text doesn't have.
    """
    for text, wanted in zip(texts, positions, strict=True):
        if not all(0 <= p < len(text.tokens) for p in wanted):
            raise Refusal(f"text {text.problem}/{text.sample} has no position {max(wanted)}.")
    if not any(map(len, positions)):
        raise Refusal(f"the {len(texts)} texts have no decision: there is no KL at decisions.")
    sequences = [t.tokens for t in texts]
    plain: dict[int, Tensor] = {}

    def logprobs(edits: Sequence[Operation]) -> dict[int, Tensor]:
        requests = [Request(t.problem, t.sample, t.prompt, 1, "edited") for t in texts]
        found = {}
        for rows, logits, now in replayed(
            model, {"edited": list(edits)}, sequences, requests, batch=batch
        ):
            assert logits is not None, "a replay that isn't stopped has logits"
            for row, i in enumerate(rows):
                columns = torch.tensor(positions[i], dtype=torch.long) - int(now.start[row])
                chosen = logits[row, columns.to(logits.device)]
                found[i] = torch.log_softmax(chosen.float(), -1)
        return found

    def mean(edits: Sequence[Operation]) -> float:
        total = 0.0
        for i, steered in logprobs(edits).items():
            # float64: near strength 0 a KL is the small difference of large terms.
            p, q = plain[i].double(), steered.double()
            total += float((p.exp() * (p - q)).sum())
        return total / sum(map(len, positions))

    plain = logprobs([])
    return mean


@dataclass(frozen=True)
class Match:
    """The strength at which a control does as much as the real direction."""

    strength: float
    kl: float
    """Mean KL at that strength, in nats."""
    target: float
    """Mean KL of the real direction."""
    tried: tuple[tuple[float, float], ...]
    """Every (strength, KL) that was measured, by strength."""

    @property
    def monotone(self) -> bool:
        """Whether KL rose with strength over all that was tried; else other strengths may match."""
        values = [kl for _, kl in self.tried]
        return all(a <= b for a, b in zip(values, values[1:], strict=False))


def match_kl(
    kl: Callable[[float], float],
    target: float,
    *,
    start: float = 0.05,
    most: float = 64.0,
    tolerance: float = 0.02,
) -> Match:
    """The smallest strength found at which `kl` equals the target, within a share of it.

    Doubles from `start` until the target is passed, then bisects between the last two strengths;
    strength 0, where the KL is 0, is the one before `start`.

    Args:
        kl: mean KL from the unsteered next-token distribution, at a strength (`decision_kl`).
        target: the real direction's, in nats.
        start: where to begin.
        most: the largest strength that may be tried.
        tolerance: how far off, as a share of the target, is near enough.

    Raises:
        Refusal: the target is not a positive number (there is nothing to match), or it isn't
            reached up to `most`: a control that can't do as much can't be matched, and a weaker
            one is no fair comparison.
    """
    if not 0 < target < np.inf:
        raise Refusal(f"a KL of {target} can't be matched: the direction changes no decision.")
    tried: dict[float, float] = {0.0: 0.0}

    def near(strength: float) -> bool:
        return abs(tried[strength] - target) <= tolerance * target

    low, high = 0.0, start
    tried[high] = float(kl(high))
    while tried[high] < target and not near(high):
        if high >= most:
            best = max(tried, key=tried.__getitem__)
            raise Refusal(
                f"the control can't be matched: up to strength {most:g} its KL is at most "
                f"{tried[best]:.4g} nats (at {best:g}), the direction's is {target:.4g}."
            )
        low, high = high, min(2 * high, most)
        tried[high] = float(kl(high))
    middle = high
    for _ in range(60):
        if near(middle):
            break
        middle = (low + high) / 2
        tried[middle] = float(kl(middle))
        low, high = (middle, high) if tried[middle] < target else (low, middle)
    else:
        raise Refusal(
            f"the control's KL jumps past {target:.4g} nats at strength {middle:g} (from "
            f"{tried[low]:.4g} to {tried[high]:.4g}): no strength matches within {tolerance:.0%}."
        )
    return Match(middle, tried[middle], target, tuple(sorted(tried.items())))
