"""Figures of routing: what is drawn is what the rows say, however few there are."""

from dataclasses import asdict

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from probes.plots.routing import ROUTING
from probes.records import Measurement

ARMS = (
    "base",
    "tuned",
    "hybrid",
    "random candidates",
    "random vectors",
    "guardrail",
    "bias only",
    "tuned at KL > 0.5",
    "as many tokens as tuned at KL > 0.5",
    "tuned at KL > 1",
    "tuned at decisions",
)
PAIRS = ("rl", "rft", "distilled")


def row(measure, value, **about):
    return Measurement(measure, value, value - 0.05, value + 0.05, 30, **about)


def made(pairs=PAIRS):
    rows = []
    for i, pair in enumerate(pairs):
        rows.append(row("gap valid", 0.5, model=pair, setting="tuned"))
        for skill, part in (("", ""), ("n", "touched"), ("z", "untouched")):
            about = {"model": pair, "skill": skill, "part": part}
            for j, arm in enumerate(ARMS[2:]):
                value = np.nan if arm == "bias only" else 0.9 - 0.3 * i - 0.1 * j
                note = "no bias" if arm == "bias only" else ""
                rows.append(row("recovered valid", value, setting=arm, note=note, **about))
                if not skill:
                    rows.append(row("steered share", 0.1 + 0.02 * j, setting=arm, **about))
                    rows.append(row("disagreement rate", 0.3, setting=arm, **about))
        for x in (0.5, 1.0):
            for measure in ("kl precision", "kl recall"):
                rows.append(row(measure, 0.4, model=pair, setting="base's texts", x=x))
    return pd.DataFrame([asdict(r) for r in rows])


@pytest.fixture(scope="module")
def frame():
    return made()


@pytest.mark.parametrize("name", ROUTING)
def test_every_figure_is_written_and_not_blank(name, frame, tmp_path):
    paths = ROUTING[name](frame, tmp_path / name)
    assert [p.name for p in paths] == [f"{name}.png", f"{name}.svg"]
    pixels = matplotlib.image.imread(paths[0])
    assert 600 <= pixels.shape[1] <= 2000
    assert (pixels[..., :3].min(-1) < 0.5).mean() > 0.005


@pytest.mark.parametrize("name", ROUTING)
def test_a_figure_without_rows_says_so(name, frame, tmp_path, drawn):
    ROUTING[name](frame.iloc[:0], tmp_path / name)
    assert "not measured" in {text.get_text() for axes in drawn[0].axes for text in axes.texts}


def test_each_pair_has_a_panel_and_each_bar_is_its_row(frame, tmp_path, drawn):
    ROUTING["recovered"](frame, tmp_path / "f")
    panels = drawn[0].axes
    assert [axes.get_title().split("\n")[0] for axes in panels] == list(PAIRS)
    assert panels[0].get_title().endswith("gap 0.50 [0.45, 0.55]")
    names = [tick.get_text() for tick in panels[0].get_yticklabels()]
    assert names == list(reversed(ARMS[2:]))
    for i, axes in enumerate(panels):
        widths = {round(bar.get_y() + 0.31): bar.get_width() for bar in axes.patches}
        for j, arm in enumerate(ARMS[2:]):
            place = len(ARMS) - 3 - j
            if arm == "bias only":
                assert place not in widths
            else:
                assert widths[place] == pytest.approx(0.9 - 0.3 * i - 0.1 * j)
        assert "undefined: no bias" in {text.get_text() for text in axes.texts}
    assert min(bar.get_width() for bar in panels[2].patches) < 0  # signed: nothing is cut at 0


def test_a_gap_that_may_be_nothing_is_said_in_the_skill_it_is_of(frame, tmp_path, drawn):
    lost = (frame.skill == "z") & (frame.measure == "recovered valid")
    ROUTING["skills"](frame.assign(value=np.where(lost, np.nan, frame.value)), tmp_path / "f")
    for axes in drawn[0].axes:
        assert [t.get_text() for t in axes.texts] == ["gap not told from 0"]
        assert axes.texts[0].get_position()[1] == 0


def test_thresholds_are_the_abscissa_of_the_arms_that_are_named_after_them(frame, tmp_path, drawn):
    ROUTING["kl"](frame, tmp_path / "f")
    lower = drawn[0].axes[len(PAIRS)]
    lines = {tuple(line.get_xdata()): line.get_ydata() for line in lower.lines}
    assert np.asarray(lines[0.5, 1.0]) == pytest.approx([0.9 - 0.5, 0.9 - 0.7])
