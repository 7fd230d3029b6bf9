import json

import numpy as np
import pytest
import torch

from probes.capture import (
    Activation,
    Capture,
    Mark,
    Store,
    Text,
    Writer,
    before_decisions,
    capture,
    from_rollouts,
    from_strings,
    open_writer,
    spans,
    step_ends,
)
from probes.generate import Decoding, Request, generate
from probes.models import blocks, bridge
from probes.records import SITES, Decision, Refusal, Span, Step, Trace

ALL_SITES = [f"blocks.{i}.{site}" for i in range(3) for site in SITES]
POST = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def texts():
    draw = np.random.Generator(np.random.Philox(3))
    lengths = [(5, 4), (2, 9), (7, 1), (3, 6), (1, 1)]
    return [
        Text(
            f"p{i}",
            i,
            tuple(draw.integers(2, 24, a).tolist()),
            tuple(draw.integers(2, 24, b).tolist()),
        )
        for i, (a, b) in enumerate(lengths)
    ]


def lines(store, text):
    index = store.index
    found = index[(index.problem == text.problem) & (index["sample"] == text.sample)]
    return found.sort_values("position")


def test_captured_values_are_hugging_faces_hidden_states_padded_or_not(model, texts, tmp_path):
    sites = [s for s in ALL_SITES if s.endswith("resid_post") or s == "blocks.0.hook_resid_pre"]
    for batch in (1, 4):
        store = capture(model, sites, texts, tmp_path / str(batch), batch=batch, shard_rows=7)
        store.verify()
        for text in texts:
            with torch.no_grad():
                out = model.net(torch.tensor([text.tokens]), output_hidden_states=True)
            rows = lines(store, text)
            assert rows.position.tolist() == list(range(len(text.tokens)))
            got = [store.read(site, rows.index) for site in sites]
            got[-1] = model.net.model.norm(got[-1])  # Hugging Face norms the last one
            for ours, theirs in zip(got, out.hidden_states, strict=True):
                torch.testing.assert_close(ours, theirs[0], atol=2e-6, rtol=1e-5)


def test_what_is_flushed_within_a_pass_and_after_it_is_the_same(
    model, texts, tmp_path, monkeypatch
):
    site = "blocks.1.hook_resid_post"
    whole = capture(model, [site], texts, tmp_path / "whole", batch=2)
    monkeypatch.setattr("probes.capture.observer.HELD", 3)  # so that most of it is flushed early
    pieces = capture(model, [site], texts, tmp_path / "pieces", batch=2)
    assert np.array_equal(whole.numpy(site), pieces.numpy(site))
    assert whole.index.drop(columns="shard").equals(pieces.index.drop(columns="shard"))


def test_captured_values_are_the_bridges_at_all_four_sites(model, texts, tmp_path):
    store = capture(model, ALL_SITES, texts, tmp_path / "s", batch=3)
    lens = bridge(model)
    for text in texts:
        _, cache = lens.run_with_cache(torch.tensor([text.tokens]))
        rows = lines(store, text).index
        for site in ALL_SITES:
            torch.testing.assert_close(store.read(site, rows), cache[site][0], atol=3e-6, rtol=1e-4)


def test_a_generation_captures_what_a_replay_of_its_answers_does(model, tmp_path):
    prompts = [(5, 6, 7), (8, 9), (4,)]
    requests = [Request(f"p{i}", k, p, 3 + 2 * k) for i, p in enumerate(prompts) for k in range(2)]
    with open_writer(model, ALL_SITES, tmp_path / "live", shard_rows=5) as writer:
        reading = Capture(writer)
        rollouts = generate(model, requests, Decoding(), batch=3, observers=[reading])
        reading.finish()
    live = Store(tmp_path / "live")
    texts = [
        Text(r.problem, r.sample, r.prompt, o.tokens)
        for r, o in zip(requests, rollouts, strict=True)
    ]
    replayed = capture(model, ALL_SITES, texts, tmp_path / "replay", positions="generated")
    assert len(live.index) == len(replayed.index) == sum(len(t.answer) for t in texts)
    assert len(live.index) > 10
    for text in texts:
        ours, theirs = lines(live, text), lines(replayed, text)
        assert ours.position.tolist() == theirs.position.tolist()
        for site in ALL_SITES:
            torch.testing.assert_close(
                live.read(site, ours.index), replayed.read(site, theirs.index), atol=2e-6, rtol=1e-5
            )


def test_all_positions_of_a_generation_hold_the_shared_prefix_once(model, tmp_path):
    requests = [Request("p", k, (5, 6, 7, 8), 3) for k in range(3)]
    with open_writer(model, [POST], tmp_path / "s") as writer:
        reading = Capture(writer, "all")
        generate(model, requests, batch=2, observers=[reading])
        reading.finish()
    index = Store(tmp_path / "s").index
    assert sorted(index.position) == sorted([0, 1, 2] + 3 * [3, 4, 5])


def test_reading_changes_no_bit_of_what_is_written(model, tmp_path):
    requests = [Request("p", k, (5, 6, 7), 6) for k in range(3)]
    # three rows in a batch of two: one is refilled
    plain = generate(model, requests, batch=2)
    with open_writer(model, ALL_SITES, tmp_path / "s") as writer:
        reading = Capture(writer)
        assert generate(model, requests, batch=2, observers=[reading]) == plain
        reading.finish()


def test_nothing_behind_the_deepest_wanted_layer_runs(model, texts, tmp_path):
    ran = []
    handles = [
        block.register_forward_pre_hook(lambda *_, i=i: ran.append(i))
        for i, block in enumerate(blocks(model.net))
    ]
    try:
        capture(model, ["blocks.0.hook_attn_out", "blocks.1.hook_mlp_out"], texts, tmp_path / "s")
        assert set(ran) == {0, 1}
        capture(model, ["blocks.-1.hook_resid_pre"], texts, tmp_path / "last")
        assert set(ran) == {0, 1, 2}
    finally:
        for handle in handles:
            handle.remove()


def test_chosen_positions_are_those_of_the_words_they_name(model, tmp_path):
    text = Text("p", 0, (5, 6, 7), (8, 9, 10, 11, 12))
    trace = Trace((Step(0, 2, "valid"), Step(2, 5, "calculator")), valid=False)
    marks = [
        *step_ends(text, trace),
        *spans(text, [Span(1, 3, "check")]),
        *before_decisions(text, [Decision(0, "jump", "no")]),
    ]
    store = capture(model, [POST], [text], tmp_path / "s", positions=[marks])
    found = dict(zip(store.index.label + "@", store.index.position, strict=True))
    assert sorted(zip(store.index.position, store.index.label, strict=True)) == [
        (2, "jump:no"),  # the last token of the prompt: word 0 isn't visible there
        (4, "check"),
        (4, "valid"),
        (5, "check"),
        (7, "calculator"),
    ]
    every = capture(model, [POST], [text], tmp_path / "all")
    for label, position in found.items():
        line = store.index[store.index.label + "@" == label].index[-1:]
        position = store.index.position[line[0]]
        assert torch.equal(store.read(POST, line), every.read(POST, [position]))
    with pytest.raises(Refusal, match=r"position 8 is not in text p/0, which has 0\.\.7"):
        capture(model, [POST], [text], tmp_path / "no", positions=[[8]])


def test_prompts_of_rollouts_come_from_their_problems(model):
    from probes.records import Problem, Rollout

    problem = Problem("t", "a b c", "d", "", "", 1, "{}")
    rollout = Rollout(problem.id, 4, (6, 2), (0.0, 0.0), "e", "stop")
    assert from_rollouts(model, [problem], [rollout]) == [Text(problem.id, 4, (2, 3, 4), (6, 2))]
    assert from_strings(model, ["b a"]) == [Text("0", 0, (3, 2))]
    with pytest.raises(Refusal, match="not among the 0 given"):
        from_rollouts(model, [], [rollout])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_values_are_stored_as_asked_and_read_in_any_order(dtype, tmp_path):
    x = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    rows = [Activation("p", 0, i, label="odd" if i % 2 else "even") for i in range(100)]
    with Writer(tmp_path / "s", [POST, "blocks.0.hook_mlp_out"], dtype, shard_rows=33) as writer:
        for i in range(0, 100, 7):
            writer.append(
                rows[i : i + 7], {POST: x[i : i + 7], "blocks.0.hook_mlp_out": -x[i : i + 7]}
            )
    store = Store(tmp_path / "s")
    order = np.random.Generator(np.random.Philox(1)).integers(0, 100, 60)
    assert torch.equal(store.read(POST, order), x[order].to(dtype))
    assert torch.equal(store.read("blocks.0.hook_mlp_out"), -x.to(dtype))
    assert torch.equal(store.read(POST, slice(30, 40)), x[30:40].to(dtype))
    odd = store.numpy(POST, store.index.label == "odd")
    assert np.array_equal(odd, x[1::2].to(dtype).float().numpy())
    assert odd.dtype == (np.float16 if dtype == torch.float16 else np.float32)
    assert [s["rows"] for s in json.loads((tmp_path / "s/store.json").read_text())["shards"]] == [
        33, 33, 33, 1,
    ]  # fmt: skip


def test_the_writer_holds_no_more_than_a_shard(tmp_path):
    with Writer(tmp_path / "s", [POST], shard_rows=16) as writer:
        for i in range(50):
            chunk = torch.zeros(1000, 4)[:5]  # a view that would keep the thousand rows alive
            writer.append([Activation("p", 0, i)] * 5, {POST: chunk})
            held = {t.untyped_storage().data_ptr(): t for t in writer._values[POST]}
            assert sum(t.untyped_storage().nbytes() for t in held.values()) <= 16 * 4 * 4
            assert len(writer._rows) < 16


def written(folder, count=40):
    with Writer(folder, [POST], shard_rows=16) as writer:
        writer.append([Activation("p", 0, i) for i in range(count)], {POST: torch.ones(count, 4)})
    return folder


def test_a_damaged_truncated_or_missing_shard_is_named_and_not_read(tmp_path):
    shard = written(tmp_path / "flip") / "shard-00001.safetensors"
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1
    shard.write_bytes(content)
    store = Store(tmp_path / "flip")
    assert len(store.read(POST, range(16))) == 16  # the first shard is whole
    with pytest.raises(Refusal, match=r"shard-00001\.safetensors is damaged: its checksum differs"):
        store.read(POST, [3, 20])
    with pytest.raises(Refusal, match="shard-00001"):
        store.verify()

    shard = written(tmp_path / "cut") / "shard-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(Refusal, match=r"shard-00002\.safetensors has \d+ bytes of \d+"):
        Store(tmp_path / "cut").read(POST)
    shard.unlink()
    with pytest.raises(Refusal, match=r"shard-00002\.safetensors is missing"):
        Store(tmp_path / "cut").read(POST)


def test_a_damaged_index_or_description_is_refused(tmp_path):
    index = written(tmp_path / "s") / "index.parquet"
    index.write_bytes(index.read_bytes()[:-1])
    with pytest.raises(Refusal, match=r"index\.parquet is missing or damaged"):
        Store(tmp_path / "s")
    (tmp_path / "s/store.json").write_text('{"version": 1')
    with pytest.raises(Refusal, match=r"store\.json is damaged"):
        Store(tmp_path / "s")
    with pytest.raises(Refusal, match="no activation store"):
        Store(tmp_path / "nowhere")


def test_a_capture_that_fails_leaves_nothing_behind(model, texts, tmp_path):
    with pytest.raises(KeyboardInterrupt), Writer(tmp_path / "s", [POST], shard_rows=2) as writer:
        writer.append([Activation("p", 0, i) for i in range(5)], {POST: torch.ones(5, 4)})
        assert not (tmp_path / "s").exists()
        raise KeyboardInterrupt
    with (
        pytest.raises(Refusal, match="float16 ends at 65504"),
        Writer(tmp_path / "s", [POST], torch.float16) as writer,
    ):
        writer.append([Activation("p", 0, 0)], {POST: torch.full((1, 4), 1e5)})
    one_in_many = torch.zeros(1000, 64)
    one_in_many[777, 33] = torch.nan
    with pytest.raises(Refusal, match="not finite"), Writer(tmp_path / "s", [POST]) as writer:
        writer.append([Activation("p", 0, i) for i in range(1000)], {POST: one_in_many})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sites": []}, "no site was named"),
        ({"sites": ["blocks.3.hook_resid_post"]}, r"layer 3 is not in this model.*0\.\.2"),
        ({"sites": ["blocks.1.resid"]}, "hook_resid_post"),
        ({"positions": "last"}, "all, generated, or a list"),
        ({"positions": [[0]]}, "1 lists of positions were given for 5 texts"),
        ({"positions": [[]] * 5}, "nothing to capture"),
        ({"dtype": torch.int8}, "can't be stored as torch.int8"),
        ({"texts": "twice"}, "problem p0, sample 0 is there twice"),
        ({"folder": "used"}, "already holds something"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    model, texts, tmp_path, change, message
):
    written(tmp_path / "used")
    asked = {"sites": [POST], "positions": "all", "dtype": torch.float32, **change}
    if asked.pop("texts", None):
        texts = [texts[0], *texts]
    folder = tmp_path / asked.pop("folder", "new")
    with pytest.raises(Refusal, match=message):
        capture(model, asked.pop("sites"), texts, folder, **asked)
    assert [p.name for p in tmp_path.iterdir()] == ["used"]


def test_a_setting_whose_edits_nobody_names_is_refused(model, tmp_path):
    request = Request("p", 0, (5, 6), 2, setting="pushed")
    with (
        pytest.raises(Refusal, match="nothing says what it edits"),
        open_writer(model, [POST], tmp_path / "s") as writer,
    ):
        generate(model, [request], observers=[Capture(writer)])
    assert Mark(3) == (3, "")
