"""Laws of the hybrid: what it must equal, token for token, and what is recorded of it."""

import numpy as np
import pytest
import torch

from probes.generate import Decoding, Request, Turn, generate
from probes.models import Model, new_llama, new_tokenizer
from probes.records import Refusal
from probes.tasks import load_task
from probes.taxonomy.record import Taxonomy
from steering.routing.branches import Keep
from steering.routing.crossed import at_decisions
from steering.routing.hybrid import (
    AMONG,
    BASE,
    CHOOSERS,
    FIELDS,
    STEERED,
    TUNED,
    Hybrid,
    Pushes,
    View,
    check_vectors,
)
from steering.routing.reference import WINDOWS, by_reference, pushing, reference
from steering.routing.routers import (
    TAKE,
    Among,
    Gated,
    Steer,
    always,
    at_rates,
    by_chance,
    by_rule,
    by_taxonomy,
    disagree,
    entropy_above,
    every,
    kl_above,
    lines_of,
    never,
    recorded,
)
from steering.vectors.record import Vectors

SITE = "blocks.1.hook_resid_post"
GREEDY = Decoding(0, stop=(28,))
COEFFICIENTS = (0.3, 0.6, 1.0)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made_taxonomy(width=32, latents=4, **about):
    eye = drawn(latents, width, seed=5)
    known = {"model": "", "task": "", "data": "", "k": 1, "site": SITE} | about
    names = known.pop("names", tuple(f"latent {i}" for i in range(latents)))
    zero = torch.zeros(latents)
    return Taxonomy(
        centre=torch.zeros(width),
        encoder=eye,
        encoder_bias=zero,
        decoder=eye / eye.norm(dim=1, keepdim=True),
        decoder_bias=torch.zeros(width),
        names=names,
        **known,
    )


def made_vectors(width=32, kinds=4, size=6.0, bias=None, seed=7, **about):
    known = {"site": SITE, "base": "", "tuned": "", "taxonomy": "", "data": ""} | about
    names = known.pop("names", tuple(f"latent {i}" for i in range(kinds)))
    return Vectors(
        vectors=size * drawn(kinds, width, seed=seed),
        coefficients=torch.ones(kinds),
        bias=bias,
        names=names,
        form="current",
        parameters=kinds * width,
        counts=(1,) * kinds,
        **known,
    )


@pytest.fixture(scope="module")
def taxonomy():
    return made_taxonomy()


@pytest.fixture(scope="module")
def vectors():
    return made_vectors()


@pytest.fixture(scope="module")
def requests():
    prompts = [(3, 4, 5), (7,), (1, 2, 3, 4, 5, 6), (9, 9)]
    return [Request(f"p{i}", 0, p, 12 + i) for i, p in enumerate(prompts)]


def full(taxonomy, vectors, coefficients=COEFFICIENTS, gate=disagree):
    return Gated(gate, Steer(by_taxonomy(taxonomy, vectors), coefficients))


def hybrid(base, tuned, router, vectors=None, taxonomy=None, **how):
    pushes = Pushes(vectors) if vectors else None
    reads = [("tuned", taxonomy.site)] if taxonomy else []
    return Hybrid(base, tuned, router, pushes, reads=reads, **how)


def written(writer, requests, decoding=GREEDY, batch=3, seed=0):
    return [r.tokens for r in generate(writer, requests, decoding, batch=batch, seed=seed)]


def field(writer, name):
    return np.concatenate([a[:, FIELDS.index(name)] for a in writer.log.answers.values()])


# ------------------------------------------------------------------ against the plain reference


@pytest.mark.parametrize("site", [SITE, "blocks.2.hook_resid_post", "blocks.0.hook_mlp_out"])
def test_it_is_the_uncached_reference_token_for_token(model, other, taxonomy, requests, site):
    vectors = made_vectors(site=site, size=2.0, bias=drawn(32, seed=3))
    writer = hybrid(model, other, full(taxonomy, vectors), vectors, taxonomy)
    answers = written(writer, requests)
    steered = 0
    for request, tokens in zip(requests, answers, strict=True):
        plain, steps = reference(
            model,
            other,
            request.prompt,
            taxonomy,
            vectors,
            coefficients=COEFFICIENTS,
            max_new=request.max_new,
            stop=GREEDY.stop,
        )
        assert tokens == plain
        log = writer.log.answers[request.problem, 0, None]
        assert [CHOOSERS[int(w)] for w in log[:, 1]] == [s.chooser for s in steps]
        assert log[:, 2].tolist() == [s.category for s in steps]
        assert log[:, 3] == pytest.approx([s.coefficient for s in steps])
        steered += sum(s.chooser == "steered" for s in steps)
    assert steered > 10
    assert (
        len(set(field(writer, "coefficient"))) > 2
    )  # each of several candidates is best somewhere


def test_another_window_gives_other_answers_and_all_are_served(model, other, taxonomy, requests):
    vectors = made_vectors(size=2.0)
    found = {}
    for window in (*WINDOWS[:2], -3):
        rollouts, steps = by_reference(
            model,
            other,
            requests[:2],
            GREEDY,
            taxonomy,
            vectors,
            coefficients=COEFFICIENTS,
            windows=(window,),
        )
        assert {s.window for s in sum(steps, []) if s.chooser == "steered"} == {window}
        found[window] = tuple(r.tokens for r in rollouts)
    assert len(set(found.values())) == 3
    with pytest.raises(Refusal, match="which is greedy"):
        by_reference(
            model,
            other,
            requests,
            Decoding(1),
            taxonomy,
            vectors,
            coefficients=(1.0,),
            windows=(0,),
        )
    with pytest.raises(Refusal, match="window 3"):
        reference(model, other, (1,), taxonomy, vectors, windows=(3,), max_new=1)


# ------------------------------------------------------------------ laws


@pytest.mark.parametrize("decoding", [GREEDY, Decoding(1.0, stop=(28,))], ids=["greedy", "T=1"])
def test_without_vectors_it_is_the_base_and_always_tuned_is_tuned(
    model, other, taxonomy, requests, decoding
):
    none = made_vectors(size=0.0)
    base, tuned = (written(m, requests, decoding) for m in (model, other))
    assert base != tuned
    zero = hybrid(model, other, full(taxonomy, none), none, taxonomy)
    assert written(zero, requests, decoding) == base
    assert (field(zero, "chooser") == BASE).all()  # a push of nothing is no steering
    assert written(hybrid(model, other, Gated(never, TAKE)), requests, decoding) == base
    assert written(hybrid(model, other, Gated(always, TAKE)), requests, decoding) == tuned


def test_a_model_with_itself_steers_nothing_and_is_itself(model, taxonomy, vectors, requests):
    writer = hybrid(model, model, full(taxonomy, vectors), vectors, taxonomy, kl=True)
    assert written(writer, requests) == written(model, requests)
    assert set(field(writer, "chooser")) == {BASE}
    assert field(writer, "kl").max() == 0
    assert np.array_equal(field(writer, "base_prob"), field(writer, "tuned_prob"))


@pytest.mark.parametrize("decoding", [GREEDY, Decoding(1.0, stop=(28,))], ids=["greedy", "T=1"])
def test_a_choice_among_the_whole_vocabulary_is_the_tuned_model(model, other, requests, decoding):
    writer = hybrid(model, other, Gated(always, Among(29)))
    assert written(writer, requests, decoding) == written(other, requests, decoding)
    assert set(field(writer, "chooser")) == {AMONG}
    one = hybrid(model, other, Gated(always, Among(1)))
    assert written(one, requests, decoding)[0] == written(model, requests)[0]
    some = hybrid(model, other, Gated(always, Among(3)))
    answers = written(some, requests)
    for request, tokens in zip(requests, answers, strict=True):
        for i, token in enumerate(tokens):
            text = torch.tensor([[*request.prompt, *tokens[:i]]])
            ours, theirs = (m.net(text).logits[0, -1] for m in (model, other))
            allowed = ours.topk(3).indices.tolist()
            assert token == max(allowed, key=lambda t: float(theirs[t]))  # noqa: B023
    assert answers not in (written(model, requests), written(other, requests))


def test_taking_the_tuned_token_where_they_differ_is_greedy_tuned(model, other, requests):
    writer = hybrid(model, other, Gated(disagree, TAKE))
    assert written(writer, requests) == written(other, requests)
    apart = field(writer, "base_top") != field(writer, "tuned_top")
    assert np.array_equal(apart, field(writer, "chooser") == TUNED)
    assert 0 < apart.mean() <= 1


@pytest.mark.parametrize("decoding", [GREEDY, Decoding(0.8, stop=(28,))], ids=["greedy", "T=.8"])
def test_the_recorded_choosers_give_the_same_tokens(
    model, other, taxonomy, vectors, requests, decoding
):
    mixed = by_rule(lambda request, so_far: len(so_far) % 3 > 0)
    for router in (
        full(taxonomy, vectors),
        full(taxonomy, vectors, gate=mixed),
        Gated(mixed, Among(4)),
        Gated(mixed, TAKE),
    ):
        first = hybrid(model, other, router, vectors, taxonomy)
        tokens = written(first, requests, decoding)
        again = hybrid(model, other, recorded(first.log.answers), vectors)
        assert written(again, requests, decoding, batch=2) == tokens
        for name in ("chooser", "category", "coefficient", "among", "token"):
            assert np.array_equal(field(again, name), field(first, name)), name
    with pytest.raises(Refusal, match="other requests"):
        written(again, [Request("new", 0, (1,), 3)])


@pytest.mark.parametrize("decoding", [GREEDY, Decoding(1.0, stop=(28,))], ids=["greedy", "T=1"])
def test_a_batch_is_one_after_another(model, other, taxonomy, vectors, requests, decoding):
    writers = [hybrid(model, other, full(taxonomy, vectors), vectors, taxonomy) for _ in range(2)]
    together = written(writers[0], requests, decoding, batch=4)
    alone = [written(writers[1], [r], decoding)[0] for r in requests]
    assert together == alone
    first, second = (w.log.answers for w in writers)
    for key, values in first.items():
        assert values == pytest.approx(second[key], abs=1e-4, nan_ok=True)


def test_what_is_recorded_is_what_the_models_say_of_each_token(
    model, other, taxonomy, vectors, requests
):
    """By definition, from one uncached pass a model over the finished answer."""
    writer = hybrid(model, other, full(taxonomy, vectors), vectors, taxonomy, kl=True)
    for request, tokens in zip(requests, written(writer, requests), strict=True):
        text = torch.tensor([[*request.prompt, *tokens]])
        logs = [
            m.net(text).logits[0, len(request.prompt) - 1 : -1].log_softmax(-1)
            for m in (model, other)
        ]
        log = dict(zip(FIELDS, writer.log.answers[request.problem, 0, None].T, strict=True))
        assert log["token"].tolist() == list(tokens)
        at = torch.arange(len(tokens)), torch.tensor(tokens)
        for name, of in zip(("base", "tuned"), logs, strict=True):
            assert log[f"{name}_prob"] == pytest.approx(of[at].exp().numpy(), abs=1e-4)
            assert log[f"{name}_top"].tolist() == of.argmax(-1).tolist()
        p, q = logs[1].double(), logs[0].double()
        assert log["kl"] == pytest.approx((p.exp() * (p - q)).sum(-1).numpy(), abs=1e-3)
        steered = log["chooser"] == STEERED
        assert np.array_equal(steered, log["base_top"] != log["tuned_top"])
        assert (log["category"][~steered] == -1).all()


# ------------------------------------------------------------------ routers


def test_the_oracle_takes_the_candidate_that_the_tuned_model_finds_likeliest(
    model, other, vectors, requests
):
    writer = hybrid(
        model, other, Gated(disagree, Steer(every([0, 1, 2, 3]), COEFFICIENTS)), vectors
    )
    written(writer, requests[:1])
    answer = writer.log.answers["p0", 0, None]
    prompt, tokens = requests[0].prompt, answer[:, 0].astype(int).tolist()
    for i in np.flatnonzero(answer[:, 1] == STEERED)[:6]:
        text = torch.tensor([[*prompt, *tokens[:i]]])
        theirs = other.net(text).logits[0, -1]
        by = {}
        for category in range(4):
            for size in COEFFICIENTS:
                with pushing(model, SITE, size * vectors.vectors[category], -1):
                    by[category, size] = int(model.net(text).logits[0, -1].argmax())
        best = max(by.values(), key=lambda token: float(theirs[token]))  # noqa: B023
        assert tokens[i] == best
        assert by[int(answer[i, 2]), round(float(answer[i, 3]), 3)] == best


def test_thresholds_open_the_gate_where_they_say(model, other, requests):
    """At a KL or an entropy of the planted distributions, against numpy."""
    writer = hybrid(model, other, Gated(kl_above(0.55), TAKE), kl=True)
    written(writer, requests)
    assert np.array_equal(field(writer, "kl") > 0.55, field(writer, "chooser") == TUNED)
    assert 0 < (field(writer, "kl") > 0.55).mean() < 1
    logits = torch.tensor([[0.0, 0.0, -torch.inf], [9.0, 0.0, 0.0]])
    turn = Turn((), (), np.zeros(2), GREEDY)
    view = View(turn, torch.stack([logits, logits.flip(0)]), (Keep([]), Keep([])))
    assert entropy_above(0.69)(view).tolist() == [True, False]
    assert entropy_above(0.70)(view).tolist() == [False, False]
    assert entropy_above(0.69, of="tuned")(view).tolist() == [False, True]
    with pytest.raises(Refusal, match="base or tuned"):
        entropy_above(1.0, of="hybrid")


def test_random_gates_and_categories_come_at_their_rates_in_any_batch(model, other, vectors):
    requests = [Request(f"p{i % 2}", i, (3, 4), 30) for i in range(16)]
    rates = {"p0": 0.2, "p1": 0.8}
    router = Gated(at_rates(rates, seed=2), Steer(by_chance([0, 1, 2, 3], seed=3)))
    writers = [hybrid(model, other, router, vectors) for _ in range(2)]
    never_stops = Decoding(0)
    one, two = (
        written(w, requests, never_stops, batch=n) for w, n in zip(writers, (16, 6), strict=True)
    )
    assert one == two
    for problem, rate in rates.items():
        log = np.concatenate([a for k, a in writers[0].log.answers.items() if k[0] == problem])
        steered = log[:, 1] == STEERED
        assert steered.mean() == pytest.approx(rate, abs=0.1)
        shares = np.bincount(log[steered, 2].astype(int), minlength=4) / steered.sum()
        assert shares == pytest.approx([0.25] * 4, abs=0.15)


def test_known_decisions_are_the_gate_of_crossed_decoding():
    task = load_task("chain")
    tokenizer = new_tokenizer(task.vocabulary())
    nets = [
        new_llama(len(tokenizer), width=32, depth=2, heads=4, mlp=32, context=64, seed=s)
        for s in range(2)
    ]
    for net in nets:
        net.get_input_embeddings().weight.data.mul_(8)
    base, tuned = (Model(n.requires_grad_(False), tokenizer, "m") for n in nets)
    problems = task.problems("test", 3, skill="n", part="touched")
    decides = at_decisions(task, problems, tokenizer)
    requests = [
        Request(p.id, 0, tuple(tokenizer(p.prompt)["input_ids"]), task.budget(p)) for p in problems
    ]
    writer = hybrid(base, tuned, Gated(by_rule(decides), TAKE))
    answers = written(writer, requests)
    for request, tokens in zip(requests, answers, strict=True):
        chosen = writer.log.answers[request.problem, 0, None][:, 1] == TUNED
        assert chosen.tolist() == [decides(request, tokens[:i]) for i in range(len(tokens))]


# ------------------------------------------------------------------ refusals


def test_models_that_are_no_pair_are_refused(model):
    words = new_tokenizer([*"zyxwvutsrqponmlkjihgfe", "=", ";", "?", ">", "END"])
    foreign = Model(model.net, words, "foreign")
    with pytest.raises(Refusal, match="different tokenizers"):
        hybrid(model, foreign, Gated(never, TAKE))


def test_vectors_of_another_model_or_width_are_refused(model, other, taxonomy):
    named = Model(model.net, model.tokenizer, "named", digest="abc")
    foreign = made_vectors(base="xyz")
    with pytest.raises(Refusal, match="another base model"):
        hybrid(named, other, full(taxonomy, foreign), foreign, taxonomy)
    check_vectors(made_vectors(base="abc", tuned="t"), named)
    with pytest.raises(Refusal, match="another tuned model"):
        check_vectors(made_vectors(tuned="t"), model, named)
    with pytest.raises(Refusal, match="width 16"):
        hybrid(model, other, Gated(disagree, Steer(every([0, 1, 2, 3]))), made_vectors(width=16))


def test_a_category_without_a_vector_is_refused(taxonomy):
    with pytest.raises(Refusal, match="no vector for 'latent 3'"):
        by_taxonomy(taxonomy, made_vectors(kinds=3))
    with pytest.raises(Refusal, match="there twice"):
        lines_of(made_taxonomy(latents=2, names=("a", "b")), made_vectors(3, 3, names=tuple("aab")))
    turned = made_vectors(names=tuple(f"latent {i}" for i in (2, 0, 3, 1)))
    assert lines_of(taxonomy, turned) == [1, 3, 0, 2]


def test_a_router_that_steers_without_vectors_is_refused(model, other, requests):
    writer = hybrid(model, other, Gated(always, Steer(every([0, 1]))))
    with pytest.raises(Refusal, match="no vectors to steer with"):
        written(writer, requests)
    with pytest.raises(Refusal, match="among 0 tokens"):
        Among(0)
    with pytest.raises(Refusal, match="no coefficient"):
        Steer(every([0, 1]), ())
