"""Figures of drift: what is drawn is what the rows say, however few there are."""

from dataclasses import asdict

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from probes.plots.drift import AUC, COSINE, DRIFT, MOST
from probes.records import Measurement

TEXTS = ("base's texts", "tuned's texts")
KINDS = ("jump", "double", "check")


def row(measure, value, **about):
    return Measurement(measure, value, value - 0.05, value + 0.05, 30, **about)


def made(layers=3):
    rows = []
    for texts in TEXTS:
        for layer in range(layers):
            at = {"setting": texts, "site": f"blocks.{layer}.hook_resid_post", "x": float(layer)}
            for i, model in enumerate(("base x tuned", "base x copy", "tuned x copy")):
                rows.append(row("cka", 0.9 - 0.1 * layer - 0.05 * i, model=model, **at))
            for j, kind in enumerate(KINDS):
                for grids in (AUC, COSINE):
                    for measure, model, _ in (cell for line in grids for cell in line if cell[0]):
                        value = 0.3 + 0.1 * j + 0.05 * layer
                        rows.append(row(measure, value, model=model, kind=kind, **at))
                for word in "abcd":
                    for model in ("tuned - base", "copy - base"):
                        about = {"model": model, "kind": kind, "note": word, **at}
                        rows.append(row("lens", 0.2, **about))
            against = ("halves", "copy - base", "direction jump", "random subspaces")
            for kind in (*against, "random directions"):
                rows.append(row("moved overlap", 0.5, model="tuned - base", kind=kind, **at))
            for nth in (1.0, 2.0):
                for kind in ("copy - base", "random subspaces"):
                    rows.append(row("moved angle", 30 * nth, kind=kind, **(at | {"x": nth})))
    return pd.DataFrame([asdict(r) for r in rows])


@pytest.fixture(scope="module")
def frame():
    return made()


@pytest.mark.parametrize("name", DRIFT)
def test_every_figure_is_written_and_not_blank(name, frame, tmp_path):
    paths = DRIFT[name](frame, tmp_path / name)
    assert [p.name for p in paths] == [f"{name}.png", f"{name}.svg"]
    pixels = matplotlib.image.imread(paths[0])
    assert 600 <= pixels.shape[1] <= 2000
    assert (pixels[..., :3].min(-1) < 0.5).mean() > 0.005


@pytest.mark.parametrize("name", DRIFT)
def test_a_figure_without_rows_says_so(name, frame, tmp_path, drawn):
    DRIFT[name](frame.iloc[:0], tmp_path / name)
    said = {text.get_text() for axes in drawn[0].axes for text in axes.texts}
    assert said & {"not measured", "undefined"}


def test_each_cell_of_a_heatmap_is_its_row_with_its_interval(frame, tmp_path, drawn):
    lower = np.where((frame.kind == "check") & (frame.x == 2), 0.123, frame.value)
    DRIFT["auc-base"](frame.assign(value=lower), tmp_path / "f")
    first = drawn[0].axes[0]
    cells = {tuple(t.get_position()): t.get_text() for t in first.texts}
    assert cells[0, 0] == "0.30\n[0.25, 0.35]"
    assert cells[2, 2].startswith("0.12\n")
    assert first.images[0].get_array()[2, 2] == pytest.approx(0.123)


def test_an_undefined_cell_is_empty_and_not_zero(frame, tmp_path, drawn):
    gone = frame.assign(value=np.where(frame.kind == "jump", np.nan, frame.value))
    DRIFT["cosine-base"](gone, tmp_path / "f")
    first = drawn[0].axes[0]
    assert len(first.texts) == 3 * (len(KINDS) - 1)
    assert np.isnan(np.asarray(first.images[0].get_array().filled(np.nan))[:, 0]).all()


def test_a_deep_model_gets_no_more_panels_than_there_is_room_for(tmp_path, drawn):
    DRIFT["overlap"](made(layers=12), tmp_path / "f")
    titles = [axes.get_title() for axes in drawn[0].axes]
    assert titles == ["layer 0", "layer 4", "layer 7", "layer 11"]
    assert len(titles) == MOST


def test_the_null_of_a_direction_is_wider_than_that_of_a_subspace_and_drawn_behind_it(
    frame, tmp_path, drawn
):
    wide = (frame.kind == "random directions").to_numpy()
    frame = frame.assign(low=np.where(wide, 0.0, frame.low), high=np.where(wide, 0.9, frame.high))
    DRIFT["overlap"](frame, tmp_path / "f")
    ends = [c.get_paths()[0].vertices[:, 0] for c in drawn[0].axes[0].collections]
    spans = {(round(x.min(), 2), round(x.max(), 2)) for x in ends if len(x) > 4}
    assert {(0.0, 0.9), (0.45, 0.55)} <= spans
