"""Recorded answers of the base, as texts whose activations are read."""

import pyarrow.parquet as pq
import torch
from jaxtyping import Int
from torch import Tensor

from probes import DATA
from probes.capture import Text
from probes.models import encode

from ._shipped import base

FILE = DATA / "organisms" / "chain" / "rl-0-0" / "rollouts" / "base.parquet"
BATCH = 64
SITES = tuple(f"blocks.{i}.hook_resid_post" for i in range(3))
"""All layers of the base, so a pass to the deepest wanted one is a whole one without its head."""


def texts(count: int) -> list[Text]:
    """Prompts with answers, of 7 to 40 tokens together, taken evenly from all problems."""
    table = pq.read_table(FILE, columns=["problem", "sample", "prompt", "tokens"])
    table = table.take(list(range(0, len(table), len(table) // count))[:count])
    return [
        Text(row["problem"], row["sample"], encode(base(), row["prompt"]), tuple(row["tokens"]))
        for row in table.to_pylist()
    ]


def batches(found: list[Text]) -> list[tuple[list[Text], Int[Tensor, "rows width"]]]:
    """Texts of similar length, and their tokens padded on the right: where every row begins at the
    first column, causal attention needs no mask, which is the fastest that a peer can have."""
    ordered = sorted(found, key=lambda text: -len(text.tokens))
    made = []
    for begin in range(0, len(ordered), BATCH):
        rows = ordered[begin : begin + BATCH]
        ids = torch.zeros(len(rows), len(rows[0].tokens), dtype=torch.long)
        for row, text in enumerate(rows):
            ids[row, : len(text.tokens)] = torch.tensor(text.tokens)
        made.append((rows, ids))
    return made
