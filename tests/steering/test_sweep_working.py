"""Packing is harmless: rows of any settings side by side are what each setting gives alone."""

import io
import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from probes import DATA
from probes.directions import load as load_direction
from probes.generate import Decoding, Request
from probes.models import encode, load
from probes.records import Refusal
from probes.sae import load_sae
from steering.features import FeatureEdit
from steering.interventions import ALL, GENERATED, PROMPT, Intervention, Window, write
from steering.sweep import prepare
from steering.sweep.running import work_of
from steering.sweep.settings import operations
from steering.sweep.working import Worker
from steering.vectors import load_vectors

BASE = DATA / "organisms" / "chain" / "base-0"
TRAINED = DATA / "organisms" / "chain" / "rl-0-0" / "everywhere.safetensors"
SAE = BASE / "sae" / "blocks.1.hook_resid_post"
LATENT = 3


def direction(name, layer):
    return BASE / "directions" / f"{name}-blocks.{layer}.hook_resid_post.safetensors"


def work(ready):
    """Every shard of a sweep, by one worker in this process: answers, and what failed why."""
    worker, frames, failed = Worker(work_of(ready, "cpu")), [], {}
    for blocks in ready.plan.shards:
        done = worker.run(blocks, {b.key: ready.plan.settings[b.key] for b in blocks})
        table = pq.read_table(io.BytesIO(done.table))
        failed |= json.loads(table.schema.metadata[b"whenhow"])["failed"]
        frames.append(table.to_pandas())
    return pd.concat(frames), failed, worker


def by_answer(frame):
    """Tokens, log-probabilities and KL of each answer."""
    rows = zip(*(frame[c] for c in ("setting", "problem", "sample")), strict=True)
    cells = zip(*(frame[c] for c in ("tokens", "logprobs", "kl")), strict=True)
    return dict(zip(rows, cells, strict=True))


# ------------------------------------------------------------------ beside each other, and alone

POINTS = [  # push, op, strength, window, temperature, top_p, seed
    ("none", "add", 1.0, "generated", 0.0, 1.0, 0),
    ("none", "add", 1.0, "generated", 2.5, 0.9, 5),
    (direction("check", 0), "add", 2.0, "generated", 1.5, 1.0, 0),
    (direction("check", 1), "add", -1.5, "all", 2.0, 1.0, 0),
    (direction("check", 2), "add", 2.0, "prompt", 3.0, 0.8, 1),
    (direction("repair", 1), "ablate", 1.0, "all", 0.0, 1.0, 0),
    (direction("repair", 2), "clamp", 2.0, {"after": ["="]}, 2.0, 1.0, 0),
    (direction("double", 0), "add", 3.0, {"start": 1, "stop": 4}, 2.0, 1.0, 2),
    (f"{TRAINED}#0", "add", 3.0, "generated", 1.5, 1.0, 0),
    (f"{SAE}#{LATENT}", "clamp", 3.0, "generated", 2.0, 1.0, 0),
    (f"{SAE}#{LATENT}", "ablate", 1.0, "all", 2.0, 1.0, 3),
]
AXES = ("push", "op", "strength", "window", "temperature", "top_p", "seed")


@pytest.fixture(scope="module")
def base():
    return load(BASE)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """All of them and their controls in one shard, more rows than the batch has."""
    columns = zip(*((str(p[0]), *p[1:]) for p in POINTS), strict=True)
    given = {
        **{"problems": 4, "samples": 2, "skills": ["a"], "controls": 1, "foreign": True},
        **{"batch": 37, "shard": 4096, "metrics": ["right", "kl"], "kl_samples": 2},
        "fixed": {"model": str(BASE), "task": "chain"},
        "zip": [dict(zip(AXES, map(list, columns), strict=True))],
    }
    ready = prepare(given, tmp_path_factory.mktemp("packed") / "out")
    assert len(ready.plan.shards) == 1
    assert ready.answers() > ready.file.batch
    return ready, *work(ready)


def edit(base, point):
    """The intervention of a point, made by hand."""
    push, op, strength, window, *_ = point
    if push == "none":
        return []
    equals = base.tokenizer.convert_tokens_to_ids("=")
    named = {"generated": GENERATED, "prompt": PROMPT, "all": ALL}
    if isinstance(window, dict):
        at = Window(after=frozenset([equals])) if "after" in window else Window(1, 4)
    else:
        at = named[window]
    if str(push).startswith(str(SAE)):
        return [FeatureEdit(op, load_sae(SAE), LATENT, strength, window=at)]
    if str(push).startswith(str(TRAINED)):
        vectors = load_vectors(TRAINED)
        row = vectors.coefficients[0] * vectors.vectors[0]
        row = row if vectors.bias is None else row + vectors.bias
        return [Intervention(op, vectors.site, row, strength, None, at)]
    found = load_direction(push)
    unit = None if op == "ablate" else found.norm
    return [Intervention(op, found.place, found.vector, strength, unit, at)]


def alone(ready, base, setting, edits):
    """What `write` gives of one setting, two samples of each problem."""
    (asked,) = ready.asked[setting.problems]
    requests = [
        Request(p.id, s, encode(base, p.prompt), asked.task.budget(p), "x", seed=setting.seed)
        for p in asked.problems
        for s in range(ready.file.samples)
    ]
    stop = base.tokenizer.eos_token_id
    decoding = Decoding(setting.temperature, setting.top_p, (stop,))
    return write(base, {"x": edits}, requests, decoding, batch=64)


def same(found, setting, rollouts):
    for r in rollouts:
        tokens, logprobs, _ = found[setting.key, r.problem, r.sample]
        assert tuple(tokens) == r.tokens
        assert np.abs(np.array(logprobs) - np.array(r.logprobs)).max() < 1e-5


@pytest.mark.parametrize("index", range(len(POINTS)), ids=lambda i: str(POINTS[i][0])[-30:])
def test_a_setting_beside_others_answers_as_it_does_alone(packed, base, index):
    ready, frame, failed, _ = packed
    assert not failed
    setting = ready.resolved[index].setting
    rollouts = alone(ready, base, setting, edit(base, POINTS[index]))
    found = by_answer(frame)
    same(found, setting, rollouts)
    assert sum(k[0] == setting.key for k in found) == len(rollouts)


def test_its_controls_too(packed, base):
    ready, frame, _, worker = packed
    found, controls = by_answer(frame), [s for s in ready.wanted if s.control]
    assert len(controls) == len(POINTS) - 2
    for control in controls:
        edits = operations(
            control, base, lambda site, c=control: worker.shape(base, c, site), foreign=True
        )
        same(found, control, alone(ready, base, control, edits))


def test_the_settings_differ_in_what_they_write(packed):
    """Without this, the laws above would hold of a sweep that steers nothing."""
    ready, frame, *_ = packed
    texts = frame.groupby("setting").text.agg(tuple)
    seeds = {r.setting.key: r.plain.key for r in ready.resolved if r.setting.steered}
    changed = sum(texts[key] != texts[plain] for key, plain in seeds.items() if plain in texts)
    assert changed >= 7
    assert texts.nunique() >= 0.8 * len(texts)


def test_random_directions_are_drawn_from_what_the_unsteered_model_does_there(packed, base):
    """Rows of the site's own residuals while answers are written, read with a hook of our own."""
    ready, _, _, worker = packed
    setting = ready.resolved[3].setting
    x = worker.shape(base, setting, setting.site).double()
    (asked,) = ready.asked[setting.problems]
    p = asked.problems[0]
    prompt = encode(base, p.prompt)
    seen = []
    layer = base.net.model.layers[1]
    handle = layer.register_forward_hook(
        lambda *a: seen.append((a[2][0] if isinstance(a[2], tuple) else a[2])[0].double())
    )
    base.net(torch.tensor([prompt]))
    handle.remove()
    nearest = torch.cdist(seen[0][-1:], x).min()  # where the first word of the answer is chosen
    assert float(nearest) < 1e-3 * float(x.norm(dim=1).mean())


# ------------------------------------------------------------------ KL


@pytest.mark.parametrize("index", [2, 3, 4, 7, 8])
def test_kl_is_that_of_full_softmaxes_with_and_without_a_hook_of_our_own(packed, base, index):
    ready, frame, *_ = packed
    point, setting = POINTS[index], ready.resolved[index].setting
    (made,) = edit(base, point)
    size = made.strength * (1.0 if made.norm is None else made.norm)
    push = torch.as_tensor(made.vector).float() * size
    (asked,) = ready.asked[setting.problems]
    prompts = {p.id: encode(base, p.prompt) for p in asked.problems}
    layer = base.net.model.layers[int(setting.site.split(".")[1])]
    rows = frame[frame.setting == setting.key]
    assert len(rows) == 2 * len(prompts)
    for _, row in rows.iterrows():
        prompt = prompts[row.problem]
        text = torch.tensor([[*prompt, *row.tokens[:-1]]])
        start, stop = made.window.bounds(len(prompt))
        inside = torch.zeros(text.shape[1], 1)
        inside[start:stop] = 1

        def add(_, __, out, inside=inside):
            if isinstance(out, tuple):
                return (out[0] + inside * push, *out[1:])
            return out + inside * push

        plain = base.net(text).logits[0].double().softmax(-1)
        handle = layer.register_forward_hook(add)
        steered = base.net(text).logits[0].double().softmax(-1)
        handle.remove()
        each = (steered * (steered.log() - plain.log())).sum(-1)[len(prompt) - 1 :]
        assert len(each) == len(row.tokens)
        assert row.kl == pytest.approx(float(each.mean()), rel=1e-3, abs=1e-5)
    assert rows.kl.max() > 1e-3


def test_kl_of_the_unsteered_model_is_zero_and_unmeasured_beyond_the_asked_samples(lab, tmp_path):
    given = lab.push(strengths=[0, 2.0], samples=3, kl_samples=2, metrics=["right", "kl"])
    ready = prepare(given, tmp_path / "out")
    frame, _, _ = work(ready)
    plain = ready.resolved[0].plain.key
    assert frame[frame["sample"] == 2].kl.isna().all()
    assert (frame[(frame.setting == plain) & (frame["sample"] < 2)].kl == 0).all()
    assert (frame[(frame.setting != plain) & (frame["sample"] < 2)].kl > 0).all()
    given["metrics"] = ["right"]
    assert work(prepare(given, tmp_path / "other"))[0].kl.isna().all()


# ------------------------------------------------------------------ what is shared


def prefilled(ready, monkeypatch):
    """Rows and tokens of prefills (passes of more than one column) while a sweep decodes."""
    worker, counted = Worker(work_of(ready, "cpu")), []
    for blocks in ready.plan.shards:
        settings = {b.key: ready.plan.settings[b.key] for b in blocks}
        model = worker.model(settings[blocks[0].key])
        edits = {
            k: operations(s, model, lambda _: torch.randn(99, 16), foreign=False)
            for k, s in settings.items()
        }
        requests, _ = worker.requests(model, blocks, settings)
        own = model.net.forward

        def forward(*args, own=own, **named):
            ids = named["input_ids"]
            if ids.shape[1] > 1:
                counted.append(ids.shape)
            return own(*args, **named)

        with monkeypatch.context() as patched:
            patched.setattr(model.net, "forward", forward)
            worker.decode(model, edits, requests, settings)
    return sum(rows for rows, _ in counted), sum(rows * width for rows, width in counted)


@pytest.mark.parametrize("batch", [5, 128])
def test_a_prompt_is_prefilled_once_however_many_settings_read_it(
    lab, tmp_path, monkeypatch, batch
):
    given = lab.push(
        "d{layer}.safetensors",
        strengths=[0, 1],
        grid={"layer": [0, 1], "temperature": [0.5, 1.0]},
        skills=["n"],
        batch=batch,
    )
    ready = prepare(given, tmp_path / "out")
    assert len(ready.plan.shards) == 1
    rows, tokens = prefilled(ready, monkeypatch)
    ((asked,),) = ready.asked.values()
    lengths = [len(encode(load(lab.folder / "model"), p.prompt)) - 1 for p in asked.problems]
    assert rows == len(lengths)
    assert sum(lengths) <= tokens <= len(lengths) * max(lengths)  # what is padded counts too


def test_a_setting_that_edits_the_prompt_reads_it_itself(lab, tmp_path, monkeypatch):
    given = lab.push(
        strengths=[0, 1, 2], grid={"window": ["generated", "all", "prompt"]}, controls=0, samples=2
    )
    ready = prepare(given, tmp_path / "out")
    rows, _ = prefilled(ready, monkeypatch)
    ((asked,),) = ready.asked.values()
    assert rows == len(asked.problems) * (1 + 4)


# ------------------------------------------------------------------ settings that fail

BAD = {
    1e39: "not finite at token 0",
    3e38: "not finite at token 0",
    1e-12: "below the precision of the residual",
}


@pytest.mark.parametrize(
    ("window", "batch"),
    [
        ("generated", 2),
        ("all", 3),
        ({"start": 3, "origin": "generated"}, 5),
        ({"start": 3, "origin": "generated"}, 128),
    ],
)
def test_what_overflows_or_rounds_away_is_said_and_changes_nothing_of_the_rest(
    lab, tmp_path, window, batch
):
    """Whoever is seated in a broken row next must not read what it left in the cache."""
    fixed = {"window": window}
    more = {"fixed": fixed, "skills": ["n"], "metrics": ["right", "kl"], "batch": batch}
    good = prepare(lab.push("d0.safetensors", strengths=[0, 1], **more), tmp_path / "good")
    listed = [1e39, 0, 3e38, 1, 1e-12]
    ready = prepare(lab.push("d0.safetensors", strengths=listed, **more), tmp_path / "bad")
    wanted, nothing, _ = work(good)
    found, failed, _ = work(ready)
    assert not nothing
    bad = {r.setting.key: r.point["strength"] for r in ready.resolved}
    for key, strength in bad.items():
        assert (key in failed) == (strength in BAD), strength
        if strength in BAD:
            at = "token 3" if isinstance(window, dict) else "token 0"
            assert BAD[strength].replace("token 0", at) in failed[key]
    controls = {c.key for r in ready.resolved if r.point["strength"] in BAD for c in r.controls}
    assert set(failed) == {k for k, s in bad.items() if s in BAD} | controls
    assert not set(found.setting) & set(failed)
    one, other = by_answer(wanted), by_answer(found)
    assert set(one) == set(other)
    for name, (tokens, logprobs, kl) in one.items():
        assert list(tokens) == list(other[name][0])
        assert np.abs(logprobs - other[name][1]).max() < 1e-5
        assert kl == pytest.approx(other[name][2], rel=1e-3, abs=1e-6, nan_ok=True)


def test_a_model_that_changed_since_the_plan_was_made_is_refused(lab, tmp_path):
    import shutil

    shutil.copytree(lab.folder, tmp_path / "x")
    given = lab.push(fixed={"model": str(tmp_path / "x" / "model")})
    ready = prepare(given, tmp_path / "out")
    shutil.copy(lab.folder / "other" / "model.safetensors", tmp_path / "x" / "model")
    with pytest.raises(Refusal, match="is not what it was when the sweep was planned"):
        work(ready)
