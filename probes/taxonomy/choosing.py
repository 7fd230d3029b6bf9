"""Choose the site and the number of categories on one split, and report on another.

    grid = explore(fitted_to, select, sites, sizes)         # a taxonomy and its scores for each
    best = choose(grid)                                      # by ARI on the select split
    rows = report(best.taxonomy, fitted_to, test, "test")    # what may be claimed

The authors choose by a language model's opinion of each cluster's title (arXiv:2510.07364, section
3.2). Here the kinds of steps are known by construction, so the choice is by agreement with them;
where the two differ is itself seen in `report`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from probes.measurements import point, row
from probes.records import Measurement, Refusal
from probes.taxonomy.fit import EPOCHS, LEAST, SIZES, fit
from probes.taxonomy.record import Taxonomy
from probes.taxonomy.score import assignments, scores
from probes.taxonomy.steps import Steps

BY = "ari"
STRATEGY, OPENING = "strategy", "opening word"
"""What the known kinds of steps are: the spans' own labels, or how each step opens."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """One taxonomy of the grid, with its scores on the split that chooses."""

    taxonomy: Taxonomy
    fvu: float
    parameters: int
    rows: tuple[Measurement, ...]

    def score(self, by: str = BY) -> float:
        """The number that it is chosen by; -inf where it is undefined."""
        of_it = (r.value for r in self.rows if (r.measure, r.setting) == (by, "taxonomy"))
        value = next(of_it, float("nan"))
        return float("-inf") if np.isnan(value) else value


def explore(
    fitted_to: Steps,
    select: Steps,
    sites: Sequence[str],
    sizes: Sequence[int] = SIZES,
    *,
    task: str = "",
    seed: int = 0,
    epochs: int = EPOCHS,
    progress: Callable[[int], Any] | None = None,
) -> list[Candidate]:
    """Fit a taxonomy for each site and size, and score it on other problems.

    Args:
        fitted_to: steps of the fit.
        select: steps of the choice; of other problems.
        sites: full names, of those that both were read at.
        sizes: numbers of latents; those too large for the steps there are, are left out.
        task: content hash of the task's settings.
        seed: of fits, baselines and resamples.
        epochs: at most, of each fit.
        progress: called with 1 after each fit.

    Raises:
        Refusal: the splits share a problem, every step of the choice is of one known kind, or every
            size is too large.
    """
    if shared := set(fitted_to.problems.tolist()) & set(select.problems.tolist()):
        raise Refusal(
            f"{len(shared)} problems are in both splits, such as {min(shared)}: a choice on the "
            f"steps of the fit favours the largest dictionary."
        )
    if len(set(select.kinds.tolist())) < 2:
        raise Refusal(
            f"all {len(select.kinds)} steps of the choice are of kind {select.kinds[0]!r}: there "
            f"is nothing to agree with. Read texts of more kinds (the base's too), or give a "
            f"taxonomy."
        )
    able = [n for n in sizes if n * LEAST <= len(fitted_to.kinds)]
    if not able:
        raise Refusal(
            f"{len(fitted_to.kinds)} steps are too few for sizes {list(sizes)}: {LEAST} a latent."
        )
    found = []
    for site in sites:
        for latents in able:
            one = fit(fitted_to, site, latents, task=task, seed=seed, epochs=epochs)
            rows = report(one.taxonomy, fitted_to, select, "select", seed=seed)
            rows.append(point("fvu", one.fvu, len(fitted_to.kinds), **_about(one.taxonomy)))
            found.append(Candidate(one.taxonomy, one.fvu, one.parameters, tuple(rows)))
            if progress:
                progress(1)
    return found


def choose(candidates: Sequence[Candidate], by: str = BY) -> Candidate:
    """The candidate with the highest score; of equal ones the smallest.

    Raises:
        Refusal: none has a score.
    """
    best = max(candidates, key=lambda c: (c.score(by), -len(c.taxonomy.encoder)))
    if best.score(by) == float("-inf"):
        raise Refusal(f"no taxonomy has a defined {by} to be chosen by.")
    return best


def report(
    taxonomy: Taxonomy,
    fitted_to: Steps,
    steps: Steps,
    part: str,
    *,
    kinds: str = STRATEGY,
    seed: int = 0,
) -> list[Measurement]:
    """Scores of the taxonomy and of both baselines on steps, as rows; `x` is the size.

    Args:
        taxonomy: fitted to `fitted_to`.
        fitted_to: what the k-means baseline is fitted to.
        steps: what is scored.
        part: name of their split.
        kinds: what their known kinds are, named in the rows.
        seed: of baselines and resamples.
    """
    rows = []
    for setting, found in assignments(taxonomy, fitted_to, steps, seed=seed).items():
        for measure, estimate in scores(found, steps.kinds, steps.problems, seed=seed).items():
            about = _about(taxonomy)
            rows.append(row(measure, estimate, setting=setting, part=part, kind=kinds, **about))
    return rows


def confusion(taxonomy: Taxonomy, steps: Steps, part: str = "") -> list[Measurement]:
    """Of each known kind, the share of its steps in each category: `x` is the latent.

    `model` is the latent's name; `n` is how many steps the kind has.
    """
    found = taxonomy.category(steps.values[taxonomy.site]).numpy()
    rows = []
    for kind in sorted(set(steps.kinds.tolist())):
        of_it = found[steps.kinds == kind]
        for latent, name in enumerate(taxonomy.names):
            about = {"kind": kind, "model": name, "site": taxonomy.site, "part": part}
            share = float((of_it == latent).mean())
            rows.append(point("category share", share, len(of_it), x=float(latent), **about))
    return rows


def _about(taxonomy: Taxonomy) -> dict[str, Any]:
    return {"site": taxonomy.site, "x": float(len(taxonomy.encoder))}
