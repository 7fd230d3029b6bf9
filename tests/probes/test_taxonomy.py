"""Taxonomies: what is read, what is fitted, and how categories are scored against known kinds."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn import metrics

from probes.capture import Text
from probes.models import Model
from probes.records import Refusal, Span
from probes.taxonomy import (
    Taxonomy,
    choose,
    confusion,
    explore,
    fit,
    load_taxonomy,
    read_steps,
    report,
    save_taxonomy,
    scores,
)
from probes.taxonomy.fit import LR, LR_AT, reconstructed, unexplained
from probes.taxonomy.score import (
    SCORES,
    adjusted_rand,
    assignments,
    contingency,
    mutual_information,
    purity,
)
from probes.taxonomy.steps import Steps

SITE = "blocks.1.hook_resid_post"
KINDS = ("step", "double", "check", "repair", "jump")


def planted(steps=600, kinds=KINDS, width=24, noise=0.15, seed=0, problems=40):
    """Steps around one direction a kind, all far from the origin."""
    rng = np.random.default_rng(seed)
    which = rng.integers(len(kinds), size=steps)
    directions = np.linalg.qr(np.random.default_rng(99).normal(size=(width, len(kinds))))[0].T
    x = 3 * directions[which] + noise * rng.normal(size=(steps, width)) + 20
    texts = np.arange(steps) // 5
    of_text = np.stack([x[texts == i].mean(0) for i in np.unique(texts)])
    return Steps(
        values={SITE: torch.tensor(x, dtype=torch.float32)},
        responses={SITE: torch.tensor(of_text, dtype=torch.float32)},
        kinds=np.array(kinds)[which],
        problems=np.array([f"{seed}-{i % problems}" for i in texts]),
        texts=texts,
        model="m",
        data=f"planted {seed}",
    )


@pytest.fixture(scope="module")
def fitted():
    return fit(planted(), SITE, 8, k=1, seed=0)


@pytest.mark.parametrize("seed", range(3))
def test_planted_kinds_are_recovered_on_other_steps(seed):
    """One latent a step: with three, sums of latents can stand for a kind (see the next test)."""
    held = planted(seed=1)
    one = fit(planted(), SITE, 8, k=1, seed=seed)
    found = one.taxonomy.category(held.values[SITE]).numpy()
    assert metrics.adjusted_rand_score(held.kinds, found) > 0.98
    assert set(one.taxonomy.names) >= set(KINDS)
    named = np.array(one.taxonomy.names)[found]
    assert (named == held.kinds).mean() > 0.98
    assert one.parameters == 2 * 8 * 24 + 8 + 24
    assert one.fvu < 0.1


def test_three_latents_a_step_find_most_of_it():
    held = planted(seed=1)
    taxonomy = fit(planted(), SITE, 12).taxonomy
    assert taxonomy.k == 3
    found = taxonomy.category(held.values[SITE]).numpy()
    assert metrics.adjusted_rand_score(held.kinds, found) > 0.9


def test_shuffled_kinds_score_nothing(fitted):
    held = planted(seed=1)
    found = fitted.taxonomy.category(held.values[SITE]).numpy()
    mixed = np.random.default_rng(0).permutation(held.kinds)
    of_it = scores(found, mixed, held.problems)
    assert abs(of_it["ari"].value) < 0.02
    assert of_it["nmi"].value < 0.05
    assert of_it["purity"].value < 0.35
    assert scores(found, held.kinds, held.problems)["ari"].low > 0.95


def test_a_category_depends_on_its_own_row_alone(fitted):
    x = planted(seed=2).values[SITE]
    order = torch.randperm(len(x))
    whole = fitted.taxonomy.category(x)
    assert torch.equal(fitted.taxonomy.category(x[order]), whole[order])
    assert int(fitted.taxonomy.category(x[7:8])) == int(whole[7])


def test_it_does_not_matter_how_long_a_vector_is_beyond_the_centre(fitted):
    """Centred, then scaled to length 1: the step the released router left out."""
    taxonomy = fitted.taxonomy
    x = planted(seed=2).values[SITE]
    away = taxonomy.centre + 7 * (x - taxonomy.centre)
    assert torch.equal(taxonomy.category(away), taxonomy.category(x))
    torch.testing.assert_close(taxonomy.prepared(x).norm(dim=1), torch.ones(len(x)))
    assert not torch.equal(taxonomy.category(x - 20), taxonomy.category(x))


def test_latents_are_as_the_authors_encode(fitted):
    t, x = fitted.taxonomy, planted(seed=2).values[SITE][:4]
    wanted = []
    for row in x.numpy():
        row = row - t.centre.numpy()
        row = row / np.linalg.norm(row) - t.decoder_bias.numpy()
        wanted.append(t.encoder.numpy() @ row + t.encoder_bias.numpy())
    np.testing.assert_allclose(t.latents(x).numpy(), wanted, atol=1e-5)


def test_a_reconstruction_takes_the_k_largest_even_below_zero():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(6, 4, generator=draw)
    encoder, decoder = torch.randn(5, 4, generator=draw), torch.randn(5, 4, generator=draw)
    bias, around = torch.full((5,), -10.0), torch.randn(4, generator=draw)
    got = reconstructed(x, (encoder, bias, decoder, around), 3)
    for i in range(6):
        before = encoder.numpy() @ (x[i] - around).numpy() - 10
        assert (before < 0).all()
        top = np.argsort(-before)[:3]
        wanted = sum(before[j] * decoder[j].numpy() for j in top) + around.numpy()
        np.testing.assert_allclose(got[i].numpy(), wanted, rtol=1e-4)


def test_unexplained_variance_is_1_for_the_mean_and_0_for_the_rows():
    x = torch.randn(50, 7)
    assert float(unexplained(x, x)) == 0
    assert float(unexplained(x, x.mean(0).expand_as(x))) == pytest.approx(1)


def test_decoder_rows_have_length_one_and_the_rate_is_the_authors(monkeypatch):
    rates, adam = [], torch.optim.Adam

    def noted(parameters, lr):
        rates.append(lr)
        return adam(parameters, lr=lr)

    monkeypatch.setattr(torch.optim, "Adam", noted)
    taxonomy = fit(planted(200), SITE, 16, epochs=3).taxonomy
    torch.testing.assert_close(taxonomy.decoder.norm(dim=1), torch.ones(16))
    assert rates == [pytest.approx(2e-4 / (16 / 2**14) ** 0.5)]
    assert (LR, LR_AT) == (2e-4, 16384)


def test_the_same_seed_gives_the_same_taxonomy():
    one, again, other = (fit(planted(200), SITE, 5, seed=s, epochs=4).taxonomy for s in (0, 0, 1))
    assert torch.equal(one.encoder, again.encoder)
    assert not torch.equal(one.encoder, other.encoder)


# ---------------------------------------------------------------- reading


@pytest.fixture(scope="module")
def texts(tokenizer):
    ids = tokenizer.get_vocab()

    def text(name, prompt, answer):
        return Text(name, 0, *(tuple(ids[w] for w in words.split()) for words in (prompt, answer)))

    return [
        text("p", "a b c >", "d e = f ; g h = i END"),
        text("q", "a >", "j = k ; l = m ; n"),
        text("r", "a b c d e f >", "j END"),
    ]


SPANS = [
    [Span(0, 4, "double"), Span(5, 9, "double")],
    [Span(0, 3, "step"), Span(4, 7, "step")],
    [],
]


def test_a_step_is_the_mean_from_the_token_before_it_to_its_last(model, texts):
    site = "blocks.0.hook_resid_post"
    steps = read_steps(model, texts, SPANS, [site], batch=3)
    wanted, whole = [], []
    for text, listed in zip(texts, SPANS, strict=True):
        ids = torch.tensor([text.tokens])
        with torch.no_grad():
            hidden = model.net(ids, output_hidden_states=True).hidden_states[1][0]
        first = len(text.prompt)
        wanted += [hidden[first + s.start - 1 : first + s.stop].mean(0) for s in listed]
        whole.append(hidden[first - 1 : len(text.tokens)].mean(0))
    torch.testing.assert_close(steps.values[site], torch.stack(wanted), atol=1e-5, rtol=1e-5)
    centre = torch.stack(whole).mean(0)
    torch.testing.assert_close(steps.centre(site), centre, atol=1e-5, rtol=1e-5)
    assert steps.kinds.tolist() == ["double", "double", "step", "step"]
    assert steps.problems.tolist() == ["p", "p", "q", "q"]
    assert steps.texts.tolist() == [0, 0, 1, 1]


def test_reading_does_not_depend_on_the_batch(model, texts):
    together, alone = (
        read_steps(model, texts, SPANS, [SITE, "blocks.-1.hook_mlp_out"], batch=b) for b in (3, 1)
    )
    for site in (SITE, "blocks.2.hook_mlp_out"):
        torch.testing.assert_close(together.values[site], alone.values[site], atol=1e-5, rtol=1e-5)
    assert together.data == alone.data


@pytest.mark.parametrize(
    ("spans", "told"),
    [
        ([[], [], []], "none of the 3 texts has a step"),
        ([[Span(0, 1, "step")]], "lists of steps"),
        ([[Span(0, 40, "step")], [], []], "is not in the answer"),
        ([[], [], [Span(1, 1, "step")]], "is not in the answer"),
    ],
)
def test_steps_that_are_not_there_are_refused(model, texts, spans, told):
    with pytest.raises(Refusal, match=told):
        read_steps(model, texts, spans, [SITE])


def test_words_that_are_no_tokens_are_refused(model, texts, monkeypatch):
    monkeypatch.setattr("probes.taxonomy.steps.decode", lambda *_: "one two")
    with pytest.raises(Refusal, match="2 words and 10 tokens"):
        read_steps(model, texts, SPANS, [SITE])


def test_a_special_token_between_words_is_refused_and_behind_them_is_not(model, texts):
    end = model.tokenizer.eos_token_id
    broken = replace(texts[1], answer=(*texts[1].answer[:2], end, *texts[1].answer[2:]))
    with pytest.raises(Refusal, match="may only stand behind the last step"):
        read_steps(model, [broken], SPANS[1:2], [SITE])
    read_steps(model, [broken], [[Span(0, 2, "step")]], [SITE])


# ---------------------------------------------------------------- scores


def labels(seed, steps=60, found=4, known=3):
    rng = np.random.default_rng(seed)
    return (
        rng.integers(found, size=steps),
        np.array(["x", "y", "z", "u"])[rng.integers(known, size=steps)],
        rng.integers(6, size=steps).astype(str),
    )


@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_scikit_learns(seed):
    found, kinds, problems = labels(seed)
    of_it = scores(found, kinds, problems)
    assert of_it["ari"].value == pytest.approx(metrics.adjusted_rand_score(kinds, found))
    nmi = metrics.normalized_mutual_info_score(kinds, found)
    assert of_it["nmi"].value == pytest.approx(nmi)
    table = metrics.cluster.contingency_matrix(kinds, found)
    assert of_it["purity"].value == pytest.approx(table.max(0).sum() / len(found))
    for estimate in of_it.values():
        assert estimate.n == 6


def test_the_rand_index_counts_pairs():
    found, kinds, problems = labels(9, steps=12)
    pairs = list(combinations(range(12), 2))
    same_found = np.array([found[i] == found[j] for i, j in pairs])
    same_known = np.array([kinds[i] == kinds[j] for i, j in pairs])
    chance = same_found.sum() * same_known.sum() / len(pairs)
    most = (same_found.sum() + same_known.sum()) / 2
    wanted = ((same_found & same_known).sum() - chance) / (most - chance)
    assert adjusted_rand(contingency(found, kinds, problems).sum(0)) == pytest.approx(wanted)


@pytest.mark.parametrize("score", SCORES)
def test_the_names_of_categories_do_not_matter(score):
    found, kinds, problems = labels(3)
    named = np.array([7, 2, 9, 4])[found]
    one, other = (scores(f, kinds, problems)[score] for f in (found, named))
    assert one.value == pytest.approx(other.value)


def test_a_problem_drawn_twice_counts_twice():
    found, kinds, problems = labels(5)
    table = contingency(found, kinds, problems)
    weights = np.array([2.0, 0, 1, 1, 3, 1])
    rows = np.concatenate(
        [np.repeat(np.flatnonzero(problems == str(i)), int(w)) for i, w in enumerate(weights)]
    )
    drawn = np.tensordot(weights, table, 1)
    assert adjusted_rand(drawn) == pytest.approx(
        metrics.adjusted_rand_score(kinds[rows], found[rows])
    )
    wanted = metrics.normalized_mutual_info_score(kinds[rows], found[rows])
    assert mutual_information(drawn) == pytest.approx(wanted)
    counts = metrics.cluster.contingency_matrix(kinds[rows], found[rows])
    assert purity(drawn) == pytest.approx(counts.max(0).sum() / len(rows))


def test_one_known_kind_is_no_agreement_and_no_disagreement():
    found, _, problems = labels(0)
    of_it = scores(found, np.array(["step"] * 60), problems)
    assert of_it["ari"].value == 0
    assert of_it["nmi"].value == 0
    assert of_it["purity"].value == 1


def test_baselines_have_as_many_categories(fitted):
    train, held = planted(), planted(seed=1)
    found = assignments(fitted.taxonomy, train, held)
    counts = [sorted(np.bincount(found[name], minlength=8)) for name in ("taxonomy", "random")]
    assert counts[0] == counts[1]
    assert len(set(found["k-means"].tolist())) == 8
    rows = {(r.measure, r.setting): r for r in report(fitted.taxonomy, train, held, "test")}
    assert rows["ari", "taxonomy"].low > 0.9
    assert rows["purity", "k-means"].low > 0.9
    assert rows["ari", "random"].low < 0.02
    assert rows["purity", "random"].value < 0.4
    assert {r.part for r in rows.values()} == {"test"}


# ---------------------------------------------------------------- choosing


def test_the_choice_is_of_the_layer_and_the_size_that_agree():
    train, select = planted(400), planted(400, seed=1)
    noise = torch.randn(400, 24, generator=torch.Generator().manual_seed(3)) + 20
    bad = "blocks.0.hook_resid_post"
    train, select = (
        replace(s, values=s.values | {bad: noise}, responses=s.responses | {bad: noise[::5]})
        for s in (train, select)
    )
    grid = explore(train, select, [bad, SITE], (3, 12, 30, 50))
    assert [len(c.taxonomy.encoder) for c in grid] == [3, 12, 30] * 2  # 50 is too many for 400
    best = choose(grid)
    assert (best.taxonomy.site, len(best.taxonomy.encoder)) == (SITE, 12)
    assert best.score() > 0.85
    assert choose([best, grid[0], best]) is best
    assert max(c.score() for c in grid if c.taxonomy.site == bad) < 0.1
    assert {r.part for c in grid for r in c.rows if r.measure != "fvu"} == {"select"}


def test_splits_that_share_a_problem_are_refused():
    with pytest.raises(Refusal, match="are in both splits"):
        explore(planted(), planted(), [SITE], (5,))


def test_steps_of_one_kind_choose_nothing():
    train, select = planted(200), planted(200, seed=1)
    alike = select.relabelled(["step"] * 200)
    with pytest.raises(Refusal, match="nothing to agree with"):
        explore(train, alike, [SITE], (3,), epochs=3)
    with pytest.raises(Refusal, match="3 kinds"):
        select.relabelled(["a"] * 3)


def test_shares_of_a_kind_sum_to_one(fitted):
    rows = confusion(fitted.taxonomy, planted(seed=1))
    for kind in KINDS:
        of_it = [r for r in rows if r.kind == kind]
        assert sum(r.value for r in of_it) == pytest.approx(1)
        largest = max(of_it, key=lambda r: r.value)
        assert (largest.model, largest.value > 0.95) == (kind, True)


# ---------------------------------------------------------------- refusals and files


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        ({"latents": 61}, "600 steps for 61 latents"),
        ({"latents": 5, "k": 6}, "6 latents at a time of 5"),
        ({"latents": 5, "site": "blocks.0.hook_mlp_out"}, "not at blocks.0.hook_mlp_out"),
    ],
)
def test_a_fit_that_says_nothing_is_refused(ask, told):
    with pytest.raises(Refusal, match=told):
        fit(planted(), **{"site": SITE, **ask})


def test_a_file_gives_back_what_was_written(fitted, tmp_path):
    path = save_taxonomy(fitted.taxonomy, tmp_path / "t.safetensors")
    again = load_taxonomy(path)
    x = planted(seed=4).values[SITE]
    assert torch.equal(again.latents(x), fitted.taxonomy.latents(x))
    for name in ("site", "k", "names", "model", "task", "data"):
        assert getattr(again, name) == getattr(fitted.taxonomy, name)


def test_a_file_of_another_model_is_refused(fitted, model, tmp_path):
    path = save_taxonomy(fitted.taxonomy, tmp_path / "t.safetensors")
    with pytest.raises(Refusal, match="length 24, and tiny-llama has 32"):
        load_taxonomy(path, model)
    wide = Taxonomy(
        SITE, torch.zeros(32), *[torch.ones(s) for s in ((3, 32), (3,), (3, 32), (32,))],
        3, ("a", "b", "c"), "0123456789abcdef", "", "",
    )  # fmt: skip
    path = save_taxonomy(wide, tmp_path / "w.safetensors")
    load_taxonomy(path, model)  # the tiny model has no hash
    with pytest.raises(Refusal, match="of another model"):
        load_taxonomy(path, Model(model.net, model.tokenizer, "m", "fedcba"))
    load_taxonomy(path, Model(model.net, model.tokenizer, "m", "0123456789abcdef"))


@pytest.mark.parametrize("place", ["tensor", "metadata"])
def test_a_damaged_file_is_refused(fitted, tmp_path, place):
    path = save_taxonomy(fitted.taxonomy, tmp_path / "t.safetensors")
    whole = bytearray(path.read_bytes())
    at = len(whole) - 9 if place == "tensor" else whole.index(b"planted")
    whole[at] ^= 1
    path.write_bytes(whole)
    with pytest.raises(Refusal, match="damaged"):
        load_taxonomy(path)
    path.write_bytes(b"short")
    with pytest.raises(Refusal, match="damaged"):
        load_taxonomy(path)
    with pytest.raises(Refusal, match="there is no taxonomy"):
        load_taxonomy(tmp_path / "none")


def test_activations_of_another_width_are_refused(fitted):
    with pytest.raises(Refusal, match="of width 7"):
        fitted.taxonomy.category(torch.zeros(2, 7))
