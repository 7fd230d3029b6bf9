"""Where a strategy can be read from the activations, and where tuning moved them."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from probes.plots.style import COLOURS, MANY, NULL, absent, band, key, page, pick, where, written

SITE = "hook_resid_post"
METHODS = {"difference": "-", "pca": ":", "logistic": (0, (4, 1.5))}
BASELINES = {"last three tokens": MANY[0], "decision logit": MANY[1], "random weights": MANY[2]}
BASELINES |= {"twin": MANY[3]}


def directions(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """AUC by layer with what it must beat, above the cosine of base's and tuned's direction."""
    aucs = pick(frame, measure="auc").dropna(subset=["value"])
    cosines = _here(pick(frame, measure="cosine"))
    kinds = list(dict.fromkeys(aucs.kind)) or [""]
    width = max(5.0, 0.9 + 1.9 * len(kinds))
    with page(stem, 2, len(kinds), width=width, height=4.6, sharex="col", sharey="row") as (
        fig,
        axs,
    ):
        labelled = False
        for j, kind in enumerate(kinds):
            _auc(axs[0, j], pick(aucs, kind=kind))
            axs[0, j].set_title(kind)
            axs[1, j].set_xlabel("layer (output of block)")
            of_it = pick(cosines, kind=kind)
            if of_it.dropna(subset=["value"]).empty:
                absent(axs[1, j])
                continue
            for method, dashes in METHODS.items():
                band(axs[1, j], pick(of_it, setting=method), "k", ls=dashes)
            axs[1, j].axhline(0, color=NULL, lw=0.8)
            axs[1, j].set_ylim(-1.05, 1.05)
            axs[1, j].tick_params(labelleft=not labelled)  # the first panel may be empty
            labelled = True
            axs[1, j].set_xticks(sorted(of_it.x.unique()))
        axs[0, 0].set_ylabel("AUC on held-out problems")
        axs[1, 0].set_ylabel("cosine, base and tuned")
        entries = [(m, {"color": COLOURS[m]}) for m in ("base", "tuned")]
        entries += [(m, {"color": "k", "ls": d}) for m, d in METHODS.items()]
        present = [name for name in BASELINES if (aucs.setting == name).any()]
        entries += [(name, {"color": BASELINES[name], "lw": 1}) for name in present]
        key(fig, [*entries, ("shuffled labels", {"color": NULL, "lw": 6, "alpha": 0.4})], columns=5)
    return written(stem)


def activation_shift(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """How far tuning moved the activations at each layer, by site and by whose texts."""
    panels = {
        "activation shift": "distance, in norms of the base",
        "activation cosine": "cosine, base and tuned",
    }
    rows = pick(frame, measure=list(panels))
    sites = sorted({site.split(".")[-1] for site in rows.site})
    texts = sorted(set(rows.setting))
    with page(stem, 1, 2, width=7.5, height=3.3) as (figure, axs):
        for axes, (measure, label) in zip(axs[0], panels.items(), strict=True):
            of_it = pick(rows, measure=measure)
            if of_it.dropna(subset=["value"]).empty:
                absent(axes)
                continue
            for site, colour in zip(sites, MANY, strict=False):
                for setting, dashes in zip(texts, ("-", (0, (3, 2))), strict=False):
                    here = pick(where(of_it, of_it.site.str.endswith(site)), setting=setting)
                    band(axes, here, colour, ls=dashes)
            axes.set_xticks(sorted(of_it.x.unique()))
            axes.set_xlabel("layer")
            axes.set_ylabel(label)
        entries = [(_short(s), {"color": c}) for s, c in zip(sites, MANY, strict=False)]
        dashed = zip(texts, ("-", (0, (3, 2))), strict=False)
        entries += [(f"on {t}", {"color": "k", "ls": d}) for t, d in dashed]
        if entries:
            key(figure, entries)
    return written(stem)


def _auc(axes: Axes, rows: pd.DataFrame) -> None:
    for method, dashes in METHODS.items():
        for model in ("base", "tuned"):
            band(axes, _here(pick(rows, setting=method, model=model)), COLOURS[model], ls=dashes)
    for name, colour in BASELINES.items():
        for _, row in pick(rows, setting=name, model="base").iterrows():
            axes.axhline(row.value, color=colour, lw=1)
            axes.axhspan(row.low, row.high, color=colour, alpha=0.08, lw=0)
    null = pick(rows, setting="shuffled labels", model="base")
    if len(null):
        high = null.high.fillna(null.value).max()
        axes.axhspan(1 - high, high, color=NULL, alpha=0.25, lw=0)
    axes.axhline(0.5, color=NULL, lw=0.8)
    axes.set_ylim(top=1.02)


def _here(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the residual stream behind each block."""
    return where(rows, rows.site.str.endswith(SITE))


def _short(site: str) -> str:
    return site.removeprefix("hook_").replace("_", " ")
