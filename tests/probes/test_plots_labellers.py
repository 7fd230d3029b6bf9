"""Figures of labellers: what is drawn is what the rows say, intervals too."""

from dataclasses import asdict

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from probes.plots.labellers import LABELLERS
from probes.records import Measurement


def made(labels=("(none)", "back", "sum")):
    nan = float("nan")
    rows = [
        Measurement("kappa", 0.41, 0.33, 0.49, 60, "lexicon", setting="judge", x=600.0),
        Measurement("kappa", nan, nan, nan, 60, "lexicon", setting="taxonomy", note="no label"),
    ]
    for i, first in enumerate(("(none)", "back")):
        for j, second in enumerate(labels):
            value = 0.8 if i == j else 0.1
            rows.append(
                Measurement(
                    "label given label",
                    value,
                    value - 0.05,
                    value + 0.07,
                    60,
                    "lexicon",
                    first,
                    kind=second,
                    setting="judge",
                    x=value * 100,
                )
            )
    return pd.DataFrame([asdict(r) for r in rows])


@pytest.mark.parametrize("name", LABELLERS)
def test_every_figure_is_written_and_is_the_same_again(name, tmp_path):
    png, svg = LABELLERS[name](made(), tmp_path / name)
    assert matplotlib.image.imread(png).std() > 0.01
    again = LABELLERS[name](made(), tmp_path / "again")[1]
    assert svg.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("name", LABELLERS)
def test_without_rows_it_says_so(name, tmp_path, drawn):
    LABELLERS[name](made().iloc[:0], tmp_path / name)
    assert any("not measured" in t.get_text() for a in drawn[0].axes for t in a.texts)


def test_every_cell_has_its_share_and_its_interval(tmp_path, drawn):
    LABELLERS["confusion"](made(), tmp_path / "c")
    axes = drawn[0].axes[0]
    assert axes.images[0].get_array().tolist() == [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]]
    texts = {t.get_position(): t.get_text() for t in axes.texts}
    assert texts[0, 0] == "0.80\n[0.75, 0.87]"
    assert texts[2, 1] == "0.10\n[0.05, 0.17]"
    assert [t.get_text() for t in axes.get_yticklabels()] == ["(none)\n(100)", "back\n(100)"]
    assert axes.get_title() == "kappa 0.41 [0.33, 0.49], 60 problems"


def test_no_cells_text_leaves_its_cell(tmp_path, drawn):
    labels = ["uncertainty-estimation", "back", *"abcde"]
    LABELLERS["confusion"](made(labels), tmp_path / "c")
    figure = drawn[0]
    axes = figure.axes[0]
    figure.canvas.draw()
    corner = axes.transData.transform([[0, 0], [1, 1]])
    width, height = np.abs(corner[1] - corner[0])
    for text in axes.texts:
        box = text.get_window_extent()
        assert box.width < 0.95 * width
        assert box.height < 0.95 * height


def test_kappas_have_whiskers_and_reasons(tmp_path, drawn):
    LABELLERS["kappas"](made(), tmp_path / "k")
    axes = drawn[0].axes[0]
    (bar,) = axes.containers
    ends = bar.lines[2][0].get_segments()[0][:, 0]
    assert ends.tolist() == pytest.approx([0.33, 0.49])
    assert [t.get_text() for t in axes.texts] == ["undefined: no label"]
    assert [t.get_text() for t in axes.get_yticklabels()][0] == "lexicon\njudge"
