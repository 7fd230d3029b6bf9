"""How much of the gap each way of routing recovers, and what it was told: arms and pairs.

Rows as `steering.routing.recovery` names them; `model` is the pair, `setting` the arm. Several
pairs stand side by side, for instance copies tuned by reward, by imitation and on an absent skill.
"""

from pathlib import Path
from typing import Any

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

PLAIN = ("base", "tuned")
SOME = ("hybrid", "random candidates", "random vectors", "guardrail")
"""Arms that are shown skill by skill."""
NULLS = ("random", "as many", "absent-skill")
"""How the names of arms begin that should recover nothing, or what luck does."""
KL = "tuned at KL > "


def recovered(frame: pd.DataFrame, stem: Path, *, which: str = "valid") -> list[Path]:
    """Signed share of the gap that every arm recovers, with its interval; a panel a pair."""
    rows = pick(frame, measure=f"recovered {which}", skill="", part="")
    pairs, arms = _pairs(rows), _arms(rows)
    width, height = max(5.0, 2.2 + 2.6 * len(pairs)), 1.1 + 0.24 * max(3, len(arms))
    with page(stem, 1, len(pairs), width=width, height=height, sharey=True) as (figure, axs):
        for axes, pair in zip(axs[0], pairs, strict=True):
            of_it = pick(rows, model=pair)
            if of_it.empty:
                absent(axes)
                continue
            for place, name in enumerate(reversed(arms)):
                _bar(axes, pick(of_it, setting=name), place, name)
            for at in (0, 1):
                axes.axvline(at, color=NULL, lw=0.8, ls=("-", "--")[at])
            axes.set_yticks(range(len(arms)), list(reversed(arms)), fontsize=7)
            axes.set_title(_titled(frame, pair, which), fontsize=8.5)
            axes.set_xlabel("(arm - base) / (tuned - base)")
        entries = [("arm", {"color": COLOURS["tuned"], "lw": 6})]
        key(figure, [*entries, ("drawn at random, or of a copy without the skill", _null())])
    return written(stem)


def _bar(axes: Axes, rows: pd.DataFrame, place: int, name: str) -> None:
    """One arm; an undefined share says why in place of a bar."""
    if rows.empty:
        return
    row = rows.iloc[0]
    if np.isnan(row.value):
        note = str(row.note) if len(str(row.note)) <= 48 else f"{str(row.note)[:48]}..."
        axes.text(0.02, place, f"undefined: {note}", fontsize=5.2, va="center", color=NULL)
        return
    colour = NULL if name.startswith(NULLS) else COLOURS["tuned"]
    axes.barh(place, row.value, height=0.62, color=colour, alpha=0.45, lw=0)
    whisker(axes, row, float(place), "black", ms=2.5, lw=1.1)


def share(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Of each arm, the share of tokens that the base did not choose alone, and the disagreement."""
    rows = pick(frame, measure=["steered share", "disagreement rate"], skill="", part="")
    pairs, arms = _pairs(rows), _arms(rows)
    looks = {"steered share": COLOURS["tuned"], "disagreement rate": COLOURS["base"]}
    width, height = max(5.0, 2.2 + 2.2 * len(pairs)), 1.1 + 0.24 * max(3, len(arms))
    with page(stem, 1, len(pairs), width=width, height=height, sharex=True, sharey=True) as (
        figure,
        axs,
    ):
        for axes, pair in zip(axs[0], pairs, strict=True):
            of_it = pick(rows, model=pair)
            if of_it.empty:
                absent(axes)
                continue
            for place, name in enumerate(reversed(arms)):
                for shift, (measure, colour) in zip((0.14, -0.14), looks.items(), strict=True):
                    for _, row in pick(of_it, setting=name, measure=measure).iterrows():
                        whisker(axes, row, place + shift, colour, ms=3, lw=1.1)
            axes.set_yticks(range(len(arms)), list(reversed(arms)), fontsize=7)
            axes.set_xlim(-0.03, 1.03)
            axes.set_title(pair, fontsize=8.5)
            axes.set_xlabel("share of tokens")
        key(figure, [(n, {"color": c, "ls": "", "marker": "o"}) for n, c in looks.items()])
    return written(stem)


def skills(frame: pd.DataFrame, stem: Path, *, which: str = "valid") -> list[Path]:
    """The share of the gap of a few arms, by skill and half of its entries."""
    rows = pick(frame, measure=f"recovered {which}", setting=list(SOME))
    cells = [c for c in dict.fromkeys(zip(rows.skill, rows.part, strict=True)) if c[0]]
    pairs = _pairs(rows)
    width, height = max(5.0, 1.6 + 2.4 * len(pairs)), 1.1 + 0.4 * max(3, len(cells))
    colours = dict(zip(SOME, (COLOURS["tuned"], NULL, MANY[1], MANY[0]), strict=True))
    names = [" ".join(cell).strip() for cell in cells]
    with page(stem, 1, len(pairs), width=width, height=height, sharey=True) as (figure, axs):
        for axes, pair in zip(axs[0], pairs, strict=True):
            if not cells:
                absent(axes)
                continue
            for place, (skill, part) in enumerate(reversed(cells)):
                for nth, (name, colour) in enumerate(colours.items()):
                    about = {"model": pair, "skill": skill, "part": part, "setting": name}
                    for _, row in pick(rows, **about).iterrows():
                        if nth == 0 and np.isnan(row.value):
                            axes.text(0.02, place, "gap not told from 0", fontsize=6, color=NULL)
                        whisker(axes, row, place + 0.24 - 0.16 * nth, colour, ms=3, lw=1.1)
            for at in (0, 1):
                axes.axvline(at, color=NULL, lw=0.8, ls=("-", "--")[at])
            axes.set_yticks(range(len(cells)), list(reversed(names)), fontsize=7)
            axes.set_title(pair, fontsize=8.5)
            axes.set_xlabel("(arm - base) / (tuned - base)")
        key(figure, [(n, {"color": c, "ls": "", "marker": "o"}) for n, c in colours.items()])
    return written(stem)


def kl(frame: pd.DataFrame, stem: Path, *, which: str = "valid") -> list[Path]:
    """KL in place of known decisions: what a threshold finds of them, and what it recovers."""
    found = pick(frame, measure=["kl precision", "kl recall"])
    arms = pick(frame, measure=f"recovered {which}", skill="", part="")
    pairs = _pairs(pd.concat([found, arms])) if len(found) else [""]
    looks = {"kl precision": MANY[0], "kl recall": MANY[2]}
    cut = {"the tuned model at KL above": COLOURS["tuned"], "as many tokens at random": NULL}
    with page(stem, 2, len(pairs), width=max(5.0, 1 + 2.8 * len(pairs)), height=4.6) as (
        figure,
        axs,
    ):
        for column, pair in enumerate(pairs):
            upper, lower = axs[0, column], axs[1, column]
            if pick(found, model=pair).empty:
                absent(upper)
                absent(lower)
                continue
            texts = list(dict.fromkeys(pick(found, model=pair).setting))
            for measure, colour in looks.items():
                for text, dash in zip(texts, ("-", "--", ":"), strict=False):
                    band(
                        upper,
                        pick(found, model=pair, measure=measure, setting=text),
                        colour,
                        ls=dash,
                    )
            upper.set_ylim(-0.03, 1.03)
            upper.set_title(pair, fontsize=8.5)
            of_it = pick(arms, model=pair)
            for (_, colour), prefix in zip(cut.items(), ("", "as many tokens as "), strict=True):
                band(lower, _thresholds(of_it, prefix + KL), colour)
            for _, row in pick(of_it, setting="tuned at decisions").iterrows():
                lower.axhspan(row.low, row.high, color=MANY[3], alpha=0.2, lw=0)
                lower.axhline(row.value, color=MANY[3], lw=1.2)
            lower.set_xlabel("threshold of KL(tuned || base), nats")
        axs[0, 0].set_ylabel("of decision tokens")
        axs[1, 0].set_ylabel("share of the gap")
        entries = [(name, {"color": c}) for name, c in (looks | cut).items()]
        key(figure, [*entries, ("tuned at the known decisions", {"color": MANY[3]})], columns=3)
    return written(stem)


def _thresholds(rows: pd.DataFrame, prefix: str) -> pd.DataFrame:
    """The arms of a prefix, with the threshold in their name as `x`."""
    kept = where(rows, rows.setting.str.startswith(prefix)).copy()
    kept["x"] = [float(name.removeprefix(prefix)) for name in kept.setting]
    return kept


def _titled(frame: pd.DataFrame, pair: str, which: str) -> str:
    gap = pick(frame, measure=f"gap {which}", model=pair, skill="", part="")
    if gap.empty:
        return pair
    row = gap.iloc[0]
    return f"{pair}\ngap {row.value:.2f} [{row.low:.2f}, {row.high:.2f}]"


def _null() -> dict[str, Any]:
    return {"color": NULL, "lw": 6, "alpha": 0.6}


def _pairs(rows: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(rows.model)) or [""]


def _arms(rows: pd.DataFrame) -> list[str]:
    """In the order of the table, without the two plain models."""
    return [name for name in dict.fromkeys(rows.setting) if name not in PLAIN]


ROUTING = {"recovered": recovered, "share": share, "skills": skills, "kl": kl}
"""Every figure of `whenhow route` by the name of its files."""
