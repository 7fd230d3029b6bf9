"""`whenhow models`: the published pairs, and whether two models can be compared."""

import json
import re

import pytest
from tokenizers import AddedToken

from probes.models import new_llama, new_tokenizer, save
from steering import cli


def run(*args):
    """The command in this process; its status."""
    with pytest.raises(SystemExit) as left:
        cli.main([str(arg) for arg in args])
    return left.value.code


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A base; one like it, one with a token more, one that is wider. Without their weights."""
    place = tmp_path_factory.mktemp("models")
    for name, width, added in (
        ("base", 16, ()),
        ("tuned", 16, ()),
        ("thinking", 16, ("<think>",)),
        ("wide", 32, ()),
    ):
        tokenizer = new_tokenizer(["a", "b", "END"])
        tokenizer.add_tokens([AddedToken(word, special=True) for word in added])
        net = new_llama(8, width=width, depth=2, heads=2, mlp=16, context=64, seed=0)
        save(net, tokenizer, place / name)
        (place / name / "model.safetensors").unlink()
    return place


def test_a_list_names_the_pairs(capsys):
    assert run("models", "list") == 0
    shown = capsys.readouterr()
    assert "orz-0.5b" in shown.out.splitlines()
    assert "2510.07364" in shown.err


def test_a_list_as_json_has_all_that_is_known(capsys):
    assert run("models", "list", "--kind", "distilled", "--json") == 0
    pairs = json.loads(capsys.readouterr().out)
    assert {pair["kind"] for pair in pairs} == {"distilled"}
    assert {"base", "tuned", "done", "template", "thinking", "sources"} <= set(pairs[0])
    assert run("models", "list", "--kind", "magic") == 2
    assert "there are rl, distilled" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tuned", "status", "said"),
    [
        ("tuned", 0, "comparable\n"),
        ("thinking", 0, "comparable on texts without 1 added tokens that differ: <think>\n"),
        ("wide", 2, "can't be compared: .*base has width 16 and .*wide 32"),
    ],
)
def test_a_check_needs_no_weights_and_says_what_decides(folders, capsys, tuned, status, said):
    assert run("models", "check", folders / "base", folders / tuned) == status
    shown = capsys.readouterr()

    assert re.search(said, shown.err if status else shown.out)
    assert "LlamaForCausalLM" in shown.err


def test_a_check_as_json(folders, capsys):
    assert run("models", "check", folders / "base", folders / "wide", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["comparable"], found["added_tokens"]) == (False, [])
    assert (found["base"]["blocks"], found["tuned"]["width"]) == (2, 32)


def test_a_pair_that_is_not_published_is_refused(capsys):
    assert run("models", "check", "nothing") == 2
    assert "is no published pair" in capsys.readouterr().err
