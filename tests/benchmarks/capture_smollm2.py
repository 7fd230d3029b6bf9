"""One layer of a real language model to disk, against TransformerLens' `run_with_cache`.

As `capture-transformerlens`: the same texts, batches and writer, a filter of names, no pass behind
the layer that is wanted. The texts are the prompts that the model is asked.
"""

import tempfile
from pathlib import Path

import torch

from probes.capture import Activation, Text, capture, open_writer
from probes.models import bridge

from . import Line, alternate
from ._smollm2 import BATCH, asked, model

LAYER = 15
SITE = f"blocks.{LAYER}.hook_resid_post"


def run(small: bool = False) -> Line:
    texts = [Text(r.problem, 0, r.prompt) for r in asked(2 if small else 32, 1, 1)]
    texts.sort(key=lambda text: -len(text.tokens))
    count = sum(len(text.tokens) for text in texts)
    lens = bridge(model())

    @torch.inference_mode()
    def by_transformer_lens(folder: Path) -> int:
        with open_writer(model(), [SITE], folder) as writer:
            for begin in range(0, len(texts), BATCH):
                rows = texts[begin : begin + BATCH]
                ids = torch.zeros(len(rows), len(rows[0].tokens), dtype=torch.long)
                for row, text in enumerate(rows):
                    ids[row, : len(text.tokens)] = torch.tensor(text.tokens)
                _, kept = lens.run_with_cache(
                    ids,
                    names_filter=lambda name: name == SITE,
                    return_type=None,
                    stop_at_layer=LAYER + 1,
                )
                real = torch.arange(ids.shape[1]) < torch.tensor([[len(t.tokens)] for t in rows])
                lines = [
                    Activation(t.problem, t.sample, at) for t in rows for at in range(len(t.tokens))
                ]
                writer.append(lines, {SITE: kept[SITE][real]})
        return count

    def by_us(folder: Path) -> int:
        capture(model(), [SITE], texts, folder, batch=BATCH)
        return count

    with tempfile.TemporaryDirectory() as folder:
        places = (Path(folder) / str(i) for i in range(100))
        return alternate(
            "capture-smollm2",
            lambda: by_us(next(places)),
            lambda: by_transformer_lens(next(places)),
            unit="positions/s",
            against="TransformerLens run_with_cache with a filter of names, to the same files",
            rounds=1 if small else 3,
        )
