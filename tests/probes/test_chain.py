"""Laws of the chain task: its tables, its problems, its grader and its trace checker."""

import itertools

import pytest

from probes import DATA
from probes.records import Grade, Refusal
from probes.tasks import decisions, load_task
from probes.tasks.chain import Chain

FUNCTIONS = {"a": 2, "n": 2}


@pytest.fixture(scope="module")
def task():
    return load_task("chain")


@pytest.fixture(scope="module")
def small():
    """Z_7 with two families, its tables written down below for hand-made traces."""
    settings = {
        "modulus": 7,
        "seed": 1,
        "common": ["a"],
        "functions": FUNCTIONS,
        "skills": {"a": [2, 2], "n": [1, 1]},
        "problems": {"depth": [2, 3], "budget": [4, 13], "splits": {"tune": 1, "test": 1}},
        "prompt": {"question": "Q", "key": "KEY", "drill": "INV"},
    }
    chain = Chain("small", settings)
    chain.__dict__["tables"] = {  # a cached property, so these stand in its place
        "a0": (1, 2, 3, 4, 5, 6, 0),  # x + 1
        "a1": (0, 2, 4, 6, 1, 3, 5),  # 2 x
        "n0": (0, 3, 6, 2, 5, 1, 4),  # 3 x
        "n1": (6, 5, 4, 3, 2, 1, 0),  # 6 - x
    }
    return chain


def test_every_function_is_a_permutation_and_two_seeds_give_two_tables(task):
    for table in task.tables.values():
        assert sorted(table) == list(range(task.modulus))
    other = Chain("other", {**task.settings, "seed": 2})
    assert other.tables["a0"] != task.tables["a0"]


def test_every_gold_answer_passes_its_own_grader_and_checker(task):
    for split, skill in itertools.product(("tune", "select", "test"), task.skills):
        for problem in task.problems(split, 20, skill=skill):
            gold = task.gold(problem)
            assert task.grade(problem, gold) is Grade.RIGHT
            trace = task.check(problem, gold)
            assert trace.valid
            assert {step.verdict for step in trace.steps} == {"valid"}
            assert len(gold.split()) + 1 <= task.budget(problem)


def test_the_answer_is_what_the_tables_give_when_applied_by_hand(task):
    for problem in task.problems("test", 50):
        question, start, *functions, arrow = problem.prompt.split()
        value = int(start)
        for function in functions:
            value = task.tables[function][value]
        assert (question, arrow, str(value)) == ("Q", ">", problem.answer)


def test_splits_share_no_problem_and_a_longer_list_extends_a_shorter_one(task):
    seen = [{p.id for p in task.problems(split, 200)} for split in ("tune", "select", "test")]
    for one, other in itertools.combinations(seen, 2):
        assert not one & other
    longer = task.problems("test", 30, skill="n")
    assert task.problems("test", 10, skill="n") == longer[:10]
    assert len({p.id for p in longer}) == 30


def test_a_problem_lies_in_one_half_of_its_special_entries(task):
    """Read off the prompt alone, and both halves are there in about equal parts."""
    for part in ("touched", "untouched"):
        for problem in task.problems("test", 40, skill="n", part=part):
            value, halves = problem.parameters["start"], []
            for function in problem.parameters["functions"]:
                if function[0] == "n":
                    halves.append(task.touched[function][value])
                value = task.tables[function][value]
            assert halves
            assert set(halves) == {part == "touched"}
    share = [half for halves in task.touched.values() for half in halves]
    assert 0.45 < sum(share) / len(share) < 0.55


# start 2, then a0 (+1 -> 3), n0 (x3 -> 2), n1 (6-x -> 4): the answer is 4
TRACES = {
    "step by step": ("a0 = 3 ; n0 = 2 ; n1 = 4 ; ans 4", "right", True, "valid valid valid valid"),
    "two at once": ("a0 n0 = 2 ; n1 = 4 ; ans 4 END", "right", True, "valid valid valid"),
    "checked and fine": ("a0 = 3 ? 3 ok ; n0 n1 = 4 ; ans 4", "right", True, "valid " * 4),
    "slip repaired": (
        "a0 = 3 ; n0 = 6 ? 2 no = 2 ; n1 = 4 ; ans 4",
        "right",
        True,
        "valid calculator valid valid valid valid",
    ),
    "slip left standing": (
        "a0 = 3 ; n0 = 6 ? 2 no ; n1 = 0 ; ans 0",
        "wrong",
        False,
        "valid calculator valid valid valid",
    ),
    "two slips that cancel": (
        "a0 = 3 ; n0 = 6 ; n1 = 4 ; ans 4",
        "right",
        False,
        "valid calculator calculator valid",
    ),
    "the answer at once": ("ans 4", "right", False, "rule"),
    "a jump half way": ("a0 = 3 ; ans 4", "right", False, "valid rule"),
    "a function left out": ("a0 = 3 ; n1 = 3 ; ans 3", "wrong", False, "valid rule rule"),
    "an answer from nowhere": (
        "a0 = 3 ; n0 = 2 ; n1 = 4 ; ans 5",
        "wrong",
        False,
        "valid valid valid premise",
    ),
    "a step from the retracted value": (
        "a0 = 5 ? 3 no = 3 ; n0 = 1 ; n1 = 5 ; ans 5",
        "wrong",
        False,
        "calculator valid valid premise valid valid",
    ),
    "a right value denied": (
        "a0 = 3 ? 3 no ; n0 = 2 ; n1 = 4 ; ans 4",
        "right",
        True,
        "valid rule valid valid valid",
    ),
    "a wrong check believed": (
        "a0 = 3 ; n0 = 2 ? 5 no = 5 ; n1 = 1 ; ans 1",
        "wrong",
        False,
        "valid valid calculator calculator valid valid",
    ),
    "a repair that is not the check's": (
        "a0 = 5 ? 3 no = 4 ; n0 = 5 ; n1 = 1 ; ans 1",
        "wrong",
        False,
        "calculator valid premise valid valid valid",
    ),
    "no answer": ("a0 = 3 ; n0 = 2 ;", "unparsed", False, "valid valid"),
    "no words": ("", "unparsed", False, ""),
    "broken grammar": ("a0 = = 3 ; ans 4", "right", False, "format"),
    "words after the answer": (
        "a0 = 3 ; n0 = 2 ; n1 = 4 ; ans 4 ; ans 5",
        "wrong",
        False,
        "valid valid valid valid format",
    ),
    "an answer that is no number": ("a0 = 3 ; ans n1", "unparsed", False, "valid format"),
}


@pytest.mark.parametrize(("response", "grade", "valid", "verdicts"), TRACES.values(), ids=TRACES)
def test_a_trace_is_judged_as_by_hand(small, response, grade, valid, verdicts):
    problem = small.problem(2, ["a0", "n0", "n1"], "a")
    assert small.grade(problem, response) == Grade(grade)
    trace = small.check(problem, response)
    assert [step.verdict for step in trace.steps] == verdicts.split()
    assert trace.valid is valid


def test_of_several_answers_the_last_counts_and_a_quoted_gold_does_not(small):
    problem = small.problem(2, ["a0", "n0", "n1"], "a")
    assert small.grade(problem, "ans 4 ; ans 5") is Grade.WRONG
    assert small.grade(problem, "ans 5 ; ans 4") is Grade.RIGHT
    assert small.grade(problem, "n1 = 4 ; ans 40") is Grade.WRONG


def test_a_valid_trace_has_a_right_answer_whatever_is_written(small):
    """Every response of up to three steps over a small alphabet: valid implies RIGHT."""
    problem = small.problem(2, ["a0", "n0"], "n")
    values = ("2", "3", "6")
    steps = [f"{f} = {v} ;" for f in ("a0", "n0", "a0 n0") for v in values]
    valid = 0
    for count in range(4):
        for chosen in itertools.product(steps, repeat=count):
            for answer in values:
                response = " ".join([*chosen, f"ans {answer}"])
                if small.check(problem, response).valid:
                    valid += 1
                    assert small.grade(problem, response) is Grade.RIGHT
    assert valid == 2  # one step at a time, and both at once


def test_decisions_stand_where_the_grammar_leaves_a_choice(small):
    problem = small.problem(2, ["a0", "n0", "n1"], "a")
    found = decisions(small, problem, "a0 = 3 ; n0 n1 = 6 ? 4 no = 4 ; ans 4 END")
    assert [(d.position, d.kind, d.choice) for d in found] == [
        (0, "jump", "no"),
        (1, "double", "no"),
        (3, "check", "no"),
        (4, "jump", "no"),
        (5, "double", "yes"),
        (8, "check", "yes"),
        (11, "repair", "yes"),
    ]  # nothing is open behind the last function, a repair, or an answer


def test_spans_name_the_strategy_of_every_move(small):
    problem = small.problem(2, ["a0", "n0", "n1"], "a")
    spans = small.spans(problem, "a0 = 3 ? 3 ok ; n0 n1 = 6 ? 4 no = 4 ; ans 4")
    assert [(s.start, s.stop, s.strategy) for s in spans] == [
        (0, 3, "step"),
        (3, 6, "check"),
        (7, 11, "double"),
        (11, 14, "check"),
        (14, 16, "repair"),
    ]
    assert [s.strategy for s in small.spans(problem, "a0 = 3 ; ans 4")] == ["step", "jump"]


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"split": "dev"}, "not one of tune, select, test"),
        ({"skill": "q"}, "not one of a, n"),
        ({"part": "both"}, "not one of touched, untouched"),
        ({"count": 10**6, "skill": "a", "difficulty": 1}, "only"),
    ],
)
def test_a_wish_that_cannot_be_met_is_refused(task, wish, message):
    with pytest.raises(Refusal, match=message):
        task.problems(**{"split": "test", "count": 1, **wish})


def test_a_word_with_two_meanings_is_refused(tmp_path):
    shipped = (DATA / "tasks" / "chain.toml").read_text()
    file = tmp_path / "mine.toml"
    file.write_text(shipped.replace('question = "Q"', 'question = "n0"'))
    with pytest.raises(Refusal, match="means two things"):
        load_task(file)
