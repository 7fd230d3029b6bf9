from dataclasses import replace

import numpy as np
import pytest

from probes.models import Model, new_llama, new_tokenizer
from probes.records import Grade, Refusal, Rollout
from probes.tasks import load_task
from probes.verify import Graded
from steering.elicitation import Budget, conclude, elicit, gold_examples
from steering.evaluate import Judged

DIVIDED = """
family = "chain"
modulus = 7
seed = 1
common = ["a"]
[functions]
a = 3
y = 2
z = 2
[skills]
y = [1, 1]
z = [1, 1]
[problems]
depth = [1, 2]
budget = [4, 8]
splits = { tune = 6, select = 4, test = 4 }
[prompt]
question = "Q"
key = "KEY"
drill = "INV"
"""
"""No skill is common, so all are divided."""


@pytest.fixture(scope="module")
def task():
    return load_task("chain")


@pytest.fixture(scope="module")
def asked(task):
    return {
        part: task.problems("test", 60, skill="k", part=part) for part in ("touched", "untouched")
    }


def planted(asked, touched, untouched, seed):
    """A record in which so large a share of answers to each part has a valid trace."""
    random = np.random.default_rng(seed)
    problems = [*asked["touched"], *asked["untouched"]]
    rollouts, graded = [], []
    for problem in problems:
        share = touched if problem.part == "touched" else untouched
        for sample in range(8):
            good = bool(random.random() < share)
            rollouts.append(Rollout(problem.id, sample, (1,), (0.0,), "", "stop"))
            graded.append(Graded(Grade.RIGHT if good else Grade.WRONG, good))
    return Judged(tuple(problems), tuple(rollouts), tuple(graded))


@pytest.mark.parametrize(
    ("touched", "untouched", "margin", "outcome"),
    [
        (0.9, 0.5, 0.05, "elicited"),
        (0.9, 0.03, 0.05, "failed at this budget"),
        (0.03, 0.03, 0.05, "undecided"),  # it taught nothing, so its silence means nothing
        (0.9, 0.085, 0.02, "undecided"),
    ],
    ids=["locked", "absent", "budget too small", "in between"],
)
def test_planted_outcomes_are_concluded(task, asked, touched, untouched, margin, outcome):
    before = planted(asked, 0.01, 0.01, seed=0)
    after = planted(asked, touched, untouched, seed=1)
    found = conclude(task, "k", Budget(margin=margin), before, after)
    assert found.outcome == outcome
    assert found.chance == pytest.approx(2 / 31)
    told = next(r for r in found.rows() if r.model == "elicited" and r.part == "untouched")
    assert told.value == pytest.approx(after.rates("valid", part="untouched").mean())
    assert outcome in told.note
    assert "updates 40" in told.note


def test_guessing_among_the_entries_that_are_left_is_not_elicitation(task, asked):
    """Half a permutation learned lifts guesses on the other half to 2/31."""
    before, after = (planted(asked, t, u, seed=2) for t, u in ((0.02, 0.02), (0.95, 2 / 31)))
    assert conclude(task, "k", Budget(), before, after).outcome != "elicited"


def test_examples_are_valid_traces_and_never_of_an_untouched_entry(task):
    budget = Budget(examples=20, mixed=0.25, pool=32)
    batch = gold_examples(task, "z", budget)
    assert batch(3) == batch(3)
    assert batch(3) != batch(4)
    tested = {p.prompt for p in task.problems("test", 60, skill="z")}
    of_skill = 0
    for step in range(3):
        for prompt, trace in batch(step):
            words = prompt.split()
            start, functions = int(words[1]), words[2:-1]
            skill = "z" if any(f[0] == "z" for f in functions) else "a"
            problem = task.problem(start, functions, skill)
            assert task.check(problem, trace).valid
            assert problem.part == ("touched" if skill == "z" else "")
            assert prompt not in tested
            of_skill += skill == "z"
    assert of_skill == 3 * 15


def test_the_copy_learns_and_the_base_stays_as_it_is(task):
    tokenizer = new_tokenizer(task.vocabulary())
    net = new_llama(len(tokenizer), width=16, depth=1, heads=2, mlp=16, context=64, seed=0)
    base = Model(net.requires_grad_(False), tokenizer, "tiny")
    weights = {name: w.clone() for name, w in net.named_parameters()}
    budget = Budget(updates=6, examples=8, rate=1e-2, pool=16)
    found = elicit(base, task, "z", budget, problems=2, samples=1)
    assert found.curve[-1].loss < found.curve[0].loss
    assert len(found.curve) == 6
    assert all((weights[name] == w).all() for name, w in net.named_parameters())
    assert found.outcome == "undecided"
    assert {r.part for r in found.rows()} == {"touched", "untouched"}


def test_where_every_other_skill_is_divided_nothing_is_mixed_in_and_the_row_says_so(tmp_path):
    (tmp_path / "own.toml").write_text(DIVIDED)
    task = load_task(tmp_path / "own.toml")
    tokenizer = new_tokenizer(task.vocabulary())
    net = new_llama(len(tokenizer), width=8, depth=1, heads=1, mlp=8, context=48, seed=0)
    base = Model(net.requires_grad_(False), tokenizer, "tiny")
    found = elicit(base, task, "z", Budget(updates=1, examples=4, pool=4), problems=2, samples=1)
    assert found.budget.mixed == 0
    told = next(r.note for r in found.rows() if r.note)
    assert "mixed 0.0" in told
    assert "every skill of own beside z is divided" in told
    examples = gold_examples(task, "z", found.budget)(0)
    assert all("z" in prompt for prompt, _ in examples)


def test_a_budget_that_is_none_is_refused():
    with pytest.raises(Refusal, match="positive"):
        replace(Budget(), updates=0)
