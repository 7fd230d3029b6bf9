"""Figures of dictionaries: what is drawn is what the rows say, however few there are."""

from dataclasses import asdict

import matplotlib.image
import pandas as pd
import pytest

from probes.plots import style
from probes.plots.features import FEATURES, SHOWN
from probes.records import Measurement

NAN = float("nan")
SITE = "blocks.1.hook_resid_post"


def row(measure, value, width=0.02, **about):
    return Measurement(measure, value, value - width, value + width, 30, site=SITE, **about)


def made():
    rows = []
    for m, model in enumerate(("base", "tuned")):
        rows.append(Measurement("reason score, shuffled", 0.1, NAN, 0.15, 30, model, x=NAN))
        for i in range(15):
            about = {"model": model, "x": float(i), "note": f"w{i} 90%"}
            rows.append(row("reason score", 0.3 - 0.01 * i - 0.1 * m, **about))
        for kind in ("check", "jump"):
            for setting in ("span", "decision"):
                about = {"model": model, "kind": kind, "setting": setting}
                rows.append(row("feature auc, shuffled", 0.5, **about))
                for i in range(3):
                    rows.append(row("feature auc", 0.9 - 0.1 * i, x=float(i), **about))
    whose = "base's dictionary"
    texts = "base's texts"
    for change in ("tuned - base", "copy - tuned"):
        after, before = change.split(" - ")
        for i in range(6):
            at = {"x": float(i), "kind": whose, "setting": texts}
            q = "q 0.001" if i == 0 else "q 0.7"
            rows.append(row("firing shift", 0.1, model=change, note=q, **at))
            rows.append(row("firing rate", 0.02 * i, model=before, note=change, **at))
            rows.append(row("firing rate", 0.03 * i + 0.01, model=after, note=change, **at))
    for model, low in (("base / tuned", 0.0), ("tuned / base", 0.5), ("copy / tuned", 1.0)):
        for i in range(4):
            rows.append(row("nu", low + 0.01 * i, model=model, kind=whose, x=float(i)))
    return pd.DataFrame([asdict(r) for r in rows])


@pytest.mark.parametrize("name", FEATURES)
def test_every_figure_is_drawn_the_same_twice(name, tmp_path):
    files = FEATURES[name](made(), tmp_path / "a")
    again = FEATURES[name](made(), tmp_path / "b")
    assert matplotlib.image.imread(files[0]).std() > 0.01
    assert files[1].read_bytes() == again[1].read_bytes()


@pytest.mark.parametrize("name", FEATURES)
def test_every_figure_says_where_there_is_nothing(name, tmp_path, drawn):
    FEATURES[name](made()[:0], tmp_path / name)
    said = [text.get_text() for axes in drawn[0].axes for text in axes.texts]
    assert "not measured" in said


def test_the_ranking_is_by_score_with_the_nulls_line(tmp_path, drawn):
    FEATURES["reason"](made(), tmp_path / "reason")
    first = drawn[0].axes[0]
    assert [bar.get_width() for bar in first.patches] == pytest.approx(
        [0.3 - 0.01 * i for i in range(SHOWN)]
    )
    assert [label.get_text() for label in first.get_yticklabels()][0] == "0: w0 90%"
    assert [line.get_xdata()[0] for line in first.lines if line.get_ls() == "--"] == [0.15]


def test_the_histogram_of_nu_is_of_the_pair_and_of_the_null(tmp_path, drawn):
    FEATURES["scaling"](made(), tmp_path / "scaling")
    for axes, low in zip(drawn[0].axes, (0.0, 0.5), strict=True):
        pair, null = [patch for patch in axes.patches if hasattr(patch, "get_data")]
        for patch, start in ((pair, low), (null, 1.0)):
            data = patch.get_data()
            full = data.edges[:-1][data.values > 0]
            assert data.values.sum() == pytest.approx(1)
            assert full.tolist() == pytest.approx([start])


def test_a_panel_of_firing_is_of_one_change_and_marks_discoveries(tmp_path, drawn):
    FEATURES["firing"](made(), tmp_path / "firing")
    first, second = drawn[0].axes[:2]
    assert first.get_ylabel() == "tuned: share of rows"
    assert second.get_xlabel() == "tuned: share of rows"
    points = [line for line in first.lines if line.get_marker() == "o"]
    assert len(points) == 6
    told = [p for p in points if p.get_color() == style.COLOURS["tuned"]]
    assert len(told) == 1
