"""Dictionaries: latents of reasoning, how often they fire before and after, which are shared.

Rows as `whenhow sae score` writes them: `x` is the latent's number, `kind` a strategy or whose
dictionary it is, `setting` where a label stands or whose texts were read.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from probes.plots.style import COLOURS, MANY, NULL, absent, key, page, pick, whisker, written

LEVEL = "q < 0.05"
SHOWN = 12
"""Latents of a ranking."""
EDGES = np.linspace(-0.5, 1.5, 41)
"""Of the histogram of nu; what lies beyond is counted in the last bin."""


def reason(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """The latents with the highest ReasonScore, and what the best of shuffled windows has."""
    rows = pick(frame, measure="reason score").dropna(subset=["value"])
    models = list(dict.fromkeys(rows.model)) or [""]
    with page(stem, 1, len(models), width=1 + 4.2 * len(models), height=3.8) as (_, axs):
        for axes, model in zip(axs[0], models, strict=True):
            best = pick(rows, model=model).nlargest(SHOWN, "value", keep="all")[:SHOWN]
            if best.empty:
                absent(axes)
                continue
            places = np.arange(len(best))[::-1]
            colour = COLOURS.get(model, MANY[0])
            spread = np.abs([best.value - best.low, best.high - best.value])
            axes.barh(places, best.value, color=colour, alpha=0.35)
            axes.errorbar(best.value, places, xerr=np.nan_to_num(spread), fmt="none", color=colour)
            names = [f"{int(x)}: {note}" for x, note in zip(best.x, best.note, strict=True)]
            axes.set_yticks(places, names, fontsize=6.5)
            for _, null in pick(frame, measure="reason score, shuffled", model=model).iterrows():
                axes.axvline(null.high, color=NULL, ls=(0, (3, 2)), lw=1.2)
                axes.annotate(
                    "95% of shuffled",
                    (null.high, 1.0),
                    xycoords=("data", "axes fraction"),
                    fontsize=7,
                    color=NULL,
                    rotation=90,
                    va="top",
                    ha="right",
                )
            axes.set_xlabel("ReasonScore (latent: the tokens it fires on)")
            axes.set_title(model, fontsize=9)
    return written(stem)


def telling(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """AUC of the best latents of each strategy on problems that chose nothing, and of shuffled."""
    rows = pick(frame, measure="feature auc").dropna(subset=["value"])
    settings = ("span", "decision")
    models = list(dict.fromkeys(rows.model)) or [""]
    with page(stem, 1, len(settings), width=8.0, height=3.6, sharey=True) as (figure, axs):
        for axes, setting in zip(axs[0], settings, strict=True):
            of_it = pick(rows, setting=setting)
            if of_it.empty:
                absent(axes)
                continue
            kinds = list(dict.fromkeys(of_it.kind))
            for i, model in enumerate(models):
                for place, kind in enumerate(kinds):
                    at = place + (i - (len(models) - 1) / 2) * 0.4
                    _told(axes, frame, {"model": model, "kind": kind, "setting": setting}, at)
            axes.axhline(0.5, color=NULL, lw=0.8)
            axes.set_xticks(range(len(kinds)), kinds)
            axes.set_title(
                "inside the strategy's span"
                if setting == "span"
                else "before the decision: taken or not",
                fontsize=9,
            )
        axs[0][0].set_ylabel("AUC of a single latent, held out")
        entries = [(m, {"color": COLOURS.get(m, MANY[0]), "ls": "", "marker": "o"}) for m in models]
        key(figure, [*entries, ("95% of shuffled labels", {"color": NULL})])
    return written(stem)


def _told(axes: Axes, frame: pd.DataFrame, which: dict[str, str], at: float) -> None:
    """The best latents of one strategy side by side, over the null's line."""
    best = pick(frame, measure="feature auc", **which).dropna(subset=["value"])[:5]
    for i, (_, row) in enumerate(best.iterrows()):
        colour = COLOURS.get(which["model"], MANY[0])
        whisker(axes, row, at + (i - 2) * 0.06, colour, across=False, ms=3, lw=1)
    for _, null in pick(frame, measure="feature auc, shuffled", **which).iterrows():
        axes.hlines(null.high, at - 0.18, at + 0.18, color=NULL, lw=1.2)


def firing(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Share of rows in which each latent fires, before and after, on the same texts."""
    rows = pick(frame, measure="firing rate").dropna(subset=["value"])
    moved = pick(frame, measure="firing shift")
    panels = [
        key_
        for key_ in dict.fromkeys(zip(moved.model, moved.kind, moved.setting, strict=True))
        if "base's texts" in key_[2] or len(set(moved.setting)) == 1
    ][:6] or [("", "", "")]
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    with page(stem, lines, columns, width=1 + 2.6 * columns, height=0.6 + 2.7 * lines) as (
        figure,
        axs,
    ):
        for axes, (change, kind, setting) in zip(axs.flat, panels, strict=False):
            of_it = pick(rows, note=change, kind=kind, setting=setting) if change else rows.head(0)
            if of_it.empty:
                absent(axes)
                continue
            shift = pick(moved, model=change, kind=kind, setting=setting)
            _shifts(axes, of_it, shift, change)
            axes.set_title(f"{kind}\n{setting}", fontsize=8)
        for axes in axs.flat[len(panels) :]:
            axes.set_visible(False)
        entries = [(LEVEL, {"color": COLOURS["tuned"]}), ("not told from 0", {"color": NULL})]
        key(figure, [(name, {**look, "ls": "", "marker": "o"}) for name, look in entries])
    return written(stem)


def _shifts(axes: Axes, rates: pd.DataFrame, shift: pd.DataFrame, change: str) -> None:
    """One panel: a point a latent, on logarithmic axes with what never fires at their edge."""
    after, before = change.split(" - ")
    x, y = (pick(rates, model=name).set_index("x") for name in (before, after))
    floor = 10 ** np.floor(np.log10(min(_least(x), _least(y))))
    for _, one in shift.iterrows():
        a, b = x.loc[one.x], y.loc[one.x]
        told = one.note.startswith("q ") and float(one.note[2:]) < 0.05
        at = [max(float(v), floor) for v in (a.value, b.value)]
        spread = [
            [[max(0.0, v - max(low, floor))], [max(0.0, high - v)]]
            for v, low, high in ((at[0], a.low, a.high), (at[1], b.low, b.high))
        ]
        axes.errorbar(
            *at,
            xerr=spread[0],
            yerr=spread[1],
            fmt="o",
            ms=2.5 if told else 1.8,
            lw=0.6,
            color=COLOURS["tuned"] if told else NULL,
            alpha=0.8 if told else 0.4,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    ends = (floor * 0.8, 1.1)
    axes.plot(ends, ends, color="black", lw=0.6)
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    axes.set_xlabel(f"{before}: share of rows")
    axes.set_ylabel(f"{after}: share of rows")


def _least(rates: pd.DataFrame) -> float:
    found = rates.value[rates.value > 0]
    return float(found.min()) if len(found) else 1e-3


def scaling(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Nu of every latent: is its direction used alike in the other model, beside other seeds."""
    rows = pick(frame, measure="nu").dropna(subset=["value"])
    pair = ("base / tuned", "tuned / base")
    panels = (
        ("base / tuned", "tuned's latents, in the base"),
        ("tuned / base", "base's latents, in the tuned"),
    )
    with page(stem, 1, 2, width=8.0, height=3.3, sharex=True, sharey=True) as (figure, axs):
        nulls = _nulls(rows, pair)
        for axes, (model, title) in zip(axs[0], panels, strict=True):
            of_it = pick(rows, model=model)
            if of_it.empty:
                absent(axes)
                continue
            _steps(axes, of_it, COLOURS["tuned"], 2.0)
            for name, colour in zip(nulls, ("#7F7F7F", "#B0B0B0"), strict=False):
                _steps(axes, pick(rows, model=name), colour, 1.2)
            axes.axvline(0, color="black", lw=0.6)
            axes.axvline(1, color="black", lw=0.6)
            axes.set_title(title, fontsize=9)
            axes.set_xlabel("nu: 0 its own, 1 shared")
        axs[0][0].set_ylabel("share of latents")
        entries = [("the pair", {"color": COLOURS["tuned"]})]
        key(
            figure,
            [
                *entries,
                *(
                    (f"null: {n}", {"color": c})
                    for n, c in zip(nulls, ("#7F7F7F", "#B0B0B0"), strict=False)
                ),
            ],
        )
    return written(stem)


def _nulls(rows: pd.DataFrame, pair: Sequence[str]) -> list[str]:
    """Pairs of copies of the tuning: neither of the two is the base."""
    others = dict.fromkeys(m for m in rows.model if m not in pair)
    return [m for m in others if "base" not in m.split(" / ")][:2]


def _steps(axes: Axes, rows: pd.DataFrame, colour: str, width: float) -> None:
    if rows.empty:
        return
    values = np.clip(rows.value.to_numpy(float), EDGES[0], EDGES[-1])
    counts, _ = np.histogram(values, EDGES)
    axes.stairs(counts / len(values), EDGES, color=colour, lw=width)


FEATURES = {"reason": reason, "telling": telling, "firing": firing, "scaling": scaling}
"""Every figure of `whenhow sae score` by the name of its files."""
