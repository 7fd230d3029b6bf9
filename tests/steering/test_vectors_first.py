"""Trained vectors, first form: what is pushed, what is lost, and that a planted bias is found."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from probes.capture import Text
from probes.models import Model
from probes.records import Refusal, Span
from probes.taxonomy import Taxonomy, read_steps
from steering.interventions import GENERATED
from steering.vectors import FirstSettings, fit_everywhere, fit_first, stretches
from steering.vectors.first import COLDNESS, _examples, bias_everywhere
from steering.vectors.targets import Stretches, Target, surprises

SITE = "blocks.0.hook_resid_post"
LAST = "blocks.2.hook_resid_post"
QUICK = FirstSettings(epochs=2, batch=16, least=1, lr=0.1)


def texts(seed=0, count=16, answer=9):
    rng = np.random.default_rng(seed)
    rows = rng.integers(2, 26, size=(count, 5 + answer)).tolist()
    return [Text(f"{seed}-{i}", 0, tuple(r[: 4 + i % 2]), tuple(r[5:])) for i, r in enumerate(rows)]


def spans(given):
    return [[Span(0, 3, "step"), Span(4, 8, "check")] for _ in given]


def taxonomy(categories=2, seed=0):
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(categories, 32, generator=draw)
    bias, around = torch.zeros(categories), torch.zeros(32)
    names = tuple("xyz"[:categories])
    return Taxonomy(SITE, around, rows, bias, rows, around, 1, names, "", "", "data")


@pytest.fixture(scope="module")
def parts(model):
    given = [texts(seed) for seed in (0, 1)]
    return [stretches(model, t, spans(t), taxonomy()) for t in given]


def test_stretches_are_whole_answers_and_categorised_steps(model, parts):
    given = texts()
    read = read_steps(model, given, spans(given), [SITE])
    latents = taxonomy().latents(read.values[SITE])
    assert [s.category for s in parts[0].steps] == latents.argmax(-1).tolist()
    assert [s.activation for s in parts[0].steps] == latents.max(-1).values.tolist()
    text, (one, two), answer = given[1], parts[0].steps[2:4], parts[0].answers[1]
    assert (one.tokens[one.first + 1 :], two.tokens[two.first + 1 :]) == (
        text.answer[0:3],
        text.answer[4:8],
    )
    assert answer.tokens == text.tokens
    assert answer.first == GENERATED.bounds(len(text.prompt))[0]
    assert (one.length, two.length, answer.length) == (3, 4, 9)


def test_nats_are_those_of_a_bare_forward_pass_with_the_vector_added(model, parts):
    """At every position that a target's token is chosen at, and at no other."""
    lines = torch.randn(2, 32, generator=torch.Generator().manual_seed(2))
    targets = parts[0].steps[:5]
    found = surprises(model, SITE, targets, lines, coldness=0.7, batch=2)
    for target, nats in zip(targets, found, strict=True):
        ids = torch.tensor([target.tokens])
        inside = torch.zeros(ids.shape[1])
        inside[target.first : -1] = 1

        def add(_, __, out, inside=inside, push=lines[target.category]):
            return out + inside[None, :, None] * push

        handle = model.net.model.layers[0].register_forward_hook(add)
        try:
            with torch.no_grad():
                said = torch.log_softmax(0.7 * model.net(ids).logits[0], -1)
        finally:
            handle.remove()
        places = range(target.first, len(target.tokens) - 1)
        wanted = [-float(said[p, target.tokens[p + 1]]) for p in places]
        np.testing.assert_allclose(nats.numpy(), wanted, atol=1e-5)


def test_examples_are_the_strongest_then_the_most_surprising(model):
    rng = np.random.default_rng(0)
    steps = [
        Target(tuple(rng.integers(28, size=6).tolist()), 2, i % 2, float(rng.normal()), str(i))
        for i in range(40)
    ]
    got = _examples(model, SITE, steps, 1, FirstSettings(examples=3))
    strong = sorted((t for t in steps if t.category == 1), key=lambda t: -t.activation)[:12]
    nats = {
        t: float(n.mean())
        for t, n in zip(strong, surprises(model, SITE, strong, None), strict=True)
    }
    assert got == sorted(strong, key=lambda t: -nats[t])[:3]
    assert _examples(model, SITE, steps, 1, FirstSettings(words=4)) == []


def test_a_planted_bias_is_found(model, other):
    """The base itself, sampled under a bias, is what the tuned model writes."""
    from probes.generate import Decoding, Request
    from steering.interventions import Intervention, write

    weight = model.net.get_output_embeddings().weight * model.net.model.norm.weight
    push = 3 * (weight[3] - weight[5]) / (weight[3] - weight[5]).norm()
    edit = {"push": [Intervention("add", LAST, push, window=GENERATED)]}
    given = []
    for seed in (0, 1):
        prompts = [t.prompt for t in texts(seed, count=24)]
        requests = [Request(f"{seed}-{i}", 0, p, 12, "push") for i, p in enumerate(prompts)]
        wrote = write(model, edit, requests, Decoding(), seed=seed)
        answers = [
            Target(p + r.tokens, len(p) - 1, -1, 0.0, r.problem)
            for r, p in zip(wrote, prompts, strict=True)
        ]
        given.append(Stretches(tuple(answers), tuple(replace(t, category=0) for t in answers), ""))
    train, hold = given
    how = replace(QUICK, epochs=12)
    vectors = fit_first(
        model, Model(other.net, other.tokenizer, "t"), taxonomy(1), LAST, train, hold, how
    )
    assert torch.cosine_similarity(vectors.bias, push, dim=0) > 0.7

    def nats(bias):
        return float(torch.cat(surprises(model, LAST, hold.answers, bias)).mean())

    bare, found, truth = nats(None), nats(vectors.bias[None]), nats(push[None])
    assert bare - found > 0.5 * (bare - truth) > 0


def test_it_has_a_bias_and_a_vector_a_category(model, other, parts):
    vectors = fit_first(model, other, taxonomy(), SITE, *parts, QUICK)
    assert vectors.form == "first"
    assert vectors.parameters == 3 * 32
    assert vectors.counts == tuple(sum(s.category == c for s in parts[0].steps) for c in range(2))
    both = vectors.pushes(torch.tensor([0, 1]), 0.5)
    torch.testing.assert_close(both, 0.5 * (vectors.vectors + vectors.bias))
    again = fit_first(model, other, taxonomy(), SITE, *parts, QUICK)
    assert torch.equal(vectors.vectors, again.vectors)


def test_categories_are_trained_with_the_bias_beneath(model, other, parts, monkeypatch):
    """The first push of the second stage is a start of length 1 on top of the bias found."""
    pushed = []

    def noted(base, site, targets, vectors, **how):
        pushed.append(vectors.detach().clone())
        return surprises(base, site, targets, vectors, **how)

    monkeypatch.setattr("steering.vectors.first.surprises", noted)
    vectors = fit_first(model, other, taxonomy(), SITE, *parts, replace(QUICK, epochs=1))
    first = next(lines for lines in pushed if len(lines) == 2)
    torch.testing.assert_close((first - vectors.bias).norm(dim=1), torch.ones(2))
    alone = next(lines for lines in pushed if len(lines) == 1)
    torch.testing.assert_close(alone.norm(dim=1), torch.ones(1))


def test_the_authors_quirk_scales_the_loss(model, other, parts, monkeypatch):
    """Logits by 0.7, nats by 1 / ln 10: asked for, and not otherwise."""
    asked = []

    def noted(*args, coldness=1.0, **how):
        asked.append(coldness)
        return surprises(*args, coldness=coldness, **how)

    monkeypatch.setattr("steering.vectors.first.surprises", noted)
    short = replace(QUICK, epochs=1)
    fit_first(model, other, taxonomy(), SITE, *parts, short)
    assert set(asked) == {1.0}
    asked.clear()
    fit_first(model, other, taxonomy(), SITE, *parts, replace(short, quirk=True))
    assert set(asked) == {COLDNESS}
    assert COLDNESS == 0.7
    assert 1 / math.log(10) == pytest.approx(0.4343, abs=1e-4)


def test_too_few_steps_of_a_category_are_named(model, other, parts):
    with pytest.raises(Refusal, match=r"0 \(x\).*1 \(y\).*allow-few"):
        fit_first(model, other, taxonomy(), SITE, *parts, replace(QUICK, least=1000))
    given = texts()
    rare = replace(taxonomy(), encoder_bias=torch.tensor([100.0, -100.0]))
    train, hold = (stretches(model, t, spans(t), rare) for t in (given, texts(1)))
    with pytest.raises(Refusal, match=r"categories 1 \(y\): 0"):
        fit_first(model, other, rare, SITE, train, hold, QUICK)
    kept = replace(QUICK, allow_few=True, epochs=1)
    vectors = fit_first(model, other, rare, SITE, train, hold, kept)
    assert float(vectors.vectors[1].abs().max()) == 0
    assert vectors.parameters == 2 * 32
    assert torch.equal(vectors.pushes(torch.tensor([1]))[0], vectors.bias)


def test_shared_problems_are_refused(model, other, parts):
    with pytest.raises(Refusal, match="in the fit and held out"):
        fit_first(model, other, taxonomy(), SITE, parts[0], parts[0], QUICK)


def test_the_vector_of_every_token_is_the_first_form_s_bias(model, parts):
    both = [fit(model, model, *given, *parts, QUICK) for fit, given in (
        (fit_first, (taxonomy(), LAST)), (fit_everywhere, (LAST,)))]  # fmt: skip
    assert torch.allclose(both[1].vectors[0], both[0].bias, atol=1e-5)
    again = bias_everywhere(both[0], parts[0])
    for name, value in vars(both[1]).items():
        if name not in ("vectors", "coefficients"):
            assert getattr(again, name) == value
    assert torch.allclose(again.vectors, both[1].vectors, atol=1e-5)
    with pytest.raises(Refusal, match="no bias"):
        bias_everywhere(both[1], parts[0])
    assert (both[1].bias, both[1].parameters, both[1].names) == (None, 32, ("everywhere",))
    assert both[1].vectors.norm() > 0.1
    with pytest.raises(Refusal, match="held out"):
        fit_everywhere(model, model, LAST, parts[0], parts[0], QUICK)
