"""A candidate's logits are those of an uncached forward whose last position alone is pushed."""

import pytest
import torch

from probes.generate import Request, Stepper
from probes.models import submodule
from probes.records import Refusal, parse_site
from steering.routing.branches import Branches, upper

SITES = (
    "blocks.1.hook_resid_post",
    "blocks.2.hook_resid_post",
    "blocks.0.hook_mlp_out",
    "blocks.1.hook_attn_out",
    "blocks.0.hook_resid_pre",
)


def pushed(model, tokens, site, push):
    """Logits behind the last of these tokens, by a plain hook on an uncached forward."""
    module, how = submodule(model, *parse_site(site))

    def edit(x):
        return torch.cat([x[:, :-1], x[:, -1:] + push], 1)

    def before(_, args, named):
        if args:
            return (edit(args[0]), *args[1:]), named
        return args, {**named, "hidden_states": edit(named["hidden_states"])}

    def after(_, __, out):
        return (edit(out[0]), *out[1:]) if isinstance(out, tuple) else edit(out)

    handle = (
        module.register_forward_pre_hook(before, with_kwargs=True)
        if how == "input"
        else module.register_forward_hook(after)
    )
    try:
        return model.net(torch.tensor([list(tokens)])).logits[0, -1]
    finally:
        handle.remove()


def seated(model, branches, lengths, steps):
    """A stepper some steps into rows of unequal length, and the tokens of each."""
    draw = torch.Generator().manual_seed(0)
    prompts = [tuple(torch.randint(1, 28, (n,), generator=draw).tolist()) for n in lengths]
    stepper = Stepper(model, [branches.keep])
    stepper.reset(len(prompts))
    stepper.seat(range(len(prompts)), [Request(str(i), 0, p, 30) for i, p in enumerate(prompts)])
    texts = [list(p) for p in prompts]
    newest = torch.tensor([p[-1] for p in prompts])
    for step in range(steps):
        logits = stepper.forward(newest)
        newest = logits.argmax(-1) if step + 1 < steps else newest
        if step + 1 < steps:
            for text, token in zip(texts, newest.tolist(), strict=True):
                text.append(token)
    return stepper, texts, newest, logits


@pytest.mark.parametrize("site", SITES)
def test_each_candidate_is_an_uncached_forward_pushed_at_its_last_position(any_model, site):
    branches = Branches(any_model, site)
    stepper, texts, _, _ = seated(any_model, branches, (3, 9, 1, 6), 9)
    pushes = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(1))
    rows = torch.tensor([0, 3])
    found = branches.logits(stepper, rows, pushes)
    assert found.shape == (2, 3, any_model.vocab)
    for i, row in enumerate(rows.tolist()):
        for j in range(3):
            plain = pushed(any_model, texts[row], site, pushes[i, j])
            assert torch.allclose(found[i, j], plain, atol=1e-3, rtol=1e-4)
        assert not torch.allclose(found[i, 0], found[i, 1], atol=0.1)


def test_what_is_not_pushed_is_the_unsteered_pass(any_model):
    branches = Branches(any_model, SITES[0])
    stepper, _, _, logits = seated(any_model, branches, (4, 2), 6)
    found = branches.logits(stepper, torch.arange(2), torch.zeros(2, 2, 32))
    assert torch.allclose(found, logits[:, None].expand(-1, 2, -1), atol=1e-3, rtol=1e-4)


def test_a_rejected_candidate_leaves_the_cache_bit_for_bit(model):
    branches = Branches(model, SITES[0])
    stepper, _, newest, _ = seated(model, branches, (4, 7), 5)
    before, end = stepper.cache.buffer.clone(), stepper.cache.end
    branches.logits(stepper, torch.arange(2), 9 * torch.ones(2, 4, 32))
    assert torch.equal(stepper.cache.buffer, before)
    assert stepper.cache.end == end
    other, _, _, _ = seated(model, Branches(model, SITES[0]), (4, 7), 5)
    assert torch.equal(stepper.forward(newest), other.forward(newest))


def test_many_candidates_are_computed_in_blocks(model, monkeypatch):
    branches = Branches(model, SITES[0])
    stepper, _, _, _ = seated(model, branches, (4, 7, 2), 5)
    pushes = torch.randn(3, 2, 32)
    whole = branches.logits(stepper, torch.arange(3), pushes)
    monkeypatch.setattr("steering.routing.branches.CELLS", 1)
    assert torch.allclose(branches.logits(stepper, torch.arange(3), pushes), whole, atol=1e-4)


def test_the_model_itself_is_whole_after_its_upper_half_was_taken(any_model):
    tokens = torch.arange(1, 9)[None]
    before = any_model.net(tokens).logits
    half = upper(any_model.net, 2)
    assert sum(p.numel() for p in half.parameters()) < sum(
        p.numel() for p in any_model.net.parameters()
    )
    assert any_model.net.config.num_hidden_layers == 3
    assert torch.equal(any_model.net(tokens).logits, before)


def test_pushes_of_another_width_are_refused(model):
    branches = Branches(model, SITES[0])
    stepper, _, _, _ = seated(model, branches, (4,), 2)
    with pytest.raises(Refusal, match="width 5 for residuals of width 32"):
        branches.logits(stepper, torch.arange(1), torch.zeros(1, 1, 5))
    with pytest.raises(Refusal, match="layer 3 is not in this model"):
        Branches(model, "blocks.3.hook_resid_post")
