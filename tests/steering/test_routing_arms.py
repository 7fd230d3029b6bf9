"""The arms of a hybrid, what they recover, and what they were told: by hand, and by law."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from probes.capture import Text
from probes.divergence import Parted
from probes.divergence.kl import Compared
from probes.generate import Decoding, Request, generate
from probes.intervals import recovered
from probes.models import Model, new_llama, new_tokenizer
from probes.records import Refusal
from probes.tasks import load_task
from probes.taxonomy.record import Taxonomy
from steering.routing import running
from steering.routing.arms import (
    DRAWS,
    FULL,
    Arm,
    Parts,
    make_arms,
    run_arm,
    shares,
)
from steering.routing.hybrid import BASE, FIELDS, STEERED, Hybrid, Pushes
from steering.routing.learnt import cuts, fit_gate, greedy_texts
from steering.routing.parting import kl_as_decisions
from steering.routing.recovery import costs, recovery, share_of_gap
from steering.routing.reference import reading
from steering.routing.routers import Gated, Steer, every
from steering.routing.running import run_arms
from steering.vectors.controls import mean_vector, norm_matched, only
from steering.vectors.record import Vectors

SITE = "blocks.0.hook_resid_post"


@pytest.fixture(scope="module")
def task():
    return load_task("chain")


def tiny(task, seed):
    tokenizer = new_tokenizer(task.vocabulary())
    net = new_llama(len(tokenizer), width=32, depth=2, heads=4, mlp=32, context=64, seed=seed)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if weight.ndim == 2 and "embed" not in name:
                weight.mul_(20)  # else the tied embeddings have every model repeat its last token
    return Model(net.requires_grad_(False), tokenizer, f"tiny-{seed}", digest=f"digest {seed}")


@pytest.fixture(scope="module")
def base(task):
    return tiny(task, 0)


@pytest.fixture(scope="module")
def tuned(task):
    return tiny(task, 1)


@pytest.fixture(scope="module")
def problems(task):
    kinds = [("n", "touched"), ("a", "")]
    return [p for skill, part in kinds for p in task.problems("test", 2, skill=skill, part=part)]


def made(kinds=3, bias=None, **about):
    draw = torch.Generator().manual_seed(3)
    rows, lines = (torch.randn(kinds, 32, generator=draw) for _ in range(2))
    names, zero = tuple("abc"[:kinds]), torch.zeros(32)
    unit = rows / rows.norm(dim=1, keepdim=True)
    taxonomy = Taxonomy(SITE, zero, rows, torch.zeros(kinds), unit, zero, 1, names, "", "", "t")
    factors, counts = torch.arange(1.0, kinds + 1), tuple(range(1, kinds + 1))
    form = "current" if bias is None else "first"
    vectors = Vectors(SITE, lines, factors, bias, names, form, 99, "", "", "t", "", counts)
    return Parts(taxonomy, replace(vectors, **about), thresholds=(0.5,), guardrail=2)


@pytest.fixture(scope="module")
def done(base, tuned, task, problems):
    return run_arms(base, tuned, task, problems, made(), batch=4)


def by_name(done):
    return {one.arm.name: one for one in done}


def texts(one):
    return [r.tokens for r in one.judged.rollouts]


# ------------------------------------------------------------------ the arms


def test_all_arms_are_there_and_those_that_do_not_exist_say_why(done):
    found = by_name(done)
    assert list(found)[:3] == ["base", "tuned", FULL]
    undefined = {name: one.arm.undefined for name, one in found.items() if one.judged is None}
    assert set(undefined) == {
        "bias only",
        "probe prompt",
        "absent-skill vectors",
        "absent-skill candidates",
    }
    assert "no bias" in undefined["bias only"]
    assert {
        "shared vector",
        "unconditional vector",
        "random vectors",
        "random candidates",
        "random category",
        "random position",
        "guardrail",
        "substitution",
        "tuned at KL > 0.5",
        "as many tokens as tuned at KL > 0.5",
        "base at KL > 0.5",
        "steered at KL > 0.5",
        "tuned at decisions",
        "base at decisions",
    } < set(found)
    assert texts(found["substitution"]) == texts(found["tuned"])
    assert texts(found[FULL]) not in (texts(found["base"]), texts(found["tuned"]))


def test_given_bias_prompt_and_other_vectors_there_are_such_arms(base, tuned, task, problems):
    parts = made(bias=torch.ones(32))
    alone = only(parts.vectors, 2)
    other = replace(parts.vectors, tuned="another")
    parts = replace(parts, absent=other, shared=alone, prompt="KEY", thresholds=())
    arms = {arm.name: arm for arm in make_arms(base, tuned, task, problems, parts)}
    assert not [name for name, arm in arms.items() if arm.undefined]
    bias = Pushes(arms["bias only"].vectors).lines
    assert torch.equal(bias, torch.ones(3, 32))
    assert torch.equal(Pushes(arms["shared vector"].vectors).lines, Pushes(alone).lines)
    assert arms["absent-skill vectors"].candidates == 1  # one by chance, whatever the category
    assert arms["absent-skill candidates"].candidates == 3  # the best of them
    assert arms["unconditional vector"].vectors is not None
    at_all = replace(alone, vectors=2 * alone.vectors)
    more = make_arms(base, tuned, task, problems, replace(parts, everywhere=at_all))
    pushed = {arm.name: arm.vectors for arm in more}
    assert torch.equal(Pushes(pushed["unconditional vector"]).lines, Pushes(at_all).lines)
    assert torch.equal(Pushes(pushed["shared vector"]).lines, Pushes(alone).lines)
    same = replace(other, tuned="tuned")
    with pytest.raises(Refusal, match="towards the tuned model itself"):
        make_arms(
            *(base, tuned, task, problems),
            replace(parts, absent=same, vectors=replace(parts.vectors, tuned="tuned")),
        )
    with pytest.raises(Refusal, match="has 3 vectors"):
        make_arms(base, tuned, task, problems, replace(parts, shared=parts.vectors))
    some = [problems[0]]
    key, _ = run_arm(arms["probe prompt"], base, tuned, task, some, parts)
    prompt = base.tokenizer("KEY " + some[0].prompt)["input_ids"]
    asked = [Request(some[0].id, 0, tuple(prompt), task.budget(some[0]))]
    alone = generate(base, asked, Decoding(0, stop=(base.tokenizer.eos_token_id,)))
    assert [r.tokens for r in key.rollouts] == [alone[0].tokens]
    many = make_arms(base, tuned, task, problems, replace(parts, coefficients=(0.5, 1.0)))
    assert {a.name: a.candidates for a in many}[FULL] == 6
    assert {a.name: a.candidates for a in many}["random category"] == 2
    several = make_arms(base, tuned, task, problems, replace(parts, windows=(-1, -2)))
    assert {a.name: a.candidates for a in several}["windows -1 -2"] == 6


def test_a_random_place_is_steered_as_often_as_its_problem_was(done, problems):
    found = by_name(done)
    rates = shares(found[FULL].answers)
    assert set(rates) == {p.id for p in problems}
    table = np.concatenate(list(found[FULL].answers.values()))
    apart = table[:, FIELDS.index("base_top")] != table[:, FIELDS.index("tuned_top")]
    assert np.array_equal(apart, table[:, FIELDS.index("chooser")] == STEERED)
    null = shares(found["random position"].answers)
    for problem, rate in rates.items():
        assert null[problem] == pytest.approx(rate, abs=0.45)
    assert np.mean(list(null.values())) == pytest.approx(np.mean(list(rates.values())), abs=0.2)


def test_random_vectors_are_as_long_as_the_pushes_and_the_mean_is_the_mean():
    vectors = made(bias=2 * torch.ones(32)).vectors
    lines = Pushes(vectors).lines
    null = norm_matched(vectors, seed=1, repeat=2)
    drawn = Pushes(null).lines
    assert torch.allclose(drawn.norm(dim=1), lines.norm(dim=1).repeat_interleave(2), rtol=1e-5)
    cosines = torch.nn.functional.cosine_similarity(drawn, lines.repeat_interleave(2, 0))
    assert cosines.abs().max() < 0.6
    assert not torch.equal(drawn, Pushes(norm_matched(vectors, seed=2, repeat=2)).lines)
    mean = Pushes(mean_vector(vectors)).lines
    assert torch.allclose(mean[0], (1 * lines[0] + 2 * lines[1] + 3 * lines[2]) / 6, atol=1e-5)


def test_a_coefficient_network_reads_the_residual_of_its_row():
    draw = torch.Generator().manual_seed(0)
    shapes = {"trunk": (5, 32), "trunk_bias": (5,), "heads": (3, 5), "heads_bias": (3,)}
    network = {name: torch.randn(*shape, generator=draw) for name, shape in shapes.items()}
    vectors = made(network=network).vectors
    x = torch.randn(2, 32, generator=draw)
    kinds, sizes = torch.tensor([[0, 2], [1, 1]]), torch.tensor([[1.0, 0.5], [1.0, 2.0]])
    found = Pushes(vectors)(kinds, sizes, x)
    for i in range(2):
        for j in range(2):
            one = vectors.pushes(kinds[i, j : j + 1], float(sizes[i, j]), x[i : i + 1])
            assert torch.allclose(found[i, j], one[0], atol=1e-5)


def networked(seed=0):
    draw = torch.Generator().manual_seed(seed)
    shapes = {"trunk": (5, 32), "trunk_bias": (5,), "heads": (3, 5), "heads_bias": (3,)}
    network = {n: 9 * torch.randn(*shape, generator=draw) for n, shape in shapes.items()}
    return made(network=network, coefficients=torch.ones(3))


def test_random_vectors_of_a_coefficient_network_are_as_long_at_every_residual():
    vectors = networked().vectors
    x = torch.randn(40, 32, generator=torch.Generator().manual_seed(1))
    kinds = torch.arange(40)[:, None] % 3
    real = Pushes(vectors)(kinds, torch.ones(40, 1), x).norm(dim=-1)
    null = Pushes(norm_matched(vectors, seed=1, repeat=4))(kinds * 4 + 2, torch.ones(40, 1), x)
    assert real.max() > 20  # the factors are far from 1
    assert torch.allclose(null.norm(dim=-1), real, rtol=1e-4)
    alone = Pushes(only(vectors, 2))(torch.zeros(40, 1, dtype=torch.long), torch.ones(40, 1), x)
    assert torch.allclose(alone, Pushes(vectors)(torch.full((40, 1), 2), torch.ones(40, 1), x))


def test_a_network_has_no_mean_push(base, tuned, task, problems):
    arms = {arm.name: arm for arm in make_arms(base, tuned, task, problems, networked())}
    for name in ("shared vector", "unconditional vector"):
        assert "no mean push" in arms[name].undefined


def test_a_random_place_is_pushed_whatever_category_is_read_there(base, tuned, task, problems):
    parts = replace(made(), thresholds=())
    dead = replace(parts.vectors, vectors=parts.vectors.vectors * torch.tensor([[1.0], [0], [0]]))
    parts = replace(parts, vectors=dead)
    arms = {arm.name: arm for arm in make_arms(base, tuned, task, problems, parts)}
    always = {p.id: 1.0 for p in problems}
    _, answers = run_arm(arms["random position"], base, tuned, task, problems, parts, shares=always)
    table = np.concatenate(list(answers.values()))
    assert (table[:, FIELDS.index("chooser")] == STEERED).all()
    assert (table[:, FIELDS.index("category")] == 0).all()


def test_a_problem_keeps_its_draw_of_the_directions(done):
    for name in ("random vectors", "random candidates"):
        draws = {}
        for (problem, _, _), table in by_name(done)[name].answers.items():
            lines = table[table[:, FIELDS.index("category")] >= 0][:, FIELDS.index("category")]
            draws.setdefault(problem, set()).update((lines % DRAWS).tolist())
        assert all(len(of_it) == 1 for of_it in draws.values() if of_it)
        assert len(set.union(*draws.values())) > 1


def test_who_decides_above_and_who_executes_below_are_crossed(base, tuned, task, problems, done):
    found = by_name(run_arms(base, tuned, task, problems, replace(made(), thresholds=(-1.0, 99.0))))
    plain = {name: texts(by_name(done)[name]) for name in ("base", "tuned")}
    assert texts(found["tuned at KL > -1"]) == texts(found["base at KL > 99"]) == plain["tuned"]
    assert texts(found["base at KL > -1"]) == texts(found["tuned at KL > 99"]) == plain["base"]
    assert texts(found["steered at KL > 99"]) == plain["base"]
    assert texts(found["steered at KL > -1"]) != plain["base"]
    middle = np.concatenate(
        [a[:, FIELDS.index("kl")] for a in by_name(done)[FULL].answers.values()]
    )
    cut = float(f"{np.median(middle):.2g}")
    found = by_name(run_arms(base, tuned, task, problems, replace(made(), thresholds=(cut,))))
    for name, sign in (("tuned", 1), ("base", -1)):
        table = np.concatenate(list(found[f"{name} at KL > {cut:g}"].answers.values()))
        above = table[:, FIELDS.index("kl")] > cut
        assert 0 < above.mean() < 1
        assert np.array_equal(table[:, FIELDS.index("chooser")] == BASE, above == (sign < 0))


def test_the_base_is_steered_where_it_is_unsure(base, tuned, task, problems, done):
    parts = replace(made(), thresholds=(), entropies=(0.0, 99.0))
    found = by_name(run_arms(base, tuned, task, problems, parts))
    plain = {name: texts(by_name(done)[name]) for name in ("base", "tuned")}
    assert texts(found["tuned at entropy > 0"]) == texts(found["base at entropy > 99"])
    assert texts(found["base at entropy > 99"]) == plain["tuned"] != plain["base"]
    assert texts(found["tuned at entropy > 99"]) == texts(found["base at entropy > 0"])
    assert texts(found["base at entropy > 0"]) == plain["base"]
    assert not found["steered at entropy > 0"].arm.gated  # the base itself says where
    assert texts(found["steered at entropy > 99"]) == texts(by_name(done)["base"])
    assert texts(found["steered at entropy > 0"]) != texts(by_name(done)["base"])


@pytest.mark.parametrize(
    ("given", "decoding", "why"),
    [
        ({"prompt": "step by step"}, Decoding(0), "vocabulary"),
        ({"windows": (-2,)}, Decoding(1.0), "greedy"),
    ],
    ids=["words that the tokenizer lacks", "a window at a temperature"],
)
def test_what_can_never_work_is_refused_before_the_first_arm(
    base, tuned, task, problems, tmp_path, given, decoding, why
):
    with pytest.raises(Refusal, match=why):
        parts = replace(made(), **given)
        run_arms(base, tuned, task, problems, parts, folder=tmp_path / "arms", decoding=decoding)
    assert not (tmp_path / "arms").exists()


# ------------------------------------------------------------------ resuming


def test_an_interrupted_run_is_the_uninterrupted_one(
    base, tuned, task, problems, done, tmp_path, monkeypatch
):
    class Stop(Exception):
        pass

    finished = []
    real = running.run_arm

    def until(arm, *args, **how):
        if len(finished) == 5:
            raise Stop
        finished.append(arm.name)
        return real(arm, *args, **how)

    monkeypatch.setattr(running, "run_arm", until)
    with pytest.raises(Stop):
        run_arms(base, tuned, task, problems, made(), folder=tmp_path / "arms", batch=3)
    assert not [p for p in (tmp_path / "arms").iterdir() if p.suffix != ".parquet"]
    seen = []
    monkeypatch.setattr(
        running, "run_arm", lambda arm, *a, **h: seen.append(arm.name) or real(arm, *a, **h)
    )
    again = run_arms(base, tuned, task, problems, made(), folder=tmp_path / "arms", batch=4)
    assert not set(seen) & set(finished)
    for one, other in zip(again, done, strict=True):
        assert one.arm.name == other.arm.name
        if one.judged is not None:
            assert texts(one) == texts(other)
            assert one.judged.graded == other.judged.graded
        for key, table in other.answers.items():
            assert one.answers[key] == pytest.approx(table, abs=1e-4, nan_ok=True)
    with pytest.raises(Refusal, match="an arm of another run"):
        other = replace(made(), guardrail=3)
        run_arms(base, tuned, task, problems, other, folder=tmp_path / "arms")


def test_several_greedy_samples_are_refused(base, tuned, task, problems):
    with pytest.raises(Refusal, match="the same answer 2 times"):
        run_arms(base, tuned, task, problems, made(), samples=2)


# ------------------------------------------------------------------ the numbers


def test_the_share_of_the_gap_is_signed_and_neither_clipped_nor_absolute():
    base, tuned = np.repeat([0.1, 0.2], 20), np.repeat([0.5, 0.6], 20)
    for planted, share in ((0.2, 0.5), (-0.1, -0.25), (0.6, 1.5)):
        found = share_of_gap(np.clip(base + planted, 0, 1), base, tuned)
        assert found.value == pytest.approx(share)
        assert found.low <= found.value + 1e-9
        assert found.value <= found.high + 1e-9
    turned = share_of_gap(base + 0.3, tuned, base)  # a copy that tuning made worse
    assert turned.value == pytest.approx(0.25)
    worse = share_of_gap(np.clip(tuned + 0.2, 0, 1), tuned, base)
    assert worse.value < 0


def test_a_gap_of_nothing_has_no_share():
    random = np.random.default_rng(0)
    same = random.integers(0, 2, 40).astype(float)
    for tuned in (same, np.r_[1 - same[:2], same[2:]]):
        found = share_of_gap(random.random(40).round(), same, tuned)
        assert not found.defined
        assert "not told from 0" in found.reason
    few = np.r_[np.ones(5), np.zeros(35)]  # a bootstrap of five problems thinks it knows
    assert recovered(few, np.zeros(40), few).defined
    assert not share_of_gap(few, np.zeros(40), few).defined


def test_a_gap_that_comes_near_nothing_is_not_divided_by():
    base, reasons, values = np.r_[np.ones(8), np.zeros(52)], [], np.r_[np.zeros(30), np.ones(30)]
    for solved in range(8, 40):
        tuned = np.r_[np.zeros(8), np.ones(solved), np.zeros(52 - solved)]
        found = share_of_gap(values, base, tuned)
        reasons.append(found.reason.split(", ")[-1] if not found.defined else "")
        if found.defined:
            assert found.high - found.low < 30
    assert {"not told from 0", "too near 0 to be divided by", ""} <= set(reasons)


def test_an_arm_that_differs_nowhere_is_not_known_to_recover_exactly_nothing():
    base, tuned = np.zeros(40), np.repeat([0.0, 1.0], 20)
    found = share_of_gap(base, base, tuned)
    assert found.value == 0
    assert found.low < -0.05
    assert found.high > 0.05
    one = base.copy()
    one[0] = 1.0
    assert share_of_gap(one, base, tuned).low < 0 < share_of_gap(one, base, tuned).value


def planted(counts):
    """Answers with so many (steered, disagreeing, all) tokens a problem."""
    answers = {}
    for i, (steered, apart, total) in enumerate(counts):
        table = np.zeros((total, len(FIELDS)))
        table[:steered, FIELDS.index("chooser")] = STEERED
        table[:apart, FIELDS.index("base_top")] = 1
        answers[f"p{i}", 0, FULL] = table
    return answers


class Asked:
    def __init__(self, name):
        self.id = name


def test_bits_and_shares_are_those_by_hand():
    answers = planted([(2, 3, 8), (1, 3, 8), (1, 2, 4)] * 5)
    asked = [Asked(f"p{i}") for i in range(15)]
    steered, h = 4 / 20, -(0.2 * math.log2(0.2) + 0.8 * math.log2(0.8))
    for gated in (True, False):
        arm = Arm(FULL, candidates=8, gated=gated)
        found = dict(costs.__wrapped__(arm, answers, asked))
        assert found["steered share"].value == pytest.approx(steered)
        assert found["disagreement rate"].value == pytest.approx(8 / 20)
        assert found["oracle bits"].value == pytest.approx(steered * 3 + gated * h)
        assert found["oracle bits, steered token"].value == 3 + gated
        assert found["steered share"].low < steered < found["steered share"].high
    none = dict(
        costs.__wrapped__(
            Arm(FULL, candidates=8, gated=True), planted([(0, 0, 9)] * 12), asked[:12]
        )
    )
    assert none["steered share"].value == 0
    assert none["steered share"].high > 0.1
    assert none["oracle bits"].value == 0
    assert "no token is steered" in none["oracle bits, steered token"].reason


def test_rows_are_of_every_arm_skill_and_part_and_pooled(done, problems):
    rows = recovery(done, pair="a pair")
    assert {r.model for r in rows} == {"a pair"}
    cells = {(r.skill, r.part) for r in rows}
    assert cells == {("", ""), ("", "touched"), ("n", "touched"), ("a", "")}
    for cell in cells:
        arms = {r.setting for r in rows if (r.skill, r.part, r.measure) == (*cell, "valid")}
        assert arms == {one.arm.name for one in done}
    fitted = {r.setting: r.value for r in rows if r.measure == "fitted parameters"}
    assert fitted[FULL] == 99
    assert fitted["random vectors"] == 0
    undefined = [r for r in rows if r.setting == "bias only" and r.measure == "recovered valid"]
    assert all(math.isnan(r.value) and "no bias" in r.note for r in undefined)
    with pytest.raises(Refusal, match="no arm 'base'"):
        recovery(done[1:])


def test_a_model_with_itself_steers_nothing_and_has_no_gap(base, task, problems):
    rows = recovery(run_arms(base, base, task, problems[1:3], replace(made(), thresholds=())))
    pooled = [r for r in rows if r.measure == "steered share" and not r.skill + r.part]
    shares_of = {r.setting: r.value for r in pooled}
    everywhere = {"unconditional vector", "guardrail"}
    assert {name for name, value in shares_of.items() if value} == everywhere
    whole = [r for r in rows if r.measure == "recovered valid"]
    assert whole
    assert all(math.isnan(r.value) and r.note for r in whole)


# ------------------------------------------------------------------ a learnt gate, and KL


def test_a_linear_gate_opens_where_its_residual_says(base, task):
    tuned = noisy(task)
    some = task.problems("select", 12, skill="a")
    draw = np.random.default_rng(0)
    words = draw.integers(3, 60, (12, 15)).tolist()
    asked = [tuple(base.tokenizer(p.prompt)["input_ids"]) for p in some]
    text = [
        Text(str(i), 0, *both) for i, both in enumerate(zip(asked, map(tuple, words), strict=True))
    ]
    gate = fit_gate(base, tuned, text, SITE, of="base")
    assert gate.parameters == 33
    apart, scores = [], []
    for t in text:
        ids = torch.tensor([t.tokens])
        with reading(base, SITE) as read:
            ours = base.net(ids).logits[0]
        theirs = tuned.net(ids).logits[0]
        at = slice(len(t.prompt) - 1, len(t.tokens) - 1)
        apart.append((ours.argmax(-1) != theirs.argmax(-1))[at])
        scores.append((read[0][0] @ gate.weights + gate.bias)[at])
    apart, scores = torch.cat(apart).numpy(), torch.cat(scores).numpy()
    assert gate.rate == pytest.approx(apart.mean(), abs=0.02)
    assert (scores > 0).mean() == pytest.approx(gate.rate, abs=0.02)
    assert 0.05 < apart.mean() < 0.95  # or there is nothing to tell
    assert scores[apart].mean() > scores[~apart].mean()
    with pytest.raises(Refusal, match="agree at all"):
        fit_gate(base, base, text, SITE)
    vectors = made().vectors
    router = Gated(gate, Steer(every([0])))
    writer = Hybrid(base, tuned, router, Pushes(vectors), reads=[("base", SITE)])
    request = Request("x", 0, text[0].prompt, 8)
    (answer,) = generate(writer, [request], Decoding(0))
    ids = torch.tensor([[*text[0].prompt, *answer.tokens]])
    with reading(base, SITE) as read:
        base.net(ids)
    wanted = (read[0][0] @ gate.weights + gate.bias > 0)[len(text[0].prompt) - 1 : -1]
    chosen = writer.log.answers["x", 0, None][:, FIELDS.index("chooser")] != BASE
    assert chosen.tolist() == wanted.tolist()


def noisy(task, size=0.2):
    """Nearly the base."""
    tuned = tiny(task, 0)
    with torch.no_grad():
        torch.manual_seed(0)
        for weight in tuned.net.parameters():
            weight.add_(size * weight.abs().mean() * torch.randn_like(weight))
    return tuned


def test_kl_and_entropy_are_cut_where_they_are_exceeded_as_often_as_the_models_disagree(base, task):
    tuned = noisy(task, 0.05)
    with torch.no_grad():
        tuned.net.model.norm.weight.mul_(9)  # surer than the base: KL is not the same both ways
    given = greedy_texts(tuned, task, task.problems("select", 40, skill="a"), batch=16)
    kl, unsure = cuts(base, tuned, given, batch=16)
    apart, above, least = [], [], []
    for text in given:
        with torch.no_grad():
            p, q = (m.net(torch.tensor([text.tokens])).logits[0] for m in (tuned, base))
        at = slice(len(text.prompt) - 1, len(text.tokens) - 1)
        assert p.argmax(-1)[at].tolist() == list(text.answer)  # the tuned model's own, greedy
        apart.append((p.argmax(-1) != q.argmax(-1))[at])
        p, q = (torch.distributions.Categorical(logits=x.double()) for x in (p, q))
        divergence = torch.distributions.kl_divergence(p, q)
        above.append(torch.stack([divergence > kl, q.entropy() > unsure])[:, at])
        least.append(divergence[at])
    rate, rates = torch.cat(apart).double().mean(), torch.cat(above, 1).double().mean(1)
    assert kl == pytest.approx(float(torch.cat(least).quantile(1 - rate)), rel=1e-4)
    assert 0.05 < rate < 0.95
    assert rates.tolist() == pytest.approx([float(rate)] * 2, abs=0.01)
    assert (kl, unsure) == (float(f"{kl:g}"), float(f"{unsure:g}"))  # as arms are named
    with pytest.raises(Refusal, match="agree at all"):
        cuts(base, base, given)


def parted(problem, kl, decides):
    zero = np.zeros((2, len(kl)))
    of = Compared(np.stack([9 - np.array(kl), kl]), zero, zero, zero.astype(int), zero.astype(int))
    words = ("w",) * len(kl)
    return Parted(problem, 0, words, words, tuple(bool(d) for d in decides), of)


def test_kl_is_scored_against_the_known_decisions_by_hand():
    along = [parted(f"p{i}", [3.0, 1.0, 0.0, 2.0], [1, 0, 0, 1]) for i in range(12)]
    along += [parted(f"q{i}", [3.0, 0.5, 0.2], [0, 1, 0]) for i in range(12)]
    rows = {
        (r.measure, r.x): r for r in kl_as_decisions(along, (1.5, 99.0), setting="base's texts")
    }
    above, below = [3, 2, 0.5], [1, 0, 3, 0.2]  # each as often: KL of decisions, and of others
    wins = sum(a > b for a in above for b in below) + sum(a == b for a in above for b in below) / 2
    auc = next(r for (name, _), r in rows.items() if name == "kl auc")
    assert auc.value == pytest.approx(wins / 12)
    assert rows["kl precision", 1.5].value == pytest.approx(2 / 3)
    assert rows["kl recall", 1.5].value == pytest.approx(2 / 3)
    assert "no token lies above" in rows["kl precision", 99.0].note
    assert rows["kl recall", 1.5].low < 2 / 3 < rows["kl recall", 1.5].high
    with pytest.raises(Refusal, match="no step to read"):
        kl_as_decisions([parted("p", [], [])])
