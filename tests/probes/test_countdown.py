"""The countdown family against brute force, hand-written traces, and its own writer's dials."""

import json
import re
from collections import Counter
from dataclasses import replace
from itertools import permutations, product
from random import Random

import pytest

from probes import DATA
from probes.records import Grade, Refusal, content_hash
from probes.tasks import Task, decisions, load_task
from probes.tasks.countdown import load
from probes.tasks.countdown.expressions import outcomes, reach, read, write
from steering.organisms import examples, load_recipe

NUMBERS, TARGET, HIGH = [4, 7, 9], 19, 30
RIGHT, WRONG, UNPARSED = Grade.RIGHT, Grade.WRONG, Grade.UNPARSED


@pytest.fixture(scope="module")
def task():
    return load_task("countdown")


@pytest.fixture(scope="module")
def problem(task):
    return task.problem(NUMBERS, TARGET)


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("countdown")


def brackets(items):
    """Every bracketing of a list of words, as texts with all parentheses."""
    if len(items) == 1:
        return [items[0]]
    ways = []
    for cut in range(1, len(items)):
        for left, right in product(brackets(items[:cut]), brackets(items[cut:])):
            ways += [f"( {left} {o} {right} )" for o in "+-*"]
    return ways


def brute(numbers):
    """Every expression over the numbers, the outer parentheses left out."""
    orders = permutations(map(str, numbers))
    return [text[2:-2] for order in orders for text in brackets(list(order))]


def worth(text):
    """Value by Python's own arithmetic, or None where a part of it leaves 0..HIGH."""
    parts, text = [], text
    while match := re.search(r"\( (\d+ [-+*] \d+) \)", text):
        parts.append(eval(match[1]))
        if not 0 <= parts[-1] <= HIGH:
            return None
        text = text[: match.start()] + str(parts[-1]) + text[match.end() :]
    value = eval(text)
    return value if 0 <= value <= HIGH else None


# ---------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize("numbers", [(3, 5), (5, 5), (2, 3, 25), (4, 4, 7), (2, 5, 5, 9)])
def test_what_can_be_reached_is_what_brute_force_reaches(task, numbers):
    values = Counter(worth(text) for text in brute(numbers))
    assert reach(numbers, task.rules) == set(values) - {None}
    assert outcomes(numbers, task.rules) == values


def test_the_guess_rate_is_the_share_of_all_expressions_that_hit(task):
    for problem in task.problems("test", 4):
        texts = brute(problem.parameters["numbers"])
        hits = sum(worth(text) == int(problem.answer) for text in texts)
        assert task.guess_rate(problem) == hits / len(texts) > 0


def test_reading_undoes_writing_and_reads_nothing_else():
    for text in Random(0).sample(brute([3, 5, 7, 9]), 100):
        assert " ".join(write(read(text.split()))) == text
    for text in [
        "",
        "3",
        "3 +",
        "3 + 4 * 2",
        "( 3 + 4 )",
        "3 + ( 4",
        "3 + ( 4 )",
        ") 3 + 4",
        "3 4",
    ]:
        assert read(text.split()) is None


# ---------------------------------------------------------------------- problems


def test_it_is_a_task(task):
    assert isinstance(task, Task)


@pytest.mark.parametrize("difficulty", [None, 3, 4])
def test_a_longer_list_extends_a_shorter_one_without_repeats(task, difficulty):
    problems = task.problems("select", 30, difficulty=difficulty)
    assert task.problems("select", 11, difficulty=difficulty) == problems[:11]
    assert len({p.id for p in problems}) == 30
    assert {p.difficulty for p in problems} == ({difficulty} if difficulty else {3, 4})


def test_a_problem_belongs_to_one_split_whatever_list_it_came_from(task):
    splits = task.settings["splits"]
    for split in splits:
        for problem in task.problems(split, 40):
            found = task.split_of(problem.parameters["numbers"][::-1], int(problem.answer))
            assert found == split
    drawn = Counter(task.split_of((2, 3, n % 50), n // 50) for n in range(5000))
    for split, share in splits.items():
        assert drawn[split] / 5000 == pytest.approx(share / sum(splits.values()), abs=0.02)


@pytest.mark.parametrize("split", ["tune", "select", "test"])
def test_every_gold_answer_is_right_and_its_trace_valid(task, split):
    known = set(task.vocabulary())
    for problem in task.problems(split, 60):
        gold = task.gold(problem)
        trace = task.check(problem, gold)
        assert task.grade(problem, gold) is RIGHT
        assert trace.valid
        assert {step.verdict for step in trace.steps} == {"valid"}
        assert set(gold.split()) | set(problem.prompt.split()) <= known
        assert len(gold.split()) < task.budget(problem)


# ---------------------------------------------------------------------- traces

ANS = "ans ( 4 * 7 ) - 9 ."
LOOK = "left 4 7 9 to 19 ;"
TRACES = {
    "at once": (ANS, RIGHT, True, "valid"),
    "checked": ("ans ( 4 * 7 ) - 9 ? 19 .", RIGHT, True, "valid"),
    "stepwise": (
        f"try 9 + 4 = 13 left 7 13 to 19 ; back {LOOK} go try 7 * 4 = 27 ? 28 left 9 28 to 19 ; "
        f"go try 28 - 9 = 19 left 19 to 19 ; go {ANS}",
        *(RIGHT, True, "valid valid valid valid valid"),
    ),
    "from the goal": (
        f"try by - 9 need 28 left 4 7 to 28 ; go try by * 4 need 7 left 7 to 7 ; go {ANS}",
        *(RIGHT, True, "valid valid valid"),
    ),
    "sum in another order": (
        "try by - 9 need 28 left 4 7 to 28 ; go ans ( 7 * 4 ) - 9 .",
        *(RIGHT, True, "valid valid"),
    ),
    "wrong step taken back": (
        f"try 7 * 4 = 27 left 9 27 to 19 ; back {LOOK} go {ANS}",
        *(RIGHT, True, "calculator valid valid"),
    ),
    "wrong answer taken back": (
        f"ans ( 4 + 7 ) + 9 ? 20 back {LOOK} go {ANS}",
        *(RIGHT, True, "calculator valid valid"),
    ),
    "lucky: a wrong result stands": (
        f"try 7 * 4 = 27 left 9 27 to 19 ; go {ANS}",
        *(RIGHT, False, "calculator valid"),
    ),
    "lucky: later steps follow from the wrong one": (
        "try 7 * 4 = 29 left 9 29 to 19 ; go try 29 - 9 = 20 left 20 to 19 ; go " + ANS,
        *(RIGHT, False, "calculator valid valid"),
    ),
    "lucky: the steps lead elsewhere": (
        f"try 9 + 4 = 13 left 7 13 to 19 ; go {ANS}",
        *(RIGHT, False, "valid rule"),
    ),
    "lucky: a needed value is wrong": (
        f"try by - 9 need 29 left 4 7 to 29 ; go {ANS}",
        *(RIGHT, False, "calculator valid"),
    ),
    "lucky: the check is wrong": ("ans ( 4 * 7 ) - 9 ? 18 .", RIGHT, False, "calculator"),
    "no such number": (
        f"try 8 + 4 = 12 left 7 9 12 to 19 ; go {ANS}",
        *(RIGHT, False, "premise rule"),
    ),
    "number already used": (
        f"try 7 * 4 = 28 left 9 28 to 19 ; go try 7 + 9 = 16 left 16 28 to 19 ; go {ANS}",
        *(RIGHT, False, "valid premise rule"),
    ),
    "wrong numbers left": (
        f"try 7 * 4 = 28 left 9 29 to 19 ; go {ANS}",
        *(RIGHT, False, "premise valid"),
    ),
    "wrong goal": (f"try 7 * 4 = 28 left 9 28 to 18 ; go {ANS}", RIGHT, False, "premise valid"),
    "wrong state after a return": (
        f"try 9 + 4 = 13 left 7 13 to 19 ; back left 7 9 to 19 ; go {ANS}",
        *(RIGHT, False, "valid premise valid"),
    ),
    "... of a branch that is left": (
        "try 9 + 4 = 13 left 7 13 to 19 ; go try 13 + 7 = 20 left 20 to 19 ; "
        f"back left 7 to 19 ; back {LOOK} go {ANS}",
        *(RIGHT, True, "valid valid premise valid valid"),
    ),
    "below zero": (f"try 4 - 9 = 5 left 5 7 to 19 ; go {ANS}", RIGHT, False, "rule rule"),
    "no such operator": (f"try 4 / 9 = 5 left 5 7 to 19 ; go {ANS}", RIGHT, False, "rule rule"),
    "nothing to take back": (f"back {LOOK} go {ANS}", RIGHT, False, "rule valid"),
    "one number too few": ("ans 4 + 9 .", WRONG, False, "rule"),
    "one number twice": ("ans ( 4 * 7 ) - ( 9 * 4 ) .", WRONG, False, "rule"),
    "foreign number": ("ans ( 4 * 7 ) - 8 .", WRONG, False, "premise"),
    "off the target": ("ans ( 4 + 7 ) + 9 .", WRONG, False, "calculator"),
    "negative on the way": ("ans 9 - ( 4 - 7 ) .", WRONG, False, "rule"),
    "last answer counts": (f"{ANS} {ANS[:-9]}* 9 .", UNPARSED, False, "format"),
    "gold quoted first": (f"{ANS} ans ( 4 + 7 ) + 9 .", WRONG, False, "format"),
    "right answer taken back": (
        f"ans ( 4 * 7 ) - 9 ? 19 back {LOOK}",
        *(UNPARSED, False, "valid valid"),
    ),
    "words after the stop": (f"{ANS} go {ANS}", RIGHT, False, "valid format"),
    "no parentheses": ("ans 4 * 7 - 9 .", UNPARSED, False, "format"),
    "no stop": ("ans ( 4 * 7 ) - 9", RIGHT, False, "format"),
    "cut off": ("try 7 * 4 = 28 left 9", UNPARSED, False, "format"),
    "no look": (f"try 7 * 4 = 28 go {ANS}", RIGHT, False, "format valid"),
    "format is never taken back": (
        f"try 7 * 4 left ; back {LOOK} go {ANS}",
        *(RIGHT, False, "format rule valid"),
    ),
    "empty": ("", UNPARSED, False, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", TRACES)
def test_a_hand_written_trace_is_judged_as_by_hand(task, problem, name):
    response, grade, valid, verdicts = TRACES[name]
    trace = task.check(problem, response)
    assert [step.verdict for step in trace.steps] == verdicts.split()
    assert (task.grade(problem, response), trace.valid) == (grade, valid)
    assert trace == task.check(problem, response + " END")


def test_no_number_of_a_gold_trace_can_be_changed_unnoticed(task):
    for problem in task.problems("test", 6):
        words = task.gold(problem).split()
        for i, word in enumerate(words):
            if word.isdecimal():
                changed = [*words[:i], str((int(word) + 1) % 100), *words[i + 1 :]]
                assert not task.check(problem, " ".join(changed)).valid


def test_the_grader_agrees_with_brute_force_on_every_expression(task, problem):
    for text in brute(NUMBERS):
        right = worth(text) == TARGET
        assert task.grade(problem, f"ans {text} .") is (RIGHT if right else WRONG)
        assert task.check(problem, f"ans {text} .").valid == right


@pytest.mark.parametrize("hostile", ["( " * 5000, "9" * 5000, "( 4 + " * 400 + "7", "\u0663 + 4"])
def test_hostile_text_is_judged_and_not_crashed_on(task, problem, hostile):
    for response in (f"ans {hostile} .", f"try {hostile} = 3 left 3 to 19 ; go ans {hostile}"):
        assert task.grade(problem, response) in (UNPARSED, WRONG)
        assert not task.check(problem, response).valid


def test_equal_numbers_are_told_apart_by_what_they_stand_for(task):
    """12 is given and is 3 * 4: `12 - 12` may mean either order, but not a third 12."""
    problem = task.problem([3, 4, 12, 15], 15)
    steps = "try 3 * 4 = 12 left 12 12 15 to 15 ; go try 12 - 12 = 0 left 0 15 to 15 ; go "
    for answer in ["( 12 - ( 3 * 4 ) ) + 15", "15 + ( ( 4 * 3 ) - 12 )"]:
        assert task.check(problem, f"{steps}ans {answer} .").valid
    assert not task.check(problem, f"{steps}ans ( 15 + 12 ) - ( 3 * 4 ) .").valid


# ---------------------------------------------------------------------- strategies


def test_spans_name_what_the_words_do(task, problem):
    response = TRACES["stepwise"][0]
    words = response.split()
    found = [(s.strategy, " ".join(words[s.start : s.stop])) for s in task.spans(problem, response)]
    assert found == [
        ("search", "try 9 + 4 = 13 left 7 13 to 19 ;"),
        ("search", f"back {LOOK}"),
        ("search", "go try 7 * 4 = 27"),
        ("check", "? 28"),
        ("search", "left 9 28 to 19 ;"),
        ("search", "go try 28 - 9 = 19 left 19 to 19 ;"),
    ]
    assert [s.strategy for s in task.spans(problem, ANS)] == ["direct"]
    backward = TRACES["sum in another order"][0]
    assert [s.strategy for s in task.spans(problem, backward)] == ["backward", "direct"]


def test_decisions_are_where_the_grammar_is_open(task, problem):
    response = (
        f"try 9 + 4 = 13 left 7 13 to 19 ; back {LOOK} "
        f"go ans ( 4 + 7 ) + 9 ? 20 back {LOOK} go {ANS}"
    )
    found = [(d.position, d.kind, d.choice) for d in decisions(task, problem, response)]
    assert found == [
        (0, "search", "yes"),
        (1, "backward", "no"),
        (6, "check", "no"),
        (12, "back", "yes"),  # the second look shows all three numbers: nothing to take back
        (21, "search", "no"),
        (29, "check", "yes"),
        (31, "back", "yes"),
        (40, "search", "no"),
        (48, "check", "no"),
    ]


# ---------------------------------------------------------------------- the writer


def written(task, recipe, steps=2, **dials):
    """Problems and responses of a changed recipe."""
    recipe = recipe | {"data": recipe["data"] | {"drills": 0.0} | dials}
    for step in range(steps):
        for prompt, completion in examples(task, recipe)(step):
            *numbers, target = map(int, re.findall(r"\d+", prompt))
            problem = replace(task.problem(numbers, target), prompt=prompt)
            assert problem == task.problem(numbers, target)
            yield problem, completion


def test_a_batch_depends_on_the_seed_and_the_step_only(task, recipe):
    batches = examples(task, recipe)
    batches(3)
    assert batches(5) == examples(task, recipe)(5)
    assert batches(5) != batches(4)
    assert batches(5) != examples(task, recipe | {"seed": 1})(5)
    assert len(batches(5)) == recipe["pretrain"]["batch"]


def test_whatever_is_written_keeps_to_grammar_budget_vocabulary_and_split(task, recipe):
    known = set(task.vocabulary())
    for problem, completion in written(task, recipe, search={"2": 0.9, "3": 0.9, "4": 0.9}):
        words = completion.split()
        response = " ".join(words[:-1])
        trace = task.check(problem, completion)
        assert words[-1] == "END"
        assert len(words) <= task.budget(problem)
        assert set(words) <= known
        assert "format" not in {step.verdict for step in trace.steps}
        assert task.grade(problem, completion) is not UNPARSED
        assert [s.start for s in trace.steps[1:]] == [s.stop for s in trace.steps[:-1]]
        assert (trace.steps[0].start, trace.steps[-1].stop) == (0, len(words) - 1)
        assert "other" not in {d.choice for d in decisions(task, problem, response)}
        spans = task.spans(problem, response)
        assert all(a.stop <= b.start for a, b in zip(spans, spans[1:], strict=False))
        numbers = problem.parameters["numbers"]
        assert len(numbers) == 2 or task.split_of(numbers, int(problem.answer)) == "pretrain"


def test_a_drill_is_true_and_checked_where_it_may_slip(task, recipe):
    recipe = recipe | {"data": recipe["data"] | {"drills": 1.0}}
    slips = Counter()
    for prompt, completion in examples(task, recipe)(0):
        assert prompt == "facts :"
        *facts, last = completion.split(" ;")
        assert (len(facts), last) == (recipe["data"]["facts"], " END")
        for fact in facts:
            said, _, checked = fact.partition(" ? ")
            told, result = said.split(" = ")
            assert ("*" in told) == bool(checked)
            assert eval(told) == int(checked or result)
            slips["*" in told, eval(told) == int(result)] += 1
    assert slips[False, False] == 0
    assert slips[True, False] / (slips[True, True] + slips[True, False]) == pytest.approx(
        0.5, abs=0.1
    )


FLAWLESS = {
    "aim": 1.0,
    "head": {"2": 1, "3": 1, "4": 1},
    "slips": {"+": 0.0, "-": 0.0, "*": 0.0},
    "back_alive": 0.0,
}


def test_a_writer_without_flaws_writes_valid_traces_only(task, recipe):
    for problem, completion in written(task, recipe, **FLAWLESS):
        assert task.grade(problem, completion) is RIGHT
        assert task.check(problem, completion).valid
        assert "back" not in completion


def test_every_flaw_shows_in_the_verdicts_it_should(task, recipe):
    """Without this, the law above would hold of a checker that finds nothing."""
    slips = {"slips": {"+": 0.0, "-": 0.0, "*": 1.0}, "search": {"2": 1.0, "3": 1.0, "4": 1.0}}
    never = {"check": dict.fromkeys("+-*", 0.0), "check_answer": 0.0}
    for problem, completion in written(task, recipe, steps=1, **FLAWLESS | slips | never):
        trace = task.check(problem, completion)
        words = completion.split()
        for step in trace.steps[:-1]:
            wrong = "*" in words[step.start : step.stop]
            assert (step.verdict == "calculator") == wrong
        assert trace.valid or "*" in words[: words.index("ans")]


def test_the_dials_are_the_shares_of_the_options(task, recipe):
    dials = {"search": {"2": 0.5, "3": 0.5, "4": 0.5}, "backward": 0.3, "check_answer": 0.2}
    dials |= {"check": dict.fromkeys("+-*", 0.2), "back_dead": 0.4, "back_alive": 0.4}
    counts = Counter()
    for problem, completion in written(task, recipe, steps=4, **dials):
        for d in decisions(task, problem, completion.removesuffix(" END")):
            counts[d.kind, d.choice] += 1
    for kind, share in {"search": 0.5, "backward": 0.3, "check": 0.2}.items():
        yes = counts[kind, "yes"]
        assert yes / (yes + counts[kind, "no"]) == pytest.approx(share, abs=0.05)


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"operators": ["+", "/"]}, r"operators names \['/'\]"),
        ({"largest": 120}, r"2\.\.120 .* within 0\.\.30"),
        ({"numbers": [3, 9]}, "each of numbers = 9 must be a whole number from 2 to 5"),
        ({"prompt": "reach {target} :"}, r"lacks the word \{numbers\}"),
        ({"prompt": "use 7 {numbers} {target}"}, "no number of their own"),
        ({"prompt": "use {it} {numbers} {target}"}, "only braces are"),
        ({"prompt": -1}, "prompt = -1 must be text"),
        ({"operators": []}, r"operators = \[\] must list some of"),
        ({"targets": []}, r"targets = \[\] must be two whole numbers"),
        ({"targets": "x"}, "targets = 'x' must be two whole numbers"),
        ({"targets": [29, 30], "largest": 2, "numbers": [2]}, "no 2 numbers of 2..2 were found"),
        ({"high": 30.5}, "high = 30.5 must be a whole number"),
        ({"numbers": 3}, "numbers = 3 must list"),
        ({"budget": [4, 0]}, "allows 12 words .* canonical answer has"),
        ({"splits": {"tune": 1}}, "shares to tune, select, test"),
        ({"seeds": 1}, "the file knows no seeds"),
    ],
)
def test_settings_that_make_no_task_are_refused(task, changed, said):
    with pytest.raises(Refusal, match=said):
        load("mine", task.settings | changed)


def test_requests_that_can_not_be_met_are_refused(task, recipe):
    with pytest.raises(Refusal, match="'train' is none of pretrain, tune, select, test"):
        task.problems("train", 1)
    with pytest.raises(Refusal, match=r"difficulty 7 is none of \[3, 4\]"):
        task.problems("test", 1, difficulty=7)
    with pytest.raises(Refusal, match="no skills"):
        task.problems("test", 1, skill="n")
    with pytest.raises(Refusal, match=r"99 can't be reached from \[2, 3\]"):
        task.problem([2, 3], 99)
    tiny = load("tiny", task.settings | {"smallest": 2, "largest": 3, "numbers": [3]})
    with pytest.raises(Refusal, match="no more than"):
        tiny.problems("test", 100)
    with pytest.raises(Refusal, match=r"aim = 1.5 is no share"):
        examples(task, recipe | {"data": recipe["data"] | {"aim": 1.5}})
    with pytest.raises(Refusal, match=r"search has no entry for 2, 4"):
        examples(task, recipe | {"data": recipe["data"] | {"search": {"3": 0.4}}})


# ---------------------------------------------------------------------- the shipped organism

SHIPPED = DATA / "organisms" / "countdown"


@pytest.mark.parametrize("name", ["base", "rl-0", "rl-1", "rl-2"])
def test_the_shipped_weights_follow_the_shipped_recipe_and_task(task, name):
    made = json.loads((SHIPPED / name / "training.json").read_text())
    recipe = load_recipe("countdown" if name == "base" else "countdown-rl")
    seed = 0 if name == "base" else int(name[-1])
    assert made["recipe"] == recipe | {"seed": seed}
    assert made["task"] == content_hash(task.settings)
    assert (SHIPPED / name / "curve.parquet").is_file()
