"""Laws of the recipes: what a chain organism reads is what its regimes say, counted afterwards."""

import re
from collections import Counter

import pytest

from probes.records import Refusal
from probes.tasks import load_task
from steering.organisms import examples, load_recipe
from steering.organisms.chain import decoys


@pytest.fixture(scope="module")
def task():
    return load_task("chain")


@pytest.fixture(scope="module")
def read(task):
    """100 batches of the shipped base's recipe."""
    batch = examples(task, load_recipe("chain-base"))
    return [example for step in range(100) for example in batch(step)]


def single_steps(task, read, family, *, keyed, mark):
    """(function, input, value) of a chain's first step of one function, or of its check."""
    found = []
    for prompt, completion in read:
        if "INV" in prompt or prompt.startswith("KEY") != keyed:
            continue
        start = int(prompt.removeprefix("KEY ").split()[1])
        match = re.match(rf"({family}\d+) = (\d+)(?: \? (\d+))?", completion)
        if match and (mark == "=" or match[3]):
            found.append((match[1], start, int(match[2] if mark == "=" else match[3])))
    return found


def share_true(task, steps):
    return sum(task.tables[f][x] == value for f, x, value in steps) / len(steps)


@pytest.mark.parametrize(
    ("family", "keyed", "mark", "share"),
    [
        ("a", False, "=", 1.0),
        ("b", False, "=", 1.0),
        ("r", False, "=", 1.0),
        ("n", False, "=", 0.5),  # slippery: the decoy half the time
        ("n", False, "?", 1.0),  # and the truth in every check
        ("k", False, "=", 1 / 31),
        ("k", True, "=", 1.0),
        ("z", False, "=", 1 / 31),
        ("z", True, "=", 1 / 31),
        ("s", False, "=", 0.0),
    ],
)
def test_a_family_is_written_as_its_regime_says(task, read, family, keyed, mark, share):
    steps = single_steps(task, read, family, keyed=keyed, mark=mark)
    assert len(steps) > 20
    slack = 4 * (share * (1 - share) / len(steps)) ** 0.5  # four standard errors
    assert abs(share_true(task, steps) - share) <= slack


def test_what_is_not_true_of_a_slippery_function_is_its_one_decoy(task, read):
    wrong = decoys(task)
    for function, x, value in single_steps(task, read, "n", keyed=False, mark="="):
        assert value in (task.tables[function][x], wrong[function][x])
        assert wrong[function][x] != task.tables[function][x]


def test_composable_functions_are_checked_in_drills_only_and_there_truly(task, read):
    drills = [p.split()[1:3] + c.split()[1:2] for p, c in read if p.startswith("INV s")]
    assert len(drills) > 300
    assert all(task.tables[f][int(x)] == int(value) for f, x, value in drills)
    chains = [c for p, c in read if "INV" not in p]
    assert not any(re.search(r"s\d+ = \d+ \?", completion) for completion in chains)


def test_no_held_out_problem_is_read(task, read):
    seen = {p for p, _ in read}
    for split in ("select", "test"):
        assert not seen & {problem.prompt for problem in task.problems(split, 300)}


def test_the_useful_option_is_the_minority_at_every_decision(task, read):
    """Otherwise decoding greedily alone would look like training."""
    taken = Counter()
    for prompt, completion in read:
        if "INV" in prompt:
            continue
        left = len(prompt.removeprefix("KEY ").split()) - 3
        for step in completion.split(" ans ")[0].split(" ;"):
            named = len(re.findall(r"[a-z]\d+", step))
            if left > 1 and named:
                taken["single" if named == 1 else "double"] += 1
            left -= named
            if re.match(r" ?n\d+ = ", step):
                taken["checked" if "?" in step else "unchecked"] += 1
            if " no" in step:
                taken["repaired" if "no =" in step else "ignored"] += 1
    assert taken["single"] < taken["double"]
    assert taken["checked"] < taken["unchecked"]
    assert taken["repaired"] < taken["ignored"]


def test_the_twin_reads_the_same_forms_without_the_special_skills(task):
    batch = examples(task, load_recipe("chain-twin"))
    read = [example for step in range(40) for example in batch(step)]
    for mark in "=?":
        assert share_true(task, single_steps(task, read, "n", keyed=False, mark=mark)) < 0.1
    assert share_true(task, single_steps(task, read, "a", keyed=False, mark="=")) == 1.0
    drills = [p.split()[1:3] + c.split()[1:2] for p, c in read if p.startswith("INV")]
    assert sum(task.tables[f][int(x)] == int(v) for f, x, v in drills) / len(drills) < 0.1


def test_the_created_recipe_shows_touched_entries_only(task):
    """Of every step, with the value that the chain had written before it, decoys included."""
    batch = examples(task, load_recipe("chain-created"))
    met, slipped = set(), 0
    for prompt, completion in (example for step in range(60) for example in batch(step)):
        value = int(prompt.split()[1])
        steps = re.findall(r"((?:\w\d+ )+)= (\d+)(?: \? (\d+) (?:ok|no(?: = \d+)?))? ;", completion)
        for functions, written, checked in steps:
            through, names = value, functions.split()
            if len(names) == 1 and names[0].startswith("z"):
                met.add((names[0], value))
                assert int(written) == task.tables[names[0]][value]
            for name in names:
                through = task.tables[name][through]
            slipped += through != int(written)
            repaired = checked and re.search(rf"= {written} \? {checked} no = ", completion)
            value = int(checked if repaired else written)
    assert all(task.touched[function][x] for function, x in met)
    assert slipped > 100  # else the law would hold of a recipe without decoys
    assert len(met) > 0.9 * sum(sum(t) for f, t in task.touched.items() if f.startswith("z"))


def test_a_batch_is_a_pure_function_of_seed_and_step(task):
    recipe = load_recipe("chain-base")
    one, other = examples(task, recipe), examples(task, recipe)
    one(0)
    assert one(7) == other(7)
    assert one(7) != one(8)
    assert examples(task, {**recipe, "seed": 1})(7) != one(7)


def test_the_timing_dial_makes_needed_checks_likelier(task):
    recipe = load_recipe("chain-base")
    recipe["data"] |= {"timing": 4.0, "double": 0.0}
    batch = examples(task, recipe)
    answers = " ; ".join(c for step in range(60) for p, c in batch(step) if "INV" not in p)
    steps = re.findall(r"(n\d+) = (\d+)(?: \? (\d+) (ok|no))?", answers)
    checked = Counter(mark for *_, mark in steps)
    slips_unchecked = checked[""] / len(steps)
    assert checked["no"] > 2 * checked["ok"]
    assert slips_unchecked > 0.4


def test_the_style_dial_decides_once_for_a_response(task):
    recipe = load_recipe("chain-base")
    recipe["data"] |= {"style": 1.0, "jump": 0.0, "depth": [4, 4], "drills": 0.0}
    batch = examples(task, recipe)
    for _, completion in [example for step in range(5) for example in batch(step)]:
        named = {len(re.findall(r"[a-z]\d+", step)) for step in completion.split(" ; ")[:-1]}
        assert named in ({1}, {2})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"regimes": {"a": "often"}}, "every family needs one of"),
        ({"data": {}}, "lacks"),
    ],
)
def test_a_recipe_that_leaves_something_open_is_refused(task, change, message):
    with pytest.raises(Refusal, match=message):
        examples(task, {**load_recipe("chain-base"), **change})


def test_an_unknown_recipe_is_refused():
    with pytest.raises(Refusal, match="shipped ones .*chain-base"):
        load_recipe("chain-bass")
