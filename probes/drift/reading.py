"""The same positions of the same texts, read through one model after another.

    spots = spread(texts, rows=8)                       # 8 positions of each problem
    read(base, spots, sites)["blocks.0.hook_resid_post"]        # (problems, 8, d), float32

    spots = marks(texts, positions)                     # or at positions of your own
    read(tuned, spots, sites)["blocks.0.hook_resid_post"]       # (n, d), in the order of the marks

What is held is the wanted rows of one model and no other position: problems × rows × d for each
site. A long text costs a batch of time and no memory.
"""

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped

from probes.capture import Text, capture
from probes.models import Model
from probes.records import Refusal, content_hash


@dataclass(frozen=True, eq=False)
class Spots:
    """Positions of texts; arrays run over them in the order of `texts` and then of position."""

    texts: tuple[Text, ...]
    positions: tuple[tuple[int, ...], ...]
    """The wanted ones of each text, ascending."""
    problems: Shaped[np.ndarray, " first"]
    """Problem of each entry along the first axis of what is read."""
    order: Int[np.ndarray, "..."]
    """Which position stands where in what is read: (problems, rows), or (n,) of `marks`."""

    @property
    def tokens(self) -> Int[np.ndarray, "..."]:
        """The token at each position, the last one that is seen there."""
        pairs = zip(self.texts, self.positions, strict=True)
        return np.array([text.tokens[p] for text, listed in pairs for p in listed])[self.order]

    @property
    def places(self) -> Int[np.ndarray, "..."]:
        """The position itself, counted from the row's first token."""
        return np.array([p for listed in self.positions for p in listed])[self.order]


def spread(texts: Sequence[Text], *, rows: int = 8, seed: int = 0) -> Spots:
    """So many positions of each problem, drawn from those at which an answer's token was chosen.

    Draw r of all problems together is a sample in which no problem comes twice, so its rows are
    independent, as the estimators of `similarity` and `subspace` need it. Problems with fewer
    positions than `rows` are left out.

    Raises:
        Refusal: fewer than four problems have so many positions.
    """
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for i, text in enumerate(texts):
        found[text.problem] += [
            (i, p) for p in range(len(text.prompt) - 1, len(text.tokens) - 1) if text.answer
        ]
    whole = {problem: cells for problem, cells in found.items() if len(cells) >= rows}
    if len(whole) < 4:
        raise Refusal(
            f"{len(whole)} of {len(found)} problems have {rows} positions at which a token was "
            f"chosen; four are the least: give more texts a problem, or ask for fewer rows."
        )
    drawn = {}
    for problem, cells in whole.items():
        rng = np.random.default_rng(int(content_hash([seed, problem])[:16], 16))
        drawn[problem] = [cells[i] for i in rng.permutation(len(cells))[:rows]]
    wanted: dict[int, list[int]] = defaultdict(list)
    for cells in drawn.values():
        for i, p in cells:
            wanted[i].append(p)
    kept = sorted(wanted)
    flat = {(i, p): n for n, (i, p) in enumerate((i, p) for i in kept for p in sorted(wanted[i]))}
    return Spots(
        tuple(texts[i] for i in kept),
        tuple(tuple(sorted(wanted[i])) for i in kept),
        np.array(list(drawn)),
        np.array([[flat[cell] for cell in cells] for cells in drawn.values()]),
    )


def marks(texts: Sequence[Text], positions: Sequence[Sequence[int]]) -> Spots:
    """Given positions of each text, one row each; texts without any are left out.

    Raises:
        Refusal: no position at all.
    """
    pairs = [(t, tuple(sorted(p))) for t, p in zip(texts, positions, strict=True) if len(p)]
    if not pairs:
        raise Refusal(f"no position of the {len(texts)} texts is marked.")
    problems = np.array([text.problem for text, listed in pairs for _ in listed])
    of_it, places = zip(*pairs, strict=True)
    return Spots(of_it, places, problems, np.arange(len(problems)))


def read(
    model: Model, spots: Spots, sites: Sequence[str], *, batch: int = 64
) -> dict[str, Float[np.ndarray, "..."]]:
    """Activations at the spots, by site: (problems, rows, d) of `spread`, (n, d) of `marks`."""
    pairs = zip(spots.texts, spots.positions, strict=True)
    cells = [(t.problem, t.sample, p) for t, listed in pairs for p in listed]
    place = {cell: n for n, cell in enumerate(cells)}
    if len(place) < len(cells):
        raise Refusal("a text (problem, sample) is there twice; its rows could not be told apart.")
    with tempfile.TemporaryDirectory(prefix="whenhow-drift-") as folder:
        store = capture(
            model,
            sites,
            spots.texts,
            Path(folder) / "store",
            positions=[list(listed) for listed in spots.positions],
            batch=batch,
        )
        at = zip(store.index.problem, store.index["sample"], store.index.position, strict=True)
        line_of = np.empty(len(place), dtype=int)
        for line, key in enumerate(at):
            line_of[place[key]] = line
        lines = line_of[spots.order]
        return {
            site: store.numpy(site, lines.ravel()).reshape(*lines.shape, -1) for site in store.sites
        }
