"""Settings: what their key is of, which of them are one, and what their controls are."""

import shutil
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from probes.directions import load as load_direction
from probes.directions import save as save_direction
from probes.models import load
from probes.records import Refusal
from steering.interventions import ALL, GENERATED, PROMPT, Window
from steering.sweep import prepare
from steering.sweep.settings import Setting, operations, window_of
from steering.vectors import load_vectors

ONE = Setting(
    model="base",
    digest="d",
    task="chain",
    problems="p",
    push="trained.safetensors#1",
    content="c",
    op="add",
    site="blocks.1.hook_resid_post",
    strength=0.5,
    unit=4.0,
    window="{}",
)
OTHERS = {
    "digest": "e",
    "problems": "q",
    "push": "trained.safetensors#2",
    "content": "d",
    "op": "ablate",
    "site": "blocks.0.hook_resid_post",
    "strength": 0.25,
    "unit": 5.0,
    "window": '{"origin": "generated"}',
    "temperature": 0.5,
    "top_p": 0.9,
    "seed": 1,
    "dtype": "bfloat16",
    "control": "random direction",
    "draw": 1,
}


def keys(given, tmp_path, name="out"):
    return {s.key for s in prepare(given, tmp_path / name).wanted}


def points(given, tmp_path):
    """Of each point its setting."""
    return [r.setting for r in prepare(given, tmp_path / "out").resolved]


@pytest.fixture
def again(lab, tmp_path):
    """The same models, pushes and task in another folder."""
    shutil.copytree(lab.folder, tmp_path / "elsewhere")
    return replace(lab, folder=tmp_path / "elsewhere")


# ------------------------------------------------------------------ the key


@pytest.mark.parametrize("name", [f.name for f in fields(Setting)])
def test_the_key_is_of_every_field_but_the_names_of_model_and_task(name):
    if name in ("model", "task"):
        assert replace(ONE, **{name: "another"}).key == ONE.key
    else:
        assert replace(ONE, **{name: OTHERS[name]}).key != ONE.key


def test_where_things_lie_does_not_change_a_key(lab, again, tmp_path):
    for given in (
        {"grid": {"push": ["d1.safetensors", "trained.safetensors#1"]}, "controls": 2},
        {"fixed": {"push": "d0.safetensors", "window": {"after": ["="]}}},
    ):
        here, there = ({**given}, {**given})
        for one, of in ((here, lab), (there, again)):
            for table in ("fixed", "grid"):
                part = dict(one.get(table, {}))
                if "push" in part:
                    push = part["push"]
                    listed = isinstance(push, list)
                    part["push"] = [of.path(p) for p in push] if listed else of.path(push)
                one[table] = part
        one = keys(lab.file(**here), tmp_path)
        assert len(one) > 1
        assert one == keys(again.file(**there), tmp_path)


def test_other_settings_samples_batches_and_metrics_do_not_change_a_key(lab, tmp_path):
    small = keys(lab.push(strengths=[0, 1]), tmp_path)
    large = keys(
        lab.push(strengths=[-1, 0, 0.5, 1], grid={"seed": [3, 0]}, samples=3, batch=5, shard=7),
        tmp_path,
    )
    assert small < large
    more = keys(lab.push(strengths=[0, 1], metrics=["length"], controls=3), tmp_path)
    assert small < more


def test_a_longer_budget_of_the_same_problems_is_another_key(lab, again, tmp_path):
    """Problems are known by their content, and how long answers may be isn't part of that."""
    short = prepare(lab.push(), tmp_path / "out")
    shutil.copy(again.folder / "long.toml", again.folder / "tiny.toml")
    long = prepare(again.push(), tmp_path / "out")
    (one,), (two,) = ([a.problems for a in r.asked.popitem()[1]] for r in (short, long))
    assert [p.id for p in one] == [p.id for p in two]
    assert not {s.key for s in short.wanted} & {s.key for s in long.wanted}


def test_other_problems_and_a_task_beside_are_other_keys(lab, tmp_path):
    plain = keys(lab.push(), tmp_path)
    assert not plain & keys(lab.push(problems=3), tmp_path)
    assert not plain & keys(lab.push(split="tune"), tmp_path)
    assert not plain & keys(lab.push(off_task=lab.path("long.toml")), tmp_path)


def test_a_push_that_is_written_anew_is_another_setting_in_the_same_process(lab, again, tmp_path):
    """A notebook fits a direction again under its old name: the old one must not be remembered."""
    first = prepare(again.push(), tmp_path / "out")
    path = again.folder / "d1.safetensors"
    old = load_direction(path)
    save_direction(replace(old, vector=-old.vector), path)
    second = prepare(again.push(), tmp_path / "out")
    a, b = (r.resolved[1].setting for r in (first, second))
    assert a.key != b.key
    model = load(again.folder / "model")
    (edit,) = operations(b, model, _none, foreign=False)
    assert np.array_equal(np.asarray(edit.vector), -old.vector)
    with pytest.raises(Refusal, match="is not what it was when the sweep was planned"):
        operations(a, model, _none, foreign=False)
    path.unlink()
    with pytest.raises(Refusal, match="is not what it was when the sweep was planned"):
        operations(b, model, _none, foreign=False)


def _none(site):
    raise AssertionError(site)


# ------------------------------------------------------------------ settings that are one


@pytest.mark.parametrize("op", ["add", "ablate"])
def test_strength_zero_is_the_unsteered_model_at_any_layer_and_window(lab, tmp_path, op):
    given = lab.push(
        "d{layer}.safetensors",
        fixed={"op": op},
        strengths=[0.0, 1.0],
        grid={"layer": [0, 1], "window": ["all", "prompt"]},
    )
    ready = prepare(given, tmp_path / "out")
    zero = {r.setting for r in ready.resolved if r.point["strength"] == 0}
    assert len(zero) == 1
    (plain,) = zero
    assert not plain.steered
    assert {r.plain.key for r in ready.resolved} == {plain.key}
    assert plain.key in keys(lab.file(), tmp_path)  # of a sweep without any push
    assert plain.key in keys(lab.file({"push": "none"}), tmp_path)


def test_clamping_to_zero_is_an_edit(lab, tmp_path):
    zero, one = points(lab.push(fixed={"op": "clamp"}), tmp_path)
    assert zero.steered
    assert (zero.strength, one.strength) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("generated", {"origin": "generated"}),
        ("generated", {"start": 0, "origin": "generated"}),
        ("all", {"start": 0}),
        ("all", {"origin": "row"}),
        ({"after": ["b0", "="]}, {"after": ["=", "b0", "="], "start": 0}),
    ],
)
def test_one_window_in_other_words_is_one_setting(lab, tmp_path, one, other):
    given = lab.push(grid={"window": [one, other]}, strengths=[0, 1.0])
    assert len({s.key for s in points(given, tmp_path) if s.steered}) == 1


def test_windows_of_other_meaning_are_other_settings(lab, tmp_path):
    listed = [
        *("generated", "prompt", "all"),
        {"stop": 3},
        {"start": 1},
        {"start": 1, "origin": "generated"},
        {"stop": 1, "origin": "generated"},  # the last word of the prompt alone
        {"after": ["="]},
        {"after": ["b0"]},
    ]
    given = lab.push(grid={"window": listed}, strengths=[0, 1.0])
    assert len({s.key for s in points(given, tmp_path) if s.steered}) == len(listed)


@pytest.mark.parametrize(
    ("given", "window"),
    [
        ("generated", GENERATED),
        ("prompt", PROMPT),
        ("all", ALL),
        ({"start": 2, "stop": 5}, Window(2, 5)),
        ({"start": -1, "origin": "generated"}, Window(-1, None, "generated")),
    ],
)
def test_a_window_acts_where_its_name_says(lab, tmp_path, given, window):
    """PROMPT is all of the prompt, and not the window that begins at its last word."""
    _, setting = points(lab.push(fixed={"window": given}), tmp_path)
    found = window_of(setting.window, load(lab.folder / "model"))
    assert [found.bounds(p) for p in (1, 4, 9)] == [window.bounds(p) for p in (1, 4, 9)]
    assert found.after is None


def test_words_of_a_window_are_the_models_tokens(lab, tmp_path):
    model = load(lab.folder / "model")
    _, setting = points(lab.push(fixed={"window": {"after": ["=", "3"]}}), tmp_path)
    assert window_of(setting.window, model).after == {
        model.tokenizer.convert_tokens_to_ids("="),
        model.tokenizer.convert_tokens_to_ids("3"),
    }


# ------------------------------------------------------------------ controls


def test_pushes_of_one_site_and_size_share_controls(lab, tmp_path):
    given = lab.file(
        None,
        {"strength": [0, 1, 2], "push": [lab.path("d1.safetensors"), lab.path("e1.safetensors")]},
        controls=2,
    )
    ready = prepare(given, tmp_path / "out")
    by_push = {}
    for r in ready.resolved:
        if r.setting.steered:
            by_push.setdefault(r.point["push"], []).append([c.key for c in r.controls])
    one, other = by_push.values()
    assert one == other
    assert len({k for pair in one for k in pair}) == 4  # two strengths, two draws
    assert len({s.key for s in ready.wanted if s.control}) == 4


def test_controls_of_another_site_size_window_or_seed_are_others(lab, tmp_path):
    given = lab.push(
        "d{layer}.safetensors",
        strengths=[0, 1, 2],
        grid={"layer": [0, 1], "window": ["all", "prompt"], "seed": [0, 1]},
    )
    ready = prepare(given, tmp_path / "out")
    assert len({s.key for s in ready.wanted if s.control}) == 2 * 2 * 2 * 2


def test_no_controls_where_none_are_asked_for(lab, tmp_path):
    assert not [s for s in prepare(lab.push(controls=0), tmp_path / "out").wanted if s.control]


@pytest.mark.parametrize(
    ("push", "op"),
    [("d1.safetensors", "add"), ("d1.safetensors", "clamp"), ("d1.safetensors", "ablate")],
)
def test_a_control_is_an_edit_as_large_along_another_direction(lab, tmp_path, push, op):
    _, setting = points(lab.push(push, fixed={"op": op}), tmp_path)
    (control,) = setting.controls(1)
    model, x = load(lab.folder / "model"), torch.randn(50, 16)
    (real,) = operations(setting, model, _none, foreign=False)
    (null,) = operations(
        control, model, lambda site: x if site == setting.site else _none, foreign=False
    )
    assert (real.op, real.site, real.strength, real.norm, real.window) == (
        *(null.op, null.site, null.strength, null.norm),
        null.window,
    )
    a, b = (torch.as_tensor(e.vector).double() for e in (real, null))
    assert float(b.norm()) == pytest.approx(float(a.norm()), rel=1e-6)
    assert abs(float(a @ b)) < 0.95


def test_a_control_of_a_trained_vector_is_as_long_as_that(lab, tmp_path):
    for part in ("0", "check"):
        _, setting = points(lab.push(f"trained.safetensors#{part}"), tmp_path)
        (control,) = setting.controls(1)
        model = load(lab.folder / "model")
        (null,) = operations(control, model, lambda _: torch.randn(50, 16), foreign=False)
        row = load_vectors(lab.folder / "trained.safetensors").vectors[0 if part == "0" else 1]
        assert float(null.vector.norm()) == pytest.approx(float(row.norm()), rel=1e-6)
        assert null.norm is None


def test_random_directions_are_drawn_from_the_covariance_of_the_site(lab, tmp_path):
    """Two axes of spreads 3 and 1, nothing elsewhere: 3 / (3 + 1) of a unit draw's square is on the
    first, and nothing outside both, nor along the mean.
    """
    _, setting = points(lab.push(), tmp_path)
    model = load(lab.folder / "model")
    x = torch.zeros(4000, 16)
    x[:, :2] = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [3.0, 1.0]
    )
    x[:, 7] = 100.0
    asked = []

    def shape(site):
        asked.append(site)
        return x

    drawn = []
    for control in setting.controls(400):
        (edit,) = operations(control, model, shape, foreign=False)
        drawn.append(edit.vector.double())
    squares = torch.stack(drawn) ** 2
    assert torch.allclose(squares.sum(1), torch.ones(400, dtype=torch.float64), atol=1e-5)
    assert float(squares[:, 2:].max()) < 1e-8
    assert float(squares[:, 0].mean()) == pytest.approx(0.75, abs=0.05)
    assert set(asked) == {setting.site}
