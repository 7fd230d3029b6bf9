"""Laws of reading the same positions through several models."""

import numpy as np
import pytest
import torch

from probes.capture import Text
from probes.drift import marks, read, spread
from probes.records import Refusal

SITE = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    drawn = [rng.integers(2, 28, 7 + i % 4).tolist() for i in range(18)]
    return [Text(f"p{i % 6}", i, tuple(d[:3]), tuple(d[3:])) for i, d in enumerate(drawn)]


def state(model, text, position):
    ids = torch.tensor([text.tokens])
    return model.net(ids, output_hidden_states=True).hidden_states[2][0, position].numpy()


def test_each_row_is_the_state_of_its_own_problem_token_and_place(model, texts):
    spots = spread(texts, rows=5)
    x = read(model, spots, [SITE], batch=4)[SITE]
    assert x.shape == (6, 5, model.width)
    for problem, tokens, places, rows in zip(
        spots.problems, spots.tokens, spots.places, x, strict=True
    ):
        for token, place, row in zip(tokens, places, rows, strict=True):
            own = [t for t in texts if t.problem == problem and len(t.tokens) > place]
            found = [t for t in own if np.allclose(state(model, t, place), row, atol=1e-4)]
            assert len(found) == 1
            assert found[0].tokens[place] == token
            assert len(found[0].prompt) - 1 <= place < len(found[0].tokens) - 1


def test_no_position_is_drawn_twice_and_the_draw_follows_the_seed(texts):
    spots = spread(texts, rows=9)
    assert sorted(spots.order.ravel()) == list(range(6 * 9))
    again, other = spread(texts, rows=9), spread(texts, rows=9, seed=1)
    assert again.positions == spots.positions
    assert other.positions != spots.positions


def test_marks_come_back_in_the_order_of_the_texts(model, texts):
    wanted = [[4, 2] if i % 2 else [] for i in range(len(texts))]
    spots = marks(texts, wanted)
    x = read(model, spots, [SITE], batch=3)[SITE]
    truth = [state(model, t, p) for t, w in zip(texts, wanted, strict=True) for p in sorted(w)]
    assert np.allclose(x, truth, atol=1e-4)
    assert spots.problems.tolist() == [t.problem for t in texts[1::2] for _ in (2, 4)]
    assert spots.places.tolist() == [2, 4] * 9


def test_what_cannot_be_read_is_refused(model, texts):
    with pytest.raises(Refusal, match="0 of 6 problems have 99 positions"):
        spread(texts, rows=99)
    with pytest.raises(Refusal, match="no position"):
        marks(texts, [[]] * len(texts))
    with pytest.raises(Refusal, match="twice"):
        read(model, marks([texts[0], texts[0]], [[1], [2]]), [SITE])
        read(model, marks([texts[0], texts[0]], [[1], [1]]), [SITE])
