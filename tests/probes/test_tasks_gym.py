"""reasoning-gym through one adapter: every dataset, its own scorer, splits that share nothing."""

import json
from dataclasses import replace

import pytest

from probes.records import Grade, Refusal
from probes.tasks import Task, load_task
from probes.tasks.gym import load, scoring
from probes.tasks.gym.items import SIZE, item, names
from probes.verify import grade_all

SPLITS = {"tune": 6, "select": 2, "test": 2}
ABOUT = {"family": "gym", "seed": 3, "splits": SPLITS, "template": "tags", "budget": 100}
WITHOUT_SOLUTION = {"boxnet", "rush_hour"}
"""Judged by simulation, and their items keep no solution: nothing to be scored as gold."""


def gym(dataset, **about):
    return load(dataset, ABOUT | {"dataset": dataset} | about)


@pytest.fixture(scope="module")
def sums():
    return gym("chain_sum")


def test_all_of_the_registry_is_there():
    assert len(names()) >= 105
    assert "composite" not in names()
    assert set(names()) > WITHOUT_SOLUTION


@pytest.mark.parametrize("dataset", names())
def test_every_datasets_own_answer_is_right_and_another_is_not(dataset):
    task = gym(dataset)
    assert isinstance(task, Task)
    for problem in task.problems("test", 2):
        if dataset in WITHOUT_SOLUTION:
            with pytest.raises(Refusal, match="keeps no solution"):
                task.gold(problem)
        else:
            assert task.grade(problem, f"so it is {task.gold(problem)}") is Grade.RIGHT
        for wrong in ("zzz 12345", "nan", "0.0.0"):
            assert task.grade(problem, f"<answer>{wrong}</answer>") is not Grade.RIGHT
        assert task.grade(problem, "I don't know") is Grade.UNPARSED


def test_an_item_depends_on_its_place_only():
    """Also where a dataset makes all its items at once, as acre does."""
    for dataset in ("acre", "chain_sum", "word_ladder"):
        of = json.dumps({"dataset": dataset, "config": {}, "seed": 3})
        shifted = json.dumps({"dataset": dataset, "config": {}, "seed": 3 + SIZE})
        late = item(of, None, SIZE + 2)
        assert late["question"] == item(shifted, None, 2)["question"]
        assert late["question"] != item(of, None, 2)["question"]


def test_splits_share_no_problem_even_where_the_dataset_repeats_itself():
    few = gym("chain_sum", config={"min_terms": 2, "max_terms": 2, "max_digits": 1})
    drawn = {}
    for split in SPLITS:
        with pytest.raises(Refusal, match=rf"the {split} split seems to hold no more than (\d+)"):
            few.problems(split, 300)
        drawn[split] = {p.prompt for p in few.problems(split, 10)}
    assert not drawn["tune"] & drawn["select"]
    assert not (drawn["tune"] | drawn["select"]) & drawn["test"]


def test_a_longer_list_extends_a_shorter_one(sums):
    longer = sums.problems("tune", 40)
    assert sums.problems("tune", 15) == longer[:15]
    assert len({p.id for p in longer}) == 40


def test_levels_are_skills_and_each_is_harder():
    task = gym("chain_sum", levels=[0, 3])
    assert task.skills == ("level 0", "level 3")
    easy, hard = (task.problems("test", 20, skill=skill) for skill in task.skills)
    assert {p.difficulty for p in hard} == {3}
    assert max(len(p.answer) for p in easy) < max(len(p.answer) for p in hard)
    assert [p.difficulty for p in task.problems("test", 4)] == [0, 3, 0, 3]
    assert task.problems("test", 3, difficulty=3) == hard[:3]
    for problem in hard[:3]:
        assert task.grade(problem, task.gold(problem)) is Grade.RIGHT


def test_it_checks_no_traces_and_has_no_decisions(sums):
    (problem,) = sums.problems("test", 1)
    assert not sums.checks
    assert not sums.decision_kinds
    assert sums.spans(problem, "x") == []
    assert sums.next_decision(problem, ["x"]) is None
    with pytest.raises(Refusal, match="checks no traces"):
        sums.check(problem, "x")
    with pytest.raises(Refusal, match="no vocabulary"):
        sums.vocabulary()


def test_partial_credit_is_not_right():
    task = gym("caesar_cipher")
    (problem,) = task.problems("test", 1)
    made = item(task.identity, None, problem.parameters["index"])
    given = scoring.dataset(task.identity, None, 0).score_answer(problem.answer + ".", made)
    assert 0.5 < given < 1
    assert task.grade(problem, f"<answer>{problem.answer}.</answer>") is Grade.WRONG


def test_another_version_of_the_item_is_an_error_and_no_verdict(sums):
    (problem,) = sums.problems("test", 1)
    other = replace(problem, spec=json.dumps(problem.parameters | {"question": "2 + 2?"}))
    with pytest.raises(RuntimeError, match="another one in reasoning-gym"):
        sums.grade(other, sums.gold(problem))


MISTAKEN = {
    "game_of_life_halting": lambda right: {"True": "False", "False": "True"}[right],
    "coin_flip": lambda _: "0",
    "complex_arithmetic": lambda _: "nan",
    "letter_jumble": lambda right: f"{right} and more",
    "puzzle24": lambda _: "4 * 6 * 1 * 1" if _ != "4*6*1*1" else "3 * 8 * 1 * 1",
}


@pytest.mark.parametrize("dataset", MISTAKEN)
def test_where_its_scorer_takes_a_wrong_answer_ours_does_not(dataset):
    task = gym(dataset)
    fooled = 0
    for problem in task.problems("test", 6):
        wrong = MISTAKEN[dataset](problem.answer)
        made = item(task.identity, None, problem.parameters["index"])
        fooled += scoring.dataset(task.identity, None, 0).score_answer(wrong, made) >= 1
        assert task.grade(problem, f"<answer>{wrong}</answer>") is Grade.WRONG
    assert fooled, "the scorer is mended: what stands before it can go"


def test_what_a_scorer_would_run_as_code_is_never_handed_to_it(tmp_path):
    mark = tmp_path / "ran"
    code = [f"open('{mark}', 'w')", f"[open('{mark}', 'w')]", f"open(chr(120), 'w')#{mark}"]
    for dataset in sorted(scoring.LITERAL | scoring.SYMBOLIC):
        (problem,) = gym(dataset).problems("test", 1)
        for answer in code:
            graded = gym(dataset).grade(problem, f"<answer>{answer}</answer>")
            assert graded is Grade.UNPARSED, (dataset, answer)
    assert not mark.exists()


@pytest.mark.parametrize("answer", ["1e99999999", "-1E-99999999", "1e9_999_999", "1e9,999,999"])
def test_a_number_that_would_take_for_ever_to_write_out_is_unparsed(answer):
    task = gym("coin_flip")
    (problem,) = task.problems("test", 1)
    assert task.grade(problem, f"<answer>{answer}</answer>") is Grade.UNPARSED
    assert task.grade(problem, "<answer>1e-100</answer>") is Grade.WRONG


@pytest.mark.parametrize("dataset", sorted(scoring.ARITHMETIC))
@pytest.mark.parametrize("answer", ["(9+9)**99999999*0", "9**(9+9)**9", "2**2", "9^9"])
def test_puzzles_of_arithmetic_take_no_powers(dataset, answer):
    task = gym(dataset)
    (problem,) = task.problems("test", 1)
    assert task.grade(problem, f"<answer>{answer}</answer>") is Grade.UNPARSED
    assert task.grade(problem, "<answer>2*2</answer>") is Grade.WRONG


def test_scorers_that_read_expressions_are_known():
    """Any scorer of a new version that calls eval must be among those that are fenced."""
    import inspect

    from reasoning_gym.factory import DATASETS

    calls = ("eval(answer", "parse_expr(answer", "sympify(answer", "exec(answer")
    unfenced = [
        name
        for name in names()
        if any(call in inspect.getsource(DATASETS[name][0].score_answer) for call in calls)
        and name not in scoring.LITERAL | scoring.SYMBOLIC
    ]
    assert not unfenced


def test_a_scorer_that_can_not_read_an_answer_makes_it_unparsed():
    task = gym("prime_factorization")
    (problem,) = task.problems("test", 1)
    assert task.grade(problem, "<answer>two times three</answer>") is Grade.UNPARSED


def test_a_scorer_that_can_read_nothing_is_an_error(monkeypatch):
    task = gym("prime_factorization")
    (problem,) = task.problems("test", 1)
    from reasoning_gym.factory import DATASETS

    def broken(*_):
        raise KeyError("broken")

    monkeypatch.setattr(DATASETS["prime_factorization"][0], "score_answer", broken)
    with pytest.raises(KeyError):
        task.grade(problem, "<answer>2 x 3</answer>")


def test_it_is_judged_in_the_pool(sums):
    problems = sums.problems("test", 4)
    answers = [sums.gold(p) for p in problems[:2]] + ["<answer>x</answer>", "nothing"]
    graded = grade_all(sums, problems, answers)
    assert [g.grade for g in graded] == [Grade.RIGHT, Grade.RIGHT, Grade.WRONG, Grade.UNPARSED]
    assert {g.valid for g in graded} == {None}


@pytest.mark.parametrize("name", ["gym-basic-arithmetic", "gym-chain-sum", "gym-countdown"])
def test_the_shipped_ones_load(name):
    task = load_task(name)
    for problem in task.problems("select", 3):
        assert task.grade(problem, task.gold(problem)) is Grade.RIGHT
        assert problem.prompt.endswith(problem.parameters["question"] + "\n")


WRONG = {
    "dataset": ({"dataset": "chian_sum"}, "none of reasoning-gym .*chain_sum"),
    "mixture": ({"dataset": "composite"}, "none of reasoning-gym"),
    "config": ({"config": {"min_terms": 9, "max_terms": 1}}, "refuses config"),
    "unknown config": ({"config": {"terms": 9}}, "refuses config.*terms"),
    "seed in config": ({"config": {"seed": 1}}, "without seed"),
    "level": ({"levels": [99]}, "go beyond"),
    "levels": ({"levels": "all"}, "must list levels"),
    "both": ({"levels": [0], "config": {"min_terms": 2}}, "can't both be given"),
    "key": ({"sede": 1}, "knows no sede"),
    "template": ({"template": "boxd"}, "'boxd' is not known; there are boxed"),
    "no question": ({"template": {"text": "Hi", "answer": ["tag"]}}, r"0 \{question\}"),
    "no mark": ({"template": {"text": "{question}", "answer": []}}, "must list some of boxed"),
    "guess": ({"guess_rate": 2}, "must be a chance"),
    "shots": ({"shots": 3}, "shots = 3 must be a whole number from 0 to 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_in_the_file_is_told_at_loading(name):
    about, said = WRONG[name]
    with pytest.raises(Refusal, match=said):
        load("mine", ABOUT | {"dataset": "chain_sum"} | about)


def test_a_part_or_level_that_is_not_there_is_refused(sums):
    with pytest.raises(Refusal, match="not divided into parts"):
        sums.problems("test", 1, part="touched")
    with pytest.raises(Refusal, match="names no levels"):
        sums.problems("test", 1, skill="level 1")
    with pytest.raises(Refusal, match="none of tune, select, test"):
        sums.problems("train", 1)


def test_without_reasoning_gym_it_says_what_to_install(monkeypatch):
    import sys

    from probes.tasks.gym import items

    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    items.library.cache_clear()
    try:
        with pytest.raises(Refusal, match="pip install -c constraints.txt reasoning-gym"):
            gym("chain_sum")
    finally:
        items.library.cache_clear()
