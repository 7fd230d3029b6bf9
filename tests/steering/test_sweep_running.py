"""Whoever runs a sweep, and whatever happens to it, the tables are the same bytes."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from probes.columns import columns
from probes.records import Refusal, write_table
from steering.sweep import ShardLost, engines, prepare, read_settings, run, sweep
from steering.sweep.engines import TRIES
from steering.sweep.engines import local as local_engine
from steering.sweep.plan import BLOCKS, Block, load_plan
from steering.sweep.running import alone, frame, shard_path

TABLES = ("answers.parquet", "settings.parquet", "problems.parquet", "best.json")
COMMAND = [sys.executable, "-c", "from steering.cli import main; main()", "sweep", "run"]


def quiet(*_):
    """Nobody looks."""


def tables(out):
    return {name: (Path(out) / name).read_bytes() for name in TABLES}


@pytest.fixture(scope="module")
def asked(lab):
    """16 points and their controls, in many small shards."""
    return lab.file(
        {},
        {
            "push": [lab.path("d0.safetensors"), lab.path("d1.safetensors")],
            "strength": [0, 1.0, 2.0, -1.0],
            "temperature": [1.0, 0.5],
        },
        samples=2,
        controls=2,
        shard=40,
        batch=16,
        metrics=["right", "length", "kl"],
    )


@pytest.fixture(scope="module")
def whole(asked, tmp_path_factory):
    """An uninterrupted run in one process."""
    out = tmp_path_factory.mktemp("whole") / "sweep"
    sweep(asked, out, workers=0, progress=quiet)
    return out


@pytest.fixture
def copy(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "copy"))


# ------------------------------------------------------------------------------- who runs it


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_give_the_bytes_of_this_one(asked, whole, tmp_path, workers):
    sweep(asked, tmp_path / "out", workers=workers, progress=quiet)
    assert tables(tmp_path / "out") == tables(whole)


@pytest.mark.slow
def test_ray_gives_the_same_bytes(asked, whole, tmp_path):
    sweep(asked, tmp_path / "out", engine="ray", workers=2, progress=quiet)
    assert tables(tmp_path / "out") == tables(whole)


def test_a_killed_worker_is_replaced_and_its_shard_redone(asked, whole, tmp_path):
    killed = []

    def kill(who, *_):
        if who and not killed:
            killed.append(int(who.rpartition("-")[2]))
            os.kill(killed[0], signal.SIGKILL)

    sweep(asked, tmp_path / "out", workers=2, progress=kill)
    costs = pd.read_parquet(tmp_path / "out" / "costs.parquet")
    assert killed
    assert costs.worker.nunique() == 3, "two, and the one that took the dead one's place"
    assert tables(tmp_path / "out") == tables(whole)


@pytest.mark.slow
def test_a_killed_ray_worker_is_replaced_too(asked, whole, tmp_path):
    killed = []

    def kill(who, *_):
        if who and not killed:
            killed.append(int(who.rpartition("-")[2]))
            os.kill(killed[0], signal.SIGKILL)

    sweep(asked, tmp_path / "out", engine="ray", workers=2, progress=kill)
    assert killed
    assert tables(tmp_path / "out") == tables(whole)


def test_a_shard_that_kills_every_worker_is_given_up(asked, tmp_path, monkeypatch):
    begun = []

    def dead(crew):
        begun.append(1)
        hand = start(crew)
        hand.process.kill()
        return hand

    start = local_engine.Crew.start
    monkeypatch.setattr(local_engine.Crew, "start", dead)
    with pytest.raises(ShardLost, match=f"begun {TRIES} times"):
        sweep(asked, tmp_path / "out", workers=1, progress=quiet)
    assert len(begun) == TRIES


def test_what_an_engine_can_not_do_is_refused_and_nothing_written(asked, tmp_path):
    out = tmp_path / "out"
    began = time.monotonic()
    with pytest.raises(Refusal, match="no Ray cluster answers at 127.0.0.1:9"):
        sweep(asked, out, engine="ray", address="127.0.0.1:9", progress=quiet)
    assert time.monotonic() - began < 20
    with pytest.raises(Refusal, match="not known; there are local, ray"):
        sweep(asked, out, engine="slurm", progress=quiet)
    with pytest.raises(Refusal, match="for the ray engine"):
        sweep(asked, out, address="here:1", progress=quiet)
    with pytest.raises(Refusal, match="HOST:PORT"):
        sweep(asked, out, engine="ray", address="nowhere", progress=quiet)
    assert not out.exists()
    assert set(engines.ENGINES) == {"local", "ray"}


# ------------------------------------------------------------------------------- what happens


def test_what_is_finished_is_not_done_again(asked, copy, whole):
    before = {p.name: p.stat().st_mtime_ns for p in (copy / "shards").iterdir()}
    sweep(asked, copy, workers=0, progress=quiet)
    assert {p.name: p.stat().st_mtime_ns for p in (copy / "shards").iterdir()} == before
    assert tables(copy) == tables(whole)


@pytest.mark.parametrize("how", ["cut", "flipped", "gone", "no note", "note cut"])
def test_a_damaged_shard_is_named_and_made_again(asked, copy, whole, how):
    path = shard_path(copy, 2)
    content = bytearray(path.read_bytes())
    if how == "cut":
        path.write_bytes(content[:-100])
    elif how == "flipped":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif how == "gone":
        path.unlink()
    elif how == "no note":
        path.with_suffix(".json").unlink()
    else:
        path.with_suffix(".json").write_text('{"hash": ')
    ready = prepare(asked, copy)
    assert ready.pending == [2]
    if how != "no note":
        assert ready.damaged == [path]
    run(ready, workers=0)
    assert tables(copy) == tables(whole)


def test_a_damaged_plan_is_refused_or_says_the_same(asked, copy):
    """A flipped byte may lie where nothing depends on it, in a statistic or a padding."""
    path = copy / BLOCKS
    content, plan = path.read_bytes(), prepare(asked, copy).plan
    refused = 0
    for at in range(7, len(content), len(content) // 40):
        torn = bytearray(content)
        torn[at] ^= 255
        path.write_bytes(torn)
        try:
            found = prepare(asked, copy).plan
        except Refusal as refusal:
            refused += "is damaged" in str(refusal)
        else:
            assert found.shards == plan.shards
    assert refused > 15


def test_another_sweeps_folder_is_refused(asked, copy, tmp_path):
    with pytest.raises(Refusal, match="belongs to another sweep"):
        prepare({**asked, "problems": 3}, copy)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(Refusal, match="holds thesis.tex and no sweep"):
        prepare(asked, tmp_path / "mine")
    newer = frame(prepare(asked, copy).file) | {"version": 99}
    write_table(copy / BLOCKS, [], Block, frame=newer)
    with pytest.raises(Refusal, match="newer whenhow"):
        load_plan(copy, newer)


def test_two_drivers_do_not_share_a_folder(asked, copy):
    with alone(copy), pytest.raises(Refusal, match="another process"):
        sweep(asked, copy, workers=0, progress=quiet)


def test_axes_and_samples_grow_without_repacking(asked, copy, lab, tmp_path):
    old = {p.name: p.read_bytes() for p in (copy / "shards").glob("*.parquet")}
    more = json.loads(json.dumps(asked))
    more["grid"]["strength"] = [0, 1.0, 2.0, -1.0, 3.0]
    more["samples"] = 3
    grown = sweep(more, copy, workers=0, progress=quiet)
    for name, content in old.items():
        assert (copy / "shards" / name).read_bytes() == content
    fresh = sweep(more, tmp_path / "fresh", workers=0, progress=quiet)
    by = ["setting", "problem", "sample"]
    one, other = (
        pd.read_parquet(f / "answers.parquet").sort_values(by).reset_index(drop=True)
        for f in (copy, tmp_path / "fresh")
    )
    exact = [c for c in one.columns if c not in ("logprobs", "kl")]
    pd.testing.assert_frame_equal(one[exact], other[exact])
    np.testing.assert_allclose(np.hstack(one.logprobs), np.hstack(other.logprobs), atol=1e-5)
    assert grown.setting.tolist() == fresh.setting.tolist()
    less = sweep(asked, copy, workers=0, progress=quiet)
    assert len(less) < len(grown)
    assert prepare(asked, copy).foreign > 0


def test_a_setting_that_breaks_is_recorded_and_the_others_are_not_touched(lab, tmp_path):
    given = lab.push(strengths=(0.0, 1.0, 1e38, 1e-30), batch=8, samples=2)
    found = sweep(given, tmp_path / "broken", workers=0, progress=quiet)
    failed = found[found.status == "failed"]
    assert set(failed.strength) == {1e38, 1e-30}
    assert failed.reason.str.contains("not finite|below the precision").all()
    assert failed.right.isna().all()
    sane = sweep(lab.push(batch=8, samples=2), tmp_path / "sane", workers=0, progress=quiet)
    kept = found[found.status == "ok"].set_index("setting")
    for column in ("right", "length"):
        same = kept.loc[sane.setting, column].tolist()
        assert same == sane[column].tolist()


def test_a_model_that_can_not_be_loaded_fails_once_and_early(lab, tmp_path):
    shutil.copytree(lab.path("model"), tmp_path / "torn")
    weights = tmp_path / "torn" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    given = lab.push(fixed={"model": str(tmp_path / "torn")})
    with pytest.raises(Refusal, match="damaged or cut short") as refused:
        sweep(given, tmp_path / "out", workers=2, progress=quiet)
    assert str(refused.value).count("cut short") == 1
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------- the whole process


def started(file, out, **more):
    return subprocess.Popen(
        [*COMMAND, str(file), "--out", str(out), "--workers", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        **more,
    )


@pytest.fixture(scope="module")
def file(asked, tmp_path_factory):
    """The same sweep as a file."""
    path = tmp_path_factory.mktemp("file") / "sweep.toml"
    lines = [
        f"{k} = {json.dumps(v)}" for k, v in asked.items() if k not in ("fixed", "grid", "zip")
    ]
    for table in ("fixed", "grid"):
        lines += [f"[{table}]", *(f"{k} = {json.dumps(v)}" for k, v in asked[table].items())]
    path.write_text("\n".join(lines))
    return path


@pytest.mark.slow
def test_a_driver_killed_at_20_random_moments_ends_with_the_same_bytes(file, whole, tmp_path):
    out, random_ = tmp_path / "out", random.Random(0)
    notes = out / "shards"
    for _ in range(20):
        child = started(file, out)
        before = len(list(notes.glob("*.json"))) if notes.exists() else 0
        limit = time.monotonic() + random_.uniform(2.0, 6.0)
        # Half of them right behind a shard, the rest anywhere: at the start, too.
        at_shard = random_.random() < 0.5
        while time.monotonic() < limit and child.poll() is None:
            if at_shard and notes.exists() and len(list(notes.glob("*.json"))) > before:
                break
            time.sleep(0.01)
        if child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
        child.wait()
    child = started(file, out)
    assert child.wait(timeout=120) == 0, child.stderr.read()
    assert tables(out) == tables(whole)
    time.sleep(1)
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert str(out) not in listed, "nobody is left"


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(file, whole, tmp_path):
    out = tmp_path / "out"
    child = started(file, out)
    limit = time.monotonic() + 60
    while not list((out / "shards").glob("*.json")) and time.monotonic() < limit:
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGINT)
    said = child.stderr.read()
    assert child.wait(timeout=30) == 130, said
    assert "interrupted; the same command goes on" in said
    assert "Traceback" not in said
    child = started(file, out)
    assert child.wait(timeout=120) == 0
    assert tables(out) == tables(whole)


@pytest.mark.slow
def test_a_full_disk_stops_it_and_more_room_lets_it_go_on(file, whole, tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(place)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small file system can be mounted by root only")
    try:
        child = started(file, place / "out")
        said = child.stderr.read()
        assert child.wait(timeout=120) == 1, said
        assert "the disk is full; nothing was left half-written" in said
        assert "Traceback" not in said
        subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
        child = started(file, place / "out")
        assert child.wait(timeout=120) == 0, child.stderr.read()
        assert tables(place / "out") == tables(whole)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


# ------------------------------------------------------------------------------------ the numbers


def test_numbers_are_those_counted_by_hand(whole):
    found, about = read_settings(whole)
    answers = pd.read_parquet(whole / "answers.parquet")
    problems = pd.read_parquet(whole / "problems.parquet").problem.tolist()
    answers["right"] = answers.grade == "right"
    by = answers.groupby(["setting", "problem"])[["right", "length"]].mean().unstack()
    for _, row in found[(found.control == "") & (found.op != "")].iterrows():
        for metric in ("right", "length"):
            own, plain = (
                by[metric].loc[key, problems].to_numpy(float)
                for key in (row.setting, row.unsteered)
            )
            nulls = [by[metric].loc[k, problems].to_numpy(float) for k in row.controls.split(",")]
            of = ("rate", "difference") if metric == "right" else ("any", "any")
            for name, values, kind in (
                (metric, own, of[0]),
                (f"{metric}_gain", own - plain, of[1]),
            ):
                alone_ = columns(values[None], kind)
                expected = [alone_.value[0], alone_.low[0], alone_.high[0]]
                told = [row[name], row[f"{name}_low"], row[f"{name}_high"]]
                np.testing.assert_allclose(told, expected, atol=1e-12)
            # Beyond the draws: as wide again as another draw may be from the mean of these.
            name, paired = f"{metric}_beyond", columns((own - np.mean(nulls, 0))[None], of[1])
            assert row[name] == pytest.approx(paired.value[0], abs=1e-12)
            spread, freedom = spread_of(found, by[metric][problems].mean(axis=1), row)
            half = stats.t.ppf(0.975, freedom) * spread * np.sqrt(1 + 1 / len(nulls))
            for end, sign in (("low", -1), ("high", 1)):
                own_half = abs(getattr(paired, end)[0] - paired.value[0])
                end_ = paired.value[0] + sign * np.hypot(own_half, half)
                end_ = np.clip(end_, -1, 1) if metric == "right" else end_
                assert row[f"{name}_{end}"] == pytest.approx(end_, abs=1e-9)
    assert about["axes"] == ["push", "strength", "temperature"]


def spread_of(found, means, row):
    """Between random directions of the row's size, a push and its opposite each by itself."""
    squares, freedom = 0.0, 0
    sized = found[(found.control != "") & (found.layer == row.layer)]
    sized = sized[sized.temperature == row.temperature]
    size = (sized.strength * sized.unit).abs() - abs(row.strength * row.unit)
    sized = sized[size.abs() < 1e-9]
    for _, alike in sized.groupby(sized.strength > 0):
        values = means[alike.setting.unique()]
        squares += ((values - values.mean()) ** 2).sum()
        freedom += len(values) - 1
    return np.sqrt(squares / freedom), freedom


def test_the_best_is_chosen_on_one_half_and_reported_on_the_other(whole):
    found, _ = read_settings(whole)
    answers = pd.read_parquet(whole / "answers.parquet").merge(
        pd.read_parquet(whole / "problems.parquet")[["problem", "half"]], on="problem"
    )
    answers["right"] = answers.grade == "right"
    real = found[(found.control == "") & (found.op != "")]
    half = answers[answers.half == "choose"].groupby("setting").right.mean()
    (best,) = json.loads((whole / "best.json").read_text())
    assert half[best["setting"]] == half[real.setting].max() == best["chosen_on"]["right"]
    rest = answers[(answers.half == "report") & (answers.setting == best["setting"])]
    assert best["reported_on"]["right"][0] == pytest.approx(rest.right.mean())
    assert best["looked_at"] == len(real)


def test_the_tables_answer_to_sql(whole):
    rows = duckdb.sql(
        f"""
        SELECT s.push, s.strength, avg(a.length) AS tokens
        FROM '{whole}/answers.parquet' a JOIN '{whole}/settings.parquet' s USING (setting)
        WHERE s.control = '' GROUP BY ALL ORDER BY ALL
        """
    ).df()
    assert len(rows) == 7  # three strengths of each push, and the unsteered model


def test_what_a_row_is_compared_with_has_a_row(lab, tmp_path):
    """Though the axes don't name strength 0."""
    fixed = {"push": lab.path("d1.safetensors"), "strength": 1.0}
    frame = sweep(lab.file(fixed, {"seed": [0, 1]}), tmp_path / "out", workers=0, progress=quiet)
    assert set(frame.unsteered) - {""} <= set(frame.setting)
    bare = frame[(frame.push == "") & (frame.control == "")]
    assert len(bare) == 2
    assert (bare.right_low <= bare.right_high).all()


@pytest.mark.parametrize(
    ("workers", "said"), [(9999, "workers with a core each"), (0, "very process")]
)
def test_ray_workers_that_this_machine_has_no_cores_for_are_refused(asked, tmp_path, workers, said):
    with pytest.raises(Refusal, match=said):
        sweep(asked, tmp_path / "out", engine="ray", workers=workers, progress=quiet)
