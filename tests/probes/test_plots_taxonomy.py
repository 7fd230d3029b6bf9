"""Figures of taxonomies and vectors: what is drawn is what the rows say, however few there are."""

from dataclasses import asdict

import matplotlib.image
import pandas as pd
import pytest

from probes.plots.taxonomy import TAXONOMY
from probes.records import Measurement

KINDS = ("step", "double")


def row(measure, value, **about):
    return Measurement(measure, value, value - 0.05, value + 0.05, 30, **about)


def made():
    rows = []
    for layer in range(2):
        for size in (5.0, 10.0):
            about = {"site": f"blocks.{layer}.hook_resid_post", "x": size, "kind": "strategy"}
            for i, setting in enumerate(("taxonomy", "k-means", "random")):
                for measure in ("ari", "nmi", "purity"):
                    value = 0.5 - 0.1 * i - 0.01 * size + 0.1 * layer
                    rows.append(row(measure, value, setting=setting, part="select", **about))
    rows.append(row("ari", 0.3, setting="taxonomy", part="test", **about))
    for i, kind in enumerate(KINDS):
        for latent in (0.0, 1.0):
            share = 0.9 if latent == i else 0.1
            name = KINDS[int(latent)]
            rows.append(row("category share", share, kind=kind, x=latent, model=name))
    for setting, value in (("unsteered", 1.0), ("vectors", 0.2), ("vectors - one vector", -0.3)):
        for x, kind in ((-1.0, ""), (0.0, "step")):
            for measure in ("vector loss", "vector agreement"):
                rows.append(row(measure, value, setting=setting, x=x, kind=kind))
    return pd.DataFrame([asdict(r) for r in rows])


@pytest.mark.parametrize("name", TAXONOMY)
def test_every_figure_is_written_and_is_the_same_again(name, tmp_path):
    png, svg = TAXONOMY[name](made(), tmp_path / name)
    assert matplotlib.image.imread(png).std() > 0.01
    again = TAXONOMY[name](made(), tmp_path / "again")[1]
    assert svg.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("name", TAXONOMY)
def test_without_rows_it_says_so(name, tmp_path, drawn):
    TAXONOMY[name](made().iloc[:0], tmp_path / name)
    assert any("not measured" in t.get_text() for a in drawn[0].axes for t in a.texts)


def test_the_choice_is_ringed_where_it_was_made(tmp_path, drawn):
    TAXONOMY["choice"](made(), tmp_path / "c")
    grid = drawn[0].axes
    rings = [[line for line in a.lines if line.get_markersize() == 11] for a in grid]
    places = [(i, r.get_xdata().tolist()) for i, lines in enumerate(rings) for r in lines]
    assert [p for p in places if p[1]] == [(1, [10.0])]  # the second layer's panel of ARI
    curve = grid[0].lines[0]
    assert curve.get_xdata().tolist() == [5, 10]
    assert curve.get_ydata().tolist() == pytest.approx([0.45, 0.40])


def test_the_matrix_holds_the_shares(tmp_path, drawn):
    TAXONOMY["confusion"](made(), tmp_path / "m")
    axes = drawn[0].axes[0]
    assert axes.images[0].get_array().tolist() == [[0.9, 0.1], [0.1, 0.9]]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0 step", "1 double"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["step\n(30)", "double\n(30)"]


def test_differences_are_no_arm_of_the_loss_figure(tmp_path, drawn):
    TAXONOMY["loss"](made(), tmp_path / "l")
    legend = [t.get_text() for t in drawn[0].legends[0].get_texts()]
    assert legend == ["unsteered", "vectors"]
