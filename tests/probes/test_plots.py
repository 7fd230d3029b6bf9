"""Figures from made-up measurements: what is drawn is what the rows say."""

import math
from dataclasses import asdict

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from probes import plots
from probes.plots import style
from probes.records import Measurement, Refusal

SKILLS = ("a", "k", "n")
CELLS = ("base x base", "tuned x base", "base x tuned", "tuned x tuned")
CONTROLS = ("random direction", "logit bias", "shuffled labels", "without unembeddings")


def row(measure, value, half=0.05, **about):
    return Measurement(measure, value, value - half, value + half, 30, **about)


def boundary():
    rows = []
    for i, skill in enumerate(("", *SKILLS)):
        for part in ("",) if skill in ("", "a") else ("touched", "untouched"):
            for k in (1, 2, 4, 8, 16, 32):
                part_by = 0.8 if part == "touched" else 1.0
                rates = (0.03 + 0.02 * i) * part_by, (0.1 + 0.07 * i) * part_by
                base, tuned = (1 - (1 - p) ** k for p in rates)
                for measure, by in (("pass@k", 1.0), ("valid@k", 0.9)):
                    about = {"skill": skill, "part": part, "x": float(k)}
                    rows.append(row(measure, by * base, model="base", **about))
                    rows.append(row(measure, by * tuned, model="tuned", **about))
                rows.append(row("pass@k", 1 - (1 - 1 / 31) ** k, 0, model="guessing", **about))
            rows.append(row("guess rate", 1 / 31, 0, skill=skill, part=part))
    return rows


def strategies():
    return [
        row("option rate", rate + 0.03 * i, model=m, kind=kind, skill=s, setting=option)
        for m, rate in (("base", 0.3), ("tuned", 0.6))
        for kind in ("jump", "double", "check", "repair")
        for option in ("yes", "no")
        for i, s in enumerate(("", *SKILLS))
    ]


def crossed():
    rows = []
    for part in ("touched", "untouched"):
        for skill in SKILLS:
            for i, cell in enumerate(CELLS):
                about = {"model": cell, "skill": skill, "part": part}
                rows.append(row("valid", 0.1 + 0.2 * i, setting="decision tokens", **about))
        for term, value in {"gain": 0.6, "deployment": 0.2, "execution": 0.3}.items():
            about = {"model": "tuned - base", "part": part}
            rows.append(row(f"{term} valid", value, setting="decision tokens", **about))
        rows.append(row("interaction valid", 0.1, setting="decision tokens", **about))
        rows.append(row("deployment valid", 0.03, setting="random tokens", **about))
    return rows


def read():
    rows = []
    for kind in ("jump", "double", "check", "repair"):
        for layer in range(3):
            at = {"site": f"blocks.{layer}.hook_resid_post", "x": float(layer), "kind": kind}
            for by, method in enumerate(("difference", "pca", "logistic")):
                for model, start in (("base", 0.6), ("tuned", 0.7)):
                    value = start + 0.07 * layer + 0.02 * by
                    rows.append(row("auc", value, model=model, setting=method, **at))
                rows.append(row("cosine", 0.9 - 0.2 * layer * by, setting=method, **at))
        baselines = {"last three tokens": 0.62, "decision logit": 0.85, "random weights": 0.58}
        for name, value in baselines.items():
            rows.append(row("auc", value, model="base", setting=name, kind=kind))
        rows.append(
            Measurement("auc", 0.5, math.nan, 0.56, 9, "base", kind=kind, setting="shuffled labels")
        )
    return rows


def pushed():
    rows = []
    for kind in ("check", "double"):
        for measure, slope in (("option rate", 0.4), ("valid", 0.1), ("valid steps", -0.05)):
            about = {"model": "base", "kind": kind}
            for x in (-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0):
                rows.append(row(measure, 0.5 + slope * x, setting="direction", x=x, **about))
            for i, name in enumerate(CONTROLS):
                for x in (-1.0, 1.0):
                    value = 0.5 + slope * x * 0.2 * i
                    rows.append(row(measure, value, setting=name, x=x, **about))
    return rows


def moved():
    return [
        row(
            measure,
            start + by * layer + 0.03 * i + 0.05 * (texts < "t"),
            0.02,
            site=f"blocks.{layer}.{s}",
            x=float(layer),
            setting=texts,
        )
        for measure, start, by in (
            ("activation shift", 0.1, 0.1),
            ("activation cosine", 1.0, -0.05),
        )
        for layer in range(3)
        for i, s in enumerate(("hook_attn_out", "hook_mlp_out", "hook_resid_post"))
        for texts in ("base's texts", "tuned's texts")
    ]


@pytest.fixture(scope="module")
def frame():
    rows = boundary() + strategies() + crossed() + read() + pushed() + moved()
    return pd.DataFrame([asdict(r) for r in rows])


@pytest.mark.parametrize("name", plots.FIGURES)
def test_every_figure_is_written_as_png_and_svg_and_not_blank(name, frame, tmp_path):
    paths = plots.FIGURES[name](frame, tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{name}.png", f"{name}.svg"]
    assert paths == [tmp_path / f"{name}.png", tmp_path / f"{name}.svg"]
    pixels = matplotlib.image.imread(paths[0])
    assert 600 <= pixels.shape[1] <= 2000
    assert (pixels[..., :3].min(-1) < 0.5).mean() > 0.01


def test_the_same_rows_give_the_same_svg(frame, tmp_path):
    once, again = (plots.summary(frame, tmp_path / name)[1].read_bytes() for name in "ab")
    assert once == again
    frame = frame.assign(value=frame.value * 0.9)
    assert plots.summary(frame, tmp_path / "c")[1].read_bytes() != once


@pytest.mark.parametrize("name", plots.FIGURES)
def test_a_verdict_that_skipped_a_stage_still_has_its_figures(name, frame, tmp_path, drawn):
    plots.FIGURES[name](frame.iloc[:0], tmp_path / name)
    said = {text.get_text() for axes in drawn[0].axes for text in axes.texts}
    assert "not measured" in said


def test_the_curves_are_the_rows_and_their_bands_are_the_intervals(frame, tmp_path, drawn):
    plots.pass_at_k(frame, tmp_path / "f")
    wanted = style.pick(frame, measure="valid@k", model="tuned", skill="")
    axes = drawn[0].axes[1 + len(SKILLS)]  # second row, first column: valid traces, all problems
    lines = [line for line in axes.lines if line.get_color() == style.COLOURS["tuned"]]
    assert lines[0].get_ydata() == pytest.approx(wanted.value.to_numpy())
    bands = [band.get_paths()[0].vertices[:, 1] for band in axes.collections]
    ends = {(round(b.min(), 9), round(b.max(), 9)) for b in bands}
    assert (round(wanted.low.min(), 9), round(wanted.high.max(), 9)) in ends


def test_an_undefined_number_is_left_out_and_not_drawn_at_zero(frame, tmp_path, drawn):
    undefined = frame.assign(
        value=np.where(frame.kind == "jump", np.nan, frame.value),
    )
    plots.strategy_mix(frame, tmp_path / "f")
    plots.strategy_mix(undefined, tmp_path / "g")
    marks = [sum(len(axes.containers) for axes in figure.axes) for figure in drawn]
    assert marks[0] - marks[1] == 2 * (1 + len(SKILLS))


def test_touched_and_untouched_entries_never_look_alike(frame, tmp_path, drawn):
    plots.pass_at_k(frame, tmp_path / "f")
    axes = drawn[0].axes[2]  # a skill with two halves
    dashes = {line.get_linestyle() for line in axes.lines if line.get_color() != style.NULL}
    assert len(dashes) == 2


def test_a_table_of_something_else_is_refused(tmp_path):
    with pytest.raises(Refusal, match="lacks the columns measure, value.*evidence.parquet"):
        plots.pass_at_k(pd.DataFrame({"answer": [1]}), tmp_path / "f")
    assert not list(tmp_path.iterdir())
