"""One text of each writer, its tokens coloured by how far two models part there."""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.patches import FancyBboxPatch

from probes.plots.style import COLOURS, NULL, absent, page, pick, where, written

WAYS = {"base || tuned": COLOURS["base"], "tuned || base": COLOURS["tuned"]}
"""KL(base || tuned) in the base's colour: it is the base that is surprised."""
TEXTS = ("base's texts", "tuned's texts")
HEAT = LinearSegmentedColormap.from_list("heat", ["#FFFFFF", "#FDE0C5", "#F0A06A", "#D55E00"])
"""From white, on which black text is legible all the way."""
LINE = 20
"""Tokens in a row of the strip."""


def token_strip(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """One text of each writer, its tokens coloured by KL; tokens that decide are underlined."""
    rows = pick(frame, measure="token", model=list(WAYS))
    panels = [pick(rows, setting=texts) for texts in TEXTS]
    lines = [_lines(of_it) for of_it in panels]
    height = 1.2 + 0.45 * (lines[0] + lines[1])
    values = rows.value.dropna()
    scale = Normalize(0, max(float(values.max()) if len(values) else 1.0, 1e-9))
    with page(stem, 2, 1, width=8.0, height=height, height_ratios=lines) as (figure, axs):
        for axes, of_it, texts in zip(axs[:, 0], panels, TEXTS, strict=True):
            if of_it.empty:
                absent(axes)
                continue
            _strip(axes, of_it, scale)
            writer = texts.split("'")[0]
            axes.set_title(f"written by the {writer} model: its text of median KL", loc="left")
        bar = figure.colorbar(ScalarMappable(scale, HEAT), ax=list(axs[:, 0]), pad=0.01, aspect=30)
        bar.set_label("KL at the token, nats")
        figure.supxlabel("black frame: the token takes a decision", fontsize=8)
    return written(stem)


def _lines(rows: pd.DataFrame) -> int:
    """Rows of tokens that a strip needs: the prompt's, and the text's both ways."""
    length = int(((rows.model == "base || tuned") & (rows.x >= 0)).sum())
    return 1 + 2 * max(1, -(-length // LINE))


def _strip(axes: Axes, rows: pd.DataFrame, scale: Normalize) -> None:
    """The prompt, then the text line by line, each line once for each way."""
    prompt, rows = where(rows, rows.x < 0).sort_values("x"), where(rows, rows.x >= 0)
    for column, (_, token) in enumerate(prompt.iterrows()):
        _token(axes, float(column), 0.0, token.note, "white", decides=False, colour=NULL)
    ways = [pick(rows, model=way).sort_values("x") for way in WAYS]
    y = 0.0
    for start in range(0, len(ways[0]), LINE):
        for way, name in zip(ways, WAYS, strict=True):
            y -= 1.0
            axes.text(-0.75, y, f"KL({name})", ha="right", va="center", fontsize=6.5)
            for column, (_, token) in enumerate(way.iloc[start : start + LINE].iterrows()):
                face = HEAT(scale(token.value))
                _token(axes, float(column), y, token.note, face, decides=bool(token.kind))
    axes.set_xlim(-3.3, LINE - 0.4)
    axes.set_ylim(y - 0.6, 0.6)
    axes.axis("off")


def _token(
    axes: Axes, x: float, y: float, word: str, face: Any, *, decides: bool, colour: str = "black"
) -> None:
    box = FancyBboxPatch(
        (x - 0.44, y - 0.36), 0.88, 0.72, boxstyle="round,pad=0,rounding_size=0.12", fc=face
    )
    box.set(ec="black" if decides else "#CCCCCC", lw=1.6 if decides else 0.6)
    axes.add_patch(box)
    axes.text(x, y, word, ha="center", va="center", fontsize=8, color=colour, family="monospace")
