import subprocess
import sys
import textwrap

import pytest

from probes.records import Grade, Problem, Refusal
from probes.verify import Graded, GraderFailure, grade_all

GRADER = '''
import os, time
from probes.records import Grade, Trace


class Sums:
    """Grades "2+3" against its sum; some words make it fail in every way a grader can."""

    settings = {"family": "sums"}

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
    """Hanging, dying, leaving and raising, among 600 texts, all of which come back in order."""
    responses = [f"because {i}" for i in range(600)]
    fates = {50: "hang", 70: "slow", 100: "die", 200: "raise", 300: "exit", 400: "none"}
    for index, fate in fates.items():
        responses[index] = fate
    found = grades(task, responses, workers=2, timeout=1.0)
    assert [i for i, g in enumerate(found) if g.grade is Grade.ERROR] == list(fates)
    assert [i for i, g in enumerate(found) if g.grade is Grade.RIGHT] == [5]
    assert "killed" in found[50].error
    assert "killed" in found[70].error, "the timeout asked for is not the one that holds"
    assert "ProcessExpired" in found[100].error
    assert found[200].error == "KeyError: 'no such word'"
    assert "SystemExit" in found[300].error
    assert "None" in found[400].error


def test_the_pool_and_this_process_agree(task):
    responses = ["because 5", "6", "because 6", "5"] * 30
    assert grades(task, responses, workers=2) == grades(task, responses, workers=0)


def test_more_than_one_failure_in_a_hundred_stops_the_run(task):
    good = ["because 5"] * 198
    assert len(grades(task, [*good, "raise", "raise"], workers=0)) == 200
    with pytest.raises(GraderFailure, match=r"3 of the first 200 texts.*no such word.*'raise'"):
        grades(task, ["raise", *good[1:], "raise", "raise"], workers=0)


def test_a_grader_that_always_hangs_does_not_hang_the_run(task):
    with pytest.raises(GraderFailure, match="killed"):
        grades(task, ["hang"] * 90, workers=2, timeout=0.2)


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
