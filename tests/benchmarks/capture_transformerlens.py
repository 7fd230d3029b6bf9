"""Three layers of the residual stream to disk, against TransformerLens' `run_with_cache`.

The same texts, positions and dtype, in batches of 64 by length on both sides, and the same writer,
so that the files differ in the order of their rows at most. TransformerLens is given a filter of
names, stops behind the last block, without head or loss, and no padding mask, as its rows begin at
the first column. What is read of its values is compared once with what is read of ours.
"""

import tempfile
from pathlib import Path

import torch

from probes.capture import Activation, Store, capture, open_writer
from probes.models import bridge

from . import Line, alternate
from ._recorded import BATCH, SITES, batches, texts
from ._shipped import base


def run(small: bool = False) -> Line:
    found = texts(32 if small else 512)
    count = sum(len(text.tokens) for text in found)
    padded = batches(found)
    lens = bridge(base())

    @torch.inference_mode()
    def by_transformer_lens(folder: Path) -> int:
        with open_writer(base(), SITES, folder) as writer:
            for rows, ids in padded:
                _, kept = lens.run_with_cache(
                    ids,
                    names_filter=lambda name: name in SITES,
                    return_type=None,
                    stop_at_layer=base().depth,
                )
                real = torch.arange(ids.shape[1]) < torch.tensor([[len(t.tokens)] for t in rows])
                lines = [
                    Activation(t.problem, t.sample, at) for t in rows for at in range(len(t.tokens))
                ]
                writer.append(lines, {site: kept[site][real] for site in SITES})
        Store(folder)
        return count

    def by_us(folder: Path) -> int:
        capture(base(), SITES, found, folder, batch=BATCH)
        return count

    with tempfile.TemporaryDirectory() as folder:
        stores = (Path(folder) / str(i) for i in range(1000))
        agree(by_us, by_transformer_lens, next(stores), next(stores))
        return alternate(
            "capture-transformerlens",
            lambda: by_us(next(stores)),
            lambda: by_transformer_lens(next(stores)),
            unit="positions/s",
            against="TransformerLens run_with_cache with a filter of names, to the same files",
            rounds=1 if small else 11,
        )


def agree(one, other, mine: Path, theirs: Path) -> None:
    one(mine), other(theirs)
    stores = Store(mine), Store(theirs)
    keys = [s.index[["problem", "sample", "position"]] for s in stores]
    orders = [k.sort_values(list(k)).index.to_numpy() for k in keys]
    for site in SITES:
        values = [s.read(site, order) for s, order in zip(stores, orders, strict=True)]
        torch.testing.assert_close(*values, atol=1e-4, rtol=1e-3)
