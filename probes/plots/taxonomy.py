"""Figures of a taxonomy and of the vectors trained by its categories.

Rows as `probes.taxonomy.report`, `probes.taxonomy.confusion` and `steering.vectors.judge` name
them. The figure that chooses shows the split that chose; what may be claimed is the test split's.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from probes.plots.style import (
    COLOURS,
    MANY,
    NULL,
    absent,
    band,
    key,
    page,
    pick,
    where,
    whisker,
    written,
)

SCORES = {"ari": "adjusted Rand index", "nmi": "normalised mutual\ninformation", "purity": "purity"}
ARMS = {"taxonomy": COLOURS["tuned"], "k-means": MANY[0], "random": NULL}
SPLITS = ("select", "test")
LOSS = {"unsteered": COLOURS["base"], "vectors": COLOURS["tuned"]}


def choice(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Agreement with the known kinds against the number of categories, a column a layer.

    With both baselines, 95% intervals over problems, and the chosen one ringed where the table
    says which was chosen (its rows of the test split).
    """
    rows = pick(frame, measure=list(SCORES), kind="strategy")
    chosen, rows = pick(rows, part="test"), pick(rows, part="select")
    sites = sorted(set(rows.site))
    columns = max(1, len(sites))
    width = max(4.2, 1.2 + 2.3 * columns)
    with page(stem, len(SCORES), columns, width=width, height=6.6, sharex=True, sharey="row") as (
        figure,
        axs,
    ):
        for line, (measure, label) in zip(axs, SCORES.items(), strict=True):
            line[0].set_ylabel(label)
            for column, axes in enumerate(line):
                of_it = pick(rows, measure=measure, site=sites[column : column + 1])
                if of_it.dropna(subset=["value"]).empty:
                    absent(axes)
                    continue
                for setting, colour in ARMS.items():
                    band(axes, pick(of_it, setting=setting), colour)
                if measure == "ari" and not chosen.empty:
                    _ring(axes, of_it, chosen)
        for column, site in enumerate(sites):
            axs[0, column].set_title(f"layer {site.split('.')[1]}")
            axs[-1, column].set_xlabel("categories")
        figure.suptitle("agreement with the known kinds of steps, problems of the choice")
        key(figure, [(name, {"color": colour}) for name, colour in ARMS.items()])
    return written(stem)


def _ring(axes: Axes, rows: pd.DataFrame, chosen: pd.DataFrame) -> None:
    """Mark the taxonomy that was chosen, if it is in this panel."""
    of_it = pick(rows, setting="taxonomy", site=list(chosen.site), x=list(chosen.x))
    axes.plot(of_it.x, of_it.value, "o", ms=11, mfc="none", mec="black", mew=1.2)


def matrix(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Of each known kind, the share of its steps in each category; each row sums to 1."""
    rows = pick(frame, measure="category share")
    kinds = list(dict.fromkeys(rows.kind)) or [""]
    latents = sorted(set(rows.x)) or [0.0]
    names = {x: f"{x:.0f} {name}" for x, name in zip(rows.x, rows.model, strict=True)}
    width, height = max(4.5, 1.8 + 0.55 * len(latents)), 1.5 + 0.42 * len(kinds)
    with page(stem, 1, 1, width=width, height=height) as (figure, axs):
        axes = axs[0, 0]
        if rows.empty:
            absent(axes)
        else:
            shares = np.full((len(kinds), len(latents)), np.nan)
            for kind, x, value in zip(rows.kind, rows.x, rows.value, strict=True):
                shares[kinds.index(kind), latents.index(x)] = value
            axes.imshow(shares, cmap="Oranges", vmin=0, vmax=1, aspect="auto")
            for (i, j), share in np.ndenumerate(shares):
                if share >= 0.005 and len(latents) <= 20:
                    dark = "white" if share > 0.6 else "black"
                    axes.text(
                        j, i, f"{share:.2f}", ha="center", va="center", fontsize=7, color=dark
                    )
            axes.set_xticks(range(len(latents)), [names[x] for x in latents], rotation=60)
            steps = dict(zip(rows.kind, rows.n, strict=True))
            axes.set_yticks(range(len(kinds)), [f"{kind}\n({steps[kind]})" for kind in kinds])
            axes.set_xlabel("category, and what most of its steps are")
            axes.set_ylabel("known kind (steps)")
            axes.grid(False)
        figure.suptitle("where the steps of each known kind fall")
    return written(stem)


def loss(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Loss and agreement where the models part: unsteered, under the vectors, and the controls."""
    rows = pick(frame, measure=["vector loss", "vector agreement"])
    rows = where(rows, ~rows.setting.str.contains(" - "))
    settings = list(dict.fromkeys(rows.setting)) or [""]
    places = sorted(set(rows.x)) or [-1.0]
    pairs = zip(rows.x, rows.kind, strict=True)
    names = {x: f"{x:.0f} {kind}" if x >= 0 else "all" for x, kind in pairs}
    spare = iter(MANY)
    colours = {setting: LOSS.get(setting) or next(spare) for setting in settings}
    labels = {"vector loss": "nats to the tuned model", "vector agreement": "same greedy token"}
    with page(stem, 1, 2, width=8.0, height=1.6 + 0.42 * len(places), sharey=True) as (figure, axs):
        for axes, (measure, label) in zip(axs[0], labels.items(), strict=True):
            of_it = pick(rows, measure=measure)
            if of_it.dropna(subset=["value"]).empty:
                absent(axes)
                continue
            for i, setting in enumerate(settings):
                shift = 0.6 * ((i + 0.5) / len(settings) - 0.5)
                for _, row in where(of_it, of_it.setting == setting).iterrows():
                    whisker(axes, row, places.index(row.x) + shift, colours[setting], ms=4)
            axes.set_yticks(range(len(places)), [names[x] for x in places])
            axes.set_xlim(left=0)
            axes.set_xlabel(label)
        if not axs[0, 0].yaxis_inverted():
            axs[0, 0].invert_yaxis()
        axs[0, 0].set_ylabel("category")
        key(figure, [(s, {"color": c, "marker": "o", "lw": 0}) for s, c in colours.items()])
    return written(stem)


TAXONOMY = {"choice": choice, "confusion": matrix, "loss": loss}
"""Every figure by the end of its file's name."""
