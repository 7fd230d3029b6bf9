"""Figures of sweeps: what is drawn is what the table says, and nothing else is."""

import itertools

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from probes.plots import style
from probes.plots.sweep import SWEEP, figures, heatmap, pareto_front, short_names, side_effects
from probes.plots.sweep.maps import cell_text
from probes.plots.sweep.ranking import SHOWN
from steering.cli.sweep import leaderboard as cli_leaderboard
from steering.cli.sweep import sentence, short, shortened
from steering.sweep.settings import WINDOWS as OURS
from steering.sweep.settings import window_text

ABOUT = {"metrics": ["right", "length", "kl"], "axes": ["model", "push", "layer", "strength"]}
MODELS = ("../m/base-0", "../m/rl-0-0")
PUSHES = tuple(
    f"../m/base-0/d/{s}-blocks.{{layer}}.hook_mlp_out.safetensors" for s in ("jump", "z")
)
PLAIN = {"right": 0.4, "length": 10.0, "kl": 0.0}


def measured(name, value, half):
    return {name: value, f"{name}_low": value - half, f"{name}_high": value + half}


def line(number, model, push, layer, strength, *, control="", plain=False, off=False):
    """One row; its numbers tell it from every other."""
    key, source = f"{number:03d}{control[:1]}", f"plain {model}"
    gain = 0.2 * strength - 0.05 * layer * strength**2 + 0.003 * PUSHES.index(push or PUSHES[0])
    row = {"setting": source if plain else key, "unsteered": source, "control": control}
    row |= {"controls": "", "draw": 0, "status": "ok", "reason": "", "model": model, "task": "t"}
    row |= {"push": "" if plain else push, "op": "" if plain else "add", "layer": layer}
    row |= {"site": "" if plain else f"blocks.{layer}.hook_mlp_out", "strength": strength}
    row |= {"window": "", "temperature": 1.0, "top_p": 1.0, "seed": 0, "problems": 20}
    changes = {"right": gain, "length": 3.0 * strength, "kl": 0.5 * strength**2 + 0.01 * layer}
    for name, change in changes.items():
        nan = np.nan if plain else 1.0
        row |= measured(name, PLAIN[name] + (0 if plain else change), 0.05)
        row |= measured(f"{name}_gain", nan * change, 0.12)
        row |= measured(f"{name}_control", np.nan if control else nan * (PLAIN[name] - 0.1), 0.02)
    if off:
        row |= measured("off_right_gain", -0.1 * abs(strength), 0.01)
    return {**row, "p_corrected": np.nan if plain or control else 0.01}


def made(models=MODELS, pushes=PUSHES, layers=(0, 1), strengths=(-1.0, 0.0, 0.5, 1.0), **about):
    points = list(itertools.product(models, pushes, layers, strengths))
    rows = [line(i, *point, plain=point[-1] == 0, **about) for i, point in enumerate(points)]
    nulls = {point: line(i, *point, control="random", **about) for i, point in enumerate(points)}
    rows += [row for (_, _, _, strength), row in nulls.items() if strength]
    frame = pd.DataFrame(rows)
    return frame.astype({"layer": "Int64"})


def steered(frame):
    return frame[(frame.control == "") & (frame.push != "")]


@pytest.fixture(scope="module")
def frame():
    return made()


def said(figure):
    return {t.get_text() for axes in figure.axes for t in axes.texts}


# ------------------------------------------------------------------------------- names


def test_names_are_what_tells_the_values_apart():
    names = short_names([*MODELS, *PUSHES, "../m/rl-0-0/everywhere.safetensors#0"])
    assert list(names.values()) == ["base-0", "rl-0-0", "jump", "z", "everywhere#0"]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["d/a-blocks.0.hook_x.safetensors", "d/a-blocks.1.hook_x.safetensors"], ["0", "1"]),
        (["d/a-blocks.2.hook_x.safetensors", "d/b-blocks.2.hook_x.safetensors"], ["a", "b"]),
        (["Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-1.5B"], ["Qwen2.5-0.5B", "Qwen2.5-1.5B"]),
        (["o/L-1B-Instruct", "o/L-3B-Instruct"], ["L-1B", "L-3B"]),
        (["x/p/f.toml", "y/p/f.toml"], ["x", "y"]),
        (["d/v.safetensors#0", "d/v.safetensors#1"], ["v#0", "v#1"]),
        (["one/path/of/many.toml"], ["many"]),
        (["", "d/x"], ["", "x"]),
        (["plain", "words"], ["plain", "words"]),
        ([], []),
    ],
)
def test_a_number_keeps_its_word_and_folders_stay_where_they_are_needed(given, wanted):
    if wanted == ["0", "1"]:  # a layer is a number, too
        wanted = ["a-blocks.0", "a-blocks.1"]
    assert list(short_names(given).values()) == wanted


def test_names_are_distinct_never_empty_nor_longer_nor_new():
    rng = np.random.default_rng(0)
    pieces = ["a", "b1", "0", "1.5", "safetensors", "blocks", "{layer}", "hook_x", "blocks.{l}"]
    for _ in range(400):
        values = {
            "".join(
                x + s
                for x, s in zip(rng.choice(pieces, n), rng.choice(list("./-_#"), n), strict=True)
            )
            for n in rng.integers(1, 7, size=4)
        }
        names = short_names(values)
        assert set(names) == values
        assert len(set(names.values())) == len(values)
        for value, name in names.items():
            assert name
            rest = iter(value)
            assert all(letter in rest for letter in name)  # in its order: nothing is made up


def test_windows_are_named_as_sweep_files_name_them():
    for name, window in OURS.items():
        assert short_names([window_text(window)]) == {window_text(window): name}
    assert short_names(['{"origin": "generated", "start": 0}', "{layer}.x"]) == {
        '{"origin": "generated", "start": 0}': "generated",
        "{layer}.x": "{layer}.x",
    }
    made_up = '{"after": ["c"], "start": 0}'
    assert short_names(["{}", made_up]) == {"{}": "all", made_up: "after c, start 0"}


def test_the_table_and_the_sentence_of_the_command_line_say_short_names(frame):
    names = shortened(frame)
    assert [short(v, names) for v in (MODELS[1], PUSHES[0], "", 0.5, pd.NA)] == [
        "rl-0-0",
        "jump",
        "",
        "0.5",
        "",
    ]
    table = cli_leaderboard(frame.assign(right_beyond=np.nan), ABOUT, 3, "right", controls=False)
    assert list(table.columns[1].cells) == ["z", "z", "jump"]
    best = dict.fromkeys(("right", "right_gain", "right_beyond"), (0.6, 0.5, 0.7))
    one = {"model": MODELS[0], "task": "t", "push": PUSHES[1], "layer": 1, "strength": 0.5}
    one |= {"looked_at": 6, "p_corrected": 0.01, "chosen_on": {"problems": 5, "right": 0.9}}
    text = sentence({**one, "reported_on": {"problems": 5, **best}}, "right", names)
    assert text.startswith("Best of 6 of base-0 on t: z in layer 1 at 0.5, chosen on 5 problems")


# ------------------------------------------------------------------------------- all


@pytest.mark.parametrize("metric", ["", "length"])
def test_every_figure_is_written_and_not_blank(frame, tmp_path, metric):
    paths = figures(frame, ABOUT, tmp_path / "new", metric)
    assert [p.name for p in paths] == [f"{n}{s}" for n in SWEEP for s in (".png", ".svg")]
    for path in paths[::2]:
        pixels = matplotlib.image.imread(path)
        assert 600 <= pixels.shape[1] <= 2100
        assert (pixels[..., :3].min(-1) < 0.5).mean() > 0.005


@pytest.mark.parametrize("name", SWEEP)
def test_failed_settings_and_unknown_values_are_not_drawn(name, frame, tmp_path, drawn):
    """The picture is that of the table without them."""
    bad = frame.copy()
    at = steered(bad).index[[1, 5]]
    bad.loc[at[0], "status"] = "failed"
    bad.loc[at[0], "right"] = 0.99
    bad.loc[at[1], [c for c in bad if c.startswith("right")]] = np.nan
    SWEEP[name](bad, ABOUT, tmp_path / "bad", "")
    SWEEP[name](bad.drop(index=at), ABOUT, tmp_path / "without", "")
    SWEEP[name](frame, ABOUT, tmp_path / "all", "")
    bad_, without, all_ = ((tmp_path / f"{n}.svg").read_bytes() for n in ("bad", "without", "all"))
    assert without != all_
    if name == "dose_response":  # which also says how many failed
        SWEEP[name](bad.drop(index=at[1]).replace(0.99, 0.01), ABOUT, tmp_path / "other", "")
        without = (tmp_path / "other.svg").read_bytes()
        assert "1 failed" in drawn[-1].get_suptitle()
    assert bad_ == without


def test_where_there_is_nothing_it_is_said_or_nothing_is_written(frame, tmp_path, drawn):
    failed = frame.assign(status="failed")
    for given in (failed, frame.iloc[:0]):
        assert [p.name for p in figures(given, ABOUT, tmp_path / "f")][::2] == ["leaderboard.png"]
        assert said(drawn[-1]) == {"no setting has a value of right"}


@pytest.mark.parametrize(
    ("about", "names"),
    [
        ({"layers": (1,)}, ["leaderboard", "dose_response", "side_effects"]),
        ({"strengths": (0.0, 1.0)}, ["leaderboard", "side_effects"]),
        ({"strengths": (0.0,)}, ["leaderboard"]),
        ({"models": MODELS[:1], "pushes": PUSHES[:1]}, list(SWEEP)),
    ],
)
def test_a_figure_needs_the_axes_that_it_is_about(about, names, tmp_path):
    made_ = figures(made(**about), ABOUT, tmp_path)
    assert [p.stem for p in made_[::2]] == names


# ------------------------------------------------------------------------------- leaderboard


def test_the_leaderboard_is_the_head_of_the_table_with_all_intervals(frame, tmp_path, drawn):
    SWEEP["leaderboard"](frame, ABOUT, tmp_path / "f", "")
    (axes,) = drawn[0].axes
    best = steered(frame).sort_values("right", ascending=False, kind="stable").head(SHOWN)
    wanted = [
        f"{r.model[5:]} · {'jump' if 'jump' in r.push else 'z'} · layer {r.layer} · {r.strength:+g}"
        for r in best.itertuples()
    ]
    assert [t.get_text() for t in axes.get_yticklabels()] == wanted
    bars = {}
    for container in axes.containers:
        point, _, (bar,) = container
        ends = bar.get_segments()[0][:, 0]
        bars[round(point.get_ydata()[0], 2)] = (point.get_xdata()[0], *ends)
    for i, row in enumerate(best.itertuples()):
        assert bars[round(i - 0.22, 2)] == pytest.approx((row.right, row.right_low, row.right_high))
        null = (row.right_control, row.right_control_low, row.right_control_high)
        assert bars[i] == pytest.approx(null)
        assert bars[round(i + 0.22, 2)] == pytest.approx((0.4, 0.35, 0.45))
    assert len(bars) == 3 * SHOWN
    assert {"0.01", "p (right),\ncorrected"} == said(drawn[0])


def test_an_unsteered_model_off_the_axes_is_known_by_the_gain_and_has_no_interval(tmp_path, drawn):
    given = made()
    given = given[given.push != ""]
    SWEEP["leaderboard"](given, ABOUT, tmp_path / "f", "")
    for container in drawn[0].axes[0].containers[1::3]:
        point, _, (bar,) = container
        assert point.get_xdata()[0] == pytest.approx(0.4)
        assert np.ptp(bar.get_segments()[0][:, 0]) == 0


def test_unsteered_settings_are_listed_where_nothing_is_steered(tmp_path, drawn):
    SWEEP["leaderboard"](made(strengths=(0.0,)), ABOUT, tmp_path / "f", "")
    (axes,) = drawn[0].axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["base-0", "rl-0-0"]
    assert len([c for c in axes.containers]) == 2
    assert [t.get_text() for t in drawn[0].legends[0].get_texts()] == ["unsteered"]


# ------------------------------------------------------------------------------- heatmap


def test_cells_hold_their_gains_and_those_that_are_sure_are_framed(frame, tmp_path, drawn):
    heatmap(frame, ABOUT, tmp_path / "f")
    *panels, _ = drawn[0].axes
    titles = [a.get_title() for a in panels]
    assert titles == ["base-0 · jump", "rl-0-0 · jump", "base-0 · z", "rl-0-0 · z"]
    assert {a.images[0].get_clim() for a in panels} == {panels[0].images[0].get_clim()}
    low, high = panels[0].images[0].get_clim()
    assert low == -high == -steered(frame).right_gain.abs().max()
    for axes, (push, model) in zip(panels, itertools.product(PUSHES, MODELS), strict=True):
        texts = {t.get_position(): t for t in axes.texts}
        framed = {
            (p.get_x() + 0.47, p.get_y() + 0.46) for p in axes.patches if type(p) is Rectangle
        }
        rows = steered(frame)[lambda f: (f.push == push) & (f.model == model)]  # noqa: B023
        assert len(texts) == len(rows) == 6
        for row in rows.itertuples():
            at = [-1.0, 0.5, 1.0].index(row.strength), row.layer
            text = f"{row.right_gain:+.2f}\n±.12".replace("+0.", "+.").replace("-0.", "-.")
            assert texts[at].get_text() == text
            sure = row.right_gain_low > 0 or row.right_gain_high < 0
            assert (texts[at].get_fontweight() == "bold") == sure
            assert any(np.allclose(at, f) for f in framed) == sure
            assert axes.images[0].get_array()[at[::-1]] == pytest.approx(row.right_gain)
    assert len({t.get_fontweight() for a in panels for t in a.texts}) == 2


def test_a_cell_says_as_many_digits_as_its_scale_asks_for():
    assert cell_text(-0.071, -0.2, 0.1, 0.3) == "-.07\n±.15"
    assert cell_text(0.5, np.nan, np.nan, 0.3) == "+.50"
    assert cell_text(120.4, 100.0, 140.0, 130.0) == "+120\n±20"


def test_of_too_many_panels_the_ones_with_the_largest_gains_stay(tmp_path, drawn):
    pushes = tuple(f"d/p{i:02d}.safetensors" for i in range(12))
    given = pd.concat([made(MODELS[:1], PUSHES[:1]).assign(push=p) for p in pushes])
    given["setting"] = [f"{s}{p}" for s, p in zip(given.setting, given.push, strict=True)]
    given.loc[given.push.isin([pushes[3], pushes[7]]), "right_gain"] -= 1
    heatmap(given, ABOUT, tmp_path / "f")
    titles = [a.get_title() for a in drawn[0].axes[:-1] if a.axison]
    assert titles == [f"p{i:02d}" for i in range(12) if i not in (3, 7)]
    assert "10 of 12 combinations" in drawn[0].get_suptitle()


def test_pushes_that_name_their_layer_share_a_panel(tmp_path, drawn):
    given = made(MODELS[:1])
    given["push"] = [
        p.replace("{layer}", str(n)) for p, n in zip(given.push, given.layer, strict=True)
    ]
    heatmap(given, ABOUT, tmp_path / "f")
    assert [a.get_title() for a in drawn[0].axes[:-1]] == ["jump", "z"]


def test_draws_from_a_range_are_no_map_and_it_says_so(tmp_path, drawn):
    heatmap(made(strengths=tuple(np.linspace(0.1, 1, 30))), ABOUT, tmp_path / "f")
    assert said(drawn[0]) == {"30 strengths are too many for a map: see dose_response"}


# ------------------------------------------------------------------------------- dose and response


def test_curves_are_the_rows_of_their_layer_and_pass_through_the_unsteered_model(
    frame, tmp_path, drawn
):
    SWEEP["dose_response"](frame, ABOUT, tmp_path / "f", "length")
    panels = np.array(drawn[0].axes).reshape(3, 4)
    columns = list(itertools.product(PUSHES, MODELS))
    for i, metric in enumerate(("length", "right", "kl")):
        for axes, (push, model) in zip(panels[i], columns, strict=True):
            rows = steered(frame)[lambda f: (f.push == push) & (f.model == model)]  # noqa: B023
            curves = [line for line in axes.lines if line.get_marker() == "o"]
            assert len(curves) == 2
            for layer, curve in enumerate(curves):
                of_it = rows[rows.layer == layer].set_index("strength")[metric]
                wanted = of_it.to_dict() | {0.0: PLAIN[metric]}
                assert dict(zip(*curve.get_data(), strict=True)) == pytest.approx(wanted)
            flat = [line for line in axes.lines if len(set(line.get_ydata())) == 1]
            assert PLAIN[metric] in {line.get_ydata()[0] for line in flat}
            bands = [c for c in axes.collections if not isinstance(c, LineCollection)]
            assert len(bands) == 2
            bars = [c for c in axes.collections if isinstance(c, LineCollection)]
            assert [len(b.get_segments()) for b in bars] == [4, 4]
            ends = {tuple(np.round(s[:, 1], 6)) for b in bars for s in b.get_segments()}
            null, plain = PLAIN[metric] - 0.1, PLAIN[metric]
            wanted = {(null - 0.02, null + 0.02), (plain - 0.05, plain + 0.05)}
            assert ends == {tuple(np.round(w, 6)) for w in wanted}


def test_columns_are_four_at_most_and_those_left_out_are_counted(tmp_path, drawn):
    given = pd.concat([made().assign(task=t) for t in ("t", "u")])
    given["setting"] = [f"{s}{t}" for s, t in zip(given.setting, given.task, strict=True)]
    SWEEP["dose_response"](given, ABOUT, tmp_path / "f", "")
    assert len(drawn[0].axes) == 3 * 4
    assert "4 of 8 combinations" in drawn[0].get_suptitle()


def test_a_clamped_feature_is_not_the_unsteered_model_at_zero(tmp_path, drawn):
    given = made(MODELS[:1], PUSHES[:1])
    given.loc[given.op == "add", "op"] = "clamp"
    SWEEP["dose_response"](given, ABOUT, tmp_path / "f", "")
    curves = [line for line in drawn[0].axes[0].lines if line.get_marker() == "o"]
    assert all(0.0 not in line.get_xdata() for line in curves)


# ------------------------------------------------------------------------------- side effects


def test_the_front_is_what_none_dominates():
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = int(rng.integers(0, 12))
        cost, gain = rng.integers(0, 5, n) / 4, rng.integers(0, 5, n) / 4
        cost[rng.random(n) < 0.1] = np.nan
        gain[rng.random(n) < 0.1] = np.nan
        front = pareto_front(cost, gain).tolist()
        points = [(c, g) for c, g in zip(cost, gain, strict=True) if c == c and g == g]
        wanted = {
            (c, g)
            for c, g in points
            if not any(a <= c and b >= g and (a, b) != (c, g) for a, b in points)
        }
        assert {(cost[i], gain[i]) for i in front} == wanted
        assert len(front) == len(wanted)
        assert list(cost[front]) == sorted(cost[front])


def test_points_fronts_and_controls_are_those_of_the_table(tmp_path, drawn):
    given = made(off=True)
    side_effects(given, ABOUT, tmp_path / "f")
    panels = drawn[0].axes
    rows, nulls = steered(given), given[given.control != ""]
    costs = [rows.kl, rows.length_gain.abs(), -rows.off_right_gain]
    assert [a.get_xlabel().split()[0] for a in panels] == ["KL", "change", "loss"]
    for axes, cost in zip(panels, costs, strict=True):
        points = [line for line in axes.lines if line.get_marker() == "o"]
        found = np.concatenate([np.column_stack(p.get_data()) for p in points])
        assert sorted(map(tuple, found.round(9))) == sorted(
            zip(cost.round(9), rows.right_gain.round(9), strict=True)
        )
        (grey,) = (line for line in axes.lines if line.get_marker() == "D")
        assert to_hex(grey.get_color()) == style.NULL.lower()
        assert len(grey.get_xdata()) == len(nulls)
        (step,) = (line for line in axes.lines if line.get_drawstyle() == "steps-post")
        every = np.append(cost, 0.0), np.append(rows.right_gain, 0.0)
        front = pareto_front(*every)
        assert len(front) > 1
        corners = np.column_stack([every[0][front], every[1][front]])
        assert np.column_stack(step.get_data())[:-1] == pytest.approx(corners)
        assert len([c for c in axes.collections if isinstance(c, LineCollection)]) == 6  # 2 each


def test_an_interval_of_a_change_either_way_begins_at_zero_where_it_holds_it():
    from probes.plots.sweep.costs import COSTS

    (cost,) = (c for c in COSTS if c.column == "length_gain")
    rows = pd.DataFrame(
        {"length_gain": [1.0, -3.0], "length_gain_low": [-2.0, -4.0], "length_gain_high": [3.0, -1]}
    ).assign(strength=1.0)
    assert cost.of(rows)[["value", "low", "high"]].to_numpy().tolist() == [[1, 0, 3], [3, 1, 4]]


def test_where_nothing_beats_the_unsteered_model_it_is_the_front(tmp_path, drawn):
    side_effects(made().assign(right_gain=-0.1), ABOUT, tmp_path / "f")
    for axes in drawn[0].axes:
        (step,) = (line for line in axes.lines if line.get_drawstyle() == "steps-post")
        assert list(step.get_ydata()) == [0.0, 0.0]
        assert not axes.texts
