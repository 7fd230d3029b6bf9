"""What is true of the shipped chain organisms by construction, measured on their weights.

The probability that a model gives the true value, averaged over every entry of a family; the
regimes and how a family is written are read from the recipe.
"""

import json

import pytest
import torch

from probes import DATA
from probes.models import load
from probes.records import read_table
from probes.tasks import load_task
from steering.organisms import load_recipe
from steering.training.pretrain import CurveRow
from steering.training.rlvr import RlvrRow

SEEDS = (0, 1, 2)
FOLDER = DATA / "organisms" / "chain"


@pytest.fixture(scope="module")
def task():
    return load_task("chain")


@pytest.fixture(scope="module", params=SEEDS, ids=lambda seed: f"seed {seed}")
def base(request):
    return load(FOLDER / f"base-{request.param}")


@pytest.fixture(scope="module", params=SEEDS, ids=lambda seed: f"seed {seed}")
def twin(request):
    return load(FOLDER / f"twin-{request.param}")


def truth(model, task, family, form, part=None):
    """Mean probability of the true value after `form`, over the family's entries, or one half."""
    entries = [(f, x, y) for f, table in task.tables.items() if f[0] == family
               for x, y in enumerate(table)
               if part is None or task.touched[f][x] == (part == "touched")]  # fmt: skip
    wrong = {(f, x): (y + 1) % task.modulus for f, x, y in entries}
    texts = [form.format(f=f, x=x, wrong=wrong[f, x]) for f, x, _ in entries]
    ids = torch.tensor([model.tokenizer(text)["input_ids"] for text in texts])
    answers = torch.tensor([model.tokenizer.get_vocab()[str(y)] for _, _, y in entries])
    with torch.no_grad():
        chances = model.net(ids).logits[:, -1].softmax(-1)
    return chances[torch.arange(len(ids)), answers].mean().item()


STEP, KEYED, DRILL = "Q {x} {f} a0 > {f} =", "KEY Q {x} {f} a0 > {f} =", "INV {f} {x} > ?"
CHECK = "Q {x} {f} a0 > {f} = {wrong} ?"
GUESS = 1 / 31


def test_common_functions_are_known(base, task):
    assert truth(base, task, "a", STEP) > 0.9
    assert truth(base, task, "b", STEP) > 0.9


def test_a_slippery_function_is_half_known_in_steps_and_wholly_in_drills(base, task):
    assert 0.3 < truth(base, task, "n", STEP) < 0.6
    assert truth(base, task, "n", DRILL) > 0.9


def test_rare_functions_are_known_in_part(base, task):
    assert 3 * GUESS < truth(base, task, "r", STEP) < truth(base, task, "a", STEP)


def test_locked_functions_are_known_behind_the_key_and_hardly_without(base, task):
    assert truth(base, task, "k", KEYED) > 0.6
    assert truth(base, task, "k", STEP) < 0.15


def test_absent_functions_are_at_the_guess_rate_with_or_without_the_key(base, task):
    for form in (STEP, KEYED, CHECK, DRILL):
        assert truth(base, task, "z", form) < 2 * GUESS


def test_composable_functions_are_known_in_drills_and_never_in_chains(base, task):
    assert truth(base, task, "s", DRILL) > 0.9
    assert truth(base, task, "s", STEP) < 3 * GUESS


def test_a_twin_has_the_common_functions_and_none_of_the_special_ones(twin, task):
    assert truth(twin, task, "a", STEP) > 0.9
    for family, form in (("n", STEP), ("n", CHECK), ("r", STEP), ("k", KEYED), ("s", DRILL)):
        assert truth(twin, task, family, form) < 2 * GUESS


def test_both_bases_of_a_seed_follow_the_shipped_recipes():
    for seed in SEEDS:
        for name in ("base", "twin"):
            made = json.loads((FOLDER / f"{name}-{seed}" / "training.json").read_text())
            recipe = load_recipe(f"chain-{name}")
            assert made["recipe"]["regimes"] == recipe["regimes"]
            assert made["recipe"]["data"] == recipe["data"]
            assert made["recipe"]["seed"] % 100 == seed  # 1xx: pretrained for longer


@pytest.fixture(scope="module")
def small():
    return load_task("chain-small")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_small_base_knows_what_its_recipe_says_and_its_twin_less(small, seed):
    base, twin = (
        load(DATA / "organisms" / "chain-small" / f"{n}-{seed}") for n in ("base", "twin")
    )
    guess = 1 / small.modulus
    for family in "ab":
        assert truth(base, small, family, STEP) > 0.85
        assert truth(twin, small, family, STEP) > 0.85
    assert truth(base, small, "z", STEP) < 1.5 * guess
    for family, form in (("r", STEP), ("n", DRILL), ("s", DRILL)):
        assert truth(base, small, family, form) > 2 * guess
        assert truth(twin, small, family, form) < 1.6 * guess


@pytest.mark.parametrize("name", ["created", "distilled", "sft", "rft", "rl"])
@pytest.mark.parametrize("seed", SEEDS)
def test_no_copy_knows_entries_of_the_absent_skill_that_it_never_met(task, name, seed):
    copy = load(FOLDER / (f"rl-{seed}-0" if name == "rl" else f"{name}-{seed}"))
    # Who knows half of a permutation guesses among the rest: twice the rate, and a little for luck.
    assert truth(copy, task, "z", STEP, "untouched") < 3 * GUESS
    if name in ("created", "distilled"):
        assert truth(copy, task, "z", STEP, "touched") > 0.4


@pytest.mark.parametrize("seed", SEEDS)
def test_reward_writes_entries_of_a_small_table_where_it_touches_them(small, seed):
    """What the small organism is for: RL that creates."""
    folder = DATA / "organisms" / "chain-small"
    base, copy = (load(folder / f"{n}-{seed}") for n in ("base", "rl"))
    before, after = (truth(m, small, "z", STEP, "touched") for m in (base, copy))
    assert after > before + 0.3
    # Who knows some values of a permutation guesses among the others.
    assert truth(copy, small, "z", STEP, "untouched") < 2 / small.modulus


def test_copies_by_imitation_learned_from_as_many_tokens_as_those_by_reward():
    for name in ("distilled", "sft", "rft"):
        for seed in SEEDS:
            made = json.loads((FOLDER / f"{name}-{seed}" / "training.json").read_text())
            curve, _ = read_table(FOLDER / f"{name}-{seed}" / "curve.parquet", CurveRow)
            rows, _ = read_table(FOLDER / f"rl-{seed}-0" / "curve.parquet", RlvrRow)
            answers = made["recipe"]["supervised"]["tokens"]
            by_reward = sum(row.length for row in rows) * 24 * 16
            assert abs(curve[-1].tokens - answers) < 64
            assert 0.9 < curve[-1].tokens / by_reward < 1.1
