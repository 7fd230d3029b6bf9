"""Trained vectors, current form: what is steered in training is what a router steers."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from probes.capture import Text
from probes.generate import Request, Stepper
from probes.models import Model, new_tokenizer
from probes.records import Refusal
from probes.taxonomy import Taxonomy
from steering.interventions import GENERATED, Intervention, Steer, replayed
from steering.vectors import (
    CurrentSettings,
    Vectors,
    default_layer,
    find_places,
    fit_current,
    judge,
    load_vectors,
    nearest,
    save_vectors,
    steered_logits,
    with_losses,
)
from steering.vectors.record import network_factor
from steering.vectors.steered import cross_entropy, truncated_kl

SITE = "blocks.0.hook_resid_post"
LAST = "blocks.2.hook_resid_post"


def texts(vocab=28, count=30, seed=0, prompt=4, answer=9):
    rng = np.random.default_rng(seed)
    drawn = rng.integers(vocab, size=(count, prompt + answer)).tolist()
    return [
        Text(f"{seed}-{i // 2}", i, tuple(row[: prompt + i % 2]), tuple(row[prompt + i % 2 :]))
        for i, row in enumerate(drawn)
    ]


def taxonomy(categories=3, width=32, site=SITE, seed=0, model=""):
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(categories, width, generator=draw)
    return Taxonomy(
        site, 0.1 * torch.randn(width, generator=draw), rows, torch.zeros(categories),
        rows / rows.norm(dim=1, keepdim=True), torch.zeros(width), 1,
        tuple("xyzuvw"[:categories]), model, "", "data",
    )  # fmt: skip


def moved(model, push):
    """The model with a constant added behind its last block, where no attention follows."""
    config = copy.deepcopy(model.net.config)
    config.mlp_bias = True
    net = type(model.net)(config).eval().requires_grad_(False)
    lost = net.load_state_dict(model.net.state_dict(), strict=False)
    assert all(name.endswith("bias") for name in lost.missing_keys)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if name.endswith("_proj.bias"):
                weight.zero_()
        net.model.layers[-1].mlp.down_proj.bias.copy_(push)
    return Model(net, model.tokenizer, "moved")


@pytest.fixture(scope="module")
def push(model):
    """In the span of the unembeddings: what lies beside it can't be seen in any output."""
    weight = model.net.get_output_embeddings().weight
    gain = model.net.model.norm.weight
    direction = (weight[3] - weight[5]) * gain
    return 3 * direction / direction.norm()


# ---------------------------------------------------------------- training equals use


def test_training_computes_what_a_router_computes(any_model):
    """The newest position is pushed over a cache that was filled without any push."""
    lengths = [6, 3, 9, 4, 7, 8, 5, 10]  # not in an order that is its own inverse when sorted
    sequences = [t.tokens[:n] for n, t in zip(lengths, texts(count=8), strict=True)]
    pushes = 3 * torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    trained = steered_logits(any_model, sequences, SITE, pushes, batch=3)
    for i, sequence in enumerate(sequences):
        edit = {"push": [Intervention("add", SITE, pushes[i], window=GENERATED)]}
        stepper = Stepper(any_model, [Steer(any_model, edit)])
        stepper.reset(1)
        stepper.seat([0], [Request("p", 0, sequence, 1, "push")])
        used = stepper.forward(torch.tensor(sequence[-1:]))[0]
        torch.testing.assert_close(trained[i], used.float(), atol=1e-5, rtol=1e-5)


def test_pushing_earlier_positions_too_would_be_something_else(model):
    """Without this the law above would hold of a push that reaches nothing."""
    sequence, push = texts()[0].tokens, 3 * torch.randn(32)
    ours = steered_logits(model, [sequence], SITE, push[None])[0]
    bare = steered_logits(model, [sequence], SITE, None)[0]
    edit = {"all": [Intervention("add", SITE, push)]}
    (batch,) = replayed(model, edit, [sequence], [Request("p", 0, sequence, 1, "all")])
    everywhere = batch.logits[0, -1]
    assert (ours - bare).abs().max() > 0.1
    assert (ours - everywhere).abs().max() > 0.1


def test_a_push_of_zeros_is_the_base_bit_for_bit(model):
    sequences = [t.tokens for t in texts(count=6)]
    bare = steered_logits(model, sequences, SITE, None)
    assert torch.equal(bare, steered_logits(model, sequences, SITE, torch.zeros(6, 32)))
    half = torch.zeros(6, 32)
    half[::2] = 1.0
    some = steered_logits(model, sequences, SITE, half)
    assert torch.equal(some[1::2], bare[1::2])
    assert not torch.isclose(some[::2], bare[::2]).all()


def test_a_line_for_each_row_equals_lines_that_rows_share(model):
    sequences = [t.tokens[: 5 + i] for i, t in enumerate(texts(count=6))]
    lines, which = torch.randn(2, 32), torch.tensor([0, 1, 1, 0, 1, 0])
    shared = steered_logits(model, sequences, SITE, lines, which)
    torch.testing.assert_close(shared, steered_logits(model, sequences, SITE, lines[which]))


def test_the_gradient_is_the_slope(model):
    """Along a random direction, by central differences."""
    sequences = [t.tokens for t in texts(count=5)]
    draw = torch.Generator().manual_seed(1)
    push, along = torch.randn(5, 32, generator=draw), torch.randn(5, 32, generator=draw)
    top = torch.randint(29, (5, 4), generator=draw)
    logprobs = torch.log_softmax(torch.randn(5, 4, generator=draw), -1)

    def loss(at, gradients=False):
        logits = steered_logits(model, sequences, SITE, at, gradients=gradients)
        return truncated_kl(logits, top, logprobs).double().mean()

    leaf = push.clone().requires_grad_()
    loss(leaf, gradients=True).backward()
    step = 1e-2
    slope = (loss(push + step * along) - loss(push - step * along)) / (2 * step)
    assert float((leaf.grad * along).sum()) == pytest.approx(float(slope), rel=2e-2)
    assert abs(float(slope)) > 1e-3


# ---------------------------------------------------------------- losses


def test_a_whole_distribution_gives_the_divergence_itself():
    draw = torch.Generator().manual_seed(0)
    logits, tuned = torch.randn(4, 5, generator=draw), torch.randn(4, 5, generator=draw)
    top = torch.log_softmax(tuned, -1).topk(5)
    p, q = (torch.softmax(a, -1).numpy() for a in (tuned, logits))
    wanted = (p * np.log(p / q)).sum(-1)
    found = truncated_kl(logits, top.indices, top.values)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4)
    assert float(truncated_kl(tuned, top.indices, top.values).abs().max()) < 1e-6


def test_a_cut_distribution_is_rescaled_and_the_base_is_not():
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    top, logprobs = torch.tensor([[2, 0]]), torch.log(torch.tensor([[0.6, 0.2]]))
    q = np.exp([0, 1, 2, 3]) / np.exp([0, 1, 2, 3]).sum()
    wanted = 0.75 * math.log(0.75 / q[2]) + 0.25 * math.log(0.25 / q[0])
    assert float(truncated_kl(logits, top, logprobs)) == pytest.approx(wanted, rel=1e-5)
    assert float(cross_entropy(logits, top, logprobs)) == pytest.approx(-math.log(q[2]), rel=1e-5)


# ---------------------------------------------------------------- places


def test_places_are_where_greedy_choices_differ(model, other):
    """Against bare forward passes, one text at a time."""
    given, sorts = texts(count=7), taxonomy(site="blocks.1.hook_resid_post")
    places = find_places(model, other, given, sorts, SITE, top=6, batch=3)
    found = {(p, s) for p, s in zip(places.problems.tolist(), places.sequences, strict=True)}
    wanted, seen = set(), 0
    for text in given:
        ids = torch.tensor([text.tokens])
        with torch.no_grad():
            mine = model.net(ids, output_hidden_states=True)
            theirs = other.net(ids, output_hidden_states=True)
        for p in range(len(text.prompt) - 1, len(text.tokens) - 1):
            seen += 1
            if mine.logits[0, p].argmax() == theirs.logits[0, p].argmax():
                continue
            prefix = text.tokens[: p + 1]
            wanted.add((text.problem, prefix))
            i = places.sequences.index(prefix)
            said = torch.log_softmax(theirs.logits[0, p], -1).topk(6)
            assert torch.equal(places.top[i], said.indices)
            torch.testing.assert_close(places.logprobs[i], said.values, atol=1e-5, rtol=1e-5)
            inner = theirs.hidden_states[2][0, p][None]
            assert int(places.category[i]) == int(sorts.category(inner))
            torch.testing.assert_close(places.x[i], mine.hidden_states[1][0, p])
    assert found == wanted
    assert places.seen == seen
    assert 0 < len(places) < seen


def test_a_shuffle_keeps_the_counts_of_categories(model, other):
    places = find_places(model, other, texts(), taxonomy(), SITE)
    mixed = places.shuffled(0)
    assert torch.equal(mixed.category.bincount(minlength=3), places.category.bincount(minlength=3))
    assert not torch.equal(mixed.category, places.category)
    assert torch.equal(mixed.top, places.top)
    assert set(places.pooled().category.tolist()) == {0}


def test_a_pair_without_disagreement_is_refused(model):
    with pytest.raises(Refusal, match=r"same token at all \d+ positions of 30 texts"):
        find_places(model, model, texts(), taxonomy(), SITE)


def test_other_models_are_refused(model, other, tokenizer):
    words = new_tokenizer([*"ABCDEFGHIJKLMNOPQRSTUV", "=", ";", "?", ">", "END"])
    strange = Model(other.net, words, "strange")
    with pytest.raises(Refusal, match="different tokenizers"):
        find_places(model, strange, texts(), taxonomy(), SITE)
    named = Model(other.net, tokenizer, "named", "aaaa")
    with pytest.raises(Refusal, match="taxonomy was made with a model of hash bbbb"):
        find_places(model, named, texts(), taxonomy(model="bbbb"), SITE)


# ---------------------------------------------------------------- fitting

QUICK = CurrentSettings(seeds=1, lr=0.1, batch=32, epochs=8, least=1)


@pytest.fixture(scope="module")
def pair(model, other):
    """Places of problems to fit and of others, in three categories."""
    return [find_places(model, other, texts(seed=s, count=14), taxonomy(), SITE) for s in (0, 1)]


@pytest.fixture(scope="module")
def parted(model, push):
    """Places of base and base + push, in a single category."""
    tuned = moved(model, push)
    of_it = [find_places(model, tuned, texts(seed=s), taxonomy(1), LAST, top=29) for s in (0, 1, 2)]
    return tuned, of_it


def test_a_planted_push_is_found(model, push, parted):
    tuned, (train, hold, test) = parted
    vectors = fit_current(model, tuned, train, hold, ("all",), replace(QUICK, epochs=14))
    found = vectors.pushes(torch.tensor([0]))[0]
    assert torch.cosine_similarity(found, push, dim=0) > 0.98
    assert float(found.norm()) == pytest.approx(float(push.norm()), rel=0.1)
    rows = {(r.measure, r.setting, r.x): r for r in judge(model, vectors, test)}
    assert rows["vector loss", "unsteered", -1].value > 0.2
    assert rows["vector loss", "vectors", -1].value < 0.01
    assert rows["vector agreement", "unsteered", -1].value == 0
    assert rows["vector agreement", "vectors", -1].value > 0.95


def test_vectors_of_another_push_do_not_help(model, push, parted):
    """The control of the law above: the same training towards another copy."""
    tuned, (train, hold, test) = parted
    away = moved(model, -push)
    theirs = [find_places(model, away, texts(seed=s), taxonomy(1), LAST, top=29) for s in (0, 1)]
    how = replace(QUICK, epochs=5)
    control = fit_current(model, away, *theirs, ("all",), how)
    own = fit_current(model, tuned, train, hold, ("all",), how)
    rows = judge(model, own, test, controls={"another copy": control})
    by = {(r.setting, r.measure): r for r in rows if r.x == -1}
    assert by["another copy", "vector loss"].value > by["unsteered", "vector loss"].value
    paired = by["vectors - another copy", "vector loss"]
    assert paired.high < 0
    apart = by["vectors", "vector loss"].value - by["another copy", "vector loss"].value
    assert paired.value == pytest.approx(apart)


def test_categories_have_vectors_of_their_own(model, other, pair):
    """Only a category's own places move its vector."""
    train, hold = pair
    whole = fit_current(model, other, train, hold, tuple("xyz"), replace(QUICK, epochs=1))
    rows = (train.category != 2).nonzero()[:, 0]
    some = replace(QUICK, epochs=1, allow_few=True)
    part = fit_current(model, other, train.take(rows), hold, tuple("xyz"), some)
    assert part.counts == (*whole.counts[:2], 0)
    assert float(part.vectors[2].abs().max()) == 0
    assert torch.equal(part.pushes(torch.tensor([2])), torch.zeros(1, 32))
    assert whole.parameters == 3 * 32 + 3
    assert part.parameters == 2 * 32 + 2


def test_the_best_start_on_hold_out_problems_is_kept(model, other, pair):
    train, hold = (places.pooled().take(torch.arange(40)) for places in pair)

    def held(vectors):
        logits = steered_logits(model, hold.sequences, SITE, vectors.pushes(hold.category))
        return float(truncated_kl(logits, hold.top, hold.logprobs).mean())

    def fitted(seed, seeds=1):
        how = replace(QUICK, epochs=1, seed=seed, seeds=seeds)
        return fit_current(model, other, train, hold, ("all",), how)

    alone = [fitted(seed) for seed in range(4)]
    losses = [held(vectors) for vectors in alone]
    pairs = list(zip(losses, losses[1:], strict=False))
    falls, rises = [a > b for a, b in pairs].index(True), [a < b for a, b in pairs].index(True)
    assert torch.equal(fitted(falls, 2).vectors, alone[falls + 1].vectors)
    assert torch.equal(fitted(rises, 2).vectors, alone[rises].vectors)


def test_it_stops_when_hold_out_problems_say_so_and_keeps_the_best_epoch(
    model, other, pair, monkeypatch
):
    train, hold = (places.pooled() for places in pair)
    script, seen = [3.0, 2.0, 1.0, 1.5, 1.2, 0.1], []

    def losses(base, places, learnt, settings, *, gradients):
        if gradients:
            return learnt.vectors.square().sum(1)[places.category]
        seen.append(learnt.vectors.detach().clone())
        return torch.full((len(places),), script[len(seen) - 1])

    monkeypatch.setattr("steering.vectors.current._losses", losses)
    told = []
    how = replace(QUICK, epochs=30, patience=2)
    vectors = fit_current(model, other, train, hold, ("all",), how, progress=told.append)
    assert len(seen) == 5
    assert torch.equal(vectors.vectors, seen[2])
    assert sum(told) == 30  # what was left out is told at once


def test_cross_entropy_is_learnt_too(model, parted):
    tuned, (train, hold, test) = parted
    vectors = fit_current(model, tuned, train, hold, ("all",), replace(QUICK, loss="ce", epochs=5))
    rows = {(r.measure, r.setting, r.x): r for r in judge(model, vectors, test, loss="ce")}
    before, after = (rows["vector loss", s, -1].value for s in ("unsteered", "vectors"))
    assert after < 0.8 * before


def test_a_network_is_the_authors_and_is_learnt(model, other, pair):
    train, hold = pair
    how = replace(QUICK, network=True, hidden=16, epochs=2)
    vectors = fit_current(model, other, train, hold, tuple("xyz"), how)
    assert vectors.parameters == 3 * 32 + (32 * 16 + 16) + 3 * (16 + 1)
    assert set(vectors.coefficients.tolist()) == {1.0}
    net = vectors.network
    trunk, heads = nn.Linear(32, 16), nn.Linear(16, 3)
    with torch.no_grad():
        for layer, name in ((trunk, "trunk"), (heads, "heads")):
            layer.weight.copy_(net[name])
            layer.bias.copy_(net[f"{name}_bias"])
        raw = nn.functional.softplus(heads(nn.functional.gelu(trunk(hold.x))))
        wanted = raw[torch.arange(len(hold)), hold.category]
    torch.testing.assert_close(network_factor(net, hold.x, hold.category), wanted)
    torch.testing.assert_close(
        vectors.pushes(hold.category, 2.0, hold.x),
        2 * wanted[:, None] * vectors.vectors[hold.category],
    )
    with pytest.raises(Refusal, match="depends on the residual"):
        vectors.pushes(hold.category)
    rows = {(r.measure, r.setting, r.x): r.value for r in judge(model, vectors, hold)}
    assert rows["vector loss", "vectors", -1] < rows["vector loss", "unsteered", -1]


def test_too_few_places_of_a_category_are_named(model, other, pair):
    train, hold = pair
    names, count = ("x", "y", "z", "never"), len(train)
    with pytest.raises(
        Refusal, match=rf"of {count} places .* 3 \(never\): 0; 1 each .*--allow-few"
    ):
        fit_current(model, other, train, hold, names, QUICK)
    with pytest.raises(Refusal, match="too few"):  # every category: nothing to train
        much = replace(QUICK, least=10_000, allow_few=True)
        fit_current(model, other, train, hold, names, much)


def test_what_can_not_be_fitted_is_refused(model, other, pair):
    train, hold = pair
    for places, told in (
        ((train, train), "in the fit and held out"),
        ((train, replace(hold, site=LAST)), "to hold out"),
    ):
        with pytest.raises(Refusal, match=told):
            fit_current(model, other, *places, tuple("xyz"), QUICK)
    with pytest.raises(Refusal, match="is of category 2 of 2"):
        fit_current(model, other, train, hold, tuple("xy"), QUICK)
    with pytest.raises(Refusal, match="at least 1"):
        fit_current(model, other, train, hold, tuple("xyz"), replace(QUICK, epochs=0))


def test_the_model_is_as_it_was(model, other, pair):
    before = {name: w.clone() for name, w in model.net.state_dict().items()}
    train, hold = (places.pooled() for places in pair)
    fit_current(model, other, train, hold, ("all",), replace(QUICK, epochs=1))
    assert all(torch.equal(w, before[name]) for name, w in model.net.state_dict().items())
    assert not any(w.requires_grad or w.grad is not None for w in model.net.parameters())


# ---------------------------------------------------------------- judging and files


def test_losses_by_category_are_means_over_its_places(model, other, pair):
    train, hold = pair
    vectors = fit_current(model, other, train, hold, tuple("xyz"), replace(QUICK, epochs=1))
    rows = judge(model, vectors, hold)
    logits = steered_logits(model, hold.sequences, SITE, vectors.pushes(hold.category))
    each = truncated_kl(logits, hold.top, hold.logprobs)
    for j in range(3):
        row = next(
            r for r in rows if (r.measure, r.setting, r.x) == ("vector loss", "vectors", float(j))
        )
        assert row.value == pytest.approx(float(each[hold.category == j].mean()), rel=1e-4)
        assert row.low < row.value < row.high
        assert row.n == len(set(hold.problems[(hold.category == j).numpy()].tolist()))
    whole = with_losses(vectors, rows)
    assert [after for _, after in whole.losses] == pytest.approx(
        [float(each[hold.category == j].mean()) for j in range(3)], rel=1e-4
    )


@pytest.mark.parametrize("network", [False, True])
def test_a_file_gives_back_what_was_written(model, other, tmp_path, network, pair):
    train, hold = pair
    how = replace(QUICK, epochs=1, network=network, hidden=8)
    vectors = fit_current(model, other, train, hold, tuple("xyz"), how, taxonomy="data")
    losses = ((1.0, 0.5), (math.nan, math.nan), (2.0, 1.0))
    vectors = replace(vectors, losses=losses, command="made so", bias=torch.ones(32))
    again = load_vectors(save_vectors(vectors, tmp_path / "v.safetensors"), model)
    pushes = (v.pushes(hold.category, 0.5, hold.x) for v in (vectors, again))
    assert torch.equal(*pushes)
    assert again.losses[0] == (1.0, 0.5)
    assert math.isnan(again.losses[1][0])
    for name in ("site", "names", "form", "parameters", "counts", "data", "taxonomy", "command"):
        assert getattr(again, name) == getattr(vectors, name)


def vectors_of(base="", width=32):
    return Vectors(
        SITE, torch.eye(2, width), torch.ones(2), None, ("a", "b"), "current", 2 * width + 2,
        base, "", "", "", (5, 5),
    )  # fmt: skip


def test_vectors_of_another_model_are_refused(model, tmp_path):
    save_vectors(vectors_of(width=16), tmp_path / "narrow")
    with pytest.raises(Refusal, match="length 16, and tiny-llama has 32"):
        load_vectors(tmp_path / "narrow", model)
    save_vectors(vectors_of("aaaa"), tmp_path / "of-a")
    load_vectors(tmp_path / "of-a", model)
    with pytest.raises(Refusal, match="hash aaaa, and m has bbbb"):
        load_vectors(tmp_path / "of-a", Model(model.net, model.tokenizer, "m", "bbbb"))
    with pytest.raises(Refusal, match="there is no trained vectors"):
        load_vectors(tmp_path / "none", model)


def test_a_taxonomy_is_no_vectors(tmp_path):
    from probes.taxonomy import save_taxonomy

    save_taxonomy(taxonomy(), tmp_path / "t")
    with pytest.raises(Refusal, match="holds no trained vectors"):
        load_vectors(tmp_path / "t")


def test_the_nearest_tokens_are_those_of_the_largest_cosine(model):
    weight = model.net.get_output_embeddings().weight
    vectors = replace(vectors_of(), vectors=torch.stack([3 * weight[7], torch.zeros(32)]))
    first, nothing = nearest(model, vectors, 3)
    assert first[0] == model.tokenizer.convert_ids_to_tokens(7)
    assert (len(first), nothing) == (3, [])


@pytest.mark.parametrize(
    ("depth", "layer"), [(32, 12), (48, 18), (64, 24), (28, 10), (3, 0), (1, 0)]
)
def test_the_default_layer_is_the_authors(model, monkeypatch, depth, layer):
    """arXiv:2510.07364: blocks 12 of 32, 18 of 48, 24 of 64 and 10 of 28."""
    fake = Model(model.net, model.tokenizer, "deep")
    fake.__dict__["depth"] = depth
    assert default_layer(fake) == layer
