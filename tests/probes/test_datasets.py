"""Records as Hugging Face datasets: what comes back is what was given, or a refusal."""

import math
import sys

import datasets
import numpy as np
import pytest

from probes.datasets import from_dataset, to_dataset
from probes.records import Grade, Problem, Refusal, Rollout
from probes.strategies.labellers import Labelled
from probes.verify import Graded
from steering.evaluate import Judged, Line, judged_of, lines

PROBLEMS = [Problem("t", f"q{i}: é {{x}}", str(i), "", "", i, '{"a": 1}') for i in range(3)]


def rollouts():
    """Lengths from none up; log-probabilities as float32 has them, one of them impossible."""
    rng = np.random.default_rng(0)
    made = []
    for i, problem in enumerate(PROBLEMS):
        tokens = tuple(int(t) for t in rng.integers(0, 200_000, size=3 * i))
        logprobs = tuple(float(np.float32(x)) for x in -rng.random(3 * i))
        made.append(Rollout(problem.id, i, tokens, logprobs, f"text {i}\n", "stop", "push"))
    return made


def judged():
    graded = (
        Graded(Grade.RIGHT, True),
        Graded(Grade.ERROR, False, "killed"),
        Graded(Grade.UNPARSED, None),
    )
    return Judged(tuple(PROBLEMS), tuple(rollouts()), graded)


@pytest.fixture(autouse=True)
def quiet():
    datasets.disable_progress_bars()


def test_rollouts_come_back_as_they_were():
    given = to_dataset(rollouts(), Rollout, task="chain", seed=3)
    assert isinstance(given, datasets.Dataset)
    assert given[2]["tokens"] == list(rollouts()[2].tokens)
    assert from_dataset(given, Rollout) == (rollouts(), {"task": "chain", "seed": 3})


def test_judged_answers_come_back_with_what_nobody_knows():
    """`valid` is true, false or unknown, and none of the three may become another."""
    given = to_dataset(lines(judged()), Line)
    assert [row["valid"] for row in given] == [True, False, None]
    assert judged_of(from_dataset(given, Line)[0]) == judged()


def test_the_disk_keeps_all_of_it(tmp_path):
    given = to_dataset(rollouts(), Rollout, task="chain")
    given.save_to_disk(tmp_path / "d")
    back = datasets.load_from_disk(tmp_path / "d")
    assert from_dataset(back, Rollout) == (rollouts(), {"task": "chain"})
    given.to_parquet(tmp_path / "d.parquet")
    read = datasets.Dataset.from_parquet(str(tmp_path / "d.parquet"), cache_dir=tmp_path / "cache")
    assert from_dataset(read, Rollout) == (rollouts(), {})


def test_what_was_chosen_of_it_stays_chosen_and_in_order():
    given = to_dataset(rollouts(), Rollout, seed=1)
    found, about = from_dataset(given.select([2, 0]), Rollout)
    assert found == [rollouts()[2], rollouts()[0]]
    assert about == {"seed": 1}
    assert from_dataset(given.filter(lambda row: row["sample"] == 1), Rollout)[0] == [rollouts()[1]]


def test_somebody_elses_columns_will_do_and_more_of_them_too():
    rows = {"problem": ["p"], "sample": [1], "tokens": [[1, 2]], "logprobs": [[-1, math.nan]]}
    rows |= {"text": ["a b"], "stop": ["stop"], "setting": [""], "mood": ["good"]}
    found, about = from_dataset(datasets.Dataset.from_dict(rows), Rollout)
    assert about == {}
    assert (found[0].tokens, found[0].text, found[0].logprobs[0]) == ((1, 2), "a b", -1.0)
    assert math.isnan(found[0].logprobs[1])


def test_whole_numbers_are_log_probabilities_too_and_lists_of_nothing_are_lists():
    rows = {"problem": ["p"], "sample": [1], "tokens": [[]], "logprobs": [[-1, 0]]}
    rows |= {"text": [""], "stop": ["stop"], "setting": [""]}
    (found,), _ = from_dataset(datasets.Dataset.from_dict(rows), Rollout)
    assert found.tokens == ()
    assert [type(x) for x in found.logprobs] == [float, float]


def test_a_column_of_nothing_but_the_unknown_is_known_to_be_that():
    rows = [Labelled("p", 0, "", 0, 1, "x", "judge", None, "timeout", "late", False)]
    assert from_dataset(to_dataset(rows, Labelled), Labelled)[0] == rows
    bare = [Rollout("p", 0, (), (), "", "stop")]
    assert from_dataset(to_dataset(bare, Rollout), Rollout)[0] == bare


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.remove_columns(["tokens", "stop"]), "lacks the columns stop, tokens"),
        (lambda d: d.rename_column("text", "answer"), "lacks the columns text .* answer.*rename"),
        (lambda d: d.select([]), "the split is empty"),
        (lambda d: datasets.DatasetDict(train=d, test=d), "splits train, test .*choose one"),
        (lambda d: d.to_iterable_dataset(), "no single split"),
        (lambda d: [1], "a list is no single split"),
        (lambda d: d.cast_column("sample", datasets.Value("string")), "sample holds string"),
        (
            lambda d: d.remove_columns("tokens").add_column("tokens", ["1 2"] * 3),
            "a list is needed",
        ),
        (lambda d: d.remove_columns("text").add_column("text", ["a", None, "b"]), "1 null"),
        (
            lambda d: d.remove_columns("tokens").add_column("tokens", [[1], [None, 2], []]),
            "nulls within",
        ),
    ],
)
def test_what_holds_no_rollouts_is_refused(change, says):
    with pytest.raises(Refusal, match=says):
        from_dataset(change(to_dataset(rollouts(), Rollout)), Rollout)


def test_another_kind_of_record_is_refused():
    with pytest.raises(Refusal, match="holds Line rows, not Rollout"):
        from_dataset(to_dataset(lines(judged()), Line), Rollout)


def test_without_the_library_it_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(Refusal, match="pip install datasets"):
        to_dataset(rollouts(), Rollout)
