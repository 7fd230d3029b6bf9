"""Labellers behind one interface: words, a probe, a taxonomy; what they read and refuse."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from probes.capture import Text
from probes.directions import thirds
from probes.models import decode, encode
from probes.records import Problem, Refusal, Rollout, Span, read_table, write_table
from probes.strategies.labellers import (
    ByLexicon,
    Failure,
    Labelled,
    Labeller,
    Passage,
    Unlabelled,
    labelled,
    passages,
)
from probes.strategies.lexicon import Lexicon, by_lexicon
from probes.strategies.probing import ByProbe, fit_probe
from probes.strategies.residuals import SentenceMeans
from probes.strategies.sentences import Segment, sentences, steps
from probes.taxonomy import ByTaxonomy, Taxonomy, read_steps

SITE = "blocks.1.hook_resid_post"
WORDS = Lexicon("own", "me", {"back": ("wait", "but"), "sum": ("so",)})


def asked(*texts):
    """One problem a text, and its rollouts."""
    problems = [Problem("t", f"question {i}", "1", "", "", 1, "{}") for i in range(len(texts))]
    answers = [Rollout(p.id, 0, (), (), t, "stop") for p, t in zip(problems, texts, strict=True)]
    return problems, answers


def words(*segments, prompt="a b =", problem="p"):
    """A passage of words of the tiny model, and where its segments stand."""
    text = " ".join(segments)
    start, cut = 0, []
    for segment in segments:
        cut.append(Segment(start, start + len(segment), segment))
        start += len(segment) + 1
    return problem, prompt, text, tuple(cut)


def passage(model, *segments, **about):
    problem, prompt, text, cut = words(*segments, **about)
    return Passage(problem, 0, "", prompt, text, encode(model, text), cut)


def test_passages_are_the_answers_cut_and_know_their_questions():
    problems, answers = asked("So we add. Wait, that is wrong.", "one\n\ntwo", "")
    found = passages(problems, answers)
    assert [p.prompt for p in found] == ["question 0", "question 1", "question 2"]
    assert [list(p.segments) for p in found] == [sentences(a.text) for a in answers]
    assert [len(p.segments) for p in passages(problems, answers, steps)] == [1, 2, 0]
    with pytest.raises(Refusal, match="not among the 1 given"):
        passages(problems[:1], answers)


def test_a_lexicon_labels_as_it_does_alone_and_a_row_says_where():
    problems, answers = asked("So we add. Wait, that is wrong.", "It is five here.")
    given = passages(problems, answers)
    assert isinstance(ByLexicon(WORDS), Labeller)
    rows = labelled([ByLexicon(WORDS)], given)
    assert [r.label for r in rows] == ["sum", "back", ""]
    assert [r.label for r in rows[:2]] == by_lexicon(given[0].segments, WORDS)
    assert all(answers[0].text[r.start : r.stop] == r.text for r in rows[:2])
    assert rows[2].problem == problems[1].id
    assert {r.labeller for r in rows} == {"lexicon own"}


class Failing:
    name, fitted_on = "failing", frozenset()

    def label(self, passages):
        return [[Unlabelled(Failure.TIMEOUT, "late") for _ in p.segments] for p in passages]


def test_a_failure_is_not_the_absence_of_a_label_and_survives_the_disk(tmp_path):
    given = passages(*asked("It is five here. So it is."))
    rows = labelled([ByLexicon(WORDS), Failing()], given)
    assert [(r.label, r.failure, r.why) for r in rows] == [
        ("", "", ""),
        ("sum", "", ""),
        (None, "timeout", "late"),
        (None, "timeout", "late"),
    ]
    write_table(tmp_path / "l.parquet", rows, Labelled)
    assert read_table(tmp_path / "l.parquet", Labelled)[0] == rows


def test_what_cannot_be_told_apart_or_has_no_sentence_is_refused():
    given = passages(*asked("It is five."))
    with pytest.raises(Refusal, match="told apart by name"):
        labelled([ByLexicon(WORDS), ByLexicon(WORDS)], given)
    with pytest.raises(Refusal, match="no sentence"):
        labelled([ByLexicon(WORDS)], passages(*asked("", " ")))


def test_sentence_means_are_hidden_states_from_the_token_before(model):
    """In a batch of unequal lengths, so with padding; against Hugging Face's own hidden states."""
    given = [
        passage(model, "c d ;", "e f g ;", problem="p"),
        passage(model, "h ;", prompt="a b c d e =", problem="q"),
        passage(model, "k l m n o p ;", "q r ;", "s ;", problem="r"),
    ]
    found = iter(SentenceMeans(model, SITE)(given))
    for one in given:
        prompt = len(encode(model, one.prompt))
        whole = torch.tensor([encode(model, one.prompt) + one.tokens])
        hidden = model.net(whole, output_hidden_states=True).hidden_states[2][0]
        for segment in one.segments:
            first = prompt + len(one.text[: segment.start].split())
            last = first + len(segment.text.split())
            np.testing.assert_allclose(
                next(found), hidden[first - 1 : last].mean(0).numpy(), atol=1e-4
            )
    assert next(found, None) is None


def test_where_words_are_tokens_they_are_the_means_of_the_taxonomys_steps(model):
    one = passage(model, "c d ;", "e f g ;")
    text = Text("p", 0, encode(model, one.prompt), one.tokens)
    spans = [[Span(0, 3, "x"), Span(3, 7, "x")]]
    theirs = read_steps(model, [text], spans, [SITE]).values[SITE].numpy()
    np.testing.assert_allclose(SentenceMeans(model, SITE)([one]), theirs, atol=1e-4)


def test_passages_without_segments_are_passed_over(model):
    empty = Passage("e", 0, "", "a b =", "", (), ())
    one = passage(model, "c d ;")
    alone = SentenceMeans(model, SITE)([one])
    np.testing.assert_allclose(SentenceMeans(model, SITE)([empty, one, empty]), alone)
    with pytest.raises(Refusal, match="no segment to read"):
        SentenceMeans(model, SITE)([empty])


def test_passages_whose_tokens_are_unknown_or_of_other_words_are_refused(model):
    one = passage(model, "c d ;")
    unknown = Passage("p", 0, "", one.prompt, one.text, (), one.segments)
    with pytest.raises(Refusal, match="has no tokens .* lexicon or a judge"):
        SentenceMeans(model, SITE)([unknown])
    others = Passage("p", 0, "", one.prompt, one.text, one.tokens[::-1], one.segments)
    assert decode(model, others.tokens) != one.text
    with pytest.raises(Refusal, match="other words for tiny-llama"):
        SentenceMeans(model, SITE)([others])


def planted(kinds=("", "back", "sum"), sentences=900, problems=30, noise=1.0, seed=0):
    """Activations around one direction a label, far from the origin, scales of all sizes."""
    rng = np.random.default_rng(seed)
    which = rng.integers(len(kinds), size=sentences)
    directions = 3 * np.random.default_rng(9).normal(size=(len(kinds), 8))
    x = (directions[which] + noise * rng.normal(size=(sentences, 8)) + 40) * np.logspace(-2, 2, 8)
    groups = [f"p{i}" for i in rng.integers(problems, size=sentences)]
    return x, [kinds[i] for i in which], groups


@pytest.mark.parametrize("kinds", [("", "back"), ("", "back", "sum")], ids=["2", "3"])
def test_a_probe_finds_planted_labels_on_problems_it_never_met(kinds):
    x, labels, groups = planted(kinds)
    probe = fit_probe(x, labels, groups, taught_by="me", nulls=5)
    held = ~np.isin(groups, list(probe.fitted_on))
    assert 0.25 < held.mean() < 0.42
    found = np.array(probe.labels)[probe.scores(x[held]).argmax(1)]
    assert (found == np.array(labels)[held]).mean() > 0.97
    assert [e.label for e in probe.evidence] == sorted(kinds)
    for one in probe.evidence:
        assert one.auc.low > 0.97
        assert abs(one.null_mean - 0.5) < 0.2
        assert one.sentences == labels.count(one.label)


def test_a_probe_of_shuffled_labels_is_worth_nothing():
    x, labels, groups = planted(("", "back"))
    mixed = list(np.random.default_rng(1).permutation(labels))
    for one in fit_probe(x, mixed, groups, taught_by="chance", nulls=20).evidence:
        assert not one.auc.excludes(0.5)
        assert one.auc.value < one.null_high + 0.05


def test_its_scores_are_scikit_learns_on_the_two_thirds():
    x, labels, groups = planted(noise=4.0)
    probe = fit_probe(x, labels, groups, taught_by="me", nulls=0, seed=3)
    part = thirds(np.array(groups), 3) != 2
    mean, scale = x[part].mean(0), x[part].std(0)
    theirs = LogisticRegression(max_iter=1000, tol=1e-5)
    theirs.fit((x[part] - mean) / scale, np.array(labels)[part])
    wanted = theirs.decision_function((x - mean) / scale)
    np.testing.assert_allclose(probe.scores(x), wanted, atol=1e-6)
    assert np.isnan(probe.evidence[0].null_mean)


def test_rows_without_a_label_are_not_learnt_from_and_a_rare_label_has_a_reason():
    x, labels, groups = planted(("", "back"))
    with_gaps = [None if i % 7 == 0 else label for i, label in enumerate(labels)]
    some = np.array([label is not None for label in with_gaps])
    probe = fit_probe(x, with_gaps, groups, taught_by="me", nulls=0)
    of_some = [label for label in with_gaps if label is not None]
    without = fit_probe(x[some], of_some, np.array(groups)[some].tolist(), taught_by="me", nulls=0)
    np.testing.assert_array_equal(probe.weights, without.weights)
    rare = ["once", *labels[1:]]
    found = fit_probe(x, rare, groups, taught_by="me", nulls=0)
    assert found.labels == ("", "back")
    once = next(e for e in found.evidence if e.label == "once")
    assert "too rare" in once.auc.reason
    assert once.sentences == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x, y, g: (x, ["same"] * len(y), g), "nothing to tell apart"),
        (lambda x, y, g: (x, y, ["p", "q"] * (len(y) // 2)), "2 problems to learn"),
        (lambda x, y, g: (x[:-1], y, g), "one each"),
        (lambda x, y, g: (x * np.nan, y, g), "broken"),
    ],
)
def test_what_no_probe_can_be_had_from_is_refused(change, says):
    x, labels, groups = change(*planted())
    with pytest.raises(Refusal, match=says):
        fit_probe(x, labels, groups, taught_by="me")


def test_a_probe_labels_passages_in_their_order_and_owns_up_to_what_it_learnt(model):
    given = [passage(model, "c d ;", "e f ;", problem=f"p{i}") for i in range(15)]
    read = SentenceMeans(model, SITE)
    teacher = [["c", "e"] for _ in given]
    probe = fit_probe(
        read(given),
        [label for one in teacher for label in one],
        [one.problem for one in given for _ in one.segments],
        taught_by="words",
        nulls=0,
    )
    by_probe = ByProbe(probe, read)
    assert isinstance(by_probe, Labeller)
    assert by_probe.label(given) == teacher
    assert by_probe.label(given[:1]) == teacher[:1]
    rows = labelled([by_probe], given)
    assert {r.problem for r in rows if r.fitted} == probe.fitted_on != {r.problem for r in rows}
    assert by_probe.name == "probe of words"
    with pytest.raises(Refusal, match="width 3 for a probe of width 32"):
        probe.scores(np.zeros((1, 3)))


def of_model(digest="", site=SITE):
    torch.manual_seed(0)
    encoder = torch.randn(3, 32)
    about = {"k": 1, "model": digest, "task": "", "data": ""}
    parts = (torch.zeros(32), encoder, torch.zeros(3), encoder, torch.zeros(32))
    return Taxonomy(site, *parts, names=("step", "check", "latent 2"), **about)


def test_a_taxonomy_names_the_category_of_each_sentences_mean(model):
    given = [passage(model, "c d ;", "e f g ;"), passage(model, "h i j k ;", problem="q")]
    read, taxonomy = SentenceMeans(model, SITE), of_model()
    by_taxonomy = ByTaxonomy(taxonomy, read)
    assert isinstance(by_taxonomy, Labeller)
    found = [label for one in by_taxonomy.label(given) for label in one]
    latents = taxonomy.category(torch.from_numpy(read(given)))
    assert found == [taxonomy.names[int(i)] for i in latents]
    assert [len(one) for one in by_taxonomy.label(given)] == [2, 1]


def test_a_taxonomy_of_other_activations_is_refused(model):
    with pytest.raises(Refusal, match=r"blocks\.0\.hook_resid_post, and those of blocks\.1"):
        ByTaxonomy(of_model(site="blocks.0.hook_resid_post"), SentenceMeans(model, SITE))
    whole = type(model)(model.net, model.tokenizer, "m", "b" * 64)
    with pytest.raises(Refusal, match="of another model, or of this one before"):
        ByTaxonomy(of_model("a" * 64), SentenceMeans(whole, SITE))
