"""Sentences cover their text; a lexicon finds whole words and says where it is from."""

import random

import pytest

from probes.records import Refusal
from probes.strategies.lexicon import SHIPPED, by_lexicon, load_lexicon
from probes.strategies.sentences import sentences, steps


def test_numbers_and_abbreviations_do_not_end_a_sentence():
    text = "We take x = 3.14 as given. By e.g. Eq. 2 it is 1.5 times larger! Is that so? Yes."
    assert [s.text for s in sentences(text)] == [
        "We take x = 3.14 as given.",
        "By e.g. Eq. 2 it is 1.5 times larger!",
        "Is that so? Yes.",
    ]


def test_lines_and_semicolons_end_one_and_brackets_close_with_it():
    text = "(So this is it.) Then we go on; we add two numbers\nand after that we stop here."
    assert [s.text for s in sentences(text)] == [
        "(So this is it.)",
        "Then we go on;",
        "we add two numbers",
        "and after that we stop here.",
    ]


def test_segments_stand_where_they_say_and_lose_nothing_but_blanks():
    random.seed(0)
    pieces = ["a b c.", "no", "3.5", "why?", "\n\n", "; ", "x = 2", "e.g. that", "...", "!", " "]
    for _ in range(300):
        text = " ".join(random.choices(pieces, k=random.randint(0, 12)))
        for split in (sentences, steps):
            found = split(text)
            assert all(text[s.start : s.stop] == s.text == s.text.strip() for s in found)
            assert all(a.stop <= b.start for a, b in zip(found, found[1:], strict=False))
            kept = "".join("".join(s.text.split()) for s in found)
            assert kept == "".join(text.split())


def test_short_sentences_belong_to_their_neighbour():
    found = [s.text for s in sentences("Wait. Let me see that again. Hmm. It is five.")]
    assert found == ["Wait. Let me see that again. Hmm.", "It is five."]
    assert [s.text for s in sentences("Wait. No.")] == ["Wait. No."]
    assert sentences("") == sentences(" \n ") == []


@pytest.mark.parametrize(
    "piece",
    ["a. ", "So it is five. ", "e.g. ", "!", ".", ".)", "\n ", "\n \n", "one paragraph\n\n"],
)
def test_a_megabyte_is_split_in_linear_time(piece):
    """Quadratic time would take minutes to hours."""
    text = piece * (2**20 // len(piece)) + "x"
    for split in (sentences, steps):
        found = split(text)
        assert found[-1].stop == len(text)
        assert sum(len(s.text.split()) for s in found) == len(text.split())


def test_paragraphs_are_steps():
    assert [s.text for s in steps("one\ntwo\n\n \nthree")] == ["one\ntwo", "three"]


def test_a_lexicon_finds_whole_words_of_any_case_and_phrases_over_lines():
    lexicon = load_lexicon("reasonscore")
    text = "But it fails here. The rebuttal is short. Let\n me think of it. It awaits an answer."
    labels = by_lexicon([s for s in sentences(text.replace("\n", " "))], lexicon)
    assert labels == ["reflection", "", "reflection", ""]


def test_the_first_word_in_the_sentence_decides(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text('source = "me"\n[labels]\nback = ["wait"]\nsum = ["so"]\n')
    own = load_lexicon(file)
    assert by_lexicon(sentences("So we wait here. Wait, so be it."), own) == ["sum", "back"]


@pytest.mark.parametrize("name", [f.stem for f in SHIPPED.glob("*.toml")])
def test_every_shipped_lexicon_has_a_source(name):
    assert "arXiv" in load_lexicon(name).source


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[labels]\na = ["x"]\n', "where the words are from"),
        ('source = "me"\n', "names each label"),
        ('source = "me"\n[labels]\na = []\n', "is a list of words"),
        ('source = "me"\n[labels]\na = "x"\n', "is a list of words"),
    ],
)
def test_a_lexicon_that_says_too_little_is_refused(tmp_path, text, said):
    file = tmp_path / "own.toml"
    file.write_text(text)
    with pytest.raises(Refusal, match=said):
        load_lexicon(file)
