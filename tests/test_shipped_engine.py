"""The engine's laws on the model that ships, whose answers mean something.

Equality of tokens, on this machine in float32; of log-probabilities to 1e-5.
"""

import random

import pandas as pd
import pytest
import torch

from probes import DATA
from probes.generate import (
    Choice,
    Decoding,
    Request,
    Stepper,
    choose,
    generate,
    uniforms,
)
from probes.models import encode, load
from probes.tasks import load_task

FOLDER = DATA / "organisms" / "chain"


@pytest.fixture(scope="module")
def base():
    return load(FOLDER / "base-0")


@pytest.fixture(scope="module")
def asked(base):
    """64 requests: 32 problems of different lengths, two samples each."""
    task = load_task("chain")
    problems = task.problems("test", 32)
    return [
        Request(p.id, i, encode(base, p.prompt), task.budget(p)) for p in problems for i in range(2)
    ]


@pytest.fixture(scope="module")
def plain(base):
    return Decoding(stop=(base.tokenizer.eos_token_id,))


@pytest.fixture(scope="module")
def together(base, asked, plain):
    return generate(base, asked, plain, batch=64)


def same(one, other):
    assert [r.tokens for r in one] == [r.tokens for r in other]
    for a, b in zip(one, other, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)


def test_a_batch_of_64_is_64_of_1(base, asked, plain, together):
    same(generate(base, asked, plain, batch=1), together)
    assert len({len(r.tokens) for r in together}) > 5


def test_rows_that_are_refilled_in_any_order_give_the_same_answers(base, asked, plain, together):
    order = random.Random(0).sample(range(64), 64)
    again = generate(base, [asked[i] for i in order], plain, batch=7)
    same(again, [together[i] for i in order])


@pytest.mark.parametrize(("name", "which"), [("base-0", "base"), ("rl-0-0", "tuned")])
def test_the_answers_that_were_recorded_are_written_again(name, which):
    """The verdict reads them in place of new ones, so no change of the engine may change them."""
    recorded = pd.read_parquet(FOLDER / "rl-0-0" / "rollouts" / f"{which}.parquet").iloc[::100]
    model, budget = load(FOLDER / name), load_task("chain").settings["problems"]["budget"]
    asked = [
        Request(row.problem, row["sample"], encode(model, row.prompt), most)
        for _, row in recorded.iterrows()
        for most in [budget[0] * row.difficulty + budget[1]]
    ]
    again = generate(model, asked, Decoding(stop=(model.tokenizer.eos_token_id,)), batch=64)
    assert [r.tokens for r in again] == [tuple(tokens) for tokens in recorded.tokens]


def test_every_token_is_what_a_forward_pass_without_cache_or_padding_gives(base, asked, together):
    for request, rollout in zip(asked[:24], together, strict=False):
        text = torch.tensor([request.prompt + rollout.tokens])
        with torch.no_grad():
            logits = base.net(text).logits[0, len(request.prompt) - 1 : -1].double()
        u = uniforms(0, request.problem, request.sample, "tokens", request.max_new)
        chances = logits.softmax(-1)
        for i, token in enumerate(rollout.tokens):
            below = chances[i].cumsum(0)
            assert token == int((below <= u[i] * below[-1]).sum())
            assert rollout.logprobs[i] == pytest.approx(chances[i, token].log().item(), abs=1e-5)


def test_two_steppers_on_one_model_are_each_alone(base, asked, plain, together):
    class Alternating:
        """Both steppers read every token; they take turns to be heard."""

        def __init__(self):
            self.steppers = (Stepper(base), Stepper(base))
            self.turns = 0

        def next(self, tokens, turn):
            first, second = (stepper.forward(tokens) for stepper in self.steppers)
            assert torch.equal(first, second)
            self.turns += 1
            chosen: Choice = choose((first, second)[self.turns % 2], turn.uniforms, turn.decoding)
            return chosen

    same(generate(Alternating(), asked, plain, batch=64), together)


def test_greedy_is_hugging_faces_generate_token_for_token(base, asked):
    stop = base.tokenizer.eos_token_id
    ours = generate(base, asked[::2], Decoding(0.0, stop=(stop,)), batch=32)
    width = max(len(r.prompt) for r in asked)
    ids = torch.zeros(32, width, dtype=torch.long)
    mask = torch.zeros(32, width, dtype=torch.long)
    for row, request in enumerate(asked[::2]):
        ids[row, width - len(request.prompt) :] = torch.tensor(request.prompt)
        mask[row, width - len(request.prompt) :] = 1
    longest = max(r.max_new for r in asked)
    theirs = base.net.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=longest,
        do_sample=False,
        eos_token_id=stop,
        pad_token_id=0,
    )[:, width:]
    for request, rollout, row in zip(asked[::2], ours, theirs.tolist(), strict=True):
        row = row[: request.max_new]
        cut = row[: row.index(stop) + 1] if stop in row else row
        assert list(rollout.tokens) == cut
