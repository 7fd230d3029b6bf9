"""Which option is taken at each decision, before tuning and after."""

from pathlib import Path

import pandas as pd

from probes.plots.style import COLOURS, absent, key, page, pick, where, whisker, written

RARE = 0.01
"""A word that is none of a decision's options gets a panel where it is commoner than this."""


def strategy_mix(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Rate of each strategy in base and tuned, over all problems and by skill."""
    rates = pick(frame, measure="option rate", model=["base", "tuned"])
    rates = where(rates, rates.x.isna() & (rates.setting != "no"))  # "no" is the rest of "yes"
    pooled = pick(rates, skill="")
    shown = pooled.groupby(["kind", "setting"]).value.transform("max")
    pooled = where(pooled, (pooled.setting != "other") | (shown > RARE))
    options = list(dict.fromkeys(zip(pooled.kind, pooled.setting, strict=True)))
    kinds = list(dict.fromkeys(pooled.kind))
    skills = ["", *sorted(set(rates.skill) - {""})]
    rows, height = max(1, len(options)), 1.3 + 0.34 * max(1, len(skills)) * 1.0
    width = max(4.0, 0.9 + 1.9 * rows)
    with page(stem, 1, rows, width=width, height=height + 0.4, sharey=True) as (figure, axs):
        if not options:
            absent(axs[0, 0])
        for axes, (kind, option) in zip(axs[0], options, strict=False):
            of_it = pick(rates, kind=kind, setting=option)
            for _, row in of_it.iterrows():
                shift = 0.13 if row.model == "base" else -0.13
                place = len(skills) - 1 - skills.index(row.skill) + shift
                whisker(axes, row, place, COLOURS[row.model], ms=4)
            axes.set_title(kind if option == "yes" else f"{kind}: {option}")
            axes.set_xlim(-0.04, 1.04)
            axes.set_xlabel("share of its decisions")
            axes.set_yticks(range(len(skills)), [s or "all" for s in reversed(skills)])
            axes.set_ylim(-0.6, len(skills) - 0.4)
        if kinds:
            axs[0, 0].set_ylabel("skill")
            key(figure, [(m, {"color": COLOURS[m], "marker": "o"}) for m in ("base", "tuned")])
    return written(stem)
