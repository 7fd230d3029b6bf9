import json
import subprocess
import sys
import textwrap

import pytest

from probes.records import Grade, Problem, Refusal
from probes.tasks.maths import load
from probes.verify import Graded, GraderFailure, _tolerated, grade_all, judge

GRADER = '''
import os, time
from probes.records import Grade, Trace


class Sums:
    """Grades "2+3" against its sum; some words make it fail in every way a grader can."""

    settings = {"family": "sums"}
    checks = True

    def grade(self, problem, response):
        last = response.split()[-1]
        if last == "hang":
            while True:
                time.sleep(0.01)
        if last == "slow":
            time.sleep(4)
            return Grade.RIGHT
        if last == "die":
            os._exit(3)
        if last == "raise":
            raise KeyError("no such word")
        if last == "exit":
            raise SystemExit(1)
        if last == "none":
            return None
        if last == "memory":
            return b"x" * (4 * 2**30)
        return Grade.RIGHT if last == problem.answer else Grade.WRONG

    def check(self, problem, response):
        if "badcheck" in response:
            raise ValueError("the checker failed")
        return Trace((), "because" in response)
'''


@pytest.fixture
def task(tmp_path, monkeypatch):
    (tmp_path / "sums_grader.py").write_text(GRADER)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("sums_grader", None)
    import sums_grader

    return sums_grader.Sums()


def problem(answer="5"):
    return Problem("sums", "2 + 3", answer, "", "", 1, "{}")


def grades(task, responses, **settings):
    return grade_all(task, [problem()] * len(responses), responses, **settings)


def test_an_answer_is_judged_with_its_trace(task):
    assert grades(task, ["because 5", "5", "because 6"], workers=0) == [
        Graded(Grade.RIGHT, True),
        Graded(Grade.RIGHT, False),
        Graded(Grade.WRONG, True),
    ]
    assert [g.sound for g in grades(task, ["because 5", "5", "because 6"], workers=0)] == [
        True,
        False,
        False,
    ]


def test_each_response_meets_its_own_problem(task):
    found = grade_all(task, [problem("1"), problem("2")], ["2", "2"], workers=0)
    assert [g.grade for g in found] == [Grade.WRONG, Grade.RIGHT]


def test_in_a_pool_whatever_kills_a_grader_costs_its_own_text_only(task):
    """Hanging, dying, leaving, raising, taking 4 GB: of 700 texts, which come back in order."""
    responses = [f"because {i}" for i in range(700)]
    fates = {50: "hang", 70: "slow", 100: "die", 200: "raise", 300: "exit", 400: "none"}
    fates[500] = "memory"
    for index, fate in fates.items():
        responses[index] = fate
    found = grades(task, responses, workers=2, timeout=1.0)
    killed = [50, 70, 500]  # for their own time and memory: a fact about the text
    assert [i for i, g in enumerate(found) if g.killed] == killed
    assert all(found[i].grade is Grade.UNPARSED and found[i].valid is False for i in killed)
    failed = [i for i in fates if i not in killed]
    assert [i for i, g in enumerate(found) if g.grade is Grade.ERROR] == failed
    assert [i for i, g in enumerate(found) if g.grade is Grade.RIGHT] == [5]
    assert "killed" in found[50].error
    assert "killed" in found[70].error, "the timeout asked for is not the one that holds"
    assert "ProcessExpired" in found[100].error
    assert found[200].error == "KeyError: 'no such word'"
    assert "SystemExit" in found[300].error
    assert "None" in found[400].error
    assert "MemoryError" in found[500].error


def test_the_pool_and_this_process_agree(task):
    responses = ["because 5", "6", "because 6", "5"] * 30
    assert grades(task, responses, workers=2) == grades(task, responses, workers=0)


def test_more_than_one_failure_in_a_hundred_stops_the_run(task):
    good = ["because 5"] * 198
    assert len(grades(task, [*good, "raise", "raise"], workers=0)) == 200
    with pytest.raises(GraderFailure, match=r"3 of the first 200 texts.*no such word.*'raise'"):
        grades(task, ["raise", *good[1:], "raise", "raise"], workers=0)


@pytest.mark.parametrize("fate", ["hang", "memory"])
def test_a_text_that_takes_too_much_does_not_stop_a_small_run(task, fate):
    """Or a run that is resumed, and meets the text again, would never come to its end."""
    found = grades(task, ["because 5", fate, "because 6"], workers=2, timeout=1.0)
    assert [g.grade for g in found] == [Grade.RIGHT, Grade.UNPARSED, Grade.WRONG]
    assert found[1].killed
    assert found[1].error
    with pytest.raises(GraderFailure, match="failed on 1 of the first 2"):
        grades(task, ["because 5", "raise", "because 6"], workers=2, timeout=1.0)


def test_a_grader_that_always_hangs_does_not_hang_the_run(task):
    with pytest.raises(GraderFailure, match="out of time or memory on 11 of the first 11.*killed"):
        grades(task, ["hang"] * 90, workers=2, timeout=0.2)


def test_a_tenth_of_the_texts_may_run_out_of_time():
    """More is a grader that hangs, and of a few texts nothing is concluded."""
    good, bad = Graded(Grade.RIGHT, True), Graded(Grade.UNPARSED, False, "TimeoutError")
    for killed, of, stops in ((10, 12, False), (11, 12, True), (20, 200, False), (21, 200, True)):
        found = [*[bad] * killed, *[good] * (of - killed)]
        pairs = [(problem(), "x")] * of
        if stops:
            with pytest.raises(GraderFailure, match="10% may"):
                _tolerated(found, pairs)
        else:
            assert _tolerated(found, pairs) == found


def test_memory_that_is_short_in_this_process_is_no_fact_about_a_text(task):
    def short(*_):
        raise MemoryError

    task.grade = short
    assert judge(task, problem(), "5") == Graded(Grade.ERROR, False, "MemoryError: ")


def test_a_checker_that_fails_is_an_error_too(task):
    found = grades(task, ["badcheck 5", *["5"] * 99], workers=0)
    assert found[0] == Graded(Grade.ERROR, False, "ValueError: the checker failed")


def test_problems_and_responses_must_pair_up(task):
    with pytest.raises(Refusal, match="2 problems and 1 responses"):
        grade_all(task, [problem()] * 2, ["5"])


def test_the_organisms_graders_start_no_process(task, monkeypatch):
    monkeypatch.setattr("probes.verify._in_pool", lambda *_: pytest.fail("a pool was started"))
    monkeypatch.setitem(task.settings, "family", "chain")
    assert grades(task, ["because 5"])[0].sound


def test_graders_load_no_torch():
    code = """
        import sys
        import probes.verify
        heavy = {"torch", "transformers", "sklearn", "pebble", "pyarrow"} & set(sys.modules)
        assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_a_task_that_checks_no_traces_leaves_them_unknown(task):
    """Not False, and not True: what nobody looked at is no number."""
    type(task).checks = False
    found = grades(task, ["because 5", "because 6", "badcheck 5"], workers=0)
    assert found[:2] == [Graded(Grade.RIGHT, None), Graded(Grade.WRONG, None)]
    assert found[2].grade is Grade.RIGHT
    with pytest.raises(Refusal, match="checks no traces"):
        found[0].sound  # noqa: B018
    assert not found[1].sound


# ---------------------------------------------------------------- answers made to mislead

RIGHT, WRONG, UNPARSED, ERROR = Grade.RIGHT, Grade.WRONG, Grade.UNPARSED, Grade.ERROR

EQUAL = [
    ("1/2", r"\frac12"),
    ("1/2", "0.5"),
    (r"\frac{1}{2}", ".5"),
    ("0.5", r"50\%"),
    ("50", r"50\%"),
    (r"50\%", "50"),
    ("1234", "1,234"),
    ("1000", "1{,}000"),
    ("2500", r"2\,500"),
    ("1000", "1 000"),
    ("5", "5."),
    ("5", "+5"),
    ("5", "5.0"),
    ("5", "$5$"),
    ("5", r"\$5"),
    ("5", "x=5"),
    ("5", "2+3=5"),
    ("5", "5 apples"),
    ("5", r"5\text{ cm}"),
    ("5", "((((5))))"),
    ("5", "(" * 50 + "5" + ")" * 50),
    ("5", "{" * 200 + "5" + "}" * 200),
    ("5", r"\int_0^5 dx"),
    ("-5", "−5"),
    ("5", "５"),  # noqa: RUF001
    ("15", "١٥"),
    ("42", "४२"),
    ("25", "5²"),
    ("70", "70°"),
    (r"\frac{1}{2}", "½"),
    (r"2\pi", "2π"),
    ("1/3", "0.333333"),
    (r"\frac{1}{6}", r"0.1\overline{6}"),
    ("10", "1e1"),
    (r"1.6\times10^{-19}", "1.6e-19"),
    ("120", "5!"),
    ("2^{2005}", r"2^{2004}\cdot 2"),
    (r"\sqrt{2}/2", r"\frac{1}{\sqrt2}"),
    ("(x+1)^2", "x^2+2x+1"),
    ("1,2", "2,1"),
    ("(1,2)", "(1, 2)"),
    (r"\text{Friday}", "friday"),
    (r"\text{(A)}", "A"),
    (r"9^{9^{9^9}}", r"9^{9^{9^9}}"),
]
DIFFERENT = [
    ("5", "6"),
    ("5", "-5"),
    ("5", "5,6"),
    ("5", "5 or 6"),
    ("5", r"\pm5"),
    ("5", "x<5"),
    ("5", r"x \ne 5"),
    ("5", "6=5"),
    ("5", "x=6=5"),
    ("5", "5=6"),
    ("5", r"\text{not }5"),
    ("5", "not 5 but 6"),
    ("5", "the answer is 5"),
    ("5", "5 million"),
    ("5", "0.05"),
    ("5", "5²"),
    ("5", "5x"),
    ("5", "5!"),
    ("5", r"\infty"),
    ("5", "nan"),
    ("5", "[1,2]"),
    ("0", "1 000"),
    ("0", "10^{-7}"),
    ("0.0000001", "0.0000002"),
    (r"1.6\times10^{-19}", r"3\times10^{-19}"),
    ("123456789", "123456790"),
    ("1/3", "0.33"),
    ("1000", "1.000"),
    ("(1,2)", "(2,1)"),
    ("(2,1)", "(5,3)"),
    ("(1.6e-19,2)", "(3e-19,2)"),
    ("0.0000001,3", "0.0000002,3"),
    ("(1,2,3)", "(1,3,2)"),
    ("[1,2)", "(1,2)"),
    ("listen", "silent"),
    ("Friday", r"\text{Monday}"),
    (r"90^\circ", r"\frac{\pi}{2}"),
    ("i", "-i"),
]
UNREADABLE = [
    ("5", "9^{9^{9^9}}"),
    ("5", "((((((9^9)^9)^9)^9)^9)^9)^9"),
    ("5", "10^{999999999}"),
    ("5", "((9!)!)!"),
    ("5", "(" * 5000 + "5" + ")" * 5000),
    ("5", r"\sqrt{" * 300 + "5" + "}" * 300),
    ("5", "{1," * 18 + "5" + "}" * 18),
    ("11", "5\n\n6"),
    ("56", "5 6"),
    ("5", r"\frac{"),
    ("5", "5+"),
    ("5", "5" * 3_000),
    ("5", "5 + " * 100_000 + "0"),
    ("5", "$"),
]
WHOLE = [
    ("5", r"\boxed{4}, no, \boxed{5}", RIGHT),
    ("5", r"\boxed{5}, no, \boxed{4}", WRONG),
    ("5", r"Were it 5, then \boxed{5}; but it is \boxed{6}.", WRONG),
    ("5", r"the gold answer is 5, so \boxed{7}", WRONG),
    ("5", r"\boxed{5} and then \boxed{", UNPARSED),
    ("5", "5", UNPARSED),
    ("5", "", UNPARSED),
    ("5", "\x00\ud7ff�" * 1000, UNPARSED),
    ("5", "5 " * 2_000_000, UNPARSED),
    ("5", "so " * 1_000_000 + r"\boxed{5}", RIGHT),
    ("5", r"\boxed{5}" + " so" * 1_000_000, RIGHT),
    ("5", r"\boxed{" * 200_000, UNPARSED),
    ("5", r"\boxed{" * 20_000 + "5" + "}" * 20_000, RIGHT),
    ("5", r"\boxed{\binom{10^9}{5\cdot 10^8}}", UNPARSED),
    ("5", r"\boxed{\prod_{i=1}^{10000000} i}", UNPARSED),
    ("5", r"\boxed{1000000!!}", UNPARSED),
]
CORPUS = [
    *((gold, f"\\boxed{{{answer}}}", RIGHT) for gold, answer in EQUAL),
    *((gold, f"\\boxed{{{answer}}}", WRONG) for gold, answer in DIFFERENT),
    *((gold, f"\\boxed{{{answer}}}", UNPARSED) for gold, answer in UNREADABLE),
    *WHOLE,
]


def test_no_answer_made_to_mislead_hangs_the_pool_or_gets_a_false_verdict():
    """Each with the verdict that it must get; those that can't be judged in time are killed."""
    about = {
        "family": "maths",
        "source": "none.jsonl",
        "columns": {"question": "problem", "answer": "answer"},
        "splits": {"test": {"of": "test"}},
        "template": "boxed",
        "budget": 10,
    }
    maths = load("mine", about)
    plain = [("7", r"\boxed{7}", RIGHT)] * 200  # of all texts 1 % may fail, not of the worst ones
    asked = [*CORPUS, *plain]
    problems = [
        Problem("mine", "?", gold, "", "", 0, json.dumps({"question": "?"})) for gold, *_ in asked
    ]
    found = grade_all(maths, problems, [text for _, text, _ in asked], timeout=4.0)
    false = [
        (gold, text[:60], verdict.value, one.grade.value, one.error[:80])
        for (gold, text, verdict), one in zip(asked, found, strict=True)
        if one.grade is not verdict
    ]
    assert not false
    assert all(one.valid is None for one in found if one.grade is not ERROR)
