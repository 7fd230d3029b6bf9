import itertools
import math

import numpy as np
import pytest
import torch
from scipy import special
from scipy.stats import beta, entropy

from probes.divergence import (
    EXECUTION,
    RANKS,
    Compared,
    Parted,
    compare,
    divergences,
    first_parting,
    gold_logprobs,
    kl,
    kl_share,
    mean_kl,
    parted_by,
    places,
    rank_share,
    token_kl,
    token_logprobs,
)
from probes.generate import Decoding, Request, generate
from probes.models import Model, encode, new_llama, new_tokenizer
from probes.records import Refusal
from probes.tasks import decisions, load_task


@pytest.fixture(scope="module")
def task():
    return load_task("chain")


def tiny(words, seed):
    tokenizer = new_tokenizer(words)
    net = new_llama(len(tokenizer), width=16, depth=2, heads=2, mlp=16, context=64, seed=seed)
    with torch.no_grad():
        net.get_input_embeddings().weight.mul_(8)
    return Model(net.requires_grad_(False), tokenizer, f"tiny-{seed}")


@pytest.fixture(scope="module")
def pair(task):
    return tiny(task.vocabulary(), 0), tiny(task.vocabulary(), 1)


def test_kl_is_the_sum_written_out_on_four_words():
    p, q = [0.5, 0.25, 0.125, 0.125], [0.7, 0.1, 0.1, 0.1]
    by_hand = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    logits = [torch.tensor([x]).log() + 3 for x in (p, q)]  # a shift of all logits says nothing
    assert float(token_kl(*logits)[0]) == pytest.approx(by_hand, abs=1e-7)
    assert float(token_kl(logits[0], logits[0])[0]) == 0
    assert float(token_kl(*reversed(logits))[0]) != pytest.approx(by_hand, abs=1e-3)


def test_probabilities_of_all_answers_of_three_words_sum_to_one():
    """A completion's probability is the product of its tokens': enumerated, they exhaust it."""
    model = tiny(["a", "b", "END"], 0)
    every = list(itertools.product(range(5), repeat=3))
    prompts = [(2, 3)] * len(every)
    total = sum(math.exp(x.sum()) for x in token_logprobs(model, prompts, every, batch=17))
    assert total == pytest.approx(1, abs=1e-5)


def test_texts_of_any_length_in_one_batch_have_the_log_probabilities_they_have_alone():
    model = tiny(["a", "b", "END"], 0)
    prompts, texts = [(2,), (3, 2, 2), (2, 3)], [(3, 3, 3, 4), (2,), (3, 4)]
    for prompt, text, found in zip(
        prompts, texts, token_logprobs(model, prompts, texts), strict=True
    ):
        logits = model.net(torch.tensor([[*prompt, *text]])).logits[0, len(prompt) - 1 : -1]
        wanted = logits.log_softmax(-1)[range(len(text)), list(text)]
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)
    with pytest.raises(Refusal, match="at least one token"):
        token_logprobs(model, [(2,)], [()])


def test_the_log_probability_of_a_rollout_is_what_it_was_sampled_with(pair, task):
    model = pair[0]
    problem = task.problems("test", 1, skill="n")[0]
    request = Request(problem.id, 0, encode(model, problem.prompt), 12)
    rollout = generate(model, [request], Decoding(stop=(model.tokenizer.eos_token_id,)))[0]
    found = token_logprobs(model, [request.prompt], [rollout.tokens])[0]
    np.testing.assert_allclose(found, rollout.logprobs, atol=1e-5)


def test_traces_are_summed_and_each_ends(pair, task):
    model, problems = pair[0], task.problems("test", 3, skill="a")
    checked = [task.gold(p).replace(" ;", f" ? {_first(task, p)} ok ;", 1) for p in problems]
    both = {p.id: [task.gold(p), c] for p, c in zip(problems, checked, strict=True)}
    prompts = [encode(model, p.prompt) for p in problems]
    parts = [
        [
            x.sum()
            for x in token_logprobs(
                model, prompts, [encode(model, f"{both[p.id][i]} END") for p in problems]
            )
        ]
        for i in (0, 1)
    ]
    np.testing.assert_allclose(gold_logprobs(model, task, problems), parts[0], atol=1e-6)
    summed = gold_logprobs(model, task, problems, traces=lambda p: both[p.id])
    np.testing.assert_allclose(np.exp(summed), np.exp(parts[0]) + np.exp(parts[1]), rtol=1e-5)
    with pytest.raises(Refusal, match="not distinct"):
        gold_logprobs(model, task, problems, traces=lambda p: [task.gold(p)] * 2)
    with pytest.raises(Refusal, match="no valid answer"):
        gold_logprobs(model, task, problems, traces=lambda p: [f"ans {p.answer}"])


def _first(task, problem):
    return task.gold(problem).split()[2]


def test_kl_is_summed_in_float64_and_in_blocks_whatever_the_vocabulary(monkeypatch):
    """In float32 the KL of these two is off by a tenth; scipy's is the reference."""
    rng = np.random.default_rng(0)
    p = torch.tensor(rng.normal(0, 4, (7, 5000)), dtype=torch.float32)
    q = p + torch.tensor(rng.normal(0, 1e-4, p.shape), dtype=torch.float32)
    wanted = [
        entropy(special.softmax(a.numpy().astype(float)), special.softmax(b.numpy().astype(float)))
        for a, b in zip(p, q, strict=True)
    ]
    monkeypatch.setattr(kl, "CELLS", 5000 * 2 + 1)
    np.testing.assert_allclose(token_kl(p, q).numpy(), wanted, rtol=1e-6, atol=0)
    tokens = torch.zeros(7, dtype=torch.long)
    np.testing.assert_allclose(compare(p, q, tokens).kl[0], wanted, rtol=1e-6, atol=0)


def test_a_token_that_cannot_come_adds_nothing():
    """Real models pad their vocabulary with logits of minus infinity."""
    p, q = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    padded = [torch.cat([x, torch.tensor([[-torch.inf]])], 1) for x in (p, q)]
    assert float(token_kl(*padded)) == pytest.approx(float(token_kl(p, q)), abs=1e-12)
    assert float(token_kl(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, -torch.inf]]))) == np.inf


def test_ranks_count_the_likelier_tokens():
    p, q = torch.tensor([[3.0, 2.0, 1.0, 0.0]] * 2), torch.tensor([[0.0, 1.0, 2.0, 3.0]] * 2)
    found = compare(p, q, torch.tensor([0, 2]))
    assert found.rank.tolist() == [[0, 2], [3, 1]]
    assert found.top.tolist() == [[3, 3], [3, 3]]
    assert found.logprob[0, 0] == pytest.approx(math.log(special.softmax([3, 2, 1, 0])[0]))
    q = torch.tensor([[0.0, 3.0, 2.0, 1.0]])  # finds p's first last; p finds its first second
    assert compare(p[:1], q, torch.tensor([0])).top.tolist() == [[3], [1]]
    assert compare(p, p, torch.tensor([0, 2])).top.tolist() == [[0, 0], [0, 0]]


def test_the_choice_is_the_kl_between_options_and_the_rest_is_within():
    """The chain rule of KL, both terms written out from the probabilities."""
    rng = np.random.default_rng(1)
    p, q = (special.softmax(rng.normal(0, 2, 6)) for _ in range(2))
    group = np.array([1, 1, 2, 0, 2, 2])
    between = within = 0.0
    for g in (0, 1, 2):
        a, b = p[group == g], q[group == g]
        between += a.sum() * math.log(a.sum() / b.sum())
        within += a.sum() * entropy(a, b)
    logits = [torch.tensor(np.log([x, x])) for x in (p, q)]
    tokens, kinds = torch.tensor([0, 0]), torch.tensor([0, -1])
    found = compare(*logits, tokens, torch.tensor(group)[None], kinds)
    assert found.choice[0].tolist() == pytest.approx([between, 0])
    assert found.kl[0, 0] - found.choice[0, 0] == pytest.approx(within)
    assert (found.kl >= found.choice).all()


def test_every_word_of_a_chain_has_its_place(task):
    problem = task.problem(9, ["b1", "n0"], "n")
    words = "b1 = 18 ? 18 ok ; n0 = 21 ? 2 no = 2 ; ans 2 END".split()  # noqa: SIM905
    wanted = "jump double value check claim verdict grammar jump grammar value check claim verdict"
    wanted += " repair|repaired value|grammar|grammar|answer|end"
    first, *rest = wanted.split("|")
    assert places(task, problem, words) == [*first.split(), *rest]
    assert places(task, problem, ["b1", "b1", "b1", "?"])[2:] == ["other", "other"]


TRACE = """
try 9 + 4 = 13 left 7 13 to 19 ; back left 4 7 9 to 19 ; go
try by - 9 need 28 ? 28 left 4 7 to 28 ; go ans ( 7 * 4 ) - 9 ? 19 . END
"""


def test_every_word_of_a_countdown_has_its_place():
    task = load_task("countdown")
    problem = task.problem([4, 7, 9], 19)
    words = TRACE.split()
    at = places(task, problem, words)

    def of(place):
        return " ".join(w for w, p in zip(words, at, strict=True) if p == place)

    assert at[:4] == ["search", "backward", "operation", "operation"]
    assert of("value") == "13 28"
    assert of("claim") == "28 19"
    assert of("answer") == "( 7 * 4 ) - 9"
    assert of("state") == "7 13 19 4 7 9 19 4 7 28"
    assert "other" not in at


@pytest.fixture(scope="module")
def along(pair, task):
    """Rollouts of a pair of random models, and the two along them."""
    problems = task.problems("test", 4, skill="n")
    prompts = [encode(pair[0], one.prompt) for one in problems]
    requests = [Request(a.id, 0, b, 14) for a, b in zip(problems, prompts, strict=True)]
    rollouts = generate(pair[0], requests, Decoding(stop=(pair[0].tokenizer.eos_token_id,)))
    return problems, prompts, rollouts, divergences(*pair, task, problems, rollouts, batch=2)


def test_a_rollout_is_compared_where_its_tokens_were_chosen(pair, task, along):
    """Against one uncached pass a rollout, its decisions found in the finished text."""
    for problem, prompt, rollout, parted in zip(*along, strict=True):
        text = torch.tensor([[*prompt, *rollout.tokens]])
        one, other = (m.net(text).logits[0, len(prompt) - 1 : -1].softmax(-1) for m in pair)
        np.testing.assert_allclose(parted.of.kl[0], (one * (one / other).log()).sum(-1), atol=1e-4)
        np.testing.assert_allclose(
            parted.of.kl[1], (other * (other / one).log()).sum(-1), atol=1e-4
        )
        np.testing.assert_allclose(parted.of.logprob[0], rollout.logprobs, atol=1e-5)
        apart = (one.argmax(-1) != other.argmax(-1)).tolist()
        assert parted.first == (apart.index(True) if True in apart else None)
        words = pair[0].tokenizer.convert_ids_to_tokens(list(rollout.tokens))
        at = {d.position: d.kind for d in decisions(task, problem, " ".join(words))}
        assert [p if d else None for p, d in zip(parted.places, parted.decides, strict=True)] == [
            at.get(i) for i in range(len(words))
        ]


def test_a_model_and_itself_never_part(pair, task, along):
    problems, _, rollouts, _ = along
    same = divergences(pair[0], pair[0], task, problems, rollouts)
    for parted in same:
        assert not parted.of.kl.any()
        assert not parted.of.choice.any()
        assert parted.first is None
    assert str(mean_kl(same)) == "0.00 [0.00, 0.00]"
    assert first_parting(same, "").value == 1


def test_the_kl_of_all_places_is_the_kl_of_the_texts(task, along):
    """Each nat is counted at one place: decisions' choices, words, and what executes."""
    parted = along[-1]
    for way in (0, 1):
        shares = [kl_share(parted, p, way=way) for p in (*task.decision_kinds, *EXECUTION)]
        assert sum(s.value for s in shares if s.defined) == pytest.approx(1)
    assert sum(x.of.choice[0].sum() for x in parted) > 0
    assert sum(x.of.kl[0].sum() - x.of.choice[0].sum() for x in parted) > 0


def made(problem, kl_values, at, top=None, rank=None):
    """A rollout with these numbers at these places."""
    """`top` holds the ranks that the second gives to the first's likeliest tokens."""
    table = np.array([kl_values, np.zeros(len(at))], dtype=float)
    none = np.zeros((2, len(at)), dtype=int)
    given = none if top is None else np.array([top, np.zeros_like(top)])
    ranks = none if rank is None else np.array([rank, rank])
    decides = tuple(p == "check" for p in at)
    of = Compared(table, table * np.array(decides) / 2, none.astype(float), ranks, given)
    return Parted(problem, 0, ("w",) * len(at), tuple(at), decides, of)


def test_a_mean_is_of_tokens_and_its_interval_over_problems():
    at = ("check", "value", "value")
    parted = [made(f"p{i}", (2.0 * i, 1.0, 3.0), at) for i in range(12) for _ in range(2)]
    found = mean_kl(parted, "decision")
    assert found.value == pytest.approx(np.mean([2.0 * i for i in range(12)]))
    assert found.n == 12
    assert found.low < found.value < found.high
    assert mean_kl(parted, "check").value == pytest.approx(found.value / 2)
    assert mean_kl(parted, "word").value == pytest.approx(found.value / 2)
    assert mean_kl(parted, "execution").value == pytest.approx(2)
    assert mean_kl(parted, way=1).value == 0
    assert kl_share(parted, "value").value == pytest.approx(4 / (4 + 11))
    assert not mean_kl(parted[:2], "check").defined
    assert not mean_kl(parted, "claim").defined


def test_the_first_parting_and_the_ranks_are_counted_by_hand():
    at = ("check", "value", "end")
    parted = [made(f"p{i}", (0, 0, 0), at, (0, i % 2, 5), (0, 1, 3)) for i in range(40)]
    assert first_parting(parted, "value").value == 0.5
    assert first_parting(parted, "end").value == 0.5
    assert first_parting(parted, "").value == 0
    assert [parted_by(parted, n).value for n in (1, 2, 3)] == [0, 0.5, 1]
    shares = [rank_share(parted, r, of=0).value for r in RANKS]
    assert shares == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    assert rank_share(parted, "5+", of=1, top=True).value == pytest.approx(1 / 3)
    assert rank_share(parted, "0", of=0, top=True).value == 1
    assert rank_share(parted, "1", of=1, place="value").value == 1


def test_what_never_happened_has_an_exact_interval():
    """A bootstrap of zeros has no width: 40 problems without one leave up to 8.8% possible."""
    parted = [made(f"p{i}", (0, 0), ("check", "end"), (0, 0)) for i in range(40)]
    found = first_parting(parted, "check")
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(beta.ppf(0.975, 1, 40))
    assert rank_share(parted, "0", of=0).low == pytest.approx(beta.ppf(0.025, 40, 1))


def test_shuffled_within_rollouts_kl_has_no_place():
    at = ("check", *["value"] * 4)
    parted = [made(f"p{i}", (5, 0, 0, 0, 0), at) for i in range(40)]
    assert mean_kl(parted, "value").value == 0
    for place in ("", "value", "decision", "execution"):
        assert mean_kl(parted, place, shuffled=True).value == pytest.approx(1)


def test_the_null_of_a_place_is_the_mean_over_every_order_of_what_the_place_counts():
    """A choice among choices, a word among words, a token among tokens; orders written out."""
    rng, parted = np.random.default_rng(0), []
    for i, at in enumerate(itertools.permutations(("check", "jump", "value", "end"))):
        decides = tuple(p in ("check", "jump") for p in at)
        kl = rng.random((2, 4))
        choice = kl * rng.random((2, 4)) * np.array(decides)
        none = np.zeros((2, 4), dtype=int)
        of = Compared(kl, choice, none.astype(float), none, none)
        parted.append(Parted(f"p{i}", 0, ("w",) * 4, at, decides, of))
    for way in (0, 1):
        wanted = {place: [] for place in ("check", "word", "value", "decision")}
        for one in parted:
            kl, choice = one.of.kl[way], one.of.choice[way]
            deciding = np.flatnonzero(one.decides)
            for order in map(list, itertools.permutations(range(4))):
                wanted["value"].append(kl[order][one.places.index("value")])
                wanted["decision"] += list(kl[order][deciding])
                wanted["word"] += list((kl - choice)[order][deciding])
            for order in map(list, itertools.permutations(deciding)):
                at = [one.places[j] for j in deciding].index("check")
                wanted["check"].append(choice[order][at])
        for place, values in wanted.items():
            found = mean_kl(parted, place, way=way, shuffled=True)
            assert found.value == pytest.approx(np.mean(values)), place


def test_the_null_of_a_lone_kind_of_choice_is_its_own_mean():
    """Whole KL there would make any choice look small."""
    parted = [made(f"p{i}", (2, 9), ("check", "value")) for i in range(4)]
    assert mean_kl(parted, "check", shuffled=True).value == mean_kl(parted, "check").value == 1


def test_a_rollout_of_another_problem_or_of_other_words_is_refused(pair, task, along):
    problems, _, rollouts, _ = along
    with pytest.raises(Refusal, match="are not given"):
        divergences(*pair, task, problems[1:], rollouts)
    with pytest.raises(Refusal, match="tokenizer"):
        divergences(pair[0], tiny(["a", "b", "END"], 0), task, problems, rollouts)
