"""Figures of where two models part, from made-up rows: they show what the rows say, or say so."""

from dataclasses import asdict

import pandas as pd
import pytest
from matplotlib.axes import Axes

from probes.plots import divergence as drawn
from probes.plots import token_strip
from probes.plots.divergence import DIVERGENCE
from probes.records import Measurement

TEXTS = ("base's texts", "tuned's texts")
PLACES = ("", "decision", "execution", "check", "double", "word", "value", "end")


def row(measure, value, half=0.05, **about):
    return Measurement(measure, value, value - half, value + half, 30, **about)


def texts():
    rows = []
    for setting in TEXTS:
        for i, word in enumerate("Q 9 b1 >".split(), -4):  # noqa: SIM905
            for model in ("base || tuned", "tuned || null"):  # another pair's strip is not ours
                about = {"x": float(i), "setting": setting, "note": word}
                rows.append(row("token", float("nan"), model=model, **about))
        for model in ("base || tuned", "tuned || base"):
            for i, word in enumerate(("b1", "=", "18", ";", "ans", "18", "END")):
                kind = {0: "jump", 3: "check"}.get(i, "")
                about = {"x": float(i), "kind": kind, "note": word}
                rows.append(row("token", 0.3 * i, model=model, setting=setting, **about))
            for i, kind in enumerate(PLACES):
                rows.append(row("kl", 0.1 * i, model=model, setting=setting, kind=kind))
                shuffled = f"{setting}, shuffled places"
                rows.append(row("kl", 0.3, model=model, setting=shuffled, kind=kind))
        for count in range(1, 8):
            about = {"model": "base || tuned", "setting": setting, "x": float(count)}
            rows.append(row("parted", 0.1 * count, **about))
        for kind in ("never", "check", "value"):
            rows.append(
                row("first parting", 0.3, model="base || tuned", setting=setting, kind=kind)
            )
        for judge in ("base", "tuned"):
            for x, note in enumerate(("0", "1", "2-4", "5+")):
                about = {"model": judge, "setting": setting, "x": float(x), "note": note}
                rows.append(row("rank share", 0.8 / (x + 1), **about))
    return rows


def answers():
    rows = []
    for judge in ("base", "tuned"):
        for suffix in ("", ", any length"):
            about = {"model": judge, "setting": f"tuned over base{suffix}"}
            rows += [row("perplexity ratio", 0.9, **about), row("likelier", 0.6, **about)]
        for writer in ("base", "tuned"):
            for length in (8, 11, 14):
                about = {"model": judge, "setting": f"{writer}'s answers", "x": float(length)}
                rows.append(row("perplexity by length", 1 + 1 / length, **about))
    for term in ("selection bits", "reshaping bits", "gain bits"):
        for skill in ("", "a", "n"):
            rows.append(row(term, 1.0, skill=skill, setting="base and tuned"))
            rows.append(row(term, 0.1, skill=skill, setting="tuned and null"))
    return rows


@pytest.fixture(scope="module")
def frame():
    return pd.DataFrame([asdict(r) for r in (*texts(), *answers())])


@pytest.mark.parametrize("name", DIVERGENCE)
def test_a_figure_is_written_twice_and_the_same_rows_give_the_same_bytes(name, frame, tmp_path):
    files = DIVERGENCE[name](frame, tmp_path / name)
    assert [f.suffix for f in files] == [".png", ".svg"]
    before = files[1].read_bytes()
    assert DIVERGENCE[name](frame, tmp_path / name)[1].read_bytes() == before
    assert 5_000 < files[0].stat().st_size < 150_000


@pytest.mark.parametrize("name", DIVERGENCE)
def test_a_figure_without_its_rows_says_so(name, frame, tmp_path, monkeypatch):
    said = []
    for module in (drawn, token_strip):
        monkeypatch.setattr(module, "absent", lambda axes, *_: said.append(axes))
    DIVERGENCE[name](frame.iloc[:0], tmp_path / name)
    assert said


def test_each_token_of_both_texts_is_written_once_each_way_and_decisions_are_framed(
    frame, tmp_path, monkeypatch
):
    written, framed, plain = [], [], Axes.text

    def text(axes, x, y, word, **how):
        written.append(word)
        return plain(axes, x, y, word, **how)

    def patch(axes, box):
        framed.append(box.get_linewidth() > 1)
        return plain_patch(axes, box)

    plain_patch = Axes.add_patch
    monkeypatch.setattr(Axes, "text", text)
    monkeypatch.setattr(Axes, "add_patch", patch)
    DIVERGENCE["strip"](frame, tmp_path / "strip")
    assert written.count("END") == 4
    assert written.count("Q") == 2
    assert sum(framed) == 2 * 2 * 2


def test_a_bar_is_as_long_as_its_kl(frame, tmp_path, monkeypatch):
    lengths, plain = [], Axes.barh

    def barh(axes, y, width, **how):
        lengths.append(round(width, 6))
        return plain(axes, y, width, **how)

    monkeypatch.setattr(Axes, "barh", barh)
    DIVERGENCE["places"](frame, tmp_path / "places")
    wanted = [round(0.1 * i, 6) for i, kind in enumerate(PLACES) if kind]
    assert sorted(lengths) == sorted(wanted * 4)
