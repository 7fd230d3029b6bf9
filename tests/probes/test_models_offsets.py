"""Which characters a token stands for, where tokens are no words."""

import random

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from probes.models import Model, covering, decode, encode, offsets

TEXT = "Wait, 12 + 30 = 42. “No”: ärgerlich \U0001f642\U0001f642 done.\n\nSo  it  is, is it? "


@pytest.fixture(scope="module")
def bytes_model(model):
    """A byte-level tokenizer with a few merges, and the tiny net beside it."""
    made = Tokenizer(BPE())
    made.pre_tokenizer = ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(vocab_size=300, initial_alphabet=ByteLevel.alphabet(), show_progress=False)
    made.train_from_iterator([TEXT.replace("ä", "")] * 3, trainer)
    made.add_special_tokens([AddedToken("<end>", special=True)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<end>", clean_up_tokenization_spaces=False
    )
    return Model(model.net, fast, "bytes")


def tokens_of(model, text):
    return model.tokenizer(text)["input_ids"]


def test_tokens_divide_the_text_among_them(bytes_model):
    random.seed(0)
    for _ in range(40):
        text = "".join(random.choices(TEXT, k=random.randint(0, 200)))
        tokens = tokens_of(bytes_model, text)
        places = offsets(bytes_model, tokens)
        assert decode(bytes_model, tokens) == text
        assert places.shape == (len(tokens), 2)
        if tokens:
            assert (places[0, 0], places[-1, 1]) == (0, len(text))
            assert np.array_equal(places[1:, 0], places[:-1, 1])


def test_they_are_the_offsets_of_the_tokenizer_itself(bytes_model):
    """Where every character is whole tokens; of others the last token has it, here as there."""
    text = (TEXT * 20).encode("ascii", "ignore").decode()
    given = bytes_model.tokenizer(text, return_offsets_mapping=True)
    found = offsets(bytes_model, given["input_ids"])
    assert len(found) > 500  # several blocks
    assert found.tolist() == [list(pair) for pair in given["offset_mapping"]]


def test_a_character_of_several_tokens_belongs_to_the_last(bytes_model):
    places = offsets(bytes_model, tokens_of(bytes_model, "ä\U0001f642"))
    shown = [text for text in ("ä\U0001f642"[a:b] for a, b in places.tolist()) if text]
    assert shown == ["ä", "\U0001f642"]
    assert places[-1].tolist() == [1, 2]


def test_special_tokens_show_nothing(bytes_model):
    tokens = [*tokens_of(bytes_model, "it is"), bytes_model.tokenizer.eos_token_id]
    start, stop = offsets(bytes_model, tokens)[-1].tolist()
    assert start == stop == 5


def test_words_are_covered_with_the_blank_before_them(model):
    tokens = encode(model, "a b ? c")
    assert offsets(model, tokens).tolist() == [[0, 1], [1, 3], [3, 5], [5, 7]]


def test_a_stretch_is_covered_by_the_tokens_that_have_a_part_of_it(bytes_model):
    tokens = tokens_of(bytes_model, TEXT)
    places = offsets(bytes_model, tokens)
    start = TEXT.index("done")
    found = covering(places, start, start + 4)
    text = decode(bytes_model, [tokens[i] for i in found])
    assert "done" in text
    assert len(text) <= 4 + 2
    assert covering(places, 3, 3) == []
    assert covering(places, 0, len(TEXT)) == [
        i for i, (a, b) in enumerate(places.tolist()) if a < b
    ]
