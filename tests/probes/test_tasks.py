"""A task of one's own, by file: its vocabulary goes all the way; mistakes are told at loading."""

import pytest

from probes.models import encode, new_llama, new_tokenizer
from probes.models.loading import Model
from probes.records import Refusal
from probes.tasks import END, Task, load_task

OWN = """
family = "chain"
modulus = 5
seed = 3
common = ["u"]
[functions]
u = 2
w = 1
[skills]
u = [1, 1]
w = [1, 1]
[problems]
depth = [2, 3]
budget = [4, 13]
splits = { tune = 1, select = 1, test = 1 }
[prompt]
question = "WHAT"
key = "SESAME"
drill = "DRILL"
"""


@pytest.fixture
def own(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text(OWN)
    return file


def test_a_task_of_ones_own_has_its_own_vocabulary(own):
    task = load_task(own)
    assert isinstance(task, Task)
    words = task.vocabulary()
    assert {"WHAT", "SESAME", "w0", "4", END} <= set(words)
    assert "Q" not in words
    tokenizer = new_tokenizer(words)
    net = new_llama(len(tokenizer), width=8, depth=1, heads=1, mlp=8, context=32, seed=0)
    model = Model(net, tokenizer, "own")
    for problem in task.problems("test", 5):
        assert len(encode(model, problem.prompt)) == len(problem.prompt.split())
        assert problem.prompt.startswith("WHAT ")


@pytest.mark.parametrize("name", ["chain", "countdown"])
def test_the_shipped_tasks_keep_the_protocol(name):
    assert isinstance(load_task(name), Task)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('family = "chain', "not valid TOML"),
        ('family = "sudoku"', "not known; there are chain, countdown"),
        ("family = [1]", "not known; there are chain, countdown"),
        (OWN.replace("modulus = 5\n", ""), "the file lacks modulus"),
        (OWN.replace("depth = [2, 3]\n", ""), r"\[problems\] lacks depth"),
        (OWN.replace('common = ["u"]', 'common = ["v"]'), r"common names \['v'\]"),
        (OWN.replace("w = [1, 1]", "x = [1, 1]"), r"skills names \['x'\]"),
    ],
    ids=[
        "no TOML",
        "family",
        "family of another type",
        "missing setting",
        "missing dial",
        "unknown family in common",
        "unknown skill",
    ],
)
def test_a_mistake_in_the_file_is_told_at_loading(own, text, message):
    own.write_text(text)
    with pytest.raises(Refusal, match=message):
        load_task(own)


SPLITS = "splits = { tune = 1, select = 1, test = 1 }"
WRONG = {
    "an unknown key": ("seed = 3", "seed = 3\nmodulos = 7", "the file knows no modulos; it has"),
    "an unknown dial": ("depth =", "depht = 1\ndepth =", r"\[problems\] knows no depht"),
    "an unknown prompt": ('key = "', 'kye = "A"\nkey = "', r"\[prompt\] knows no kye"),
    "modulus 0": ("modulus = 5", "modulus = 0", "modulus = 0 must be a whole number from 2"),
    "modulus true": ("modulus = 5", "modulus = true", "modulus = True must be a whole number"),
    "seed text": ("seed = 3", 'seed = "x"', "seed = 'x' must be a whole number"),
    "falling depth": ("depth = [2, 3]", "depth = [5, 1]", r"depth = \[5, 1\] must be .*rising"),
    "depth below 0": ("depth = [2, 3]", "depth = [-3, -1]", r"depth = \[-3, -1\]"),
    "depth 0": ("depth = [2, 3]", "depth = [0, 0]", r"depth = \[0, 0\] must be .* from 1"),
    "depth text": ("depth = [2, 3]", 'depth = "x"', "depth = 'x' must be two whole numbers"),
    "budget of one": ("budget = [4, 13]", "budget = [1]", r"budget = \[1\] must be two"),
    "budget too small": ("budget = [4, 13]", "budget = [-4, 1]", "allows -7 words.* answer has 11"),
    "empty splits": (SPLITS, SPLITS.replace("= 1", "= 0"), r"splits\.tune = 0 .* from 1"),
    "no test split": (SPLITS, SPLITS.replace(", test = 1", ""), "shares to tune, select, test"),
    "no skill": ("[skills]\nu = [1, 1]\nw = [1, 1]", "[skills]", r"skills = \[\] must list some"),
    "skill of one number": ("w = [1, 1]", "w = 1", r"skills\.w = 1 must be two whole numbers"),
    "falling skill": ("w = [1, 1]", "w = [3, 1]", r"skills\.w = \[3, 1\] must be .*rising"),
    "skill without functions": ("w = 1\n", "w = 0\n", r"functions\.w = 0 .* from 1"),
    "functions no number": ("w = 1\n", 'w = "1"\n', r"functions\.w = '1'"),
    "long family": ("w = 1\n", "ww = 1\n", "a family is one letter"),
    "common no list": ('common = ["u"]', 'common = "u"', "common = 'u' must list some of u w"),
    "prompt of two words": ('question = "WHAT"', 'question = "WHAT IS"', "must be one word"),
    "prompt no text": ('question = "WHAT"', "question = 3", "question = 3 must be text"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_refused_at_loading_by_its_key(own, name):
    right, wrong, said = WRONG[name]
    assert OWN.count(right) == 1
    own.write_text(OWN.replace(right, wrong))
    with pytest.raises(Refusal, match=said):
        load_task(own)


def test_no_prompt_at_all_is_refused(own):
    own.write_text("prompt = -1\n" + OWN[: OWN.index("[prompt]")])
    with pytest.raises(Refusal, match="prompt = -1 must be a table, with question, key, drill"):
        load_task(own)


def test_an_unknown_task_is_answered_with_those_there_are():
    with pytest.raises(Refusal, match="chain, chain-small, countdown"):
        load_task("chian")
