"""How far tuning moved the activations: two models reading the same texts, token by token.

    moved = drift(base, tuned, texts)          # one Shift a site, with intervals over problems
    moved[0].relative                          # 0.21 [0.20, 0.22] of the base's norm

Memory holds one batch and five sums a problem, however many texts there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from probes.capture import Text, resolve
from probes.generate import Held, Pass, replay
from probes.intervals import Estimate, bootstrap
from probes.models import Model, check_pair
from probes.records import Refusal, site_name, unique


@dataclass(frozen=True)
class Shift:
    """The change of activations at one site, over positions where answers were chosen."""

    site: str
    relative: Estimate
    """Mean length of the difference over mean length of the base's activation."""
    cosine: Estimate
    """Mean cosine of the two models' activations at the same position."""
    before: Estimate
    """Mean norm of the base's activations."""
    after: Estimate
    """Mean norm of the tuned model's."""
    growth: Estimate
    """The second over the first, paired."""


def drift(
    base: Model,
    tuned: Model,
    texts: Sequence[Text],
    *,
    sites: Sequence[str] | None = None,
    batch: int = 64,
    seed: int = 0,
) -> list[Shift]:
    """Compare the activations of two models at every position where a token was chosen.

    Args:
        base: before tuning.
        tuned: after it; of the same shape.
        texts: prompts with answers, of at least two problems; the positions are P-1 to the last
            but one of each.
        sites: full names; None for the output of every block.
        batch: rows of a pass.
        seed: of the resamples, which take whole problems.

    Raises:
        Refusal: models that don't compare, an unknown site, no answer in any text.
    """
    check_pair(base, tuned)
    if not any(text.answer for text in texts):
        raise Refusal(f"none of the {len(texts)} texts has an answer: no token was chosen.")
    sites = resolve(base, sites or [site_name(i, "hook_resid_post") for i in range(base.depth)])
    problems = unique(text.problem for text in texts if text.answer)
    sums = {site: np.zeros((len(problems), 5)) for site in sites}
    holders = Held(sites), Held(sites)
    sequences = [text.tokens for text in texts]
    passes = [
        replay(model, sequences, observers=[holder], batch=batch)
        for model, holder in zip((base, tuned), holders, strict=True)
    ]
    for (rows, _, now), (others, _, _) in zip(*passes, strict=True):
        assert rows == others, "the same sequences come in the same batches"
        chosen = _chosen([texts[i] for i in rows], now)
        owner = [problems.index(texts[i].problem) if texts[i].answer else 0 for i in rows]
        for site in sites:
            before, after = (holder.x[site].double() for holder in holders)
            for row, of_row in enumerate(_sums(before, after, chosen)):
                sums[site][owner[row]] += of_row
    return [_shift(site, sums[site], seed) for site in sites]


def _chosen(texts: Sequence[Text], now: Pass) -> Tensor:
    """(rows, width): 1 at the positions P-1 to the last but one."""
    places = now.positions
    first = np.array([len(text.prompt) - 1 for text in texts])[:, None]
    stop = np.array([len(text.tokens) - 1 for text in texts])[:, None]
    return torch.from_numpy((places >= first) & (places < stop)).double()


def _sums(before: Tensor, after: Tensor, chosen: Tensor) -> np.ndarray:
    """(rows, 5): lengths of differences, of the base's, of the tuned's, cosines, positions."""
    chosen = chosen.to(before.device)
    size = before.norm(dim=-1)
    cosine = torch.nn.functional.cosine_similarity(before, after, dim=-1)
    columns = [(after - before).norm(dim=-1), size, after.norm(dim=-1), cosine]
    columns.append(torch.ones_like(size))
    return torch.stack([(c * chosen).sum(1) for c in columns], -1).cpu().numpy()


def _shift(site: str, sums: np.ndarray, seed: int) -> Shift:
    apart, before, after, cosine, count = sums.T

    def over(above: np.ndarray, below: np.ndarray) -> Estimate:
        return bootstrap(lambda a, b: a / b, above, below, seed=seed)

    return Shift(
        site=site,
        relative=over(apart, before),
        cosine=over(cosine, count),
        before=over(before, count),
        after=over(after, count),
        growth=over(after, before),
    )
