"""How tuning moved the activations: likeness by layer, probes and directions, angles, the lens.

Rows as `probes.drift.rows` names them; each figure shows the nulls beside the number.
"""

from collections.abc import Mapping, Sequence
from functools import partial
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

TEXTS = ("base's texts", "tuned's texts")
PAIR = "base x tuned"
RANDOM, SINGLE = "random subspaces", "random directions"
AUC = (
    (
        ("probe auc", "base on base", "before: base's\nprobe on the base"),
        ("probe auc", "tuned on tuned", "after: tuned's\nprobe on tuned"),
        ("probe auc change", "tuned - base", "difference, paired"),
    ),
    (
        ("probe auc", "base on tuned", "carried over: base's\nprobe on tuned"),
        ("probe auc", "tuned on base", "carried back: tuned's\nprobe on the base"),
        ("probe auc, shuffled labels", "base", "null: 95% of shuffled\nlabels lie below"),
    ),
)
COSINE = (
    (
        ("direction cosine, ceiling", PAIR, "before: base,\nhalf against half"),
        ("direction cosine, halves", PAIR, "after: base against\ntuned, halves"),
        ("direction cosine, halves - ceiling", PAIR, "difference, paired"),
    ),
    (
        ("direction cosine", PAIR, "base against tuned,\nall problems"),
        ("direction cosine, shuffled labels", PAIR, "null: base against\nshuffled labels"),
        ("", "", ""),
    ),
)
"""Measure, model and title of each heatmap."""
MOST = 4
"""Layers that get a panel of their own, the first and the last among them."""


def similarity(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Debiased CKA by layer with its intervals: base and tuned, and the pairs that mean nothing."""
    rows = pick(frame, measure="cka")
    models = [PAIR, *sorted(set(rows.model) - {PAIR})]
    colours = dict(zip(models, (COLOURS["tuned"], *MANY), strict=False))
    with page(stem, 1, 2, width=7.5, height=3.4, sharey=True) as (figure, axs):
        for axes, texts in zip(axs[0], TEXTS, strict=True):
            of_it = pick(rows, setting=texts)
            if of_it.dropna(subset=["value"]).empty:
                absent(axes)
                continue
            for model in models:
                band(axes, pick(of_it, model=model), colours[model])
            axes.set_xticks(sorted(of_it.x.unique()))
            axes.set_xlabel("layer (output of block)")
            axes.set_title(f"reading {texts}")
        axs[0, 0].set_ylabel("debiased CKA,\ntoken and position taken out")
        key(figure, [(m, {"color": c}) for m, c in colours.items()], columns=3)
    return written(stem)


def heatmaps(
    frame: pd.DataFrame, stem: Path, *, texts: str, grids: Sequence[Sequence[tuple[str, str, str]]]
) -> list[Path]:
    """Layer by strategy: AUC or cosine before, after, and what to hold them against.

    Each cell has its interval; of cosines of halves and of nulls it is the middle 95% of
    repetitions.
    """
    rows = pick(frame, setting=texts)
    rows = where(rows, rows.measure.str.startswith(("probe auc", "direction cosine")))
    kinds, layers = list(dict.fromkeys(rows.kind)) or [""], sorted(rows.x.unique())
    height = 0.8 + len(grids) * (0.65 + 0.36 * max(1, len(layers)))
    width = 0.6 + 3 * (0.25 + 0.64 * max(2, len(kinds)))
    with page(stem, len(grids), 3, width=width, height=height, sharex=True, sharey=True) as (
        figure,
        axs,
    ):
        for line, row in zip(axs, grids, strict=True):
            for axes, (measure, model, title) in zip(line, row, strict=True):
                axes.set_visible(bool(measure))
                _heat(axes, pick(rows, measure=measure, model=model), kinds, layers)
                axes.set_title(title, fontsize=8.5)
            line[0].set_ylabel("layer")
        what = "AUC on held-out problems" if grids is AUC else "cosine of directions"
        figure.suptitle(f"{what}, reading {texts}", fontsize=10)
    return written(stem)


def _heat(axes: Axes, rows: pd.DataFrame, kinds: Sequence[str], layers: Sequence[float]) -> None:
    """One grid; a cell that is undefined is left white."""
    if rows.dropna(subset=["value"]).empty:
        absent(axes, "undefined")
        return
    values = np.full((len(layers), len(kinds)), np.nan)
    measure = str(rows.measure.iloc[0])
    middle, reach = (0.5, 0.5) if measure.startswith("probe auc") else (0.0, 1.0)
    if measure.endswith(("change", "halves - ceiling")):
        middle, reach = 0.0, 0.5
    for _, row in rows.iterrows():
        i, j = layers.index(row.x), kinds.index(row.kind)
        shown = row.high if measure == "probe auc, shuffled labels" else row.value
        values[i, j] = shown
        if np.isnan(shown):
            continue
        dark = abs(shown - middle) > 0.75 * reach
        text = f"{shown:.2f}"
        if not np.isnan(row.low):
            text += f"\n[{row.low:.2f}, {row.high:.2f}]"
        axes.text(
            j, i, text, ha="center", va="center", fontsize=5.4, color="white" if dark else "black"
        )
    low, high = middle - reach, middle + reach
    axes.imshow(values, cmap="PuOr_r", aspect="auto", origin="lower", vmin=low, vmax=high)
    axes.set_xticks(range(len(kinds)), kinds)
    axes.set_yticks(range(len(layers)), [f"{layer:g}" for layer in layers])
    axes.grid(False)


def angles(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Principal angles of the moved subspace with other copies', the base's own, random ones."""
    rows = pick(frame, measure="moved angle")
    sites = _sites(rows)
    against = sorted(set(rows.kind) - {RANDOM})
    colours = dict(zip(against, MANY, strict=False)) | {RANDOM: NULL}
    width = max(4.0, 0.8 + 1.85 * len(sites))
    with page(stem, 2, len(sites), width=width, height=3.8, sharex=True, sharey=True) as (
        figure,
        axs,
    ):
        for line, texts in zip(axs, TEXTS, strict=True):
            for axes, site in zip(line, sites, strict=True):
                of_it = pick(rows, setting=texts, site=site)
                if of_it.dropna(subset=["value"]).empty:
                    absent(axes)
                    continue
                for name, colour in colours.items():
                    band(axes, pick(of_it, kind=name), colour)
                axes.set_ylim(-3, 93)
                axes.set_xticks(sorted(of_it.x.unique()))
                axes.set_title(f"{_layer(site)}, {texts}", fontsize=8.5)
            line[0].set_ylabel("principal angle\n(degrees)")
        for axes in axs[-1]:
            axes.set_xlabel("which, smallest first")
        key(figure, [(name, {"color": c}) for name, c in colours.items()], columns=4)
    return written(stem)


def overlap(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """How much of the moved subspace other subspaces and single directions share, by layer."""
    rows = pick(frame, measure="moved overlap")
    sites = _sites(rows)
    names = [n for n in dict.fromkeys(rows.kind) if n not in (RANDOM, SINGLE)]
    width, height = max(5.0, 1.9 + 2.0 * len(sites)), 1.2 + 0.24 * max(4, len(names))
    with page(stem, 1, len(sites), width=width, height=height, sharex=True, sharey=True) as (
        figure,
        axs,
    ):
        for axes, site in zip(axs[0], sites, strict=True):
            if rows.dropna(subset=["value"]).empty:
                absent(axes)
                continue
            for texts, colour, shift in zip(
                TEXTS, (COLOURS["base"], COLOURS["tuned"]), (0.15, -0.15), strict=True
            ):
                of_it = pick(rows, setting=texts, site=site)
                for _, row in pick(of_it, kind=names).iterrows():
                    place = len(names) - 1 - names.index(row.kind) + shift
                    whisker(axes, row, place, colour, ms=3.5)
            for i, name in enumerate(reversed(names)):
                single = name.startswith(("direction ", "readout "))
                drawn = pick(rows, site=site, kind=SINGLE if single else RANDOM).iloc[:1]
                ends = [i - 0.5, i + 0.5]
                axes.fill_betweenx(ends, drawn.low, drawn.high, color=NULL, alpha=0.25, lw=0)
            axes.set_title(_layer(site))
            axes.set_xlim(-0.03, 1.03)
            axes.set_xlabel("mean squared cosine")
            axes.set_yticks(range(len(names)), list(reversed(names)))
        look = {"ls": "", "marker": "o"}
        entries = [(TEXTS[0], {"color": COLOURS["base"], **look})]
        entries += [(TEXTS[1], {"color": COLOURS["tuned"], **look})]
        key(figure, [*entries, ("drawn at random", {"color": NULL, "lw": 6, "alpha": 0.4})])
    return written(stem)


def lens(frame: pd.DataFrame, stem: Path, *, texts: str) -> list[Path]:
    """The words that the change at each decision promotes and demotes, layer by layer."""
    rows = pick(frame, measure="lens", setting=texts).dropna(subset=["value"])
    kinds = list(dict.fromkeys(rows.kind)) or [""]
    sites = _sites(rows)
    copies = sorted(set(rows.model) - {"tuned - base"})
    colours = dict(zip(copies, MANY, strict=False))
    width, height = max(4.0, 0.6 + 1.8 * len(kinds)), 0.9 + 1.45 * len(sites)
    with page(stem, len(sites), len(kinds), width=width, height=height, sharex="row") as (
        figure,
        axs,
    ):
        for line, site in zip(axs, sites, strict=True):
            for axes, kind in zip(line, kinds, strict=True):
                of_it = pick(rows, kind=kind, site=site)
                if of_it.empty:
                    absent(axes)
                    continue
                words = list(pick(of_it, model="tuned - base").note)
                for model in ("tuned - base", *copies):
                    colour = colours.get(model, COLOURS["tuned"])
                    for place, (_, row) in enumerate(pick(of_it, model=model).iterrows()):
                        whisker(axes, row, float(len(words) - 1 - place), colour, ms=3, lw=1)
                axes.axvline(0, color=NULL, lw=0.8)
                axes.set_yticks(range(len(words)), list(reversed(words)), fontsize=6.5)
                axes.set_title(f"{kind}, {_layer(site)}" if kind else "", fontsize=8.5)
        for axes in axs[-1]:
            axes.set_xlabel("rise of the logit")
        figure.suptitle(f"what the change says at each decision, reading {texts}", fontsize=10)
        entries = [("tuned - base", {"color": COLOURS["tuned"]}), *_looks(colours)]
        key(figure, [(m, {**look, "ls": "", "marker": "o"}) for m, look in entries])
    return written(stem)


def _looks(colours: Mapping[str, str]) -> list[tuple[str, dict[str, str]]]:
    return [(name, {"color": colour}) for name, colour in colours.items()]


def _sites(rows: pd.DataFrame) -> list[str]:
    """Sites by layer; of many, as many as there is room for, evenly spaced."""
    found = sorted(rows.site.unique(), key=lambda site: int(site.split(".")[1]))
    if len(found) > MOST:
        found = [found[i] for i in np.linspace(0, len(found) - 1, MOST).round().astype(int)]
    return found or [""]


def _layer(site: str) -> str:
    return f"layer {site.split('.')[1]}" if site else ""


DRIFT = {
    "similarity": similarity,
    "auc-base": partial(heatmaps, texts=TEXTS[0], grids=AUC),
    "auc-tuned": partial(heatmaps, texts=TEXTS[1], grids=AUC),
    "cosine-base": partial(heatmaps, texts=TEXTS[0], grids=COSINE),
    "cosine-tuned": partial(heatmaps, texts=TEXTS[1], grids=COSINE),
    "angles": angles,
    "overlap": overlap,
    "lens-base": partial(lens, texts=TEXTS[0]),
    "lens-tuned": partial(lens, texts=TEXTS[1]),
}
"""Every figure of `whenhow drift` by the name of its files."""
