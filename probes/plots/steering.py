"""What a push along its own direction does to the base, and what the controls do."""

from pathlib import Path

import pandas as pd

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

MEASURES = {
    "option rate": "rate of the strategy",
    "valid": "valid answers (share)",
    "valid steps": "steps without slip (share)",
}
SPREAD = 0.025
"""Distance between controls of the same strength, as a share of the range of strengths."""


def dose_response(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Rate of the strategy, valid answers and execution against strength, with the controls.

    A control stands at the strength of the direction that moves the next-token distribution at the
    decisions as far as it does (equal KL).
    """
    rows = pick(frame, measure=list(MEASURES), model="base")
    rows = where(rows, rows.x.notna() & (rows.kind != ""))
    kinds = list(dict.fromkeys(rows.kind)) or [""]
    controls = sorted(set(rows.setting) - {"direction"})
    width = max(5.0, 1.2 + 2.9 * len(kinds))
    with page(stem, 3, len(kinds), width=width, height=6.2, sharex="col", sharey="row") as (
        fig,
        axs,
    ):
        for j, kind in enumerate(kinds):
            tuned = pick(
                frame, measure="option rate", model="tuned", kind=kind, setting="yes", skill=""
            )
            for i, (measure, label) in enumerate(MEASURES.items()):
                axes, of_it = axs[i, j], pick(rows, measure=measure, kind=kind)
                if of_it.empty:
                    absent(axes)
                    continue
                band(axes, pick(of_it, setting="direction"), COLOURS["base"])
                step = SPREAD * (of_it.x.max() - of_it.x.min())
                for m, (name, colour) in enumerate(zip(controls, MANY, strict=False)):
                    for _, row in pick(of_it, setting=name).iterrows():
                        place = row.x + (m - (len(controls) - 1) / 2) * step
                        look = {"across": False, "fmt": "D", "ms": 3.5}
                        whisker(axes, row, place, colour, **look)
                if measure == "option rate":
                    for _, row in where(tuned, tuned.x.isna()).iterrows():
                        axes.axhline(row.value, color=COLOURS["tuned"], lw=1.2)
                        axes.axhspan(row.low, row.high, color=COLOURS["tuned"], alpha=0.12, lw=0)
                axes.axvline(0, color=NULL, lw=0.8)
                if j == 0:
                    axes.set_ylabel(label)
            axs[0, j].set_title(kind)
            axs[2, j].set_xlabel("strength (mean residual norms)")
        entries = [("base, pushed along its own direction", {"color": COLOURS["base"]})]
        entries += [("tuned", {"color": COLOURS["tuned"]})]
        looks = {"ls": "", "marker": "D", "ms": 4}
        entries += [(n, {"color": c, **looks}) for n, c in zip(controls, MANY, strict=False)]
        key(fig, entries, columns=3)
    return written(stem)
