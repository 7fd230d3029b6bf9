from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from probes.capture import Capture, Store, Text, capture, open_writer
from probes.generate import Decoding, Pass, Request, Sampler, Stepper, generate, replay
from probes.models import Model, submodule
from probes.records import Refusal
from steering.interventions import (
    ALL,
    GENERATED,
    PROMPT,
    Intervention,
    LogitBias,
    NotFired,
    Steer,
    Steered,
    Window,
    decisions,
    replayed,
    write,
)

POST, PRE, MLP = "blocks.1.hook_resid_post", "blocks.2.hook_resid_pre", "blocks.0.hook_mlp_out"
GREEDY = Decoding(temperature=0)
PROMPTS = [(5, 6, 7), (8, 9), (3, 4, 5, 6, 9), (4,)]


def unit(seed=0, width=32):
    draws = torch.from_numpy(np.random.Generator(np.random.Philox(seed)).standard_normal(width))
    return (draws / draws.norm()).float()


def add(strength=60.0, site=POST, window=ALL, seed=0):
    return Intervention("add", site, unit(seed), strength, window=window)


SETTINGS = {
    "none": [],
    "push": [add(window=GENERATED)],
    "prompt": [add(window=PROMPT)],
    "two sites": [add(20, MLP), Intervention("ablate", POST, unit(1)), add(-30, POST, seed=2)],
    "clamp": [Intervention("clamp", PRE, unit(3), 5.0, window=Window(2, 5))],
    "project": [
        Intervention("project", "blocks.-1.hook_attn_out", torch.stack([unit(4), unit(5)]))
    ],
    "after": [add(window=decisions(range(2, 15)))],
    "bias": [LogitBias({5: 6.0, 6: -3.0}, window=decisions(range(2, 20)))],
}


def requests(settings=SETTINGS, max_new=5):
    return [Request(f"p{i}", 0, p, max_new, s) for s in settings for i, p in enumerate(PROMPTS)]


def by_hand(model, request, interventions, count):
    """Greedy decoding without cache, padding or batch: the whole row anew for every token."""
    tokens = list(request.prompt)
    zero = len(request.prompt)

    def inside(window, length):
        start, stop = window.bounds(zero)
        kept = [window.after is None or t in window.after for t in tokens]
        return torch.tensor([start <= p < stop and kept[p] for p in range(length)])

    def hook(x, i):
        on, v = inside(i.window, x.shape[1])[:, None], torch.as_tensor(i.vector)
        if i.op == "add":
            new = x + i.strength * v
        elif i.op == "clamp":
            new = x + (i.strength - (x @ v))[..., None] * v
        else:
            basis = torch.linalg.svd(torch.atleast_2d(v), full_matrices=False).Vh
            new = x - i.strength * (x @ basis.T) @ basis
        return torch.where(on, new, x)

    for _ in range(count):
        handles = []
        for i in interventions:
            if isinstance(i, LogitBias):
                continue
            layer, kind = int(i.site.split(".")[1]), i.site.split(".")[2]
            module, how = submodule(model, layer, kind)
            if how == "input":
                handles.append(
                    module.register_forward_pre_hook(lambda _, a, i=i: (hook(a[0], i), *a[1:]))
                )
            else:
                handles.append(
                    module.register_forward_hook(
                        lambda _, a, o, i=i: (
                            (hook(o[0], i), *o[1:]) if isinstance(o, tuple) else hook(o, i)
                        )
                    )
                )
        with torch.no_grad():
            logits = model.net(torch.tensor([tokens]), use_cache=False).logits[0, -1]
        for handle in handles:
            handle.remove()
        for i in interventions:
            if isinstance(i, LogitBias) and inside(i.window, len(tokens))[-1]:
                for token, bias in i.vector.items():
                    logits[token] += bias * i.strength
        tokens.append(int(logits.argmax()))
    return tuple(tokens[zero:])


@pytest.fixture(scope="module")
def mixed(model):
    """All settings over all prompts in one batch that is too small for them."""
    return write(model, SETTINGS, requests(), GREEDY, batch=7)


def test_a_mixed_cached_padded_refilled_batch_is_each_row_alone_without_a_cache(model, mixed):
    for request, rollout in zip(requests(), mixed, strict=True):
        alone = by_hand(model, request, SETTINGS[request.setting], 5)
        assert rollout.tokens == alone, (request.setting, request.prompt)


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s != "none"])
def test_every_setting_changes_what_is_written(mixed, setting):
    """Without this, the law above would hold of a `Steer` and a `by_hand` that do nothing."""
    named = [r.setting for r in requests()]
    tokens = {s: [o.tokens for n, o in zip(named, mixed, strict=True) if n == s] for s in named}
    assert tokens[setting] != tokens["none"]


def test_the_generated_window_begins_with_the_choice_of_the_first_token(model):
    """Position P-1 is the last prompt token's; a window from P on would miss the first choice."""
    plain = generate(model, [Request(f"p{i}", 0, p, 3) for i, p in enumerate(PROMPTS)], GREEDY)
    late = Window(1, None, "generated")
    settings = {"now": [add(200, window=GENERATED)], "late": [add(200, window=late)]}
    now, later = (
        write(model, settings, requests([name], 3), GREEDY, batch=4) for name in ("now", "late")
    )
    assert all(a.tokens[0] != b.tokens[0] for a, b in zip(plain, now, strict=True))
    assert all(a.tokens[0] == b.tokens[0] for a, b in zip(plain, later, strict=True))
    assert all(a.tokens[1:] != b.tokens[1:] for a, b in zip(plain, later, strict=True))


def test_the_number_of_edits_is_what_windows_and_answers_say(model):
    steer = Steer(model, SETTINGS)
    asked = steer.keyed(requests())
    rollouts = generate(Steered(steer), asked, GREEDY, batch=7)
    expected = dict.fromkeys(SETTINGS, 0)
    for request, rollout in zip(asked, rollouts, strict=True):
        tokens = request.prompt + rollout.tokens
        for edit in SETTINGS[request.setting]:
            start, stop = edit.window.bounds(len(request.prompt))
            times = 2 if edit.op == "project" else 1  # one for each of its two vectors
            for p in range(start, min(stop, len(tokens) - 1)):
                if edit.window.after is None or tokens[p] in edit.window.after:
                    expected[request.setting] += times
    counted = steer.check()
    assert {k: counted[k] for k in SETTINGS} == expected
    assert steer.check().total() == 0  # counted anew


def test_replayed_answers_have_the_log_probabilities_they_were_written_with(model):
    asked = requests()
    rollouts = write(model, SETTINGS, asked, Decoding(), seed=3, batch=9)
    sequences = [r.prompt + o.tokens for r, o in zip(asked, rollouts, strict=True)]
    for rows, logits, now in replayed(model, SETTINGS, sequences, asked, batch=5):
        logprobs = torch.log_softmax(logits, -1)
        for row, i in enumerate(rows):
            first = now.width - 1 - len(rollouts[i].tokens)
            got = [float(logprobs[row, first + j, t]) for j, t in enumerate(rollouts[i].tokens)]
            assert got == pytest.approx(rollouts[i].logprobs, abs=2e-4), asked[i].setting


def applied(model, interventions, x, setting="s"):
    steer = Steer(model, {"s": interventions})
    rows, width, _ = x.shape
    seats = [Request("p", i, tuple(range(2, 2 + width)), 1, setting) for i in range(rows)]
    steer.seat(range(rows), seats, rows)
    now = Pass(tuple(seats), np.zeros(rows, dtype=np.int64), width)
    for site in steer.sites:
        x = steer.at(site, x, now)
    steer.check()
    return x


@pytest.fixture
def x():
    return torch.randn(3, 4, 32, generator=torch.Generator().manual_seed(0)) * 5


def test_adding_and_then_subtracting_is_the_identity(model, x):
    plus, minus = add(7), add(-7)
    assert not torch.allclose(applied(model, [plus], x), x)
    torch.testing.assert_close(applied(model, [plus, minus], x), x, atol=4e-6, rtol=0)


def test_an_ablated_component_is_gone_and_ablating_again_changes_nothing(model, x):
    ablate = Intervention("ablate", POST, 3 * unit())  # of any length: its direction counts
    once = applied(model, [ablate], x)
    assert (x @ unit()).abs().min() > 1e-3
    assert (once @ unit()).abs().max() < 1e-5
    torch.testing.assert_close(applied(model, [ablate, ablate], x), once, atol=1e-5, rtol=0)
    torch.testing.assert_close(once, x - (x @ unit())[..., None] * unit())


def test_a_clamped_component_is_what_was_asked_for(model, x):
    clamp = Intervention("clamp", POST, unit(), 0.5, norm=8.0)
    out = applied(model, [clamp], x)
    torch.testing.assert_close(out @ unit(), torch.full((3, 4), 4.0))
    other = unit(1) - (unit(1) @ unit()) * unit()
    torch.testing.assert_close(out @ other, x @ other)


def test_a_projection_removes_the_span_and_is_idempotent(model, x):
    spanned = torch.stack([unit(), 2 * unit(1) + unit(), 3 * unit(2)])  # not orthogonal
    project = Intervention("project", POST, spanned)
    out = applied(model, [project], x)
    assert (out @ spanned.T).abs().max() < 2e-5
    torch.testing.assert_close(applied(model, [project, project], x), out, atol=1e-5, rtol=0)
    rest = torch.linalg.lstsq(spanned.T, x.reshape(-1, 32).T).solution
    torch.testing.assert_close(out.reshape(-1, 32), x.reshape(-1, 32) - (spanned.T @ rest).T)


def test_a_strength_is_in_multiples_of_the_residual_norm(model, x):
    norm = float(x.norm(dim=-1).mean())
    out = applied(model, [Intervention("add", POST, unit(), 0.25, norm=norm)], x)
    torch.testing.assert_close((out - x).norm(dim=-1), torch.full((3, 4), norm / 4))


@pytest.mark.parametrize("op", ["add", "ablate", "none"])
def test_strength_zero_and_none_are_bit_for_bit_the_unedited_row(model, op):
    x = torch.tensor([-0.0, 0.0, 1e-40, -3.5]).repeat(8)[None, None]
    out = applied(model, [Intervention(op, POST, unit(), 0.0)], x)
    assert torch.equal(out.view(torch.int32), x.view(torch.int32))
    asked = Request("p", 0, (5, 6, 7), 6, "s")
    zero = write(model, {"s": [Intervention(op, POST, unit(), 0.0)]}, [asked])
    assert zero[0].logprobs == generate(model, [replace(asked, setting=None)])[0].logprobs


def test_an_edited_neighbour_changes_no_bit_of_a_row(model, x):
    steer = Steer(model, {"s": [add(50)]})
    seats = [Request("p", i, (2, 3, 4, 5), 1, "s" if i == 1 else None) for i in range(3)]
    steer.seat(range(3), seats, 3)
    out = steer.at(POST, x, Pass(tuple(seats), np.array([0, -1, -2]), 4))
    assert torch.equal(out[[0, 2]], x[[0, 2]])
    assert torch.equal(out[1, 0], x[1, 0])  # padding
    assert not torch.equal(out[1, 1:], x[1, 1:])


def test_a_pass_costs_as_many_operations_for_many_settings_as_for_one(model, monkeypatch):
    from steering.interventions.rows import Seated

    calls = []
    edit = Seated.edit
    monkeypatch.setattr(Seated, "edit", lambda *a: calls.append(0) or edit(*a))
    asked = [Request(f"p{i}", 0, (5, 6, 7), 4, i) for i in range(16)]
    many = {i: [add(i + 1.0, seed=i, window=GENERATED)] for i in range(16)}
    write(model, many, asked, GREEDY)
    for_many = len(calls)
    write(model, {0: many[0]}, [replace(r, setting=0) for r in asked], GREEDY)
    assert for_many == len(calls) - for_many == 4  # one a pass


def test_an_edit_that_rounds_to_nothing_is_an_error(model):
    with pytest.raises(NotFired, match=r"edit 0 of setting 's' changed 0 positions of row 0 .*4"):
        write(model, {"s": [add(1e-12, window=GENERATED)]}, [Request("p", 0, (5, 6), 4, "s")])


def test_an_edit_that_is_lost_behind_the_window_is_an_error(model, x, monkeypatch):
    """The count is of changed values, so it does not repeat the window's own arithmetic."""
    monkeypatch.setattr(torch, "where", lambda on, new, old: old)
    for op, vector in [("add", unit()), ("ablate", unit()), ("clamp", unit())]:
        with pytest.raises(NotFired, match="changed 0 positions of row 0 .* window says 3"):
            applied(model, [Intervention(op, POST, vector, 2.0, window=Window(1))], x)


def test_a_site_that_does_not_run_is_an_error(model, monkeypatch):
    skipped = lambda hidden_states, **_: hidden_states  # noqa: E731
    monkeypatch.setattr(model.net.model.layers[0], "forward", skipped)
    with pytest.raises(RuntimeError, match=r"blocks\.0\.hook_mlp_out did not run"):
        write(model, {"s": [add(site=MLP)]}, [Request("p", 0, (5, 6), 2, "s")])


def test_an_edit_after_tokens_that_nobody_tells_is_an_error(model):
    asked = [Request("p", 0, (5, 6), 3, "s")]
    with pytest.raises(RuntimeError, match="`Steered`"):
        steer = Steer(model, {"s": [add(window=decisions(range(29)))]})
        generate(model, asked, observers=[steer])
    with pytest.raises(Refusal, match="logit bias, which no hook can apply"):
        steer = Steer(model, {"s": [LogitBias({5: 1.0})]})
        generate(model, asked, observers=[steer])


def test_settings_that_edit_the_prompt_differently_do_not_share_its_prefix(model):
    steer = Steer(model, {"s": [add(window=PROMPT)], "t": [add(window=GENERATED)]})
    asked = [Request("p", 0, (5, 6, 7), 3, s) for s in ("s", None, "t")]
    with pytest.raises(Refusal, match="share its prefix"):
        generate(model, asked, observers=[steer])
    keys = [r.prefix_key for r in steer.keyed(asked)]
    assert keys == [(None, "s"), None, None]  # the unedited prefix is still shared
    generate(model, steer.keyed(asked), observers=[Steer(model, steer.settings)])


@pytest.mark.parametrize("op", ["add", "ablate", "clamp"])
def test_the_gradient_of_a_vector_is_the_slope_of_the_loss(tokenizer, op):
    """Training a vector goes through the hook that applies it.

    A GPT-2, as Llama's norm computes in float32 whatever the weights are, and a difference of
    float32 values is no slope.
    """
    config = GPT2Config(vocab_size=29, n_positions=16, n_embd=32, n_layer=3, n_head=4)
    torch.manual_seed(0)
    net = GPT2LMHeadModel(config).double().eval().requires_grad_(False)
    wide = Model(net, tokenizer, "tiny-gpt2")
    sequences = [(5, 6, 7, 8), (9, 3, 4)]
    asked = [Request(str(i), 0, s[:2], 1, "s") for i, s in enumerate(sequences)]

    def loss(vector, gradients=False):
        edits = {"s": [Intervention(op, POST, vector, 0.7, window=GENERATED)]}
        passes = replayed(wide, edits, sequences, asked, gradients=gradients)
        return sum(torch.log_softmax(logits, -1)[:, -1, 4].sum() for _, logits, _ in passes)

    vector = (3 * unit()).double().requires_grad_()
    for _ in range(2):  # a second step meets a graph of its own
        (slope,) = torch.autograd.grad(loss(vector, gradients=True), vector)
    along = unit(7).double()
    with torch.no_grad():
        step = 1e-4 * along
        difference = (loss(vector + step) - loss(vector - step)) / 2e-4
    assert abs(float(slope @ along)) > 1e-6
    assert float(slope @ along) == pytest.approx(float(difference), rel=1e-5)


def test_a_vector_that_learns_is_read_anew_at_each_seating(model, x):
    """A bank that was kept would hold last step's vector, and a graph that is gone."""
    vector = unit().requires_grad_()
    steer = Steer(model, {"s": [add(2.0)], "t": [replace(add(2.0), vector=vector)]})
    seats = [Request("p", i, (2, 3, 4, 5), 1, "t") for i in range(3)]
    now = Pass(tuple(seats), np.zeros(3, dtype=np.int64), 4)
    for _ in range(2):
        steer.seat(range(3), seats, 3)
        out = steer.at(POST, x, now)
        torch.testing.assert_close(out, x + 2 * vector)
        (slope,) = torch.autograd.grad(out.sum(), vector)
        torch.testing.assert_close(slope, torch.full((32,), 24.0))
        with torch.no_grad():
            vector += 1.0


def test_two_steppers_on_one_model_do_not_meet_each_others_edits(model):
    asked = [Request(f"p{i}", 0, p, 4, "s") for i, p in enumerate(PROMPTS)]

    class Both(Sampler):
        """Writes with the first stepper, and feeds the second the same tokens."""

        def __init__(self, first, second):
            self.steppers = (first, second)
            self.seen = []

        def next(self, tokens, turn):
            self.seen.append(self.steppers[1].forward(tokens))
            return super().next(tokens, turn)

    steers = [Steer(model, {"s": [add(k, window=GENERATED)]}) for k in (60, -60)]
    both = Both(*(Stepper(model, [s]) for s in steers))
    rollouts = generate(both, asked, GREEDY)
    alone = write(model, {"s": [add(60, window=GENERATED)]}, asked, GREEDY)
    assert rollouts == alone
    sequences = [r.prompt + o.tokens for r, o in zip(asked, alone, strict=True)]
    other = {"s": [add(-60, window=GENERATED)]}
    for rows, logits, now in replayed(model, other, sequences, asked):
        for row, i in enumerate(rows):
            for step, seen in enumerate(both.seen):
                column = now.width - 1 - 4 + step
                torch.testing.assert_close(seen[i], logits[row, column], atol=1e-3, rtol=1e-4)
    assert [s.check()["s"] for s in steers] == [16, 16]


def test_a_capture_behind_the_steering_holds_the_edited_values_and_says_so(model, tmp_path):
    """The pass that wrote is the one captured: its replay under the same edits agrees."""
    settings = {"push": [add(window=decisions([7, 9]))], "plain": []}
    asked, steer = requests(settings), Steer(model, settings)
    with open_writer(model, [POST], tmp_path / "live") as writer:
        reading = Capture(writer, edits=[steer])
        rollouts = generate(Steered(steer, [reading]), asked, GREEDY)
        reading.finish()
    live = Store(tmp_path / "live")
    index = live.index.sort_values(["problem", "setting", "position"])
    assert set(index.edited[index.setting == "plain"]) == {False}
    assert set(index.edited[index.setting == "push"]) == {False, True}
    assert index.edited.sum() == steer.check()["push"]

    texts = [
        Text(r.problem, 0, r.prompt, o.tokens, r.setting)
        for r, o in zip(asked, rollouts, strict=True)
    ]
    again = Steer(model, settings)
    again.tell(texts, [t.tokens for t in texts])
    replays = capture(
        model, [POST], texts, tmp_path / "replay", positions="generated", observers=[again]
    )
    order = replays.index.sort_values(["problem", "setting", "position"]).index
    columns = ["problem", "setting", "position", "edited"]
    assert replays.index.loc[order, columns].values.tolist() == index[columns].values.tolist()
    ours, theirs = live.read(POST, index.index), replays.read(POST, order)
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(op="subtract"), "operation 'subtract' is not known; there are add, ablate"),
        (dict(site="blocks.1.resid"), "hook_resid_post"),
        (dict(site="blocks.3.hook_resid_post"), r"layer 3 is not in this model.*0\.\.2"),
        (dict(vector=None), "needs a vector"),
        (dict(vector=unit(width=31)), "length 31.*length 32"),
        (dict(vector=torch.zeros(32)), "zero or not finite"),
        (dict(vector=torch.full((32,), torch.nan)), "zero or not finite"),
        (dict(vector=torch.ones(2, 32)), "one vector"),
        (dict(vector=2 * unit(), norm=5.0), "length 2,.* needs length 1"),
        (dict(norm=0.0), "norm > 0"),
        (dict(strength=float("inf")), "finite"),
        (dict(op="project", strength=0.5), "project has no strength"),
        (dict(op="project", vector=torch.stack([unit(), unit()])), "span 1 dimensions"),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, dict) else "",
)
def test_an_intervention_that_cannot_work_is_refused(model, wrong, message):
    with pytest.raises(Refusal, match=message):
        Steer(
            model, {"s": [Intervention(**{"op": "add", "site": POST, "vector": unit(), **wrong})]}
        )


def test_an_unknown_setting_or_token_is_refused(model):
    with pytest.raises(Refusal, match=r"setting 't' is not known; there are None, 's'"):
        write(model, {"s": [add()]}, [Request("p", 0, (5, 6), 2, "t")])
    with pytest.raises(Refusal, match=r"\[99\]: the vocabulary has 0\.\.28"):
        Steer(model, {"s": [LogitBias({99: 1.0})]})
    with pytest.raises(Refusal, match="a bias of"):
        LogitBias({})
    with pytest.raises(Refusal, match="1 sequences and 0 requests"):
        next(replayed(model, {}, [(5,)], []))


def test_positions_of_a_replay_are_edited_as_the_plain_hook_would(model):
    """Everything at once, against the plain replay with the vector added by hand."""
    sequence, asked = (5, 6, 7, 8, 9), Request("p", 0, (5, 6), 1, "s")
    ((_, edited, _),) = replayed(model, {"s": [add(9.0, window=Window(1, 3))]}, [sequence], [asked])
    module, _ = submodule(model, 1, "hook_resid_post")
    mask = torch.tensor([0.0, 1, 1, 0, 0])[:, None]
    handle = module.register_forward_hook(
        lambda _, a, o: (
            (o[0] + 9 * mask * unit(), *o[1:]) if isinstance(o, tuple) else o + 9 * mask * unit()
        )
    )
    ((_, expected, _),) = replay(model, [sequence])
    handle.remove()
    torch.testing.assert_close(edited, expected)
    assert not torch.allclose(edited[0, 1:], next(replay(model, [sequence])).logits[0, 1:])
    torch.testing.assert_close(edited[0, :1], next(replay(model, [sequence])).logits[0, :1])
