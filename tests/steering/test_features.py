"""Feature edits against SAELens' own encode, decode and error."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sae_lens import (
    JumpReLUSAE,
    JumpReLUSAEConfig,
    StandardSAE,
    StandardSAEConfig,
    TopKSAE,
    TopKSAEConfig,
)

from probes.generate import Decoding, Pass, Request, generate
from probes.models import Model, submodule
from probes.records import Refusal
from probes.sae import Feature, Sae
from steering.features import FeatureEdit, same_rate, same_size
from steering.interventions import (
    GENERATED,
    PROMPT,
    Intervention,
    NotFired,
    Steer,
    Window,
    decisions,
    replayed,
    write,
)

SITE = "blocks.1.hook_resid_post"
KINDS = ("standard", "jumprelu", "topk", "standard, bias kept")
GREEDY = Decoding(temperature=0)
PROMPTS = [(5, 6, 7), (8, 9), (3, 4, 5, 6, 9), (4,)]
LATENTS = 48


def normal(seed, *shape):
    draws = np.random.Generator(np.random.Philox(seed)).standard_normal(shape)
    return torch.from_numpy(draws).float()


def made(kind, width=32, latents=LATENTS, site=SITE, model=""):
    """A random dictionary with every bias, norms that differ, and a threshold that cuts."""
    about = {"d_in": width, "d_sae": latents, "apply_b_dec_to_input": "kept" not in kind}
    of = {"jumprelu": (JumpReLUSAE, JumpReLUSAEConfig), "topk": (TopKSAE, TopKSAEConfig)}
    build, config = of.get(kind, (StandardSAE, StandardSAEConfig))
    loaded = build(config(**about, **({"k": 5} if kind == "topk" else {})))
    with torch.no_grad():
        lengths = 0.5 + torch.arange(latents) / latents
        loaded.W_dec.copy_(normal(1, latents, width) * lengths[:, None] / width**0.5)
        loaded.W_enc.copy_(normal(2, width, latents) / width**0.5)
        loaded.b_enc.copy_(normal(3, latents))
        loaded.b_dec.copy_(normal(4, width))
        if kind == "jumprelu":
            loaded.threshold.copy_(normal(5, latents))  # some below 0, where it is still rectified
    rates = np.linspace(0.01, 0.5, latents)
    return Sae(
        site=site,
        folder=Path("made") / kind,
        model=model,
        sae=loaded.eval().requires_grad_(False),
        encoder=loaded.W_enc.data,
        encoder_bias=loaded.b_enc.data,
        decoder=loaded.W_dec.data,
        decoder_bias=loaded.b_dec.data,
        threshold=loaded.threshold.data if kind == "jumprelu" else None,
        kind=kind.split(",")[0],
        subtracts_bias=loaded.cfg.apply_b_dec_to_input,
        features=tuple(Feature(i, float(rates[i]), 4.0 + i / 10, 9) for i in range(latents)),
    )


@pytest.fixture(scope="module", params=KINDS)
def sae(request):
    return made(request.param)


@pytest.fixture
def x():
    return normal(0, 4, 6, 32) * 3


def by_definition(sae, x, edits):
    """SAELens: encode, set, decode, and add what the dictionary had missed."""
    flat = x.reshape(-1, x.shape[-1])
    before = sae.sae.encode(flat)
    after = before.clone()
    for edit in edits:
        old = after[:, edit.latent].clone()
        size = edit.strength * edit.norm
        new = {"clamp": size + 0 * old, "add": old + size, "ablate": old * (1 - edit.strength)}
        after[:, edit.latent] = new[edit.op]
    return (sae.sae.decode(after) + flat - sae.sae.decode(before)).reshape(x.shape)


def applied(model, operations, x):
    steer = Steer(model, {"s": operations})
    rows, width, _ = x.shape
    seats = [Request("p", i, tuple(range(2, 2 + width)), 1, "s") for i in range(rows)]
    steer.seat(range(rows), seats, rows)
    now = Pass(tuple(seats), np.zeros(rows, dtype=np.int64), width)
    for site in steer.sites:
        x = steer.at(site, x, now)
    steer.check()
    return x


def near(found, expected, x):
    """To 1e-5 of the residual's length."""
    assert float((found - expected).norm(dim=-1).max() / x.norm(dim=-1).max()) < 1e-5


def mixed_activity(sae, x):
    """Some latents that fire at some of the positions and not at others."""
    share = (sae.encode(x.reshape(-1, 32)) > 0).float().mean(0)
    found = torch.nonzero((share > 0.2) & (share < 0.8))[:, 0].tolist()
    assert len(found) >= 4
    return found


@pytest.mark.parametrize("op", ["clamp", "add", "ablate"])
def test_one_row_of_the_encoder_gives_what_encoding_everything_gives(model, sae, x, op):
    for latent in mixed_activity(sae, x)[:6]:
        edit = FeatureEdit(op, sae, latent, 0.7)
        expected = by_definition(sae, x, [edit])
        assert float((expected - x).norm(dim=-1).max()) > 0.1  # or equality would say nothing
        near(applied(model, [edit], x), expected, x)


def test_features_side_by_side_are_decoded_together(model, sae, x):
    a, b, c, *_ = mixed_activity(sae, x)
    edits = [
        FeatureEdit("clamp", sae, a, 1.5),
        FeatureEdit("ablate", sae, b),
        FeatureEdit("add", sae, c, -0.5),
    ]
    near(applied(model, edits, x), by_definition(sae, x, edits), x)
    one_by_one = x
    for edit in edits:
        one_by_one = applied(model, [edit], one_by_one)
    assert float((one_by_one - by_definition(sae, x, edits)).abs().max()) > 1e-3


def test_a_feature_edited_again_or_behind_another_operation_is_read_anew(model, sae, x):
    latent = mixed_activity(sae, x)[0]
    first, second = FeatureEdit("clamp", sae, latent, 2.0), FeatureEdit("add", sae, latent, 1.0)
    push = Intervention("add", SITE, normal(9, 32), 1.0)
    of_another = FeatureEdit("clamp", made("standard"), latent + 1, 2.0)
    for listed in ([first, second], [second, first], [second, push, first], [second, of_another]):
        step = x
        for one in listed:
            step = applied(model, [one], step)
        near(applied(model, listed, x), step, x)


def test_rows_that_read_anew_stand_beside_rows_that_do_not(model, sae, x):
    """What is kept of a row's reading must not serve its neighbour's next one."""
    a, b, *_ = mixed_activity(sae, x)
    listed = {
        "together": [FeatureEdit("clamp", sae, a, 2.0), FeatureEdit("add", sae, b, 1.0)],
        "anew": [FeatureEdit("add", sae, a, 2.0), FeatureEdit("ablate", sae, a, 0.5)],
    }
    steer = Steer(model, listed)
    seats = [Request("p", i, (2, 3, 4, 5, 6, 7), 1, s) for i, s in enumerate([*listed] * 2)]
    steer.seat(range(4), seats, 4)
    out = steer.at(SITE, x, Pass(tuple(seats), np.zeros(4, dtype=np.int64), 6))
    for row, seat in enumerate(seats):
        near(out[[row]], applied(model, listed[seat.setting], x[[row]]), x)


def test_a_feature_set_to_the_value_it_has_changes_nothing(model, sae, x):
    flat = x.reshape(-1, 1, 1, 32)
    values = sae.encode(x.reshape(-1, 32))
    latent = mixed_activity(sae, x)[0]
    for i, own in enumerate(flat):
        same = FeatureEdit("clamp", sae, latent, float(values[i, latent]), unit=1.0)
        near(applied(model, [same], own), own, own)
        other = replace(same, strength=float(values[i, latent]) + 1)
        moved = applied(model, [other], own) - own
        torch.testing.assert_close(moved[0, 0], sae.decoder[latent], atol=1e-5, rtol=1e-4)


def test_strength_counts_the_largest_activations_of_the_feature(model, sae, x):
    moved = applied(model, [FeatureEdit("add", sae, 7, 2.0)], x) - x
    expected = 2 * sae.features[7].max_activation * sae.decoder[7]
    torch.testing.assert_close(moved, expected.expand_as(x), atol=1e-5, rtol=1e-4)
    assert FeatureEdit("add", sae, 7, 2.0, unit=3.0).norm == 3.0


@pytest.mark.parametrize("op", ["add", "ablate"])
def test_strength_zero_is_bit_for_bit_the_unedited_row(model, sae, op):
    x = torch.tensor([-0.0, 0.0, 1e-40, -3.5]).repeat(8)[None, None]
    out = applied(model, [FeatureEdit(op, sae, 3, 0.0)], x)
    assert torch.equal(out.view(torch.int32), x.view(torch.int32))


def settings():
    """Everything at once: two kinds of dictionary, directions, windows, several features."""
    relu, topk = made("standard"), made("topk")
    deep = made("jumprelu", site="blocks.2.hook_resid_pre")
    push = normal(8, 32)
    return {
        "none": [],
        "clamp": [FeatureEdit("clamp", relu, 3, 9.0, window=GENERATED)],
        "two": [FeatureEdit("clamp", relu, 5, 6.0), FeatureEdit("add", relu, 6, -6.0)],
        "prompt": [FeatureEdit("add", relu, 4, 9.0, window=PROMPT)],
        "topk": [FeatureEdit("clamp", topk, 7, 8.0), FeatureEdit("add", topk, 9, 4.0)],
        "ablate": [FeatureEdit("ablate", relu, i, 3.0, window=Window(1, 6)) for i in range(12)],
        "deep": [FeatureEdit("add", deep, 2, 9.0)],
        "push": [Intervention("add", SITE, push, 9.0), FeatureEdit("clamp", topk, 1, 5.0)],
        "after": [FeatureEdit("clamp", relu, 3, 9.0, window=decisions(range(2, 15)))],
        "other way": [FeatureEdit("clamp", relu, 3, 9.0, along=push)],
    }


SETTINGS = settings()


def requests(names, max_new=5):
    return [Request(f"p{i}", 0, p, max_new, s) for s in names for i, p in enumerate(PROMPTS)]


def alone(model, request, operations):
    """Greedy decoding of one row without cache, its residuals edited by SAELens."""
    tokens = list(request.prompt)

    def edited(x, of_it):
        for one in of_it:
            start, stop = one.window.bounds(len(request.prompt))
            here = [
                start <= p < stop and (one.window.after is None or tokens[p] in one.window.after)
                for p in range(len(tokens))
            ]
            on = torch.tensor(here)[:, None]
            yield on, one

    def hook(x, of_it):
        saes = {id(o.sae): o.sae for o in of_it if isinstance(o, FeatureEdit)}
        for on, one in edited(x, [o for o in of_it if isinstance(o, Intervention)]):
            x = torch.where(on, x + one.strength * one.vector, x)
        for dictionary in saes.values():
            before = after = dictionary.sae.encode(x[0])
            mine = [o for o in of_it if isinstance(o, FeatureEdit) and o.sae is dictionary]
            along = 0.0
            for on, one in edited(x, mine):
                size, old = one.strength * one.norm, before[:, [one.latent]]
                new = {"clamp": 0 * old + size, "add": old + size}
                new = new.get(one.op, old * (1 - one.strength))
                if one.along is not None:
                    unit = one.along / one.along.norm() * dictionary.decoder[one.latent].norm()
                    along = along + torch.where(on, (new - old) * unit, 0.0)
                    continue
                column = torch.where(on, new, old)
                index = torch.full((len(column), 1), one.latent)
                after = after.scatter(1, index, column)
            x = x + dictionary.sae.decode(after) - dictionary.sae.decode(before) + along
        return x

    sites = {o.site for o in operations}
    for _ in range(request.max_new):
        handles = []
        for site in sites:
            of_it = [o for o in operations if o.site == site]
            _, layer, kind = site.split(".")
            module, how = submodule(model, int(layer), kind)
            if how == "input":
                handles.append(
                    module.register_forward_pre_hook(lambda _, a, o=of_it: (hook(a[0], o), *a[1:]))
                )
            else:
                handles.append(
                    module.register_forward_hook(
                        lambda _, a, y, o=of_it: (
                            (hook(y[0], o), *y[1:]) if isinstance(y, tuple) else hook(y, o)
                        )
                    )
                )
        with torch.no_grad():
            logits = model.net(torch.tensor([tokens]), use_cache=False).logits[0, -1]
        for handle in handles:
            handle.remove()
        tokens.append(int(logits.argmax()))
    return tuple(tokens[len(request.prompt) :])


@pytest.fixture(scope="module")
def batched(model):
    return write(model, SETTINGS, requests(SETTINGS), GREEDY, batch=7)


def test_a_mixed_cached_padded_refilled_batch_is_each_row_alone_without_a_cache(model, batched):
    for request, rollout in zip(requests(SETTINGS), batched, strict=True):
        expected = alone(model, request, SETTINGS[request.setting])
        assert rollout.tokens == expected, (request.setting, request.prompt)


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s != "none"])
def test_every_setting_changes_what_is_written(batched, setting):
    """Without this, the law above would hold of edits that do nothing."""
    named = [r.setting for r in requests(SETTINGS)]
    tokens = {s: [o.tokens for n, o in zip(named, batched, strict=True) if n == s] for s in named}
    assert tokens[setting] != tokens["none"]


def test_replayed_answers_have_the_log_probabilities_they_were_written_with(model):
    asked = requests(SETTINGS)
    rollouts = write(model, SETTINGS, asked, Decoding(), seed=3, batch=9)
    sequences = [r.prompt + o.tokens for r, o in zip(asked, rollouts, strict=True)]
    for rows, logits, now in replayed(model, SETTINGS, sequences, asked, batch=5):
        logprobs = torch.log_softmax(logits, -1)
        for row, i in enumerate(rows):
            first = now.width - 1 - len(rollouts[i].tokens)
            got = [float(logprobs[row, first + j, t]) for j, t in enumerate(rollouts[i].tokens)]
            assert got == pytest.approx(rollouts[i].logprobs, abs=5e-4), asked[i].setting


def test_an_edited_neighbour_changes_no_bit_of_a_row(model, sae, x):
    steer = Steer(model, {"s": [FeatureEdit("clamp", sae, 3, 5.0)]})
    seats = [Request("p", i, (2, 3, 4, 5, 6, 7), 1, "s" if i == 1 else None) for i in range(4)]
    steer.seat(range(4), seats, 4)
    out = steer.at(SITE, x, Pass(tuple(seats), np.array([0, -1, -2, 0]), 6))
    assert torch.equal(out[[0, 2, 3]], x[[0, 2, 3]])
    assert torch.equal(out[1, 0], x[1, 0])  # padding
    assert not torch.equal(out[1, 1:], x[1, 1:])


def test_a_pass_costs_as_many_operations_for_many_features_as_for_one(model, monkeypatch):
    """And no pass encodes more than the edited rows of the encoder."""
    from steering.interventions.rows import Seated

    calls = []
    edit = Seated.edit
    monkeypatch.setattr(Seated, "edit", lambda *a: calls.append(0) or edit(*a))
    sae = made("standard")
    monkeypatch.setattr(sae.sae, "encode", lambda x: pytest.fail("it encoded everything"))
    asked = [Request(f"p{i}", 0, (5, 6, 7), 4, i) for i in range(16)]
    many = {i: [FeatureEdit("clamp", sae, i, 2.0, window=GENERATED)] for i in range(16)}
    write(model, many, asked, GREEDY)
    for_many = len(calls)
    write(model, {0: many[0]}, [replace(r, setting=0) for r in asked], GREEDY)
    assert for_many == len(calls) - for_many == 4  # one a pass


def test_a_topk_dictionary_is_encoded_once_for_several_features_and_where_they_act(
    model, x, monkeypatch
):
    sae, sizes = made("topk"), []
    encode = sae.sae.encode
    monkeypatch.setattr(sae.sae, "encode", lambda x: sizes.append(len(x)) or encode(x))
    applied(model, [FeatureEdit("clamp", sae, i, 2.0, window=Window(2, 4)) for i in (3, 4, 5)], x)
    assert sizes == [8]  # two positions of four rows


def test_an_edit_that_rounds_to_nothing_is_an_error(model, sae):
    with pytest.raises(NotFired, match=r"edit 0 of setting 's' changed 0 positions of row 0 .*4"):
        edit = FeatureEdit("add", sae, 3, 1e-12, window=GENERATED)
        write(model, {"s": [edit]}, [Request("p", 0, (5, 6), 4, "s")])


def test_ablating_a_silent_feature_is_done_and_no_failure(model, x):
    sae = made("standard")
    sae.encoder_bias[3] = -1000.0
    assert torch.equal(applied(model, [FeatureEdit("ablate", sae, 3)], x), x)


def test_the_gradient_goes_through_the_activation(model, sae, x):
    """By differences, of x and of the direction that a control writes along."""
    latent = mixed_activity(sae, x)[0]
    start = x[:1, :3].clone().requires_grad_()
    along = normal(6, 32).requires_grad_()
    weight = normal(7, 1, 3, 32)

    def loss(a, b):
        edit = FeatureEdit("clamp", sae, latent, 1.0, along=b)
        return (applied(model, [edit], a) * weight).sum()

    edit = FeatureEdit("clamp", sae, latent, 1.0, along=along)
    for _ in range(2):  # a second step meets a graph of its own
        out = (applied(model, [edit], start) * weight).sum()
        slopes = torch.autograd.grad(out, [start, along])
    step = [normal(10, 1, 3, 32), normal(11, 32)]
    with torch.no_grad():
        ends = [loss(start + s * step[0], along + s * step[1]) for s in (1e-3, -1e-3)]
    predicted = sum(float((g * d).sum()) for g, d in zip(slopes, step, strict=True))
    assert predicted == pytest.approx(float(ends[0] - ends[1]) / 2e-3, rel=2e-2, abs=0.05)
    assert float(slopes[1].norm()) > 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(op="project"), "'project' on a feature is not known; there are add, ablate, clamp"),
        (dict(latent=48), r"latent 48 is not in made.standard, which has 0\.\.47"),
        (dict(strength=float("nan")), "not finite"),
        (dict(unit=0.0), "multiples of 0 mean nothing"),
        (dict(along=torch.ones(31)), "length 32"),
        (dict(along=torch.zeros(32)), "lengths"),
        (dict(sae=made("standard", width=16)), "width 16.* have 32"),
        (dict(sae=made("standard", site="blocks.3.hook_resid_post")), "layer 3 is not in"),
        (dict(sae=replace(made("standard"), kind="batchtopk")), "save it, which makes it a jump"),
        (dict(sae=replace(made("standard"), features=())), "no features.parquet"),
    ],
)
def test_an_edit_that_cannot_work_is_refused(model, wrong, message):
    given = {"op": "clamp", "sae": made("standard"), "latent": 3, **wrong}
    with pytest.raises(Refusal, match=message):
        Steer(model, {"s": [FeatureEdit(**given)]})


def test_a_dictionary_of_another_model_is_refused_unless_it_is_meant(model):
    mine = Model(model.net, model.tokenizer, "mine", digest="aaaa")
    edit = FeatureEdit("clamp", made("standard", model="bbbb"), 3)
    with pytest.raises(Refusal, match="bbbb.*mine is aaaa"):
        Steer(mine, {"s": [edit]})
    Steer(mine, {"s": [replace(edit, foreign=True)]})
    named = replace(edit, sae=replace(edit.sae, model="", facts={"model": "theirs"}))
    with pytest.raises(Refusal, match="says that it is of theirs"):
        Steer(mine, {"s": [named]})
    Steer(mine, {"s": [replace(named, foreign=True)]})
    narrow = made("standard", width=16, model="bbbb")
    with pytest.raises(Refusal, match="width"):
        Steer(mine, {"s": [FeatureEdit("clamp", narrow, 3, foreign=True)]})


def test_a_random_feature_fires_as_often_and_is_no_copy():
    sae = made("standard")
    sae.decoder[21] = sae.decoder[20] * 2  # a copy of the feature, of nearly its rate
    rates = np.array([f.firing_rate for f in sae.features])
    drawn = {i for seed in range(60) for i in same_rate(sae, 20, 2, seed=seed, within=1.2)}
    assert drawn >= {18, 19, 22, 23}
    assert not drawn & {20, 21}
    assert np.abs(np.log(rates[list(drawn)] / rates[20])).max() <= np.log(1.2)
    assert same_rate(sae, 20, 2, seed=1) == same_rate(sae, 20, 2, seed=1)
    assert same_rate(sae, 20, 2, seed=0, within=1.08, alike=1.0) in ([19, 21], [21, 19])
    with pytest.raises(Refusal, match=r"0 other latents fire within a factor 1.01 .* nearest"):
        same_rate(sae, 20, seed=0, within=1.01)
    silent = tuple(replace(f, firing_rate=0.0) for f in sae.features)
    with pytest.raises(Refusal, match="never fires"):
        same_rate(replace(sae, features=silent), 20, seed=0)


def test_a_random_direction_moves_every_position_as_far_as_the_feature(model, sae, x):
    latent = mixed_activity(sae, x)[0]
    for op in ("clamp", "ablate"):
        edit = FeatureEdit(op, sae, latent, 0.8)
        null = same_size(edit, x.reshape(-1, 32), seed=5)
        real, moved = (applied(model, [e], x) - x for e in (edit, null))
        torch.testing.assert_close(moved.norm(dim=-1), real.norm(dim=-1), atol=2e-4, rtol=1e-3)
        sizes = real.norm(dim=-1)
        assert float(sizes.max() - sizes.min()) > 0.1  # by position, not one size for all
        assert abs(float(torch.cosine_similarity(null.vector, edit.vector, dim=0))) < 0.8


def test_an_unedited_row_among_features_is_written_as_by_the_plain_loop(model, batched):
    plain = generate(model, [replace(r, setting=None) for r in requests(["none"])], GREEDY)
    found = [o for o in batched if o.setting == "none"]
    assert [o.tokens for o in found] == [o.tokens for o in plain]
