"""Where two models part in what they say: by place, by rank, in perplexity, in bits."""

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
from probes.plots.token_strip import TEXTS, WAYS, token_strip

SHUFFLED = ", shuffled places"


def by_place(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Mean KL of a token at each place, both ways, on both writers' texts, with the nulls."""
    rows = pick(frame, measure="kl", model=list(WAYS))
    places = _places(rows)
    height = 1.5 + 0.3 * max(3, len(places))
    with page(stem, 1, 2, width=8.0, height=height, sharey=True, sharex=True) as (figure, axs):
        for axes, texts in zip(axs[0], TEXTS, strict=True):
            of_it = pick(rows, setting=texts)
            if of_it.empty:
                absent(axes)
                continue
            _bars(axes, of_it, places)
            seeds = pick(frame, measure="kl", setting=texts, model="tuned || null")
            for _, row in seeds.iterrows():
                if row.kind in places:
                    whisker(axes, row, _at(places, row.kind), "k", fmt="D", ms=3, lw=1)
            null = pick(frame, measure="kl", setting=texts + SHUFFLED, model="base || tuned")
            for _, row in null.iterrows():
                if row.kind in places and row.kind not in ("word", "decision", "execution"):
                    whisker(axes, row, _at(places, row.kind), NULL, fmt="|", ms=7, lw=1)
            axes.set_title(f"on {texts}")
            axes.set_xlabel("mean KL of a token, nats")
        axs[0, 0].set_yticks(range(len(places)), list(reversed(places)))
        axs[0, 0].set_ylim(-0.6, len(places) - 0.4)
        entries = [(f"KL({way})", {"color": c, "lw": 6}) for way, c in WAYS.items()]
        entries += [("places shuffled in each text", {"color": NULL, "ls": "", "marker": "|"})]
        entries += [("another RL seed", {"color": "k", "ls": "", "marker": "D", "ms": 4})]
        key(figure, entries, columns=4)
    return written(stem)


def cross_perplexity(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Why lengths are matched; then both writers' valid answers under both models, and the null."""
    judges = ("base", "tuned")
    with page(stem, 1, 3, width=9.0, height=3.3, width_ratios=(1.25, 1, 1)) as (figure, axs):
        lengths = pick(frame, measure="perplexity by length", model=list(judges))
        if lengths.empty:
            absent(axs[0, 0])
        for judge, dashes in zip(judges, ("-", (0, (3, 2))), strict=True):
            for writer in judges:
                of_it = pick(lengths, model=judge, setting=f"{writer}'s answers")
                band(axs[0, 0], of_it, COLOURS[writer], ls=dashes, ms=2.5)
        axs[0, 0].set_xlabel("tokens of the answer")
        axs[0, 0].set_ylabel("perplexity of a token")
        axs[0, 0].set_title("valid answers, by length")
        ratios = {
            "perplexity ratio": "ratio of perplexities",
            "likelier": "chance of being likelier",
        }
        for axes, (measure, label) in zip(axs[0, 1:], ratios.items(), strict=True):
            _crossed(axes, pick(frame, measure=measure), first=measure == "perplexity ratio")
            axes.axvline(1 if measure == "perplexity ratio" else 0.5, color="k", lw=0.8)
            axes.set_xlabel(label)
        axs[0, 1].set_title("tuned's answers against base's")
        axs[0, 2].tick_params(labelleft=False)
        entries = [(f"written by {m}", {"color": COLOURS[m]}) for m in judges]
        entries += [(f"read by {judges[0]}", {"color": "k"})]
        entries += [(f"read by {judges[1]}", {"color": "k", "ls": (0, (3, 2))})]
        key(figure, entries, columns=4)
    return written(stem)


def parting(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """How soon the likeliest tokens differ, at which place first, and the ranks given."""
    with page(stem, 1, 3, width=9.0, height=3.5, width_ratios=(1, 1, 1.05)) as (figure, axs):
        curve = pick(frame, measure="parted", model="base || tuned")
        seeds = pick(frame, measure="parted", model="tuned || null", setting="tuned's texts")
        if curve.empty:
            absent(axs[0, 0])
        for texts in TEXTS:
            band(axs[0, 0], pick(curve, setting=texts), COLOURS[texts.split("'")[0]], ms=2)
        band(axs[0, 0], seeds, NULL, ms=2)
        axs[0, 0].set_ylim(0, 1.02)
        axs[0, 0].set_xlabel("within so many tokens")
        axs[0, 0].set_ylabel("share of texts that have parted")
        _first(axs[0, 1], pick(frame, measure="first parting"))
        _ranks(axs[0, 2], pick(frame, measure="rank share"))
        entries = [(f"on {t}", {"color": COLOURS[t.split("'")[0]]}) for t in TEXTS]
        entries += [("another RL seed, on tuned's texts", {"color": NULL})]
        key(figure, entries, columns=3)
    return written(stem)


def solution_bits(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Selection and reshaping by skill, with what two RL seeds differ by."""
    terms = ("selection bits", "reshaping bits", "gain bits")
    rows = pick(frame, measure=list(terms), setting="base and tuned")
    groups = list(dict.fromkeys(zip(rows.skill, rows.part, strict=True)))
    null = pick(frame, measure=list(terms), setting="tuned and null")
    height = 1.3 + 0.26 * max(3, len(groups))
    with page(stem, 1, 3, width=8.0, height=height, sharey=True) as (figure, axs):
        for axes, term in zip(axs[0], terms, strict=True):
            of_it = pick(rows, measure=term)
            if of_it.empty:
                absent(axes)
                continue
            for place, (skill, part) in enumerate(reversed(groups)):
                for table, colour, shift in ((of_it, MANY[0], 0.12), (null, NULL, -0.18)):
                    for _, row in pick(table, measure=term, skill=skill, part=part).iterrows():
                        whisker(axes, row, place + shift, colour, ms=4)
            axes.axvline(0, color="k", lw=0.8)
            axes.set_xlabel("log2 tuned / base" if term == "gain bits" else "bits a problem")
            axes.set_title(term.split()[0])
        names = [f"{s} {p}".strip() or "all" for s, p in reversed(groups)]
        axs[0, 0].set_yticks(range(len(groups)), names)
        entries = [("tuned from base", {"color": MANY[0], "ls": "", "marker": "o"})]
        key(figure, [*entries, ("another RL seed", {"color": NULL, "ls": "", "marker": "o"})])
    return written(stem)


DIVERGENCE = {
    "strip": token_strip,
    "places": by_place,
    "perplexity": cross_perplexity,
    "parting": parting,
    "bits": solution_bits,
}
"""Every figure of `whenhow divergence` by the name of its files."""


def _places(rows: pd.DataFrame) -> list[str]:
    """Decision and execution, then places by how far the models part there."""
    order = pick(rows, model="base || tuned", setting=list(TEXTS)).dropna(subset=["value"])
    first = [p for p in ("decision", "execution") if p in set(order.kind)]
    most = order.groupby("kind").value.max().sort_values(ascending=False)
    return [*first, *(p for p in most.index if p not in (*first, "", "other"))]


def _at(places: list[str], place: str) -> float:
    return float(len(places) - 1 - places.index(place))


def _bars(axes: Axes, rows: pd.DataFrame, places: list[str]) -> None:
    for (way, colour), shift in zip(WAYS.items(), (0.19, -0.19), strict=True):
        for _, row in pick(rows, model=way).iterrows():
            if row.kind in places and not np.isnan(row.value):
                y = _at(places, row.kind) + shift
                axes.barh(y, row.value, height=0.34, color=colour, alpha=0.55)
                whisker(axes, row, y, colour, fmt="", lw=1.2)
    split = len(places) - 2.5
    axes.axhline(split, color=NULL, lw=0.6)


def _crossed(axes: Axes, rows: pd.DataFrame, *, first: bool) -> None:
    named = {
        "tuned over base": ("same length", "k"),
        "tuned over base, any length": ("any length", MANY[2]),
        "base, odd over base, even (null)": ("base's own halves", NULL),
        "tuned, odd over tuned, even (null)": ("tuned's own halves", NULL),
        "null over tuned": ("two RL seeds", NULL),
    }
    places = []
    for setting, (name, colour) in named.items():
        for judge in ("base", "tuned", "null"):
            for _, row in pick(rows, setting=setting, model=judge).iterrows():
                y = -float(len(places))
                whisker(axes, row, y, COLOURS.get(judge, NULL) if colour == "k" else colour, ms=4)
                places.append(f"{name}, read by {judge}")
    if not places:
        absent(axes)
        return
    axes.set_yticks(
        [-float(i) for i in range(len(places))], places if first else [""] * len(places)
    )
    axes.tick_params(axis="y", labelsize=7)
    axes.set_ylim(-len(places) + 0.4, 0.6)


def _first(axes: Axes, rows: pd.DataFrame) -> None:
    rows = pick(rows, model=["base || tuned", "tuned || null"])
    shown = pick(rows, model="base || tuned").groupby("kind").value.max()
    kinds = list(shown[shown > 0.002].sort_values().index)
    if not kinds:
        absent(axes)
        return
    for texts, shift in zip(TEXTS, (0.2, -0.05), strict=True):
        for _, row in pick(rows, setting=texts, model="base || tuned").iterrows():
            if row.kind in kinds:
                whisker(
                    axes,
                    row,
                    float(kinds.index(row.kind)) + shift,
                    COLOURS[texts.split("'")[0]],
                    ms=4,
                )
    for _, row in pick(rows, setting="tuned's texts", model="tuned || null").iterrows():
        if row.kind in kinds:
            whisker(axes, row, kinds.index(row.kind) - 0.3, NULL, ms=3)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_xlabel("share of texts that part there first")


def _ranks(axes: Axes, rows: pd.DataFrame) -> None:
    """The rank that each model gives the tokens of the other's texts."""
    pairs = (("base", "tuned's texts"), ("tuned", "base's texts"))
    drawn = False
    for (judge, texts), shift in zip(pairs, (-0.15, 0.15), strict=True):
        of_it = pick(rows, model=judge, setting=texts)
        of_it = where(of_it, of_it.note != "")
        for _, row in of_it.iterrows():
            drawn = True
            writer = texts.split("'")[0]
            axes.bar(row.x + shift, row.value, width=0.28, color=COLOURS[writer], alpha=0.55)
            whisker(axes, row, row.x + shift, COLOURS[writer], across=False, fmt="", lw=1.2)
            axes.set_xticks(sorted(set(rows.x)), list(dict.fromkeys(rows.sort_values("x").note)))
    if not drawn:
        absent(axes)
        return
    axes.set_yscale("log")
    axes.set_xlabel("rank under the other model")
    axes.set_ylabel("share of the text's tokens")
