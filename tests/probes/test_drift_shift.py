"""Laws of the comparison of two models on the same texts."""

import copy

import numpy as np
import pytest
import torch

from probes.capture import Text
from probes.drift import drift
from probes.models import Model
from probes.records import Refusal


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    drawn = [rng.integers(2, 28, 7 + i % 3).tolist() for i in range(12)]
    return [Text(f"p{i % 4}", i, tuple(d[:3]), tuple(d[3:])) for i, d in enumerate(drawn)]


def test_a_model_does_not_move_from_itself(model, texts):
    for shift in drift(model, model, texts):
        assert shift.relative.value == 0
        assert shift.cosine.value == pytest.approx(1, abs=1e-12)
        assert shift.before == shift.after
        assert (shift.growth.value, shift.growth.low, shift.growth.high) == (1, 1, 1)


def test_it_is_the_mean_over_chosen_positions_of_hugging_face_states(model, other, texts):
    apart, size, longer, cosine = [], [], [], []
    for text in texts:
        ids = torch.tensor([text.tokens])
        before, after = (
            m.net(ids, output_hidden_states=True).hidden_states[1][0].double()
            for m in (model, other)
        )
        for p in range(len(text.prompt) - 1, len(text.tokens) - 1):
            apart.append(float((after[p] - before[p]).norm()))
            size.append(float(before[p].norm()))
            longer.append(float(after[p].norm()))
            cosine.append(float(before[p] @ after[p] / before[p].norm() / after[p].norm()))
    shift = drift(model, other, texts, batch=5)[0]
    assert shift.site == "blocks.0.hook_resid_post"
    assert shift.relative.value == pytest.approx(sum(apart) / sum(size), rel=1e-5)
    assert shift.cosine.value == pytest.approx(np.mean(cosine), rel=1e-5)
    assert shift.before.value == pytest.approx(np.mean(size), rel=1e-5)
    assert shift.after.value == pytest.approx(np.mean(longer), rel=1e-5)
    assert shift.growth.value == pytest.approx(np.mean(longer) / np.mean(size), rel=1e-5)


def test_what_one_block_adds_shows_at_its_site_and_nowhere_before(model, texts):
    net = copy.deepcopy(model.net)
    with torch.no_grad():
        net.model.layers[1].mlp.down_proj.weight.mul_(1.5)
    moved = drift(model, Model(net, model.tokenizer, "moved"), texts)
    assert moved[0].relative.value == 0
    assert moved[1].relative.value > 0.01
    assert moved[1].relative.low < moved[1].relative.value < moved[1].relative.high


def test_texts_without_an_answer_are_refused(model, texts):
    with pytest.raises(Refusal, match="no token was chosen"):
        drift(model, model, [Text("p", 0, (3, 4))])
