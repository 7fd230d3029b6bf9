"""A sweep file: every mistake in it has its sentence, all are told at once, nothing is written."""

import re
import shutil

import pytest

from probes.records import Refusal
from steering.sweep import AXES, METRICS, Mistakes, prepare, read_sweep
from steering.sweep.axes import points

NAN, INF = float("nan"), float("inf")


def told(given, folder):
    """What is wrong with a file, one sentence each; preparing it left nothing behind."""
    out = folder / "out"
    with pytest.raises(Mistakes) as refused:
        prepare(given, out)
    assert not out.exists()
    return list(refused.value.wrong)


# ------------------------------------------------------------------ what is seen in the file alone

WHOLE = [
    ({"problms": 3}, "problms is not known; there are problems, samples"),
    ({"strength": 3}, "strength is not known (an axis: put it under [fixed] or [grid])"),
    ({"name": "x"}, "name is not known"),
    ({"problems": 2.0}, "problems = 2.0: it is like 8"),
    ({"problems": True}, "problems = True: it is like 8"),
    ({"problems": "2"}, "problems = '2': it is like 8"),
    ({"problems": 1}, "problems = 1: it is 2 at least"),
    ({"samples": 0}, "samples = 0: it is 1 at least"),
    ({"controls": -1}, "controls = -1: it is 0 at least"),
    ({"batch": 0}, "batch = 0: it is 1 at least"),
    ({"shard": 0}, "shard = 0: it is 1 at least"),
    ({"kl_samples": 0}, "kl_samples = 0: it is 1 at least"),
    ({"metrics": ["right", "speed"]}, "metric 'speed' is not known; there are right, valid"),
    ({"metrics": []}, "metrics: name at least one, and each once"),
    ({"metrics": ["right", "right"]}, "metrics: name at least one, and each once"),
    ({"metrics": "right"}, "metrics = 'right': it is a list of names"),
    ({"metrics": [1]}, "metrics = [1]: it is a list of names"),
    ({"strategy": "checking:verification"}, "go together: name both or neither"),
    ({"metrics": ["right", "strategy"]}, "go together: name both or neither"),
    ({"metrics": ["strategy"], "strategy": "checking:doubt"}, "the labels verification"),
    ({"metrics": ["strategy"], "strategy": "nowhere:doubt"}, "no lexicon 'nowhere'"),
    ({"metrics": ["strategy"], "strategy": "verification"}, "no lexicon ''"),
    ({"skills": [3]}, "skills = [3]: it is a list of names"),
    ({"foreign": 1}, "foreign = 1: it is like False"),
    ({"dtype": "float8"}, "dtype 'float8' is not known; there are float32"),
    ({"split": "train"}, "split 'train' is not known; there are test"),
    ({"fixed": 3}, "fixed is a table: write [fixed]"),
    ({"grid": [1]}, "grid is a table: write [grid]"),
    ({"random": 3}, "random is a table: write [random]"),
    ({"zip": {"layer": [1]}}, "[[zip]]: write each block"),
    ({"zip": [3]}, "[[zip]]: write each block"),
    ({"zip": [{}]}, "[[zip]]: name axes with a list of values each"),
    ({"random": {"budget": 0}}, "[random]: budget = 0"),
    ({"random": {"budget": 1.5}}, "[random]: budget = 1.5"),
    ({"random": {"seed": 3}}, "[random]: budget = None"),
    ({"random": {"budget": 1, "seed": -1}}, "seed = -1: both whole"),
    ({"random": {"budgets": 1, "budget": 1}}, "[random] budgets is not known"),
    ({"random": {"budget": 99}}, "a budget of 99 draws, and the axes span 2 points"),
]


@pytest.mark.parametrize(("given", "said"), WHOLE, ids=lambda v: str(v)[:40])
def test_a_mistake_outside_the_axes_has_its_sentence(lab, tmp_path, given, said):
    found = told({**lab.push(), **given}, tmp_path)
    assert any(said in one for one in found), found


FIXED = [
    ({"strenght": 1.0}, "axis strenght is not known; there are model, task"),
    ({"samples": 3}, "axis samples is not known (it holds for the whole sweep"),
    ({"push": 5}, "[fixed] push: 5 is not text"),
    ({"model": 5}, "[fixed] model: 5 is not text"),
    ({"task": []}, "[fixed] task: [] is not text"),
    ({"layer": 1.5}, "[fixed] layer: 1.5 is not a whole number"),
    ({"layer": "1"}, "[fixed] layer: '1' is not a whole number"),
    ({"layer": True}, "[fixed] layer: True is not a whole number"),
    ({"seed": 2**63}, f"[fixed] seed: {2**63} is not a whole number"),
    ({"temperature": "hot"}, "[fixed] temperature: 'hot' is not a finite number"),
    ({"temperature": NAN}, "[fixed] temperature: nan is not a finite number"),
    ({"top_p": INF}, "[fixed] top_p: inf is not a finite number"),
    ({"window": 5}, "[fixed] window: 5 is not a name or a table of start, stop, origin, after"),
    ({"strength": 1.0}, "axis strength is in [fixed] and in [grid]: which is meant?"),
    ({"push": "d{layers}.safetensors"}, "{layers} is no axis of this sweep"),
    ({"push": "d{}.safetensors"}, "{} is no axis of this sweep"),
    ({"push": "d{push}.safetensors"}, "{push} is no axis of this sweep"),
]


@pytest.mark.parametrize(("given", "said"), FIXED, ids=lambda v: str(v)[:40])
def test_a_mistake_among_what_is_fixed_has_its_sentence(lab, tmp_path, given, said):
    found = told(lab.push(fixed=given), tmp_path)
    assert any(said in one for one in found), found


GRID = [
    ({"strength": [0.5, 1.0]}, "axis strength: [0.5, 1.0] lacks 0"),
    ({"strength": []}, "axis strength: it has no value: an empty axis makes an empty grid"),
    ({"strength": [0, 1, 1.0]}, "axis strength: 1 is there twice"),
    ({"strength": [0, NAN]}, "axis strength: nan is not a finite number"),
    ({"strength": [0, INF]}, "axis strength: inf is not a finite number"),
    ({"strength": [0, 10**400]}, "axis strength: 1000"),
    ({"strength": [0, "1"]}, "axis strength: '1' is not a finite number"),
    ({"strength": 3}, "axis strength: 3 is no axis (a single value belongs under [fixed])"),
    ({"strength": {"uniform": [0, 1]}}, "need a [random] budget"),
    ({"layer": [1, INF]}, "axis layer: inf is not a whole number"),
    ({"layer": [1, NAN]}, "axis layer: nan is not a whole number"),
    ({"seed": {"from": 0, "to": 1, "step": 0.5}}, "axis seed: 0.5 is not a whole number"),
    ({"seed": {"uniform": [0, 1]}}, "axis seed: 0.0 is not a whole number"),
    ({"speed": [1, 2]}, "axis speed is not known; there are model, task"),
    ({"temperature": {"from": 1, "too": 2}}, "axis temperature: {'from': 1, 'too': 2} is no axis"),
    (
        {"seed": {"from": 0, "to": 999, "step": 1}, "top_p": {"from": 0.1, "to": 1, "count": 999}},
        "span 1,998,000 points",
    ),
]


@pytest.mark.parametrize(("given", "said"), GRID, ids=lambda v: str(v)[:40])
def test_a_mistake_among_the_axes_has_its_sentence(lab, tmp_path, given, said):
    found = told(lab.push(grid=given), tmp_path)
    assert any(said in one for one in found), found


@pytest.mark.parametrize(
    ("zipped", "said"),
    [
        ([{"layer": [0, 1], "seed": [1]}], "have equally many values; layer has 2, seed has 1"),
        ([{"layer": [1], "seed": [1, 2]}], "have equally many values; layer has 1, seed has 2"),
        ([{"seed": [0, 1]}, {"seed": [2, 3]}], "axis seed is in [[zip]] and in [[zip]]"),
        ([{"temperature": {"uniform": [0, 1]}}], "axis temperature: what moves together is listed"),
        ([{"seed": []}], "axis seed: it has no value"),
    ],
)
def test_a_mistake_among_what_moves_together_has_its_sentence(lab, tmp_path, zipped, said):
    found = told(lab.push(zipped=zipped), tmp_path)
    assert any(said in one for one in found), found


@pytest.mark.parametrize("missing", ["model", "task"])
def test_a_sweep_names_a_model_and_a_task(lab, tmp_path, missing):
    given = lab.push()
    del given["fixed"][missing]
    assert told(given, tmp_path) == [
        f"{missing} is missing: name it under [fixed], or several under [grid]"
    ]


def test_a_strength_without_a_push_is_told(lab, tmp_path):
    assert told(lab.file({}, {"strength": [0, 1]}), tmp_path) == [
        "strength is an axis of a push, and no push is named"
    ]


# ------------------------------------------------------------------ what is seen with its models

OPENED = [
    ({"model": "nowhere"}, "there is no model folder 'nowhere'"),
    ({"task": "sums"}, "there is no task 'sums'"),
    ({"push": "gone.safetensors"}, "there is no push 'gone.safetensors'"),
    ({"op": "subtract"}, "op 'subtract' is not known; there are add, ablate, clamp"),
    ({"layer": 0}, "is of blocks.1.hook_resid_post, and the setting says blocks.0"),
    ({"layer": 7}, "layer 7"),
    ({"site": "hook_mlp_out"}, "and the setting says blocks.1.hook_mlp_out"),
    ({"site": "hook_nowhere"}, "hook_nowhere"),
    ({"temperature": -1.0}, "temperature -1.0"),
    ({"temperature": 1e-40}, "temperature 1e-40: a logit divided by it is beyond float32"),
    ({"top_p": 0.0}, "top_p 0.0"),
    ({"top_p": 1.5}, "top_p 1.5"),
    ({"window": "answer"}, "window 'answer' is not known; there are generated, prompt, all"),
    ({"window": {"begin": 3}}, "begin = 3; it has start, stop, origin, after"),
    ({"window": {"start": "3"}}, "start = '3'; it has start, stop"),
    ({"window": {"start": True}}, "start = True; it has start, stop"),
    ({"window": {"origin": "end"}}, "origin is 'row' or 'generated'"),
    ({"window": {"after": ["=", "banana"]}}, "window after 'banana': no token of"),
    ({"window": {"after": [3]}}, "after = [3]; it is a list of the model's words"),
    ({"window": {"after": []}}, "after = []; it is a list of the model's words"),
    ({"window": {"start": 4, "stop": 4}}, "so it never acts"),
    ({"window": {"start": -3, "stop": 0}}, "so it never acts"),
]


@pytest.mark.parametrize(("given", "said"), OPENED, ids=lambda v: str(v)[:40])
def test_what_its_model_task_or_push_contradicts_has_its_sentence(lab, tmp_path, given, said):
    found = told(lab.push(fixed=given), tmp_path)
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize(
    ("push", "said"),
    [
        ("trained.safetensors", "trained.safetensors holds no direction"),
        ("trained.safetensors#7", "no category '7'; there are 0 (step), 1 (check), 2 (jump)"),
        ("trained.safetensors#²", "no category '²'"),
        ("trained.safetensors#walk", "no category 'walk'"),
        ("d1.safetensors#0", "d1.safetensors"),
        ("model", "name a latent of the dictionary, as in"),
        ("model#0", "cfg.json"),
        ("tiny.toml", "tiny.toml"),
    ],
)
def test_a_push_that_is_none_has_its_sentence(lab, tmp_path, push, said):
    found = told(lab.push(push), tmp_path)
    assert len(found) == 1
    assert said in found[0]


def test_a_damaged_push_is_told(lab, tmp_path):
    whole = (lab.folder / "d1.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-7])
    found = told(lab.push(fixed={"push": str(tmp_path / "cut.safetensors")}), tmp_path)
    assert "cut.safetensors" in found[0]


def test_a_push_of_another_model_is_told_unless_it_is_meant(lab, tmp_path):
    given = {"model": lab.path("other")}
    (found,) = told(lab.push(fixed=given), tmp_path)
    assert "was made on another model than" in found
    assert "foreign = true" in found
    assert prepare(lab.push(fixed=given, foreign=True), tmp_path / "out").wanted


def test_the_same_name_of_folder_is_not_the_same_model(lab, tmp_path):
    shutil.copytree(lab.folder / "other", tmp_path / "model")
    given = lab.push(grid={"model": [lab.path("model"), str(tmp_path / "model")]})
    del given["fixed"]["model"]
    (found,) = told(given, tmp_path)
    assert "was made on another model than" in found


def test_a_skill_that_the_task_lacks_is_told(lab, tmp_path):
    (found,) = told(lab.push(skills=["a", "zz"]), tmp_path)
    assert "skill 'zz' is not one of" in found


def test_a_task_beside_that_shares_its_problems_is_told(lab, tmp_path):
    (found,) = told(lab.push(off_task=lab.path("tiny.toml")), tmp_path)
    assert "shares problems with" in found
    (found,) = told(lab.push(off_task="sums"), tmp_path)
    assert "there is no task 'sums'" in found


@pytest.mark.parametrize("damage", ["no weights", "cut", "unknown", "no tokenizer", "no config"])
def test_a_model_that_cant_be_loaded_is_told_once_and_before_anything_is_written(
    lab, tmp_path, damage
):
    model = tmp_path / "broken"
    shutil.copytree(lab.folder / "model", model)
    weights, config = model / "model.safetensors", model / "config.json"
    if damage == "no weights":
        weights.unlink()
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "unknown":
        config.write_text(config.read_text().replace("LlamaForCausalLM", "GPTJForCausalLM"))
    elif damage == "no tokenizer":
        (model / "tokenizer.json").unlink()
    else:
        config.unlink()
    given = lab.push(fixed={"model": str(model)}, strengths=[0, 1, 2, 3])
    found = told(given, tmp_path)
    assert len(found) == 1
    assert "broken" in found[0]


# ------------------------------------------------------------------ all at once


def test_all_mistakes_are_told_at_once_each_once(lab, tmp_path):
    given = lab.file(
        {
            "model": "nowhere",
            "task": lab.path("tiny.toml"),
            "colour": "red",
            "temperature": "hot",
            "window": "answer",
        },
        {
            "strength": [0.5, 1.0],
            "seed": [],
            "push": [lab.path("d{lair}.safetensors"), "gone.safetensors"],
        },
        [{"layer": [0, 1], "site": ["hook_resid_post"]}],
        metrics=["right", "speed"],
        samples=0,
        random={"budget": 1000},
    )
    found = told(given, tmp_path)
    for said in (
        "metric 'speed'",
        "samples = 0",
        "colour is not known",
        "temperature: 'hot'",
        "lacks 0",
        "seed: it has no value",
        "{lair} is no axis",
        "layer has 2, site has 1",
        "a budget of 1,000",
        "there is no model folder 'nowhere'",
    ):
        assert sum(said in one for one in found) == 1, (said, found)
    assert len(found) == 10
    with pytest.raises(Mistakes) as refused:
        prepare(given, tmp_path / "out")
    assert str(refused.value).startswith("sweep: 10 mistakes:\n- ")


def test_what_can_only_be_seen_with_its_models_is_told_beside_the_rest(lab, tmp_path):
    given = lab.push(
        fixed={"window": {"after": ["banana"]}}, strengths=[1.0], grid={"op": ["add", "subtract"]}
    )
    found = told(given, tmp_path)
    assert len(found) == 3
    assert re.search("lacks 0.*banana.*subtract", " ".join(found))


def test_a_mistake_of_some_points_names_the_first_that_has_it(lab, tmp_path):
    given = lab.push("d{layer}.safetensors", grid={"layer": [0, 1, 2, 3]}, strengths=[0.0, 2.0])
    found = told(given, tmp_path)
    assert len(found) == 2
    assert "d2.safetensors" in found[0]
    assert "(at strength = 0.0, layer = 2)" in found[0]


def test_one_mistake_is_a_sentence_and_not_a_list(lab, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[fixed]\nmodel = 'x'\n")
    with pytest.raises(Mistakes, match=r"^mine: task is missing: "):
        read_sweep(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [("[fixed", "is not valid TOML"), ("a = 1\na = 2", "is not valid TOML"), (None, "there is no")],
)
def test_what_is_no_file_of_toml_is_refused(tmp_path, text, said):
    path = tmp_path / "mine.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(Refusal, match=said):
        prepare(path, tmp_path / "out")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(Refusal, match="is not valid TOML"):
        prepare(path, tmp_path / "out")


# ------------------------------------------------------------------ what is meant by a right one


def test_ranges_of_layers_and_seeds_are_whole_numbers(lab, tmp_path):
    given = lab.push(
        "d{layer}.safetensors",
        grid={
            "layer": {"from": 0, "to": 1, "step": 1},
            "seed": {"from": 0, "to": 4, "count": 3},
        },
    )
    ready = prepare(given, tmp_path / "out")
    assert {s.site for s in ready.wanted if s.push} == {
        "blocks.0.hook_resid_post",
        "blocks.1.hook_resid_post",
    }
    assert {s.seed for s in ready.wanted} == {0, 2, 4}


def test_paths_are_relative_to_the_file_and_a_shipped_task_is_known_by_its_name(lab, tmp_path):
    """Even where a folder beside the file is called like the task."""
    shutil.copytree(lab.folder, tmp_path / "x")
    (tmp_path / "x" / "chain-small").mkdir()
    (tmp_path / "x" / "mine.toml").write_text(
        'problems = 2\n[fixed]\nmodel = "model"\ntask = "chain-small"\npush = "d1.safetensors"\n'
        "[grid]\nstrength = [0, 1]\n"
    )
    ready = prepare(tmp_path / "x" / "mine.toml", tmp_path / "out")
    assert {s.model for s in ready.wanted} == {str(tmp_path / "x" / "model")}
    assert {s.task for s in ready.wanted} == {"chain-small"}


def test_the_points_are_those_of_its_axes(lab):
    grid = {"strength": [0.0, 1.0], "temperature": [0.5, 1.0]}
    zipped = [{"layer": [0, 1], "seed": [3, 4]}]
    given = lab.file({"push": "d{layer}.safetensors"}, grid, zipped)
    file = read_sweep(given)
    assert list(file.points) == list(points(given["fixed"], grid, zipped))
    assert file.axes == ("strength", "temperature", "layer", "seed")


def test_every_axis_and_metric_is_known_by_its_name():
    """What the manual says there is."""
    assert set(AXES) == {
        *("model", "task", "push", "op", "layer", "site", "strength", "window"),
        *("temperature", "top_p", "seed"),
    }
    assert METRICS == ("right", "valid", "parsed", "length", "kl", "strategy")
