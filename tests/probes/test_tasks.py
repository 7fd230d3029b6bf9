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
        (OWN.replace("modulus = 5\n", ""), "missing or of the wrong type.*modulus"),
        (OWN.replace("depth = [2, 3]\n", ""), "missing or of the wrong type.*depth"),
        (OWN.replace('common = ["u"]', 'common = ["v"]'), r"common names \['v'\]"),
        (OWN.replace("w = [1, 1]", "x = [1, 1]"), r"skills names \['x'\]"),
    ],
    ids=[
        "no TOML",
        "family",
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


def test_an_unknown_task_is_answered_with_those_there_are():
    with pytest.raises(Refusal, match="chain, countdown"):
        load_task("chian")
