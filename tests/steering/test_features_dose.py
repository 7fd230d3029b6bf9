"""Doses of a planted feature on the base that ships; the control of length by its closed form."""

from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig

from probes import DATA
from probes.generate import Decoding, Request
from probes.models import encode, load
from probes.plots.dose import feature_dose
from probes.plots.style import COLOURS
from probes.records import Grade, Refusal
from probes.sae import Feature, Sae
from probes.tasks import load_task
from steering.controls import unembeddings
from steering.features import DoseSettings, FeatureEdit, dose_response, matched, same_rate
from steering.interventions import decisions, write

SITE, LATENT, SAMPLES = "blocks.2.hook_resid_post", 3, 2
STRENGTHS = (0.5, 2.0)


@cache
def parts():
    base, task = load(DATA / "organisms" / "chain" / "base-0"), load_task("chain")
    problems = [p for s in ("a", "n") for p in task.problems("test", 5, skill=s)]
    return base, task, problems


@cache
def planted():
    """A dictionary whose latent 3 is the word that begins a check; the others are noise."""
    base, _, _ = parts()
    loaded = StandardSAE(StandardSAEConfig(d_in=base.width, d_sae=24))
    with torch.no_grad():
        draws = np.random.Generator(np.random.Philox(0)).standard_normal((24, base.width))
        loaded.W_dec.copy_(torch.from_numpy(draws / np.linalg.norm(draws, axis=1, keepdims=True)))
        word = unembeddings(base, [base.tokenizer.get_vocab()["?"]])[0]
        loaded.W_dec[LATENT] = word / word.norm()
        loaded.W_enc.copy_(loaded.W_dec.T)
    loaded = loaded.eval().requires_grad_(False)
    return Sae(
        SITE,
        Path("planted"),
        "",
        loaded,
        loaded.W_enc.data,
        loaded.b_enc.data,
        loaded.W_dec.data,
        loaded.b_dec.data,
        None,
        "standard",
        True,
        {},
        tuple(Feature(i, 0.2, 200.0, 9) for i in range(24)),
    )


@cache
def window():
    """After numbers, where a check may begin."""
    vocabulary = parts()[0].tokenizer.get_vocab()
    return decisions([i for word, i in vocabulary.items() if word.isdigit()])


@cache
def measured():
    base, task, problems = parts()
    settings = DoseSettings(
        strengths=STRENGTHS, samples=SAMPLES, biases=(-3.0, 4.0), batch=64, window=window()
    )
    activations = torch.from_numpy(
        np.random.Generator(np.random.Philox(4)).standard_normal((40, base.width))
    )
    ending = [base.tokenizer.get_vocab()["ans"]]
    return dose_response(
        base,
        task,
        problems,
        planted(),
        [LATENT],
        settings,
        activations=activations.float(),
        ending=ending,
        which="base",
    )


def value(measure, setting, x=2.0, kind=f"feature {LATENT}"):
    (found,) = [
        r
        for r in measured()
        if (r.measure, r.setting, r.kind) == (measure, setting, kind) and (r.x == x or not kind)
    ]
    return found


def test_a_planted_feature_raises_its_strategy_and_its_controls_do_not():
    own, plain = (value("option rate of check", *at) for at in (("feature",), ("unsteered", 0, "")))
    assert own.value == 1
    assert own.low > plain.high
    for control in ("random feature", "random direction"):
        assert value("option rate of check", control).value < 0.4
    assert value("option rate of check", "feature", 0.5).value < 0.2  # it is a matter of dose


def test_a_row_is_what_the_answers_written_under_its_settings_alone_come_to():
    base, task, problems = parts()
    others = same_rate(planted(), LATENT, 2, seed=0)  # a control is the mean of its draws
    edits = {i: FeatureEdit("clamp", planted(), i, 2.0, window=window()) for i in (LATENT, *others)}
    by_id = {p.id: p for p in problems}
    stop = Decoding(stop=(base.tokenizer.eos_token_id,))
    for setting, latents in (("feature", [LATENT]), ("random feature", others)):
        asked = [
            Request(p.id, i, encode(base, p.prompt), task.budget(p), latent)
            for latent in latents
            for p in problems
            for i in range(SAMPLES)
        ]
        answers = write(base, {i: [edits[i]] for i in latents}, asked, stop)
        right = [task.grade(by_id[a.problem], a.text) is Grade.RIGHT for a in answers]
        assert value("right", setting).value == pytest.approx(np.mean(right))
        lengths = [len(a.tokens) for a in answers]
        assert value("length", setting).value == pytest.approx(np.mean(lengths))
        cut = [a.stop == "length" for a in answers]
        assert value("cut off", setting).value == pytest.approx(np.mean(cut))


def test_every_dose_has_every_control_and_every_gain_is_a_difference_of_rows():
    controls = ("unsteered", "random feature", "random direction")
    for x in STRENGTHS:
        for control in controls:
            for which in ("right", "valid", "length"):
                gain = value(f"{which} gain", f"feature - {control}", x)
                kind = "" if control == "unsteered" else f"feature {LATENT}"
                of_it = value(which, control, x, kind).value
                assert gain.value == pytest.approx(value(which, "feature", x).value - of_it)
        as_long = value("right", "length-matched", x)
        gain = value("right gain", "feature - length-matched", x)
        if as_long.note:
            assert "unsteered ones could be had of" in gain.note
        else:
            own = value("right", "feature", x).value
            assert gain.value == pytest.approx(own - as_long.value)
    assert {r.n for r in measured() if r.measure in ("right", "length")} == {10}
    assert {r.model for r in measured()} == {"base"}
    assert {r.site for r in measured()} == {SITE}


def test_the_length_matched_rate_is_the_mixture_that_has_the_length():
    """Of answers of 10 tokens, right .2, and of 20, right .6: half of each has 15, and .4."""
    n = 40
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (3, n))
    noise -= noise.mean(1, keepdims=True)
    arms = [
        (np.full(n, 20.0) + noise[0], 0.6 + noise[1]),
        (np.full(n, 40.0), np.full(n, 0.9)),
        (np.full(n, 10.0), 0.2 + noise[2]),
    ]
    steered = np.full(n, 15.0), np.full(n, 0.5)
    as_long, gain = matched(*steered, arms)
    assert as_long.value == pytest.approx(0.4)
    assert gain.value == pytest.approx(0.1)
    assert as_long.low < 0.4 < as_long.high
    assert matched(np.full(n, 20.0), steered[1], arms)[0].value == pytest.approx(0.6)
    assert matched(np.full(n, 32.0), steered[1], arms)[0].value == pytest.approx(0.78)
    rare = np.zeros(n)
    rare[:3] = 1.0  # too few problems for a bootstrap: the share is held, the interval exact
    few = matched(
        np.full(n, 12.0), np.zeros(n), [(np.full(n, 10.0), np.zeros(n)), (arms[0][0], rare)]
    )
    assert [one.value for one in few] == pytest.approx([0.2 * 3 / n, -0.2 * 3 / n])
    assert few[0].low < few[0].value < few[0].high


@pytest.mark.parametrize("effect", [0.0, 0.2])
def test_what_is_only_length_is_no_gain_and_what_is_more_is(effect):
    """Answers are right with a chance that grows with length; steering lengthens by 8 tokens."""
    covered = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        skill = random.uniform(-0.1, 0.1, 60)

        def sampled(by, more, random=random, skill=skill):
            lengths = by + random.normal(0, 2, (60, 6))
            chance = np.clip(0.01 * lengths + skill[:, None] + more, 0, 1)
            return lengths.mean(1), (random.uniform(size=(60, 6)) < chance).mean(1)

        arms = [sampled(by, 0.0) for by in (20, 25, 30, 35)]
        gain = matched(*sampled(28, effect), arms)[1]
        covered += gain.low <= effect <= gain.high
        if effect == 0.2:
            assert gain.excludes(0)
    assert covered >= 34


def test_a_length_that_no_bias_reaches_has_a_reason_and_no_number():
    arms = [(np.full(9, 10.0), np.full(9, 0.5)), (np.full(9, 20.0), np.full(9, 0.5))]
    for found in matched(np.full(9, 21.0), np.full(9, 0.5), arms):
        assert "21 tokens; unsteered ones could be had of 10 to 20" in found.reason
    same = matched(np.full(9, 10.0), np.full(9, 0.7), arms[:1])
    assert same[0].value == 0.5
    assert same[1].value == pytest.approx(0.2)


def test_the_figure_draws_the_rows(tmp_path, monkeypatch):
    from probes.plots import style

    made, figures = style.Figure, []
    monkeypatch.setattr(
        style, "Figure", lambda *a, **k: figures.append(made(*a, **k)) or figures[0]
    )
    frame = pd.DataFrame([asdict(r) for r in measured()])
    paths = feature_dose(frame, tmp_path / "dose", kinds=["check"])
    assert [p.stat().st_size > 5000 for p in paths] == [True, True]
    axes = figures[0].axes[2]
    assert axes.get_ylabel() == "rate of check"
    (own,) = [line for line in axes.lines if line.get_color() == COLOURS["base"]]
    assert tuple(own.get_xdata()) == STRENGTHS
    wanted = [value("option rate of check", "feature", x).value for x in STRENGTHS]
    assert own.get_ydata() == pytest.approx(wanted)
    drawn = {round(float(c.lines[0].get_ydata()[0]), 6) for c in axes.containers}
    controls = ("random feature", "random direction")  # a length has no rate of checks
    assert drawn == {
        round(value("option rate of check", s, x).value, 6) for s in controls for x in STRENGTHS
    }


def test_an_empty_table_says_so(tmp_path):
    frame = pd.DataFrame([asdict(r) for r in measured()]).iloc[:0]
    assert feature_dose(frame, tmp_path / "none")[0].is_file()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(latents=[]), "name at least one latent"),
        (dict(latents=[3, 3]), "each once"),
        (dict(latents=[24]), "latent 24 is not in"),
    ],
)
def test_a_dose_that_cannot_be_given_is_refused(wrong, message):
    base, task, problems = parts()
    x = torch.randn(9, base.width, generator=torch.Generator().manual_seed(0))
    with pytest.raises(Refusal, match=message):
        dose_response(base, task, problems, planted(), activations=x, **wrong)
    with pytest.raises(Refusal, match="not 0, which is the unsteered model"):
        DoseSettings(biases=(0.0,))
    with pytest.raises(Refusal, match="add of strength 0"):
        DoseSettings(op="add", strengths=(0.0, 1.0))
