"""The plan: what grows is added and nothing is done twice, and no folder is taken for another's."""

import random
import shutil
from contextlib import suppress
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest

from probes.records import Refusal, read_table, write_table
from steering.sweep import prepare, run
from steering.sweep.plan import BLOCKS, Block, Plan, extend, load_plan, save_plan
from steering.sweep.running import alone
from steering.sweep.settings import Setting


def swept(given, out):
    """Run what is missing, in this process; which shards that were."""
    ready, told = prepare(given, out), []
    pending = list(ready.pending)
    run(ready, workers=0, progress=lambda who, n, _: told.append((who, n)))
    assert sum(bool(who) for who, _ in told) == len(pending)
    return pending


def answers(out):
    """Tokens by setting, problem and sample."""
    frame = pd.read_parquet(out / "answers.parquet")
    names = zip(frame.setting, frame.problem, frame["sample"], strict=True)
    found = dict(zip(names, map(tuple, frame.tokens), strict=True))
    assert len(found) == len(frame)
    return found


def shards(out):
    return {p.name: p.read_bytes() for p in sorted((out / "shards").glob("*.parquet"))}


# ------------------------------------------------------------------ the composition


@pytest.mark.parametrize("seed", range(20))
def test_every_answer_is_in_exactly_one_shard_however_often_a_sweep_grew(seed):
    rng = random.Random(seed)
    count, size = rng.randint(1, 9), rng.randint(1, 12)
    models = ("m", "n")
    plan, wanted, samples = Plan({}), [], 0
    for _ in range(4):
        more = [
            Setting("x", rng.choice(models), "t", "p", seed=rng.randint(0, 9))
            for _ in range(rng.randint(1, 4))
        ]
        wanted, samples = wanted + more, samples + rng.randint(0, 2) + (not samples)
        before = [list(s) for s in plan.shards]
        extend(plan, wanted, {"p": count}, samples, size)
        assert plan.shards[: len(before)] == before
        held = [
            (b.key, problem, sample)
            for shard in plan.shards
            for b in shard
            for problem in range(b.first, b.last)
            for sample in range(b.sample, b.sample + b.samples)
        ]
        keys = {s.key for s in wanted}
        assert sorted(held) == sorted(product(keys, range(count), range(samples)))
    for index, shard in enumerate(plan.shards):
        assert {b.shard for b in shard} == {index}
        assert sum(b.answers for b in shard) <= size
        assert len({plan.settings[b.key].digest for b in shard}) == 1


def test_a_shard_is_known_by_the_settings_and_samples_it_holds(lab, tmp_path):
    ready = prepare(lab.push(strengths=[0, 1], samples=3, shard=8), tmp_path / "out")
    key = ready.resolved[1].setting.key
    for samples in (1, 2, 3):
        wanted = {
            b.shard
            for shard in ready.plan.shards
            for b in shard
            if b.key == key and b.sample < samples
        }
        assert set(ready.plan.of({key}, samples)) == wanted


# ------------------------------------------------------------------ growing and shrinking

FRAME = {"shard": 16, "batch": 16, "skills": ["n"]}
SMALL = {**FRAME, "strengths": [0, 1], "samples": 1, "controls": 1}
LARGE = {**FRAME, "strengths": [0, 1, -1], "samples": 2, "controls": 2, "grid": {"seed": [0, 4]}}


def test_a_sweep_that_grows_keeps_its_shards_and_becomes_the_larger_one(lab, tmp_path):
    small, large = (lab.push(**s) for s in (SMALL, LARGE))
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    swept(small, out)
    held, first = shards(out), answers(out)
    begun = len(held)
    ran = swept(large, out)
    assert ran == list(range(begun, len(shards(out))))
    assert {k: v for k, v in shards(out).items() if k in held} == held
    added = sum(pd.read_parquet(out / "costs.parquet").answers[begun:])
    swept(large, fresh)
    assert answers(out) == answers(fresh)
    assert added == len(answers(fresh)) - len(first)  # nothing was decoded twice
    assert first.items() <= answers(out).items()
    one, two = (pd.read_parquet(o / "settings.parquet") for o in (out, fresh))
    pd.testing.assert_frame_equal(one, two)
    assert not swept(large, out)


def test_a_sweep_that_shrinks_keeps_the_rest_in_shards_and_out_of_tables(lab, tmp_path):
    small, large = (lab.push(**s) for s in (SMALL, LARGE))
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    swept(large, out)
    held = shards(out)
    assert prepare(small, out).foreign == len(prepare(large, out).wanted) - 3
    assert not swept(small, out)
    assert shards(out) == held
    swept(small, fresh)
    assert answers(out) == answers(fresh)
    one, two = (pd.read_parquet(o / "settings.parquet") for o in (out, fresh))
    pd.testing.assert_frame_equal(one, two)
    assert not swept(large, out)
    assert len(answers(out)) > len(answers(fresh))


def test_what_is_not_asked_for_any_more_is_not_run(lab, tmp_path):
    """Samples and settings of a larger sweep that was stopped, when a smaller one takes over."""
    small, large = (lab.push(**{**s, "shard": 3}) for s in (SMALL, LARGE))
    out = tmp_path / "out"
    ready = prepare(large, out)
    save_plan(out, ready.plan)
    keys = {s.key for s in prepare(small, tmp_path / "other").wanted}
    ran = swept(small, out)
    for index in ran:
        assert any(b.key in keys and b.sample < 1 for b in ready.plan.shards[index])
    assert len(ran) < len(ready.plan.shards)


def test_what_a_plan_names_may_have_been_moved(lab, tmp_path):
    """Settings are known by content: a stopped sweep goes on where its files lie now."""
    shutil.copytree(lab.folder, tmp_path / "old")
    old = replace(lab, folder=tmp_path / "old")
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    save_plan(out, prepare(old.push(), out).plan)
    shutil.move(tmp_path / "old", tmp_path / "new")
    given = replace(lab, folder=tmp_path / "new").push()
    assert prepare(given, out).fresh == 0
    assert swept(given, out)
    swept(given, fresh)
    assert answers(out) == answers(fresh)


# ------------------------------------------------------------------ whose folder it is


@pytest.mark.parametrize(
    "change",
    [
        {"problems": 3},
        {"split": "tune"},
        {"skills": ["n"]},
        {"batch": 7},
        {"shard": 100},
        {"dtype": "bfloat16"},
        {"metrics": ["right", "kl"]},
        {"off_task": "chain"},
    ],
    ids=lambda c: next(iter(c)),
)
def test_another_frame_is_another_sweep(lab, tmp_path, change):
    out = tmp_path / "out"
    save_plan(out, prepare(lab.push(), out).plan)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    name = {"metrics": "metric kl"}.get(next(iter(change)), next(iter(change)))
    if name == "off_task":
        change = {"off_task": lab.path("long.toml")}
    with pytest.raises(Refusal, match=f"belongs to another sweep.*{name}"):
        prepare(lab.push(**change), out)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("change", [{"controls": 3}, {"foreign": True}, {"metrics": ["length"]}])
def test_what_may_change_may(lab, tmp_path, change):
    out = tmp_path / "out"
    save_plan(out, prepare(lab.push(), out).plan)
    prepare(lab.push(**change), out)


def test_a_newer_plan_is_refused_by_its_number(lab, tmp_path):
    out = tmp_path / "out"
    plan = prepare(lab.push(), out).plan
    save_plan(out, Plan({**plan.frame, "version": 2, "more": 1}, plan.settings, plan.shards))
    with pytest.raises(Refusal, match=r"was made by a newer whenhow \(plan 2, this one knows 1\)"):
        prepare(lab.push(), out)


def test_a_folder_of_something_else_is_refused(lab, tmp_path):
    out = tmp_path / "out"
    (out / "chapters").mkdir(parents=True)
    with pytest.raises(Refusal, match="holds chapters and no sweep"):
        prepare(lab.push(), out)
    assert [p.name for p in out.iterdir()] == ["chapters"]


def test_an_empty_folder_and_one_where_a_run_was_killed_at_once_will_do(lab, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    assert prepare(lab.push(), out).fresh == 1
    (out / ".lock").touch()
    plan = prepare(lab.push(), out).plan
    save_plan(out, plan)
    (out / BLOCKS).unlink()  # settings are written first
    (out / "plan" / ".blocks.parquet.x1").touch()
    assert prepare(lab.push(), out).fresh == 1


def test_two_drivers_on_one_folder_are_refused(lab, tmp_path):
    out = tmp_path / "out"
    ready = prepare(lab.push(), out)
    with alone(out), pytest.raises(Refusal, match="another process is running the sweep in"):
        run(ready, workers=0)
    assert not (out / "plan").exists()
    run(ready, workers=0)


def test_a_sweep_that_went_on_since_it_was_prepared_is_refused(lab, tmp_path):
    """Its plan would name the other's shards, whose bytes are whole and hold other settings."""
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    early = prepare(lab.push(strengths=[0, 2]), out)
    swept(lab.push(strengths=[0, 1]), out)
    held = shards(out)
    with pytest.raises(Refusal, match="went on since this sweep was prepared"):
        run(early, workers=0)
    assert shards(out) == held
    swept(lab.push(strengths=[0, 2]), out)
    swept(lab.push(strengths=[0, 2]), fresh)
    assert answers(out) == answers(fresh)


# ------------------------------------------------------------------ damage


def test_a_plan_with_any_one_bit_flipped_is_refused_or_the_same(lab, tmp_path):
    """Parquet checks no page: a flipped bit may be another problem, of a shard that is whole."""
    out = tmp_path / "out"
    ready = prepare(lab.push(strengths=[0, 1, 2], shard=10), out)
    save_plan(out, ready.plan)
    rng = random.Random(0)
    silent = 0
    for name in ("settings", "blocks"):
        path = out / "plan" / f"{name}.parquet"
        whole = path.read_bytes()
        for at in rng.sample(range(len(whole)), 250):
            path.write_bytes(
                whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :]
            )
            with suppress(Refusal):
                found = load_plan(out, ready.plan.frame)
                silent += 1
                assert found.shards == ready.plan.shards
                assert set(found.settings) >= set(ready.plan.settings)
        path.write_bytes(whole)
    assert load_plan(out, ready.plan.frame) == ready.plan
    assert silent < 250  # or nothing is checked here


@pytest.mark.parametrize("name", ["settings", "blocks"])
@pytest.mark.parametrize("damage", ["cut", "empty", "another"])
def test_a_damaged_plan_is_refused_with_what_to_do(lab, tmp_path, name, damage):
    out = tmp_path / "out"
    save_plan(out, prepare(lab.push(), out).plan)
    path = out / "plan" / f"{name}.parquet"
    if damage == "another":
        write_table(path, [], Setting if name == "blocks" else Block)
    else:
        path.write_bytes(path.read_bytes()[:-9] if damage == "cut" else b"")
    with pytest.raises(Refusal, match=rf"{name}.parquet is damaged.* Choose another --out"):
        prepare(lab.push(), out)


def test_a_plan_that_lost_its_settings_is_refused(lab, tmp_path):
    out = tmp_path / "out"
    save_plan(out, prepare(lab.push(), out).plan)
    path = out / "plan" / "settings.parquet"
    rows, _ = read_table(path, Setting)
    write_table(path, rows[1:], Setting)
    with pytest.raises(Refusal, match="is damaged"):
        prepare(lab.push(), out)
    path.unlink()
    with pytest.raises(Refusal, match="is damaged"):
        prepare(lab.push(), out)


def test_answers_are_where_the_plan_says(lab, tmp_path):
    """Of every block, exactly its problems and samples are in its shard."""
    out = tmp_path / "out"
    ready = prepare(lab.push(strengths=[0, 1], samples=3, shard=8), out)
    run(ready, workers=0)
    ((asked,),) = ready.asked.values()
    for index, blocks in enumerate(ready.plan.shards):
        frame = pd.read_parquet(out / "shards" / f"{index:06d}.parquet")
        wanted = [
            (b.key, asked.problems[i].id, s)
            for b in blocks
            for i in range(b.first, b.last)
            for s in range(b.sample, b.sample + b.samples)
        ]
        found = list(zip(frame.setting, frame.problem, frame["sample"], strict=True))
        assert sorted(found) == sorted(wanted)
        assert np.all(frame.length == frame.tokens.map(len))
