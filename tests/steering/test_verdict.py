"""The main job from end to end on a tiny model, and what it must never do."""

import ast
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import steering.verdict as package
from probes.models import new_llama, new_tokenizer, save
from probes.records import Measurement, Refusal, read_table
from probes.tasks import load_task
from steering.evaluate import load_judged
from steering.verdict import STAGES, Thresholds, VerdictSettings, measured, render, verdict
from steering.verdict.context import Context
from steering.verdict.running import chosen, run_stage, table
from steering.verdict.stages.rollouts import keep

TASK = """
family = "chain"
modulus = 7
seed = 1
common = ["a"]

[functions]
a = 3
z = 3

[skills]
a = [1, 1]
z = [1, 1]

[problems]
depth = [1, 2]
budget = [2, 8]
splits = { tune = 6, select = 4, test = 4 }

[prompt]
question = "Q"
key = "KEY"
drill = "INV"
"""


class Watch:
    """Bars that note which stages ran."""

    def __init__(self):
        self.ran, self.kept, self.ticks = [], [], []

    def started(self, stage):
        pass

    def tick(self, stage, done, total):
        self.ticks.append((stage.name, done, total))

    def finished(self, stage, resumed):
        (self.kept if resumed else self.ran).append(stage.name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A task of its own, and a model that knows its grammar's words but nothing else."""
    folder = tmp_path_factory.mktemp("verdict")
    (folder / "tiny.toml").write_text(TASK)
    tokenizer = new_tokenizer(load_task(folder / "tiny.toml").vocabulary())
    for seed, name in enumerate(("base", "other")):
        net = new_llama(len(tokenizer), width=16, depth=2, heads=2, mlp=24, context=48, seed=seed)
        with torch.no_grad():
            net.model.embed_tokens.weight.mul_(8)
        save(net, tokenizer, folder / name)
    return folder


@pytest.fixture(scope="module")
def settings(folder):
    return VerdictSettings(
        base=str(folder / "base"),
        tuned=str(folder / "base"),
        task=str(folder / "tiny.toml"),
        out=folder / "out",
        problems=3,
        samples=4,
        select_problems=4,
        select_samples=2,
        crossed_samples=2,
        strengths=(-0.5, 0.0, 0.5),
        elicitation_updates=2,
        elicitation_batch=4,
        elicitation_problems=3,
        workers=0,
    )


@pytest.fixture(scope="module")
def null(settings):
    """A model against itself."""
    return verdict(settings, progress=False)


def test_a_model_against_itself_gained_nothing_and_nothing_was_created(null):
    assert null.conclusion.answer in ("no gain", "undecided")
    assert {s.label for s in null.conclusion.skills} <= {"no gain", "undecided"}


def test_a_model_meets_itself_on_disjoint_samples(null):
    answers = [
        load_judged(null.settings.out / f"rollouts-{which}.parquet")[0].rollouts
        for which in ("base", "tuned")
    ]
    assert not {r.sample for r in answers[0]} & {r.sample for r in answers[1]}
    assert [r.tokens for r in answers[0]] != [r.tokens for r in answers[1]]


def test_everything_is_on_disk(null):
    out = null.settings.out
    content = json.loads((out / "verdict.json").read_text())
    assert content["answer"] == null.conclusion.answer
    assert content["settings"]["tuning_rollouts"] == Thresholds.tuning_rollouts
    assert len(content["conclusion"]) <= 4
    assert read_table(out / "evidence.parquet", Measurement)[0][0].measure == "answers"
    for name in ("pass_at_k", "strategy_mix", "directions", "dose_response", "activation_shift"):
        assert (out / "figures" / f"{name}.png").stat().st_size > 0
        assert (out / "figures" / f"{name}.svg").stat().st_size > 0
    assert null.conclusion.answer.upper() in str(null)
    assert render(null)


def test_conclusions_can_be_drawn_again_from_the_tables_alone(null):
    again = measured(null.settings)
    assert again.conclusion == null.conclusion
    assert [line.value for line in again.lines] == [line.value for line in null.lines]


def test_a_finished_stage_is_not_done_again_and_a_lost_one_is(null):
    watch = Watch()
    package.run_all(null.settings, watch)
    assert watch.ran == []
    assert len(watch.kept) == len(STAGES)
    lost = table(null.settings.out, "boundary")
    before = lost.read_bytes()
    lost.write_bytes(before[:100])
    watch = Watch()
    package.run_all(null.settings, watch)
    assert watch.ran == ["boundary"]
    rows = read_table(lost, Measurement)[0]
    known = [r for r in null.rows if r.measure in ("pass@k", "valid@k", "guess rate")]
    same = [r for r in rows if r.measure in ("pass@k", "valid@k", "guess rate")]
    assert list(map(str, same)) == list(map(str, known))  # str: NaN is not equal to itself


def test_another_setting_does_only_what_depends_on_it_again(null):
    """By the identities that are compared; two changes, so that neither holds of nothing."""
    first = Context(null.settings)

    def redone(**change):
        other = Context(replace(null.settings, **change))
        pairs = [(s.name, c.identity(s.name, s.settings)) for c in (first, other) for s in STAGES]
        return {name for name, _ in set(pairs[: len(STAGES)]) ^ set(pairs[len(STAGES) :])}

    assert redone(margin=0.1) == {"elicitation"}
    assert redone(strengths=(0.0, 1.0)) == {"steering"}
    assert redone(workers=1, out=Path("elsewhere")) == set()
    assert redone(seed=1) == {s.name for s in STAGES}


def test_what_an_interrupted_run_with_other_settings_replaced_is_made_again(settings, folder):
    """The interrupt comes when half of the side files are the other run's."""
    stage = next(s for s in STAGES if s.name == "directions")
    ours = Context(replace(settings, out=folder / "stopped"))
    theirs = Context(replace(settings, out=folder / "stopped", seed=5))

    def stop(done, _total):
        if done == 2:
            raise KeyboardInterrupt

    assert not run_stage(ours, stage, lambda *_: None)
    answers = ours.selected("base").rollouts
    with pytest.raises(KeyboardInterrupt):
        run_stage(theirs, stage, stop)
    assert ours.selected("base").rollouts != answers
    assert not run_stage(ours, stage, lambda *_: None)
    assert ours.selected("base").rollouts == answers
    assert run_stage(ours, stage, lambda *_: None)


def test_the_same_weights_and_task_at_another_path_are_the_same_run(settings, folder):
    def identities(**change):
        context = Context(replace(settings, **change))
        return {s.name: context.identity(s.name, s.settings) for s in STAGES}

    moved = {"base": "elsewhere", "tuned": "other-elsewhere", "task": "elsewhere.toml"}
    shutil.copytree(folder / "base", folder / moved["base"])
    shutil.copytree(folder / "base", folder / moved["tuned"])
    shutil.copy(folder / "tiny.toml", folder / moved["task"])
    first = identities()
    assert identities(**{name: str(folder / path) for name, path in moved.items()}) == first
    other = identities(tuned=str(folder / "other"))
    assert not set(other.values()) & set(first.values())
    narrow = identities(dtype="bfloat16")
    assert not set(narrow.values()) & set(first.values())
    twin = identities(twin=str(folder / "other"))
    redone = {name for name in first if twin[name] != first[name]}
    assert redone == {"directions", "steering", "drift"}


def test_the_number_of_tuning_rollouts_is_what_was_told_else_what_the_folder_tells(
    settings, folder
):
    tuned = shutil.copytree(folder / "base", folder / "told")
    (tuned / "training.json").write_text('{"tuning_rollouts": 123}')
    asked = replace(settings, tuned=str(tuned))
    assert asked.thresholds.tuning_rollouts == 123
    assert replace(asked, tuning_rollouts=38_400).thresholds.tuning_rollouts == 38_400
    assert settings.thresholds == Thresholds(margin=settings.margin)
    (tuned / "training.json").write_text('{"tuning_rollouts": 0}')  # it sampled none
    assert asked.thresholds.tuning_rollouts == Thresholds.tuning_rollouts
    stage = next(s for s in STAGES if s.name == "elicitation")
    found = {
        count: Context(replace(asked, tuning_rollouts=count)).identity("e", stage.settings)
        for count in (None, Thresholds.tuning_rollouts, 7)
    }
    assert found[None] == found[Thresholds.tuning_rollouts] != found[7]


def test_recorded_answers_are_read_and_said_to_be(settings, folder, monkeypatch):
    monkeypatch.setattr(package, "figures", lambda found, folder: [])
    other = replace(
        settings,
        tuned=str(folder / "other"),
        out=folder / "first",
        skip=("directions", "crossing", "sharpening", "elicitation", "strategies"),
    )
    fresh = verdict(other, progress=False)
    assert "fresh" in fresh.heading
    keep(other.out, folder / "other")
    read = verdict(replace(other, out=folder / "second"), progress=False)
    n = len(load_judged(other.out / "rollouts-base.parquet")[0].rollouts)
    assert f"base: n = {n} recorded answers" in read.heading
    assert [r for r in read.rows if r.measure == "valid@k" and r.model == "tuned"] == [
        r for r in fresh.rows if r.measure == "valid@k" and r.model == "tuned"
    ]
    anew = verdict(replace(other, out=folder / "third", fresh=True), progress=False)
    assert "recorded" not in anew.heading
    shifted = verdict(replace(other, out=folder / "fourth", samples=3), progress=False)
    assert "recorded" not in shifted.heading


def test_the_verdict_never_reads_a_recipe():
    """Truth about an organism is for calibration alone."""
    for path in Path(package.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.startswith("steering.organisms") for name in names), path
            text = node.value if isinstance(node, ast.Constant) else ""
            assert not (isinstance(text, str) and "recipes/" in text), path


def test_a_stage_that_rests_on_a_skipped_one_is_skipped_too(settings):
    names = [s.name for s in chosen(replace(settings, skip=("directions",)))]
    assert "steering" not in names
    assert "drift" not in names
    assert "crossing" in names
    with pytest.raises(Refusal, match="the stages are rollouts-base"):
        chosen(replace(settings, skip=("direction",)))


def test_every_stage_needs_only_earlier_ones_and_depends_on_their_settings():
    seen = {}
    for stage in STAGES:
        assert set(stage.needs) <= set(seen), stage.name
        for need in stage.needs:
            assert set(seen[need].settings) <= set(stage.settings), (stage.name, need)
        seen[stage.name] = stage


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"problems": 1}, "at least 2"),
        ({"samples": 0}, "must be at least 1"),
        ({"strengths": (1.0,)}, "must be finite and contain 0"),
        ({"margin": 0.0}, "between 0 and 1"),
        ({"tuning_rollouts": 0}, "at least 1"),
        ({"elicitation_updates": 0}, "elicitation_updates 0 .*at least 1"),
        ({"elicitation_batch": 0}, "elicitation_batch 0 must be at least 1"),
        ({"elicitation_problems": 1}, "elicitation_problems 1 at least 2"),
        ({"workers": -1}, "workers is -1"),
    ],
)
def test_settings_that_can_never_work_are_refused(settings, change, says):
    with pytest.raises(Refusal, match=says):
        replace(settings, **change)


def test_a_model_that_is_not_there_is_refused_and_nothing_is_written(settings, folder):
    gone = replace(settings, base=str(folder / "gone"), out=folder / "nothing")
    with pytest.raises(Refusal, match="no model folder"):
        verdict(gone, progress=False)
    assert not (folder / "nothing").exists()


def test_a_verdict_in_bfloat16_comes_to_its_end(null, folder, monkeypatch):
    monkeypatch.setattr(package, "figures", lambda found, folder: [])
    done = ("crossing", "sharpening", "drift", "strategies")  # they only sample, as the others
    narrow = replace(null.settings, out=folder / "narrow", dtype="bfloat16", skip=done)
    found = verdict(narrow, progress=False)
    assert found.conclusion.answer in ("no gain", "undecided")
    assert Context(narrow).model("base").dtype == torch.bfloat16
    rollouts = load_judged(narrow.out / "rollouts-base.parquet")[0].rollouts
    wide = load_judged(null.settings.out / "rollouts-base.parquet")[0].rollouts
    assert [r.logprobs for r in rollouts] != [r.logprobs for r in wide]


@pytest.mark.slow
def test_two_workers_measure_what_one_process_does(null, folder):
    both = verdict(replace(null.settings, out=folder / "workers", workers=2), progress=False)
    assert sorted(map(str, both.rows)) == sorted(map(str, null.rows))
