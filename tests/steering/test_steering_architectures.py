"""The engine's laws in every known architecture, against Hugging Face's generate and forward."""

import pytest
import torch

from probes.capture import capture, from_strings
from probes.generate import Decoding, Request, generate, replay
from probes.models import submodule
from probes.models.sites import blocks
from probes.records import SITES
from steering.interventions import GENERATED, Intervention, Steer, write

END = 28
GREEDY = Decoding(temperature=0, stop=(END,))
PROMPTS = [(5, 6, 7), (8, 9), (3, 4, 5, 6, 9, 10, 11, 12), (4,)]


def unit(seed):
    drawn = torch.randn(32, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm()


def by_hand(model, prompt, site, vector, strength, count):
    """Greedy, uncached, unpadded, alone: adds to every generated position by a hook of its own."""
    layer, kind = int(site.split(".")[1]), site.split(".")[2]
    module, how = submodule(model, layer, kind)
    tokens = list(prompt)

    def edited(x):
        x = x.clone()
        x[:, len(prompt) - 1 :] += strength * vector
        return x

    def before(_, args, named):
        if args:
            return (edited(args[0]), *args[1:]), named
        return args, {**named, "hidden_states": edited(named["hidden_states"])}

    def after(_, __, out):
        return (edited(out[0]), *out[1:]) if isinstance(out, tuple) else edited(out)

    for _ in range(count):
        handle = (
            module.register_forward_pre_hook(before, with_kwargs=True)
            if how == "input"
            else module.register_forward_hook(after)
        )
        try:
            logits = model.net(torch.tensor([tokens]), use_cache=False).logits[0, -1]
        finally:
            handle.remove()
        tokens.append(int(logits.argmax()))
        if tokens[-1] == END:
            break
    return tuple(tokens[len(prompt) :])


def test_greedy_is_what_hugging_face_generates(any_model):
    """Four lengths side by side, so three rows are padded on the left; theirs are alone."""
    asked = [Request(str(i), 0, p, 16) for i, p in enumerate(PROMPTS)]
    for answer, prompt in zip(generate(any_model, asked, GREEDY), PROMPTS, strict=True):
        theirs = any_model.net.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=16,
            do_sample=False,
            eos_token_id=END,
            pad_token_id=0,
        )
        assert list(answer.tokens) == theirs[0, len(prompt) :].tolist()


def test_padding_on_the_left_is_harmless(any_model):
    sites = [f"blocks.{layer}.{kind}" for layer in range(3) for kind in SITES]

    class Read:
        def __init__(self):
            self.sites, self.x = sites, {}

        def seat(self, slots, requests, rows):
            pass

        def at(self, site, x, now):
            self.x[site] = x.clone()
            return x

    together = Read()
    (batch,) = replay(any_model, PROMPTS, observers=[together])
    for row, i in enumerate(batch.rows):
        alone = Read()
        (one,) = replay(any_model, [PROMPTS[i]], observers=[alone])
        count = len(PROMPTS[i])
        torch.testing.assert_close(batch.logits[row, -count:], one.logits[0], atol=1e-4, rtol=1e-5)
        for site in sites:
            torch.testing.assert_close(
                together.x[site][row, -count:], alone.x[site][0], atol=1e-4, rtol=1e-5
            )


def test_a_store_holds_the_hidden_states(any_model, tmp_path):
    texts = from_strings(any_model, ["a b c d e f g", "h i", "j k l m"])
    sites = ["blocks.0.hook_resid_pre", "blocks.0.hook_resid_post", "blocks.1.hook_resid_post"]
    store = capture(any_model, sites, texts, tmp_path / "store")
    for number, text in enumerate(texts):
        hidden = any_model.net(torch.tensor([text.tokens]), output_hidden_states=True).hidden_states
        for site, want in zip(sites, hidden, strict=False):
            found = torch.from_numpy(store.numpy(site, store.index.problem == str(number)).copy())
            torch.testing.assert_close(found, want[0], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("kind", SITES)
def test_a_steered_cached_padded_batch_is_each_row_alone_without_a_cache(any_model, kind):
    site, vector, strength = f"blocks.1.{kind}", unit(0), 60.0
    push = Intervention("add", site, vector, strength, window=GENERATED)
    asked = [
        Request(str(i), 0, p, 6, name) for i, p in enumerate(PROMPTS) for name in ("none", "push")
    ]
    answers = write(any_model, {"none": [], "push": [push]}, asked, GREEDY)
    plain = generate(any_model, [r for r in asked if r.setting == "none"], GREEDY)
    for request, answer in zip(asked, answers, strict=True):
        dose = strength if request.setting == "push" else 0.0
        assert answer.tokens == by_hand(any_model, request.prompt, site, vector, dose, 6)
    assert [a.tokens for a in answers[::2]] == [p.tokens for p in plain]
    assert [a.tokens for a in answers[1::2]] != [p.tokens for p in plain]  # it does something


@pytest.mark.parametrize("op", ["add", "ablate"])
def test_strength_zero_changes_no_bit(any_model, op):
    zero = Intervention(op, "blocks.1.hook_resid_post", unit(1), 0.0)
    steer = Steer(any_model, {"zero": [zero]})
    asked = [Request(str(i), 0, p, 1, "zero") for i, p in enumerate(PROMPTS)]
    (edited,) = replay(any_model, PROMPTS, observers=[steer], requests=asked)
    (plain,) = replay(any_model, PROMPTS)
    for row, i in enumerate(plain.rows):
        count = len(PROMPTS[i])
        assert torch.equal(edited.logits[row, -count:], plain.logits[row, -count:])


def test_an_ablated_component_is_gone_in_what_the_next_block_reads(any_model):
    gone = unit(2)
    steer = Steer(any_model, {"gone": [Intervention("ablate", "blocks.1.hook_resid_post", gone)]})
    read = []
    handle = blocks(any_model.net)[2].register_forward_pre_hook(
        lambda _, args, named: read.append(args[0] if args else named["hidden_states"]),
        with_kwargs=True,
    )
    try:
        list(
            replay(
                any_model,
                PROMPTS[2:3],
                observers=[steer],
                requests=[Request("p", 0, PROMPTS[2], 1, "gone")],
            )
        )
    finally:
        handle.remove()
    component = read[0] @ gone
    assert component.abs().max() < 1e-4 * read[0].norm(dim=-1).max()
