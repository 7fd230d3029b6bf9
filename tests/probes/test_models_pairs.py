"""The published pairs, and what keeps two models from being compared."""

import pytest
from tokenizers import AddedToken

from probes.models import (
    Model,
    check_pair,
    differences,
    differing_tokens,
    find_pair,
    new_llama,
    new_tokenizer,
    read_pairs,
    spelt,
)
from probes.records import Refusal
from probes.tasks.templates import read_template

GOOD = """
[[pair]]
name = "one"
base = "lab/base"
tuned = "lab/tuned"
kind = "rl"
done = "PPO"
template = "qa"
thinking = ["<think>", "</think>"]
used_by = []
sources = ["https://arxiv.org/abs/1"]
"""


def written(tmp_path, text):
    (tmp_path / "pairs.toml").write_text(text)
    return tmp_path / "pairs.toml"


def test_the_pairs_that_ship_can_be_read_and_are_hub_names():
    pairs = read_pairs()
    assert len(pairs) > 30
    for pair in pairs:
        assert all(name.count("/") == 1 and " " not in name for name in (pair.base, pair.tuned))
        assert pair.base != pair.tuned
        hub = f"https://huggingface.co/{pair.tuned}"
        assert hub in pair.sources, f"{pair.name} doesn't name its model card"
    assert {pair.kind for pair in pairs} == {"rl", "distilled", "distilled, then rl", "instruct"}


def test_the_pairs_of_the_hybrid_paper_are_there():
    """Venhoff et al. (2510.07364) compare nine."""
    assert len([p for p in read_pairs() if "2510.07364" in p.used_by]) == 9


def test_a_pair_is_found_by_its_name():
    pair = find_pair("orz-0.5b")
    assert pair.base == "Qwen/Qwen2.5-0.5B"
    assert (pair.kind, pair.thinking) == ("rl", ("<think>", "</think>"))
    with pytest.raises(Refusal, match="'orz' is no published pair; there are orz-0.5b, "):
        find_pair("orz")


WRONG = {
    "twice": (GOOD + GOOD[GOOD.index("[[pair]]") :], "has one twice"),
    "field": (GOOD + "size = 3\n", "one has no field size"),
    "missing": (GOOD.replace('done = "PPO"\n', ""), "done = None must be text"),
    "kind": (GOOD.replace('"rl"', '"magic"'), "kind = 'magic' must be one of rl, distilled"),
    "template": (
        GOOD.replace('"qa"', '"theirs"'),
        "template = 'theirs' must be one of boxed, chat",
    ),
    "thinking": (GOOD.replace(', "</think>"', ""), "thinking = .* must be what opens and what"),
    "source": (GOOD.replace("https://", ""), "sources = .* must be addresses"),
    "list": (GOOD.replace("used_by = []", 'used_by = "x"'), "used_by = 'x' must be a list"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_is_wrong_is_refused_with_the_pair_and_the_field(tmp_path, case):
    text, message = WRONG[case]
    with pytest.raises(Refusal, match=message):
        read_pairs(written(tmp_path, text))


def test_what_is_unknown_is_not_what_is_absent(tmp_path):
    found = read_pairs(written(tmp_path, GOOD))[0]
    assert found.thinking == ("<think>", "</think>")
    silent = GOOD.replace('["<think>", "</think>"]', "[]")
    (tmp_path / "other").mkdir()
    assert read_pairs(written(tmp_path / "other", silent))[0].thinking == ()
    unknown = GOOD.replace('["<think>", "</think>"]', '"unknown"')
    (tmp_path / "third").mkdir()
    assert read_pairs(written(tmp_path / "third", unknown))[0].thinking is None


def tokenizer_with(*added):
    made = new_tokenizer([*"abcdefghijklmnopqrstuv", "=", ";", "?", ">", "END"])
    made.add_tokens([AddedToken(word, special=True) for word in added])
    return made


def test_added_tokens_that_differ_stand_in_the_way_unless_one_sees_to_them(model):
    base = Model(model.net, tokenizer_with("<box>"), "base")
    tuned = Model(model.net, tokenizer_with("<think>"), "tuned")
    assert differing_tokens(base, tuned) == ([], ["<box>", "<think>"])
    with pytest.raises(Refusal, match=r"\(2 tokens differ, such as '<box>', all of them added"):
        check_pair(base, tuned)
    check_pair(base, tuned, added=False)


def test_ordinary_tokens_that_differ_always_do(model):
    swapped = new_tokenizer([*"bacdefghijklmnopqrstuv", "=", ";", "?", ">", "END"])
    other = Model(model.net, swapped, "swapped")
    assert differing_tokens(model, other) == (["a", "b"], [])
    with pytest.raises(Refusal, match="2 tokens differ, such as 'a'"):
        check_pair(model, other, added=False)


def test_every_difference_is_told(model, any_model):
    found = differences(model, any_model)
    expected = [] if any_model.name == "llama" else ["a pair must be of one kind"]
    assert [sentence.rpartition(": ")[2] for sentence in found] == [f"{e}." for e in expected]


def test_models_with_other_numbers_of_logits_are_no_pair(model):
    """Their tokens agree; a row more of padding and no KL between them can be computed."""
    net = new_llama(40, width=32, depth=3, heads=4, mlp=48, context=96, seed=0)
    with pytest.raises(Refusal, match="has vocab 29 and padded 40"):
        check_pair(model, Model(net, model.tokenizer, "padded"))


ASKED = {p.template for p in read_pairs()} | {p.base_template for p in read_pairs()}


@pytest.mark.parametrize("template", sorted(ASKED - {"", "chat", "unknown"}))
def test_a_task_can_be_asked_as_the_paper_asked(template):
    assert read_template("a task", template).prompt("What is 2 + 3?").count("2 + 3") == 1


def test_a_mark_is_one_token_where_the_model_has_it(model):
    has = Model(model.net, tokenizer_with("<think>"), "has")
    assert spelt(has, ["<think>", "a b"]) == {"<think>": (29,), "a b": (2, 3)}
