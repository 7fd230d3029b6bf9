import numpy as np
import pytest
import torch

from probes.intervals import difference
from probes.models import Model, new_llama, new_tokenizer
from probes.records import Grade, Refusal, Rollout
from probes.tasks import decisions, load_task
from probes.verify import Graded
from steering.evaluate import Judged, evaluate
from steering.routing import (
    CELLS,
    CONTROLS,
    Crossed,
    at_decisions,
    at_random,
    cross,
    otherwise,
    recorded,
    when_or_how,
)
from steering.routing.when_or_how import interaction


@pytest.fixture(scope="module")
def task():
    return load_task("chain")


def tiny(task, seed):
    """Weights wide enough that the two models disagree, inclined to write the grammar's words."""
    tokenizer = new_tokenizer(task.vocabulary())
    net = new_llama(len(tokenizer), width=32, depth=2, heads=4, mlp=32, context=64, seed=seed)
    with torch.no_grad():
        net.get_input_embeddings().weight.mul_(8)
    return Model(net.requires_grad_(False), tokenizer, f"tiny-{seed}")


@pytest.fixture(scope="module")
def base(task):
    return tiny(task, 0)


@pytest.fixture(scope="module")
def tuned(task):
    return tiny(task, 1)


@pytest.fixture(scope="module")
def problems(task):
    return task.problems("test", 6, skill="n", part="touched")


def written(judged):
    return [r.tokens for r in judged.rollouts]


def test_a_model_crossed_with_itself_writes_what_it_writes_alone(base, task, problems):
    decides = at_decisions(task, problems, base.tokenizer)
    alone = evaluate(base, task, problems, samples=2, batch=5)
    crossed = evaluate(Crossed(base, base, decides), task, problems, samples=2, batch=5)
    assert written(crossed) == written(alone)
    for one, other in zip(crossed.rollouts, alone.rollouts, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_whoever_always_writes_is_undisturbed_by_the_other(base, tuned, task, problems):
    always = Crossed(tuned, base, lambda request, so_far: True)
    never = Crossed(tuned, base, otherwise(lambda request, so_far: True))
    by = {
        name: written(evaluate(w, task, problems, samples=1))
        for name, w in [(1, always), (0, never)]
    }
    assert by[1] == written(evaluate(tuned, task, problems, samples=1))
    assert by[0] == written(evaluate(base, task, problems, samples=1))
    assert by[0] != by[1]  # or the laws here would hold of a writer that knows one model only


def test_each_token_is_the_likeliest_of_the_model_whose_turn_it_is(base, tuned, task, problems):
    """By definition: decisions found in the finished text, one uncached pass a model."""
    from probes.generate import Decoding

    writer = Crossed(tuned, base, at_decisions(task, problems, base.tokenizer))
    judged = evaluate(writer, task, problems, samples=1, decoding=Decoding(0), batch=4)
    both = set()
    for problem, rollout in zip(problems, judged.rollouts, strict=True):
        prompt = base.tokenizer(problem.prompt)["input_ids"]
        text = torch.tensor([[*prompt, *rollout.tokens]])
        wanted = [m.net(text).logits[0, len(prompt) - 1 : -1].argmax(-1) for m in (base, tuned)]
        words = base.tokenizer.convert_ids_to_tokens(list(rollout.tokens))
        decided = {d.position for d in decisions(task, problem, " ".join(words))}
        for i, token in enumerate(rollout.tokens):
            assert token == wanted[i in decided][i]
        assert writer.chosen[problem.id, 0, None] == [i in decided for i in range(len(words))]
        both |= set(writer.chosen[problem.id, 0, None])
    assert both == {True, False}


def test_the_recorded_chooser_can_be_replayed_and_refuses_other_answers(
    base, tuned, task, problems
):
    first = Crossed(tuned, base, at_random({p.id: 0.4 for p in problems}, seed=3))
    judged = evaluate(first, task, problems, samples=2)
    again = Crossed(tuned, base, recorded(first.chosen))
    assert written(evaluate(again, task, problems, samples=2, batch=3)) == written(judged)
    assert again.chosen == first.chosen
    evaluate(first, task, problems, samples=2)
    assert first.chosen == again.chosen  # of the last time an answer was written, not of both
    with pytest.raises(Refusal, match="other requests"):
        evaluate(again, task, problems, samples=1, first_sample=7)


def test_random_tokens_come_at_the_rate_of_their_problem(base, tuned, task):
    problems = task.problems("test", 2, skill="a")
    rates = {problems[0].id: 0.2, problems[1].id: 0.9}
    writer = Crossed(tuned, base, at_random(rates))
    evaluate(writer, task, problems, samples=40)
    for problem, rate in rates.items():
        coins = np.concatenate([c for key, c in writer.chosen.items() if key[0] == problem])
        assert len(coins) > 400
        assert coins.mean() == pytest.approx(rate, abs=4 * 0.5 / len(coins) ** 0.5)


def test_a_tokenizer_that_cuts_words_is_refused(base, task, problems):
    class Cut:
        def get_vocab(self):
            return base.tokenizer.get_vocab()

        def __call__(self, text, add_special_tokens):
            return {"input_ids": [2] * (len(text.split()) + 1)}

    with pytest.raises(Refusal, match="no single token takes a decision"):
        at_decisions.__wrapped__(task, problems, Cut())


# ---------------------------------------------------------------- the numbers


def planted(problems, sound):
    """A record in which cell c solves `sound[c][i]` of ten answers to problem i."""
    rollouts, graded = [], []
    for cell, solved in sound.items():
        for problem, count in zip(problems, solved, strict=True):
            for sample in range(10):
                good = bool(sample < count)
                rollouts.append(Rollout(problem.id, sample, (1,), (0.0,), "", "stop", cell))
                graded.append(Graded(Grade.RIGHT if good else Grade.WRONG, good))
    return Judged(tuple(problems), tuple(rollouts), tuple(graded))


@pytest.fixture(scope="module")
def many(task):
    return task.problems("test", 40, skill="n", part="touched")


def by_name(rows):
    return {(r.measure, r.model, r.setting): r for r in rows}


def test_planted_deployment_execution_and_interaction_are_found(many):
    random = np.random.default_rng(0)
    bb = random.integers(0, 4, 40)
    planted_effects = {"tuned x base": 3, "base x tuned": 1, "tuned x tuned": 6}
    sound = {"base x base": bb} | {cell: bb + up for cell, up in planted_effects.items()}
    sound |= {CONTROLS[0]: bb + random.integers(0, 2, 40), CONTROLS[1]: bb}
    rows = by_name(when_or_how(planted(many, sound)))
    change = "tuned - base"
    for name, true in {
        "gain": 0.6,
        "deployment": 0.3,
        "execution": 0.1,
        "interaction": 0.2,
    }.items():
        row = rows[f"{name} valid", change, "decision tokens"]
        assert row.value == pytest.approx(true)
        assert row.low <= row.value + 1e-9
        assert row.high >= row.value - 1e-9
        assert (row.skill, row.part, row.n) == ("n", "touched", 40)
    null = rows["deployment valid", change, "random tokens"]
    beyond = rows["deployment valid", change, "decision tokens - random tokens"]
    assert null.value + beyond.value == pytest.approx(0.3)
    assert beyond.low > 0
    assert rows["execution valid", change, "random tokens"].value == 0
    assert rows["valid", "tuned x base", "decision tokens"].value == pytest.approx(
        bb.mean() / 10 + 0.3
    )


def test_the_three_numbers_add_up_to_the_gain(many):
    random = np.random.default_rng(1)
    rows = by_name(when_or_how(planted(many, {c: random.integers(0, 11, 40) for c in CELLS})))
    terms = [
        rows[f"{name} right", "tuned - base", "decision tokens"].value
        for name in ("deployment", "execution", "interaction")
    ]
    assert sum(terms) == pytest.approx(rows["gain right", "tuned - base", "decision tokens"].value)


def test_an_interaction_that_few_problems_show_keeps_a_width(many):
    zero = np.zeros(40)
    few = zero.copy()
    few[:3] = 1.0
    of = interaction(zero, zero, zero, few)
    assert of.value == pytest.approx(3 / 40)
    assert of.low < of.value < of.high
    assert interaction(zero, zero, zero, zero).high > 0.05
    assert interaction(zero, few, zero, few).value == 0
    pair = difference(few, zero)
    assert of.low <= pair.low  # no narrower than one of the two differences it is made of
    assert of.high >= pair.high


def test_more_readable_answers_are_a_term_of_their_own(many):
    """All of the gain is format: half the base's answers can't be read, the rest are as right."""
    rollouts, graded = [], []
    for cell in CELLS:
        for problem in many:
            for sample in range(4):
                lost = cell == "base x base" and sample < 2
                grade = Grade.UNPARSED if lost else Grade.RIGHT if sample % 2 else Grade.WRONG
                rollouts.append(Rollout(problem.id, sample, (1,), (0.0,), "", "stop", cell))
                graded.append(Graded(grade, False))
    rows = by_name(when_or_how(Judged(tuple(many), tuple(rollouts), tuple(graded))))
    assert rows["format", "tuned - base", ""].value == pytest.approx(0.25)
    assert rows["gain right", "tuned - base", "decision tokens"].value == pytest.approx(0.25)
    assert rows["gain parsed", "tuned - base", "decision tokens"].value == pytest.approx(0.5)


def test_a_crossed_record_has_its_cells_from_the_models_themselves(base, tuned, task, problems):
    judged = cross(base, tuned, task, problems, samples=2, seed=4)
    assert {r.setting for r in judged.rollouts} == {*CELLS, *CONTROLS}
    alone = [evaluate(model, task, problems, samples=2, seed=4) for model in (base, tuned)]
    for cell, judged_alone in zip((CELLS[0], CELLS[3]), alone, strict=True):
        assert written(judged.where(setting=cell)) == written(judged_alone)
    given = cross(base, tuned, task, problems, samples=2, seed=4, plain=tuple(alone))
    assert written(given) == written(judged)
    rows = when_or_how(judged)
    assert {row.model for row in rows} == {*CELLS, *CONTROLS, "tuned - base"}


def test_a_model_crossed_with_itself_gains_nothing(base, task, problems):
    judged = cross(base, base, task, problems, samples=1)
    for row in when_or_how(judged):
        if row.model == "tuned - base":
            assert row.value == 0
            assert row.low < 0 < row.high
