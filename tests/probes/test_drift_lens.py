"""Laws of the lens: it is the model's own readout, and it finds a planted token."""

import numpy as np
import pytest
import torch

from probes.drift import lens, promoted, readout
from probes.generate import replay
from probes.records import Refusal


def activations(n=40, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 32)).astype(np.float32)


def direct(model, x):
    """Final norm and unembedding of the network itself."""
    with torch.no_grad():
        return model.net.lm_head(model.net.model.norm(torch.from_numpy(x))).numpy()


def test_it_equals_final_norm_and_unembedding(model):
    x = activations()
    seen = lens(model)(torch.from_numpy(x)).detach().numpy()
    assert np.abs(seen - direct(model, x)).max() < 1e-4 * np.abs(seen).max()


def test_behind_the_last_layer_it_gives_the_models_own_logits(model):
    from probes.capture import Text
    from probes.drift import marks, read

    tokens = tuple(range(2, 12))
    site = f"blocks.{model.depth - 1}.hook_resid_post"
    spots = marks([Text("p", 0, tokens[:4], tokens[4:])], [range(10)])
    x = read(model, spots, [site])[site]
    logits = next(iter(replay(model, [tokens]))).logits
    assert logits is not None
    seen = lens(model)(torch.from_numpy(x)).detach().numpy()
    assert np.allclose(seen, logits[0].numpy(), atol=1e-3)


def test_the_tokens_are_those_whose_logits_rise_most_on_average(model):
    before, after = activations(), activations(seed=1)
    problems = np.array([f"p{i % 8}" for i in range(40)])
    rise = direct(model, after) - direct(model, before)
    rise = (rise - rise.mean(1, keepdims=True)).mean(0)
    found = promoted(lens(model), before, after, problems, count=3)
    order = np.argsort(-rise)
    assert [p.token for p in found] == [*order[:3], *order[-3:]]
    assert [p.change.value for p in found] == pytest.approx(
        [rise[p.token] for p in found], abs=1e-3
    )
    assert all(p.change.low <= p.change.value <= p.change.high for p in found)
    assert [p.word for p in found] == [model.tokenizer.decode([p.token]) for p in found]


def test_a_push_along_a_readout_promotes_its_token(model):
    before = activations()
    push = readout(lens(model), before, [7], [i for i in range(29) if i != 7])
    found = promoted(
        lens(model), before, (before + 0.5 * push).astype(np.float32), np.arange(40).astype(str)
    )
    assert found[0].token == 7
    assert found[0].change.low > 0
    assert np.linalg.norm(push) == pytest.approx(1)


def test_a_readout_is_the_steepest_of_small_steps(model):
    """The gradient against finite differences along each axis."""
    x, yes, no = activations(6), [3, 5], [8]

    def odds(at):
        logits = torch.from_numpy(direct(model, at.astype(np.float32))).double()
        return float((logits[:, yes].logsumexp(-1) - logits[:, no].logsumexp(-1)).sum())

    step = 1e-2 * np.eye(32)
    slopes = np.array([odds(x + s) - odds(x - s) for s in step])
    found = readout(lens(model), x, yes, no)
    assert found @ slopes / np.linalg.norm(slopes) > 0.999


def test_nothing_changed_promotes_nothing(model):
    x = activations()
    for one in promoted(lens(model), x, x, np.arange(40).astype(str)):
        assert (one.change.value, one.change.low, one.change.high) == (0, 0, 0)


def test_rows_that_do_not_match_are_refused(model):
    with pytest.raises(Refusal, match="at most half"):
        promoted(lens(model), activations(), activations(), np.arange(40).astype(str), count=15)
