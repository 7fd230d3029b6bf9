"""The mean residual of each sentence of an answer: what probes and taxonomies label it by.

    read = SentenceMeans(model, "blocks.1.hook_resid_post")
    read(passages)                                # (segments of all passages, d)

The mean is over the tokens that hold a part of the sentence and the one before them, at which it
was chosen: the convention of `probes.taxonomy.steps`, here for tokenizers that cut words.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from probes.generate import Held, replay
from probes.models import Model, covering, decode, encode, layer_index, offsets
from probes.records import Refusal, parse_site, site_name
from probes.strategies.labellers import Passage


@dataclass(frozen=True)
class SentenceMeans:
    """Reads passages through a model, which need not have written them."""

    model: Model
    site: str
    """Full name; -1 is the last layer."""
    batch: int = 64

    def __call__(self, passages: Sequence[Passage]) -> Float[np.ndarray, "segments d"]:
        """Mean residual of each segment, float32.

        Raises:
            Refusal: no segment; a passage without tokens, whose tokens are not those of its text
                (another model's), or that is longer than the model can read.
        """
        layer, kind = parse_site(self.site)
        layer = layer_index(layer, self.model.depth)
        cells = [_cells(self.model, one) for one in passages]
        if not any(cells):
            raise Refusal(f"the {len(passages)} passages have no segment to read.")
        held = Held([site_name(layer, kind)])
        prompts = [encode(self.model, one.prompt) for one in passages]
        means: list[np.ndarray] = [np.empty((0, self.model.width), np.float32)] * len(passages)
        # A passage without tokens has nothing to read, and an empty one is no sequence.
        there = [i for i, of_it in enumerate(cells) if of_it]
        sequences = [prompts[i] + passages[i].tokens for i in there]
        passed = replay(self.model, sequences, observers=[held], batch=self.batch, stop_after=layer)
        for rows, _, now in passed:
            x = held.x[held.sites[0]].float()
            for row, which in enumerate(rows):
                i = there[which]
                zero = len(prompts[i]) - int(now.start[row])  # column of the answer's first token
                found = [x[row, zero + a - 1 : zero + b].mean(0) for a, b in cells[i]]
                means[i] = torch.stack(found).cpu().numpy()
        return np.concatenate(means)


def _cells(model: Model, passage: Passage) -> list[tuple[int, int]]:
    """First token and the one after the last of each segment."""
    if not passage.segments:
        return []
    where = f"the answer {passage.problem}/{passage.sample}"
    if not passage.tokens:
        raise Refusal(
            f"{where} has no tokens (its server gave none): what a model computes over it can't be "
            f"read. Label it by a lexicon or a judge."
        )
    if decode(model, passage.tokens) != passage.text:
        raise Refusal(
            f"{where}: its tokens are other words for {model.name} than its text. Read it with "
            f"the model that wrote it, or one of the same tokenizer."
        )
    places = offsets(model, passage.tokens)
    cells = []
    for segment in passage.segments:
        tokens = covering(places, segment.start, segment.stop)
        cells.append((tokens[0], tokens[-1] + 1))
    return cells
