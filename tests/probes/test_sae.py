"""Dictionaries against SAELens' own, plain formulas, and planted directions."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sae_lens import (
    SAE,
    GatedSAE,
    GatedSAEConfig,
    JumpReLUSAE,
    JumpReLUSAEConfig,
    StandardSAE,
    StandardSAEConfig,
    TopKSAE,
    TopKSAEConfig,
)
from sae_lens.saes.sae import SAEMetadata

from probes.capture import Activation, Store, Writer
from probes.models import Model, load
from probes.records import Refusal
from probes.sae import SaeSettings, dead, firing, fvu, l0, load_sae, sums, train_sae
from probes.sae.files import save_facts, save_weights, whole
from probes.sae.train import batches, divided, is_held

SITE = "blocks.1.hook_resid_post"
D, LATENTS = 16, 24
SMALL = SaeSettings(latents=LATENTS, k=3, steps=600, batch=64, rate=3e-3)


def planted(rows=4000, seed=0):
    """Rows of three of 14 orthonormal directions each, with positive amounts."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(np.random.default_rng(7).normal(size=(D, D)))[0][:14]
    amounts = np.zeros((rows, 14))
    for row in amounts:
        row[rng.choice(14, 3, replace=False)] = rng.uniform(1, 2, 3)
    return amounts, directions


def stored(folder, x, per_problem=20, digest="abc"):
    about = {"model": "planted", "digest": digest}
    rows = [Activation(f"p{i // per_problem}", 0, i % per_problem) for i in range(len(x))]
    with Writer(folder, [SITE], about=about) as writer:
        writer.append(rows, {SITE: torch.tensor(x, dtype=torch.float32)})
    return Store(folder)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    amounts, directions = planted()
    return stored(tmp_path_factory.mktemp("a") / "store", amounts @ directions + 0.3)


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("sae") / "sae"
    return train_sae(store, SITE, SMALL, out, facts={"task": "planted"})


def foreign(kind, folder, hook=SITE, width=D, **settings):
    """A folder that only SAELens wrote."""
    torch.manual_seed(3)
    made = {
        "standard": (StandardSAE, StandardSAEConfig),
        "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig),
        "topk": (TopKSAE, TopKSAEConfig),
        "gated": (GatedSAE, GatedSAEConfig),
    }[kind]
    said = SAEMetadata(hook_name=hook, model_name="foreign")
    sae = made[0](made[1](d_in=width, d_sae=LATENTS, metadata=said, **settings))
    with torch.no_grad():
        for weight in sae.parameters():
            weight.copy_(torch.randn_like(weight) / 2)
        if kind == "jumprelu":
            sae.threshold.copy_(torch.rand(LATENTS))
    sae.save_model(folder)
    return folder


def by_hand(sae, x):
    """Encoding and decoding from the plain tensors alone."""
    pre = (x - sae.decoder_bias * sae.subtracts_bias) @ sae.encoder + sae.encoder_bias
    a = pre.clamp_min(0)
    if sae.kind == "jumprelu":
        a = a * (pre > sae.threshold)
    if sae.kind == "topk":
        cut = pre.sort(dim=-1, descending=True).values[:, sae.k - 1 : sae.k]
        a = a * (pre >= cut)
    return a, a @ sae.decoder + sae.decoder_bias


@pytest.mark.parametrize("subtracts", [True, False])
@pytest.mark.parametrize("kind", ["standard", "jumprelu", "topk", "topk-rescaled"])
def test_a_foreign_dictionary_runs_as_in_saelens_and_as_its_tensors_say(kind, subtracts, tmp_path):
    settings = {"k": 4} if kind.startswith("topk") else {}
    if kind == "topk-rescaled":
        settings["rescale_acts_by_decoder_norm"] = True
    kind = kind.removesuffix("-rescaled")
    foreign(kind, tmp_path / "sae", apply_b_dec_to_input=subtracts, **settings)
    ours, theirs = load_sae(tmp_path / "sae"), SAE.load_from_disk(tmp_path / "sae")
    x = torch.randn(50, D)
    a, back = ours.encode(x), ours.decode(ours.encode(x))
    assert ours.kind == kind
    assert ours.site == SITE
    assert ours.model == ""
    assert not ours.features
    assert (a > 0).any()
    torch.testing.assert_close(a, theirs.encode(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(back, theirs.decode(theirs.encode(x)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close((a, back), by_hand(ours, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["topk", "batchtopk"])
def test_what_is_trained_loads_in_plain_saelens_and_computes_the_same(kind, store, tmp_path):
    settings = SaeSettings(kind, LATENTS, 3, steps=60, batch=64)
    ours = train_sae(store, SITE, settings, tmp_path / "sae")
    theirs = SAE.load_from_disk(tmp_path / "sae")
    x = torch.tensor(store.numpy(SITE, slice(0, 200)))
    assert ours.kind == theirs.cfg.architecture() == {"batchtopk": "jumprelu"}.get(kind, kind)
    assert theirs.cfg.metadata.hook_name == SITE
    assert theirs.cfg.dtype == "float32"
    torch.testing.assert_close(ours.encode(x), theirs.encode(x), rtol=1e-5, atol=1e-5)
    mine, its = ours.decode(ours.encode(x)), theirs(x)
    torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.encode(x), by_hand(ours, x)[0], rtol=1e-5, atol=1e-5)


def test_training_finds_the_planted_directions(trained):
    _, directions = planted()
    units = torch.nn.functional.normalize(trained.decoder, dim=-1)
    best = (torch.tensor(directions, dtype=torch.float32) @ units.T).amax(-1)
    assert (best > 0.95).float().mean() > 0.9
    assert trained.facts["fvu"]["high"] < 0.1
    assert trained.facts["l0"]["value"] == pytest.approx(3, abs=0.1)
    assert trained.facts["task"] == "planted"
    assert trained.model == "abc"


def test_the_same_seed_gives_the_same_dictionary_and_another_another(store, tmp_path):
    given = {"latents": LATENTS, "k": 3, "steps": 20, "batch": 64}
    first, again, other = (
        train_sae(store, SITE, SaeSettings(**given, seed=seed), tmp_path / name)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert torch.equal(first.encoder, again.encoder)
    assert first.facts == again.facts
    assert not torch.equal(first.encoder, other.encoder)


def test_measures_equal_their_definitions(trained, store):
    x = store.numpy(SITE, slice(0, 400))
    problems = store.index.problem.to_numpy().astype(str)[:400]
    found = sums(trained, x, problems)
    back = trained.decode(trained.encode(torch.tensor(x))).numpy()
    a = trained.encode(torch.tensor(x)).numpy()
    unexplained = ((x - back) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
    assert fvu(found).value == pytest.approx(unexplained, rel=1e-4)
    assert fvu(found).low < unexplained < fvu(found).high
    assert l0(found).value == pytest.approx((a > 0).sum(1).mean())
    assert dead(found).value == pytest.approx((~(a > 0).any(0)).mean())
    table = firing(found)
    assert [f.firing_rate for f in table] == pytest.approx((a > 0).mean(0).tolist())
    assert [f.max_activation for f in table] == pytest.approx(a.max(0).tolist(), rel=1e-5)
    in_problem = [(a[problems == p] > 0).any(0) for p in np.unique(problems)]
    assert [f.problems for f in table] == np.sum(in_problem, axis=0).tolist()


def test_the_mean_alone_leaves_all_variance_unexplained(tmp_path):
    foreign("standard", tmp_path / "sae")
    sae = load_sae(tmp_path / "sae")
    x = np.random.default_rng(0).normal(size=(300, D)).astype(np.float32)
    sae.decoder.zero_()
    sae.decoder_bias.copy_(torch.tensor(x.mean(0)))
    assert fvu(sums(sae, x, np.arange(300) // 10)).value == pytest.approx(1, abs=1e-5)


def test_dead_latents_are_bounded_by_training_rows_and_by_rare_ones(trained, store):
    found = sums(trained, store.numpy(SITE), store.index.problem.to_numpy().astype(str))
    fired = np.full_like(found.fired, 5)
    fired[:, 0] = 0  # never here, but in training
    fired[:, 1] = 0  # nowhere
    fired[2:, 2] = 0  # in two problems
    fired[:2, 2] = 1
    before = np.ones(LATENTS)
    before[1] = 0
    said = dead(replace(found, fired=fired), before)
    whole_of = [round(v * LATENTS) for v in (said.low, said.value, said.high)]
    assert whole_of == [1, 2, 3]


def test_held_out_problems_are_whole_and_not_trained_on(store):
    train, held = divided(store, SMALL)
    problems = store.index.problem.to_numpy().astype(str)
    assert not set(problems[train]) & set(problems[held])
    assert len(train) + len(held) == len(problems)
    assert 0.1 < len(set(problems[held])) / len(set(problems)) < 0.3
    assert (is_held(problems[::-1], 0.2)[::-1] == is_held(problems, 0.2)).all()


def test_edited_lines_are_neither_trained_on_nor_measured(tmp_path):
    x = np.random.default_rng(0).normal(size=(400, D)).astype(np.float32)
    rows = [Activation(f"p{i // 8}", 0, i % 8, edited=i % 2 == 0) for i in range(400)]
    with Writer(tmp_path / "store", [SITE]) as writer:
        writer.append(rows, {SITE: torch.tensor(x)})
    train, held = divided(Store(tmp_path / "store"), SMALL)
    assert (np.concatenate([train, held]) % 2 == 1).all()


@pytest.mark.parametrize("buffer", [1 << 18, 70])
def test_batches_give_every_row_once_a_round(store, buffer, monkeypatch):
    monkeypatch.setattr("probes.sae.train.BUFFER", buffer)
    lines = np.arange(0, 420, 3)
    given = batches(store, SITE, lines, 35, seed=0)
    rounds = [torch.cat([next(given) for _ in range(4)]) for _ in range(2)]
    wanted = store.read(SITE, lines)
    for seen in rounds:
        assert torch.equal(seen.sort(0).values, wanted.sort(0).values)
        assert not torch.equal(seen, wanted)
    assert not torch.equal(*rounds)


def test_the_table_has_the_largest_activation_of_any_row(trained, store):
    a = trained.encode(torch.tensor(store.numpy(SITE)))
    torch.testing.assert_close(trained.max_activation, a.amax(0), rtol=1e-5, atol=1e-5)


def tiny(tokenizer, digest="abc"):
    from probes.models import new_llama

    net = new_llama(29, width=D, depth=2, heads=2, mlp=24, context=32, seed=0)
    return Model(net, tokenizer, "tiny", digest)


def test_a_dictionary_of_another_model_width_or_layer_is_refused(trained, tokenizer, tmp_path):
    assert load_sae(trained.folder, tiny(tokenizer)).model == "abc"
    assert load_sae(trained.folder, tiny(tokenizer, "")).model == "abc"
    with pytest.raises(Refusal, match=r"planted \(digest abc\), and tiny is other"):
        load_sae(trained.folder, tiny(tokenizer, "other"))
    foreign("standard", tmp_path / "wide", width=D + 1)
    with pytest.raises(Refusal, match=r"width 17, those of tiny have 16"):
        load_sae(tmp_path / "wide", tiny(tokenizer))
    foreign("standard", tmp_path / "deep", hook="blocks.5.hook_resid_post")
    with pytest.raises(Refusal, match=r"layer 5 is not in this model"):
        load_sae(tmp_path / "deep", tiny(tokenizer))
    foreign("standard", tmp_path / "z", hook="blocks.0.attn.hook_q")
    with pytest.raises(Refusal, match=r"blocks\.0\.attn\.hook_q' is not known"):
        load_sae(tmp_path / "z")
    foreign("standard", tmp_path / "none", hook=None)
    with pytest.raises(Refusal, match="names no site"):
        load_sae(tmp_path / "none")
    foreign("gated", tmp_path / "gated")
    with pytest.raises(Refusal, match=r"is a gated dictionary"):
        load_sae(tmp_path / "gated")
    foreign("standard", tmp_path / "named")
    with pytest.raises(Refusal, match="says that it is of foreign, and this is tiny"):
        load_sae(tmp_path / "named", tiny(tokenizer))
    config = json.loads((tmp_path / "named" / "cfg.json").read_text())
    config["metadata"]["model_name"] = "maker/Tiny"
    (tmp_path / "named" / "cfg.json").write_text(json.dumps(config))
    assert load_sae(tmp_path / "named", tiny(tokenizer)).facts == {"model": "maker/Tiny"}
    del config["metadata"]["model_name"]
    (tmp_path / "named" / "cfg.json").write_text(json.dumps(config))
    assert load_sae(tmp_path / "named", tiny(tokenizer)).facts == {}
    with pytest.raises(Refusal, match="width 5 for a dictionary of width 16"):
        trained.encode(torch.zeros(2, 5))
    with pytest.raises(Refusal, match="3 latents for a dictionary of 24"):
        trained.decode(torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("how", "todo"),
    [
        ("expected_average_only_in", "fold_activation_norm_scaling_factor"),
        ("covariance_whitening", "fold_activation_whitening"),
        ("layer_norm", "not supported.$"),
        ("constant_norm_rescale", "not supported.$"),
        ("zscore", "can't make a dictionary"),
    ],
)
def test_a_dictionary_of_scaled_activations_is_refused_with_what_to_do(how, todo, tmp_path):
    config = foreign("standard", tmp_path / "sae") / "cfg.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"normalize_activations": how}))
    with pytest.raises(Refusal, match=how) as refused:
        load_sae(tmp_path / "sae")
    assert re.search(todo, str(refused.value))


def test_a_scale_that_is_folded_or_not_said_is_none(tmp_path):
    given = {"normalize_activations": "expected_average_only_in"}
    sae = SAE.load_from_disk(foreign("standard", tmp_path / "scaled", **given))
    sae.fold_activation_norm_scaling_factor(3.0)
    sae.save_model(tmp_path / "folded")
    x = torch.randn(20, D)
    folded = load_sae(tmp_path / "folded")
    torch.testing.assert_close(folded.encode(x), sae.encode(x), rtol=1e-5, atol=1e-5)
    config = tmp_path / "folded" / "cfg.json"
    said = json.loads(config.read_text())
    del said["normalize_activations"]
    config.write_text(json.dumps(said))
    assert torch.equal(load_sae(tmp_path / "folded").encode(x), folded.encode(x))


def damaged(folder, how):
    weights, config = folder / "sae_weights.safetensors", folder / "cfg.json"
    if how == "no folder":
        shutil.rmtree(folder)
    elif how.startswith("no "):
        (folder / how[3:]).unlink()
    elif how == "cut weights":
        weights.write_bytes(weights.read_bytes()[:-40])
    elif how == "cut config":
        config.write_text(config.read_text()[:-40])
    elif how == "a list":
        config.write_text("[]")
    elif how == "another size":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"d_sae": LATENTS + 1}))
    elif how == "unknown kind":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"architecture": "x"}))
    elif how == "cut table":
        table = folder / "features.parquet"
        table.write_bytes(table.read_bytes()[:-40])


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ("no folder", "there is no dictionary at"),
        ("no cfg.json", "has no cfg.json"),
        ("no sae_weights.safetensors", "has no sae_weights.safetensors"),
        ("cut weights", "sae_weights.safetensors is damaged or cut short"),
        ("cut config", "cfg.json is damaged"),
        ("a list", "cfg.json is damaged"),
        ("another size", "SAELens can't make a dictionary"),
        ("unknown kind", "SAELens can't make a dictionary"),
        ("cut table", "features.parquet is no readable Parquet"),
    ],
)
def test_damage_is_named(how, named, trained, tmp_path):
    folder = tmp_path / "sae"
    shutil.copytree(trained.folder, folder)
    damaged(folder, how)
    with pytest.raises(Refusal, match=re.escape(named)):
        load_sae(folder)


def test_a_folder_without_a_table_has_no_largest_activations(trained, tmp_path):
    shutil.copytree(trained.folder, tmp_path / "sae")
    (tmp_path / "sae" / "features.parquet").unlink()
    with pytest.raises(Refusal, match=r"has no features\.parquet"):
        _ = load_sae(tmp_path / "sae").max_activation


def test_a_table_of_another_dictionary_is_refused(trained, tmp_path):
    shutil.copytree(trained.folder, tmp_path / "sae")
    save_facts(tmp_path / "sae", {}, trained.features[1:])
    with pytest.raises(Refusal, match="23 features for 24 latents"):
        load_sae(tmp_path / "sae")


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"k": 0}, "k = 0 of 24"),
        ({"k": LATENTS}, "k = 24 of 24"),
        ({"steps": 0}, "steps 0"),
        ({"batch": 1}, "batch 1"),
        ({"rate": 0.0}, "rate 0.0"),
        ({"held_out": 1.0}, "held out 1.0"),
    ],
)
def test_settings_that_can_never_work_are_refused(wrong, why):
    with pytest.raises(Refusal, match=why):
        SaeSettings(**{"latents": LATENTS, "k": 3, **wrong})


def test_too_few_rows_an_unknown_site_and_a_folder_in_use_are_refused(store, trained, tmp_path):
    few = stored(tmp_path / "few", np.ones((60, D)), per_problem=2)
    with pytest.raises(Refusal, match="are too few for 24 latents"):
        train_sae(few, SITE, SaeSettings(latents=LATENTS, k=3, batch=64), tmp_path / "out")
    with pytest.raises(Refusal, match="was not captured"):
        train_sae(store, "blocks.0.hook_resid_post", SMALL, tmp_path / "out")
    with pytest.raises(Refusal, match="already holds something"):
        train_sae(store, SITE, SMALL, trained.folder)
    assert not (tmp_path / "out").exists()


def test_an_interrupt_leaves_nothing(store, tmp_path):
    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_sae(store, SITE, SMALL, tmp_path / "sae", stop)
    assert not list(tmp_path.iterdir())


def test_a_loss_that_diverges_is_said(tmp_path):
    x = np.random.default_rng(0).normal(size=(4000, D)) * 1e25
    high = stored(tmp_path / "store", np.where(np.arange(4000)[:, None] % 2, x, 1e-3))
    with pytest.raises((FloatingPointError, Refusal)):
        train_sae(
            high,
            SITE,
            SaeSettings(latents=LATENTS, k=3, rate=1e30, steps=9, batch=64),
            tmp_path / "sae",
        )
    assert not (tmp_path / "sae").exists()


def test_weights_beyond_float16_are_said_and_not_written(tmp_path):
    foreign("standard", tmp_path / "plain")
    sae = SAE.load_from_disk(tmp_path / "plain")
    sae.W_dec.data[0, 0] = 1e6
    with pytest.raises(FloatingPointError, match="W_dec"), whole(tmp_path / "sae") as partial:
        save_weights(sae, partial)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plain"]


def test_a_dictionary_loads_beside_a_shipped_model():
    base = load("data/organisms/chain/base-0")
    for folder in sorted((Path(base.name) / "sae").glob("blocks.*")):
        sae = load_sae(folder, base)
        assert sae.width == base.width
        assert len(sae.features) == sae.latents
