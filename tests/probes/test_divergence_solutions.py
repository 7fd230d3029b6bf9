"""Solutions enumerated and what tuning changed about them, against counts and closed forms."""

import math
import random

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from probes.divergence import Solved, bits, coin_kl, solutions, token_logprobs
from probes.divergence.grammar import chain_words, countdown_words
from probes.models import Model, encode, new_llama, new_tokenizer
from probes.records import Refusal
from probes.tasks import END, load_task
from probes.tasks.chain import load as load_chain
from probes.tasks.countdown.expressions import outcomes

TINY = {
    "family": "chain",
    "modulus": 2,
    "seed": 1,
    "common": ["a"],
    "functions": {"a": 8},
    "skills": {"a": [1, 1]},
    "problems": {"depth": [1, 1], "budget": [0, 12], "splits": {"tune": 1, "select": 1, "test": 2}},
    "prompt": {"question": "Q", "key": "KEY", "drill": "INV"},
}


@pytest.fixture(scope="module")
def tiny():
    """A task of a few functions on two values, and two random models of it."""
    task = load_chain("tiny", TINY)
    return task, *(model(task, seed) for seed in (0, 1))


def model(task, seed):
    tokenizer = new_tokenizer(task.vocabulary())
    net = new_llama(len(tokenizer), width=16, depth=2, heads=2, mlp=16, context=64, seed=seed)
    with torch.no_grad():
        net.get_input_embeddings().weight.mul_(4)
    return Model(net.requires_grad_(False), tokenizer, f"tiny-{seed}")


def test_every_solution_of_one_function_is_found_and_its_probability_is_exact(tiny):
    """Right at once 1; checked: 2 claims said ok, 2 no, 2 no and repaired; wrong, repaired: 2."""
    task, one, other = tiny
    problem = task.problems("test", 1)[0]
    found = solutions(one, other, task, [problem], floor=1e-30)[0]
    assert len(found.texts) == len(set(found.texts)) == 9
    assert found.missing == (0, 0)
    assert all(task.check(problem, text).valid for text in found.texts)
    prompts = [encode(one, problem.prompt)] * 9
    tokens = [encode(one, f"{text} {END}") for text in found.texts]
    for each, logprob in zip((one, other), found.logprob, strict=True):
        wanted = [x.sum() for x in token_logprobs(each, prompts, tokens)]
        np.testing.assert_allclose(logprob, wanted, atol=1e-5)


def test_what_is_given_up_bounds_what_is_missing(tiny):
    task, one, other = tiny
    problems = task.problems("test", 3)
    whole = solutions(one, other, task, problems, floor=1e-30)
    for floor in (1e-12, 1e-9, 1e-7, 1e-5):
        part = solutions(one, other, task, problems, floor=floor)
        for all_of_it, some in zip(whole, part, strict=True):
            assert set(some.texts) <= set(all_of_it.texts)
            for i in (0, 1):
                mass, listed = (np.exp(x.logprob[i]).sum() for x in (all_of_it, some))
                assert listed <= mass * (1 + 1e-6)
                assert mass <= (listed + some.missing[i]) * (1 + 1e-6)
    assert len(part[0].texts) < len(whole[0].texts)  # else the bound was never needed


def accepted(words_after, task, problem, words):
    """Whether a grammar leads to all these words."""
    return all(w in words_after(task, problem, words[:i]) for i, w in enumerate(words))


def test_the_grammar_of_chain_accepts_exactly_what_the_checker_calls_valid():
    """Random solutions, and the same with words exchanged, left out and put in."""
    task, draw = load_task("chain"), random.Random(0)
    problems = task.problems("test", 12)
    words_of_it = [w for w in task.vocabulary() if w not in (END, "Q", "KEY", "INV", ">")]
    seen = {True: 0, False: 0}
    for _ in range(120):
        problem, words = draw.choice(problems), []
        while words[-1:] != [END]:
            choices = chain_words(task, problem, words)
            if not choices:
                break  # it spent its budget on checks
            likely = [w for w in choices if not w.isdecimal()] or choices
            truth = [w for w in choices if w == problem.answer]
            words.append(draw.choice(truth or likely))
        if words[-1:] != [END]:
            continue
        words = words[:-1]
        assert task.check(problem, " ".join(words)).valid
        for _ in range(3):
            changed, at = list(words), draw.randrange(len(words))
            kind = draw.choice(["change", "drop", "add", "value"])
            numbers = [i for i, w in enumerate(words) if w.isdecimal()]
            if kind == "value":
                changed[draw.choice(numbers)] = str(draw.randrange(31))
            elif kind == "drop":
                del changed[at]
            else:
                changed[at : at + (kind == "change")] = [draw.choice(words_of_it)]
            valid = task.check(problem, " ".join(changed)).valid
            fits = len(changed) < task.budget(problem)
            assert accepted(chain_words, task, problem, [*changed, END]) == (valid and fits)
            seen[valid] += 1
    assert min(seen.values()) > 20


def test_the_solutions_of_countdown_are_the_right_expressions():
    """Counted by another enumeration: of values, not of texts. (The numbers are distinct.)"""
    task = load_task("countdown")
    for numbers, target in (([3, 5, 9], 17), ([2, 3, 4, 11], 20)):
        problem = task.problem(numbers, target)
        texts, front = [], [[]]
        while front:
            grown = [[*w, c] for w in front for c in countdown_words(task, problem, w)]
            texts += [w for w in grown if w[-1] == END]
            front = [w for w in grown if w[-1] != END]
        assert len(texts) == outcomes(tuple(numbers), task.rules)[target] > 0
        assert all(task.check(problem, " ".join(t)).valid for t in texts)


def test_a_task_whose_solutions_cannot_be_listed_is_refused(tiny):
    task, one, other = tiny
    other_family = load_chain("tiny", {**TINY, "family": "prose"})
    with pytest.raises(Refusal, match="can't be enumerated"):
        solutions(one, other, other_family, [])
    with pytest.raises(Refusal, match="floor"):
        solutions(one, other, task, [], floor=0.0)


def solved(base, tuned):
    table = np.log(np.array([base, tuned], dtype=float))
    return Solved("p", tuple(f"t{i}" for i in range(len(base))), table, (0.0, 0.0))


def test_a_model_and_itself_differ_by_no_bit():
    found = bits(solved([0.1, 0.2, 0.05], [0.1, 0.2, 0.05]))
    assert (found.selection, found.reshaping, found.gain) == (0, 0, 0)
    assert found.price == pytest.approx(math.log2(1 / 0.35))


@pytest.mark.parametrize("gain", [0.5, 2.0, 2.8])
def test_a_tilt_by_the_reward_is_selection_only(gain):
    base = np.array([0.1, 0.2, 0.05])
    found = bits(solved(base, base * gain))
    before, after = 0.35, 0.35 * gain
    assert found.reshaping == pytest.approx(0, abs=1e-12)
    by_hand = entropy([after, 1 - after], [before, 1 - before], base=2)
    assert found.selection == pytest.approx(by_hand)
    assert found.gain == pytest.approx(math.log2(gain))


def test_the_same_success_by_other_solutions_is_reshaping_only():
    found = bits(solved([0.2, 0.2], [0.4, 1e-300]))
    assert found.selection == pytest.approx(0, abs=1e-12)
    assert found.reshaping == pytest.approx(1)


def test_full_success_gives_the_two_terms_of_the_lemma():
    """RL's Razor, lemma A.1: KL(q || base) = log 1/base(S) + KL(q || base(.|S))."""
    base, tuned = np.array([0.02, 0.1, 0.03]), np.array([0.5, 0.2, 0.3])
    found = bits(solved(base, tuned))
    assert found.selection == pytest.approx(found.price)
    assert found.selection + found.reshaping == pytest.approx((tuned * np.log2(tuned / base)).sum())


def test_the_terms_and_the_failures_add_up_to_the_whole_kl():
    """The chain rule over a distribution of seven texts of which the first four are solutions."""
    rng = np.random.default_rng(0)
    base, tuned = rng.dirichlet(np.ones(7)), rng.dirichlet(np.ones(7))
    found, solves = bits(solved(base[:4], tuned[:4])), tuned[:4].sum()
    failures = (1 - solves) * entropy(tuned[4:], base[4:], base=2)
    whole = found.selection + solves * found.reshaping + failures
    assert whole == pytest.approx(entropy(tuned, base, base=2))


def test_a_problem_without_a_listed_solution_has_no_bits():
    found = bits(Solved("p", (), np.empty((2, 0)), (0.1, 0.2)))
    assert found.mass == (0, 0)
    assert math.isnan(found.selection)
    assert math.isnan(found.reshaping)
    assert coin_kl(0.0, 0.5) == pytest.approx(math.log(2))
