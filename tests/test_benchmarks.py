"""The benchmarks run and say what they measured; how fast is for `make bench` to say."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("tests.benchmarks")


def test_every_benchmark_is_a_file_and_every_file_a_benchmark(benchmarks):
    files = {
        f.stem for f in (ROOT / "tests" / "benchmarks").glob("*.py") if not f.stem.startswith("_")
    }
    assert {name.replace("-", "_") for name in benchmarks.NAMES} == files


def test_a_ratio_is_the_median_of_paired_rounds(benchmarks):
    """Ours 1, 1, 4 s for 10 units and the peer 2, 8, 4 s: 2, 8 and 1 times as fast."""
    now = [0.0]
    # The pair that isn't counted, then ours first, the peer first, ours first.
    spent = {"ours": iter([50, 1, 1, 4]), "peer": iter([60, 2, 8, 4])}
    order = []

    def work(who):
        def run():
            now[0] += next(spent[who])
            order.append(who)
            return 10

        return run

    line = benchmarks.alternate(
        "x", work("ours"), work("peer"), unit="u", against="y", rounds=3, clock=lambda: now[0]
    )
    assert line.ratio == pytest.approx(2)
    assert (line.ours, line.peer) == pytest.approx((10, 2.5))
    assert order[2:] == ["ours", "peer", "peer", "ours", "ours", "peer"]


def test_one_benchmark_prints_one_line_of_json():
    ran = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "sampling", "--small"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = map(json.loads, ran.stdout.splitlines())
    assert list(line) == ["name", "ours", "peer", "ratio", "unit", "against"]
    assert line["name"] == "sampling"
    assert min(line["ours"], line["peer"], line["ratio"]) > 0


def test_a_name_that_is_not_in_the_table_is_refused():
    ran = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "speed"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 2
    assert "there is no speed; there are sampling, sampling-limit" in ran.stderr
