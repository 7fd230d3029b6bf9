"""pass@k of base and tuned: does the boundary move, or only the likelihood?"""

from pathlib import Path

import pandas as pd

from probes.plots.style import COLOURS, DASHES, NULL, absent, band, key, named, page, pick, written

MEASURES = {
    "pass@k": "solved within k tries,\nright answers (share)",
    "valid@k": "solved within k tries,\nvalid traces (share)",
}


def pass_at_k(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Curves of both models, right above valid, a column a skill; what guessing reaches, dotted."""
    curves = pick(frame, measure=list(MEASURES), model=["base", "tuned"])
    skills = sorted(curves.skill.unique(), key=lambda s: (s != "", s)) or [""]
    width = max(4.0, 0.9 + 1.45 * len(skills))
    with page(stem, 2, len(skills), width=width, height=4.4, sharey=True, sharex=True) as (
        fig,
        axs,
    ):
        for j, skill in enumerate(skills):
            for i, (measure, label) in enumerate(MEASURES.items()):
                axes, of_it = axs[i, j], pick(curves, measure=measure, skill=skill)
                if of_it.empty:
                    absent(axes)
                    continue
                _guesses(axes, pick(frame, skill=skill))
                for (model, part), rows in of_it.groupby(["model", "part"]):  # type: ignore[misc]
                    band(axes, rows, COLOURS[model], ls=DASHES.get(part, "-"), ms=2.2)
                axes.set_ylim(-0.03, 1.03)
                axes.set_xscale("log", base=2)
                ticks = sorted(of_it.x.unique())
                axes.set_xticks(ticks[::2], [f"{k:g}" for k in ticks[::2]])
                axes.minorticks_off()
                if i == 0:
                    axes.set_title(named(skill))
                else:
                    axes.set_xlabel("k (tries)")
                if j == 0:
                    axes.set_ylabel(label)
        entries = [(m, {"color": COLOURS[m]}) for m in ("base", "tuned")]
        if set(curves.part) - {""}:
            entries += [(f"{p} entries", {"color": "k", "ls": DASHES[p]}) for p in _PARTS]
        key(fig, [*entries, ("guessing", {"color": NULL, "ls": ":"})])
    return written(stem)


_PARTS = ("untouched", "touched")


def _guesses(axes, rows: pd.DataFrame) -> None:
    """What guessing reaches within k tries; a lucky trace needs a lucky answer at least."""
    guessing = pick(rows, measure="pass@k", model="guessing").drop_duplicates("x")
    if len(guessing):
        line = guessing.sort_values("x")
        axes.plot(line.x, line.value, color=NULL, ls=":", lw=1.3)
