"""The main question at one look: what each model does, what the base could do, and why."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from probes.plots.crossing import terms
from probes.plots.style import COLOURS, NULL, absent, key, page, pick, whisker, written


def summary(
    frame: pd.DataFrame,
    stem: Path,
    *,
    labels: Mapping[str, str] | None = None,
    title: str = "",
) -> list[Path]:
    """Valid answers at one try; the same within all tries; deployment against execution.

    Args:
        frame: Measurement rows.
        stem: path of the files without their suffix.
        labels: what the rules concluded of each skill, written beside its name.
        title: the answer in one line, above all.
    """
    valid = pick(frame, measure="valid@k", model=["base", "tuned"])
    skills = sorted(set(valid.skill) - {""}) or sorted(set(valid.skill))
    most = valid.x.max()
    height = 1.9 + 0.42 * max(3, len(skills))
    ratios = {"width_ratios": (1, 1, 1.1)}
    with page(stem, 1, 3, width=9.0, height=height, **ratios) as (figure, axs):
        once, often, why = axs[0]
        _models(once, pick(valid, x=1.0), frame, skills)
        once.set_title("How often?\none try")
        _models(often, pick(valid, x=most), frame, skills)
        often.set_title(f"Could it at all?\n{most:g} tries" if len(valid) else "Could it at all?")
        names = [f"{s}\n{labels[s]}" if labels and s in labels else s or "all" for s in skills]
        once.set_yticks(range(len(skills)), list(reversed(names)))
        often.set_yticks(range(len(skills)), [""] * len(skills))
        once.set_ylabel("skill")
        whole = pick(frame, measure="deployment valid", skill="")
        parts = [part for part in ("untouched", "") if (whole.part == part).any()]
        terms(why, frame, parts[0] if parts else "")
        why.set_title(
            f"When or how?\n{parts[0]} entries" if parts and parts[0] else "When or how?\n"
        )
        if title:
            figure.suptitle(title, fontsize=11)
        look = {"ls": "", "marker": "o"}
        entries = [(m, {"color": COLOURS[m], **look}) for m in ("base", "tuned")]
        if (valid.part == "touched").any():
            entries += [("untouched by tuning", {"color": "k", **look})]
            entries += [("touched", {"color": "k", "mfc": "white", **look})]
        entries += [("guessing", {"color": NULL, "ls": ":"})]
        entries += [("tokens swapped at decisions", {"color": "k", "ls": "", "marker": "s"})]
        entries += [("at random", {"color": NULL, "ls": "", "marker": "s"})]
        key(figure, entries, columns=7)
    return written(stem)


def _models(axes: Axes, rows: pd.DataFrame, frame: pd.DataFrame, skills: list[str]) -> None:
    """Both models, a line a skill, halves of the entries apart."""
    if rows.empty:
        absent(axes)
        return
    for _, row in pick(rows, skill=skills).iterrows():
        model = 0.12 if row.model == "base" else -0.12
        half = 0.05 if row.part == "touched" else -0.05 if row.part else 0.0
        place = len(skills) - 1 - skills.index(row.skill) + model * 1.6 - half
        face = "white" if row.part == "touched" else COLOURS[row.model]
        whisker(axes, row, place, COLOURS[row.model], ms=4.5, mfc=face)
    for place, skill in enumerate(reversed(skills)):
        guesses = pick(
            frame, measure="pass@k", model="guessing", skill=skill, x=rows.x.iloc[0]
        ).value
        if len(guesses):
            ends = place - 0.42, place + 0.42
            axes.plot([guesses.mean()] * 2, ends, color=NULL, ls=":", lw=1.4)
    axes.set_xlim(-0.04, 1.04)
    axes.set_ylim(-0.6, len(skills) - 0.4)
    axes.set_xlabel("problems, validly solved")
