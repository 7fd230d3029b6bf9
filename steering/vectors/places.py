"""Where base and tuned model would write different tokens, and what the tuned one would write.

    places = find_places(base, tuned, texts, taxonomy)
    places.category, places.top, places.logprobs        # of each position

The tuned model's texts are teacher-forced through both. A place is a position of an answer at which
the two greedy choices differ (arXiv:2510.07364v4). The released code compares the base's choice
with the token of the text instead, which for sampled texts also counts tokens that neither would
choose. Its category is the taxonomy's, read at the tuned model's residual of that very position, as
a router reads it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from probes.capture import Text
from probes.generate import Held, replay_answers
from probes.models import Model, check_pair, layer_index
from probes.records import Refusal, content_hash, parse_site, site_name
from probes.taxonomy import Taxonomy

TOP = 50
"""Tokens of the tuned distribution that are kept: topk of optimize_correction_vectors.py."""


@dataclass(frozen=True, eq=False)
class Places:
    """Positions to be steered; arrays run over them."""

    sequences: tuple[tuple[int, ...], ...]
    """The tokens up to the position itself, which is the last: what follows is to be changed."""
    problems: Shaped[np.ndarray, " places"]
    """Id of the problem: the unit of every interval."""
    category: Int[Tensor, " places"]
    top: Int[Tensor, "places k"]
    """The tuned model's likeliest tokens, the likeliest first."""
    logprobs: Float[Tensor, "places k"]
    """Of those tokens, in nats; over the whole vocabulary, so they sum to less than 1."""
    x: Float[Tensor, "places d"]
    """The base's residual at `site`, unsteered."""
    site: str
    seen: int
    """Positions that were compared: places are `len(places.sequences) / seen` of them."""
    data: str
    """Hash of the texts."""

    def __len__(self) -> int:
        """How many."""
        return len(self.sequences)

    def take(self, rows: Int[Tensor, " rows"]) -> "Places":
        """Some of them."""
        listed = rows.tolist()
        return replace(
            self,
            sequences=tuple(self.sequences[i] for i in listed),
            problems=self.problems[listed],
            category=self.category[rows],
            top=self.top[rows],
            logprobs=self.logprobs[rows],
            x=self.x[rows],
        )

    def shuffled(self, seed: int) -> "Places":
        """The same places with the categories permuted among them: the null of the categories."""
        draw = torch.Generator().manual_seed(seed)
        return replace(self, category=self.category[torch.randperm(len(self), generator=draw)])

    def pooled(self) -> "Places":
        """The same places, all of category 0: one vector whatever the tuned model thinks."""
        return replace(self, category=torch.zeros_like(self.category))


def find_places(
    base: Model,
    tuned: Model,
    texts: Sequence[Text],
    taxonomy: Taxonomy,
    site: str,
    *,
    top: int = TOP,
    batch: int = 64,
    progress: Callable[[int], Any] | None = None,
) -> Places:
    """The positions of the texts at which the greedy choices of the two models differ.

    Args:
        base: what is to be steered.
        tuned: what it is to be steered towards.
        texts: prompts with answers, as the tuned model wrote them.
        taxonomy: of the tuned model; its categories.
        site: full name, where the base is to be steered.
        top: tokens of the tuned distribution that are kept.
        batch: most texts of a pass.
        progress: called with the number of texts done since the last call, of twice as many.

    Raises:
        Refusal: models that are no pair, a taxonomy of another model, no text, or no place at all.
    """
    check_pair(base, tuned)
    if taxonomy.model and tuned.digest and taxonomy.model != tuned.digest:
        raise Refusal(
            f"the taxonomy was made with a model of hash {taxonomy.model[:12]}, and {tuned.name} "
            f"has {tuned.digest[:12]}: categories are read at the tuned model's own residual."
        )
    layer, kind = parse_site(site)
    site = site_name(layer_index(layer, base.depth), kind)
    sequences = [text.tokens for text in texts]
    counts = [len(text.answer) for text in texts]
    mine, read = greedy(base, texts, site, batch=batch, progress=progress)
    rows, parts = [], []
    held, top = Held([taxonomy.site]), min(top, base.vocab)
    for i, row, columns, logits in replay_answers(
        tuned, sequences, counts, observers=[held], batch=batch
    ):
        said = logits.float()
        differ = (said.argmax(-1).cpu() != mine[i]).nonzero()[:, 0]
        at = differ.to(said.device)
        likely = torch.log_softmax(said[at], -1).topk(top)
        inner = held.x[taxonomy.site][row, columns][at]
        category = taxonomy.category(inner).cpu() if len(differ) else differ
        rows += [(i, len(texts[i].prompt) - 1 + p) for p in differ.tolist()]
        parts.append((category, likely.indices.cpu(), likely.values.cpu(), read[i][differ]))
        if progress:
            progress(1)
    if not rows:
        raise Refusal(
            f"{base.name} and {tuned.name} choose the same token at all "
            f"{sum(map(len, mine))} positions of {len(texts)} texts: there is nothing to steer."
        )
    # Cloned: what an inference pass made can't take part in one that learns.
    category, likeliest, logprobs, x = (torch.cat(p).clone() for p in zip(*parts, strict=True))
    return Places(
        sequences=tuple(sequences[i][: p + 1] for i, p in rows),
        problems=np.array([texts[i].problem for i, _ in rows]),
        category=category,
        top=likeliest,
        logprobs=logprobs,
        x=x.float(),
        site=site,
        seen=sum(map(len, mine)),
        data=content_hash([list(s) for s in sequences]),
    )


def greedy(
    model: Model,
    texts: Sequence[Text],
    site: str,
    *,
    batch: int = 64,
    progress: Callable[[int], Any] | None = None,
) -> tuple[list[Int[Tensor, " tokens"]], list[Float[Tensor, "tokens d"]]]:
    """Of each text, where its answer's tokens were chosen: the greedy choice, and the residual."""
    held = Held([site])
    chosen: list[Tensor] = [torch.empty(0)] * len(texts)
    kept = list(chosen)
    sequences = [text.tokens for text in texts]
    counts = [len(text.answer) for text in texts]
    for i, row, columns, logits in replay_answers(
        model, sequences, counts, observers=[held], batch=batch
    ):
        chosen[i] = logits.argmax(-1).cpu()
        kept[i] = held.x[site][row, columns].cpu()
        if progress:
            progress(1)
    return chosen, kept
