"""Figures of the boundary: what is drawn is what the rows say."""

import math
from dataclasses import asdict

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from probes.boundary import relabelled
from probes.boundary.curves import Counts
from probes.boundary.rows import (
    SHUFFLED,
    of_accuracy,
    of_cover,
    of_curves,
    of_guessing,
    of_pair,
    of_retest,
)
from probes.boundary.solvable import retest
from probes.plots import style
from probes.plots.boundary import BOUNDARY, accuracy, cover, pass_at_k, solvable
from probes.records import Measurement


def made(rng, rates):
    rights = rng.binomial(16, rates)
    return [Counts(f"p{i}", 16, int(c), int(rng.binomial(c, 0.9)), 0) for i, c in enumerate(rights)]


@pytest.fixture(scope="module")
def frame():
    """Two skills; of the second the base overtakes at k near 7."""
    rng, rows = np.random.default_rng(0), []
    half = np.where(np.arange(30) % 2, 0.95, 0.0)
    for skill, tuned_rates in (("", np.full(30, 0.7)), ("a", np.full(30, 0.8)), ("k", half)):
        rates = np.full(30, 0.2)
        base, tuned = made(rng, rates), made(rng, tuned_rates)
        again, tuned_again = made(rng, rates), made(rng, tuned_rates)
        about = {"skill": skill, "part": "untouched" if skill == "k" else ""}
        rows += of_curves(base, tuned, k=4, about=about)
        for model, counted in (("base", base), ("tuned", tuned)):
            rows += of_cover(counted, model, about=about) + of_accuracy(counted, model, about=about)
        rows += of_pair(base, tuned, k=4, about=about)
        rows += of_pair(*relabelled(base, tuned), k=4, about={**about, "setting": SHUFFLED})
        moved = retest(base, tuned, again, tuned_again, which="valid")
        rows += of_retest(moved, samples=16, which="valid", about=about)
        rows += of_guessing(np.full(30, 1 / 31), 16, k=4, about=about)
    return pd.DataFrame([asdict(row) for row in rows])


def of(frame, **columns):
    return style.pick(frame, **columns)


@pytest.mark.parametrize("name", BOUNDARY)
def test_every_figure_is_written_as_png_and_svg_and_not_blank(name, frame, tmp_path):
    paths = BOUNDARY[name](frame, tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{name}.png", f"{name}.svg"]
    pixels = matplotlib.image.imread(paths[0])
    assert (pixels[..., :3].min(-1) < 0.5).mean() > 0.01


@pytest.mark.parametrize("name", BOUNDARY)
def test_without_rows_a_figure_says_so(name, frame, tmp_path, drawn):
    BOUNDARY[name](frame.iloc[:0], tmp_path / name)
    said = {text.get_text() for axes in drawn[0].axes for text in axes.texts}
    assert "not measured" in said


def test_a_crossing_is_marked_where_it_is_and_a_censored_one_is_called_so(frame, tmp_path, drawn):
    pass_at_k(frame, tmp_path / "f")
    panels = drawn[0].axes[:3]
    said = [" ".join(text.get_text() for text in axes.texts) for axes in panels]
    places = of(frame, measure="crossing k right", setting="").set_index("skill")
    assert math.isinf(places.value["a"])
    assert "none by k = 16" in said[1]
    assert f"at k = {places.value['k']:g}" in said[2]
    marks = [
        [line for line in axes.lines if list(line.get_xdata()) == [places.value["k"]] * 2]
        for axes in panels
    ]
    assert [len(m) for m in marks] == [0, 0, 1]
    chance = of(frame, measure="crossing right", setting="", skill="k").value.iloc[0]
    assert f"P(cross) {chance:.2f}" in said[2]


def test_bars_are_the_shares_and_the_re_test_stands_beside_them(frame, tmp_path, drawn):
    solvable(frame, tmp_path / "f")
    for axes, measure, cell in zip(
        drawn[0].axes,
        ("solvable valid", "solvable again valid") * 2,
        ("base only",) * 2 + ("tuned only",) * 2,
        strict=True,
    ):
        rows = of(frame, measure=measure, model=cell, setting="").dropna(subset=["value"])
        widths = sorted(bar.get_width() for bar in axes.patches)
        assert widths == pytest.approx(sorted(rows.value))
    nulls = of(frame, measure="solvable valid", model="base only", setting=SHUFFLED).value
    marks = [line.get_xdata()[0] for line in drawn[0].axes[0].lines if line.get_marker() == "x"]
    assert sorted(marks) == pytest.approx(sorted(nulls))


def test_an_empty_cell_is_called_none_and_not_drawn_as_nothing_kept(frame, tmp_path, drawn):
    solvable(frame, tmp_path / "f")
    empty = of(frame, measure="solvable again valid", model="base only", setting="").value.isna()
    said = [text.get_text().strip() for text in drawn[0].axes[1].texts]
    assert said.count("none") == empty.sum() > 0


def test_cover_is_the_rows_with_their_intervals_and_guessing_dotted(frame, tmp_path, drawn):
    cover(frame, tmp_path / "f")
    axes = drawn[0].axes[1]
    rows = of(frame, measure="cover valid", model="tuned", skill="a", setting="").sort_values("x")
    (line,) = [x for x in axes.lines if x.get_color() == style.COLOURS["tuned"]]
    assert line.get_ydata() == pytest.approx(rows.value.to_numpy())
    bands = [band.get_paths()[0].vertices[:, 1] for band in axes.collections]
    assert any(b.min() == pytest.approx(rows.low.min()) for b in bands)
    guess = of(frame, measure="cover right", model="guessing", skill="a").sort_values("x")
    (dotted,) = [x for x in axes.lines if x.get_color() == style.NULL]
    assert dotted.get_ydata() == pytest.approx(guess.value.to_numpy())


def test_a_histogram_has_a_bar_for_every_bin_and_the_ends_stand_apart(frame, tmp_path, drawn):
    accuracy(frame, tmp_path / "f")
    axes = drawn[0].axes[1]
    rows = of(frame, measure="accuracy valid", skill="a", setting="", model=["base", "tuned"])
    assert sorted(bar.get_height() for bar in axes.patches) == pytest.approx(sorted(rows.value))
    left = sorted({round(bar.get_x() + bar.get_width() / 2, 3) for bar in axes.patches})
    assert left[0] < 0 < 1 < left[-1]


def test_other_settings_are_never_drawn_as_the_models_themselves(frame, tmp_path, drawn):
    extra = Measurement("cover valid", 0.123, 0.1, 0.2, 30, "base", "a", setting=SHUFFLED, x=0.33)
    cover(pd.concat([frame, pd.DataFrame([asdict(extra)])]), tmp_path / "f")
    for line in drawn[0].axes[1].lines:
        assert 0.123 not in line.get_ydata()
