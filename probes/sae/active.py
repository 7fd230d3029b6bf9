"""What every latent does at every row, kept sparse, and labels shuffled over whole problems.

A row is one position of one text. Rows of a text stand together and in order.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from scipy.sparse import csc_matrix, csr_matrix, vstack

from probes.capture import Store, Text, capture
from probes.models import Model
from probes.records import Refusal
from probes.sae.measures import BLOCK
from probes.sae.record import Sae

NEIGHBOURS = 8
"""Problems that exchange their labels: those whose texts are most alike in length."""


@dataclass(frozen=True, eq=False)
class Active:
    """Latents (columns) at rows, with whose rows they are."""

    a: csc_matrix
    """(rows, latents); nothing is stored where a latent is 0."""
    problems: Shaped[np.ndarray, " rows"]
    samples: Int[np.ndarray, " rows"]
    positions: Int[np.ndarray, " rows"]
    """Of the text's own tokens, from 0."""

    @property
    def latents(self) -> int:
        """How many columns there are."""
        return len(self.a.indptr) - 1

    def rows(self, kept: Bool[np.ndarray, " rows"] | Int[np.ndarray, " kept"]) -> "Active":
        """Some rows, in the order given."""
        parts = (self.problems[kept], self.samples[kept], self.positions[kept])
        return Active(self.a.tocsr()[kept].tocsc(), *parts)


@dataclass(frozen=True, eq=False)
class Rows:
    """Activations of one site, ordered by text and position."""

    site: str
    x: Float[np.ndarray, "rows d"]
    problems: Shaped[np.ndarray, " rows"]
    samples: Int[np.ndarray, " rows"]
    positions: Int[np.ndarray, " rows"]


def rows_of(store: Store, site: str) -> Rows:
    """All of a store at one of its sites, whatever the order it was captured in.

    Two models that read the same texts at the same positions give rows that match one to one.

    Raises:
        Refusal: the store doesn't have the site.
    """
    if site not in store.sites:
        raise Refusal(
            f"the dictionary is of {site}, and the activations are of {', '.join(store.sites)}."
        )
    problems = store.index.problem.to_numpy().astype(str)
    samples, positions = (store.index[name].to_numpy() for name in ("sample", "position"))
    order = np.lexsort((positions, samples, problems))
    x = store.numpy(site, order).astype(np.float32)
    return Rows(site, x, problems[order], samples[order], positions[order])


def read_rows(model: Model, site: str, texts: Sequence[Text], *, batch: int = 128) -> Rows:
    """What flows through a site of a model where the answers' tokens are chosen."""
    with tempfile.TemporaryDirectory(prefix="whenhow-sae-") as folder:
        to = Path(folder) / "store"
        return rows_of(capture(model, [site], texts, to, positions="generated", batch=batch), site)


def active(sae: Sae, rows: Rows) -> Active:
    """What every latent does at these rows.

    Raises:
        Refusal: another site's activations, or ones of another width.
    """
    if sae.site != rows.site:
        raise Refusal(f"the dictionary is of {sae.site}, and the activations are of {rows.site}.")
    parts = [
        csr_matrix(sae.encode(torch.from_numpy(rows.x[start : start + BLOCK])).cpu().numpy())
        for start in range(0, len(rows.x), BLOCK)
    ]
    return Active(csc_matrix(vstack(parts)), rows.problems, rows.samples, rows.positions)


def shuffles(
    problems: Shaped[np.ndarray, " rows"],
    samples: Int[np.ndarray, " rows"],
    count: int,
    seed: int = 0,
) -> Iterator[Int[np.ndarray, " rows"]]:
    """Rows whose labels each row gets: those of the same place in a text of another problem.

    Problems are exchanged among their nearest in length, whole: so runs of a label stay runs, what
    follows from the place in a text alone stays, and rows of a problem never count as independent.
    What is broken is which label belongs to which activation. Of a shorter text the labels are
    used again from its first; a long problem among short ones is exchanged with the last of them.
    """
    texts = texts_of(problems, samples)
    of: dict[str, list[np.ndarray]] = {}
    for rows in texts:
        of.setdefault(str(problems[rows[0]]), []).append(rows)
    names = sorted(of, key=lambda name: (np.mean([len(rows) for rows in of[name]]), name))
    rng = np.random.default_rng(seed)
    for _ in range(count):
        take = np.empty(len(problems), dtype=int)
        for block in np.array_split(names, max(1, len(names) // NEIGHBOURS)):
            order = rng.permutation(block)
            # Along a circle in random order, so that no problem keeps its own labels.
            for name, other in zip(order, np.roll(order, 1), strict=True):
                for i, rows in enumerate(of[name]):
                    source = of[other][i % len(of[other])]
                    take[rows] = source[np.arange(len(rows)) % len(source)]
        yield take


def texts_of(
    problems: Shaped[np.ndarray, " rows"], samples: Int[np.ndarray, " rows"]
) -> list[Int[np.ndarray, " of_text"]]:
    """Rows of each text, in their order."""
    new = (problems[1:] != problems[:-1]) | (samples[1:] != samples[:-1])
    return np.split(np.arange(len(problems)), np.flatnonzero(new) + 1)


def sums_by_problem(
    values: Float[np.ndarray, "rows n"], problems: Shaped[np.ndarray, " rows"]
) -> Float[np.ndarray, "problems n"]:
    """Sum of the rows of each problem, problems in the order of `np.unique`."""
    names, codes = np.unique(problems, return_inverse=True)
    found = np.zeros((len(names), values.shape[1]))
    np.add.at(found, codes, values)
    return found
