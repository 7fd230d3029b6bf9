import itertools

import numpy as np
import pytest
import torch

from probes.generate import (
    Choice,
    Decoding,
    Request,
    Stepper,
    choose,
    distribution,
    generate,
    replay,
    uniforms,
)
from probes.generate.cache import RowCache
from probes.models import submodule
from probes.records import Refusal

END = 28
PLAIN = Decoding(stop=(END,))


def requests(count=16, *, samples=2, longest=15, settings=(None,), seed=0):
    """Prompts of 1 to 9 tokens, several samples each, answers of very different length."""
    rng = np.random.default_rng(seed)
    prompts = [tuple(map(int, rng.integers(2, 28, 1 + i % 9))) for i in range(count)]
    return [
        Request(f"p{p}", i % samples, prompts[p], 1 + (7 * i) % longest, setting, setting)
        for i, setting in itertools.islice(itertools.product(range(count), settings), count)
        for p in [i // samples]
    ]


def verify(rollout, request, net, decoding=PLAIN, seed=0):
    """By definition: each token is what numpy chooses after one forward pass without a cache.

    True of every token in turn, this makes the answer that of decoding without a cache.
    """
    nets = net if isinstance(net, list) else [net] * request.max_new
    text, first = torch.tensor([request.prompt + rollout.tokens]), len(request.prompt) - 1
    logits = {id(n): n(text).logits[0, first:-1] for n in nets}
    u = uniforms(seed, request.problem, request.sample, "tokens", request.max_new)
    for i, token in enumerate(rollout.tokens):
        scores = logits[id(nets[i])][i].double() / (decoding.temperature or 1)
        p = kept(scores.softmax(-1).numpy(), decoding.top_p)
        greedy = decoding.temperature == 0
        assert token == (p.argmax() if greedy else (p.cumsum() <= u[i] * p.sum()).sum())
        assert rollout.logprobs[i] == pytest.approx(np.log(p[token] / p.sum()), abs=1e-5)
    stopped = [i for i, token in enumerate(rollout.tokens) if token in decoding.stop]
    assert stopped == ([len(rollout.tokens) - 1] if rollout.stop == "stop" else [])
    assert rollout.stop == "stop" or len(rollout.tokens) == request.max_new
    identity = (request.problem, request.sample, str(request.setting or ""))
    assert (rollout.problem, rollout.sample, rollout.setting) == identity


def kept(p, top_p):
    """p with the tokens outside the nucleus set to 0, by a loop."""
    out, mass = np.zeros_like(p), 0.0
    for token in sorted(range(len(p)), key=lambda t: (-p[t], t)):
        if mass and mass >= top_p - 1e-6:
            break
        out[token], mass = p[token], mass + p[token]
    return out


class Add:
    """Adds a vector of the row's setting at positions >= P-1 + after."""

    def __init__(self, vectors, site="blocks.1.hook_resid_post", after=0):
        self.vectors, self.sites, self.after, self.seen = vectors, (site,), after, []

    def seat(self, slots, requests, rows):
        device_rows = getattr(self, "rows", torch.zeros(0, 32))
        first = getattr(self, "first", np.zeros(0, dtype=int))
        self.rows = torch.zeros(rows, 32)
        self.first = np.zeros(rows, dtype=int)
        keep = min(rows, len(device_rows))
        self.rows[:keep], self.first[:keep] = device_rows[:keep], first[:keep]
        for slot, request in zip(slots, requests, strict=True):
            self.rows[slot] = self.vectors.get(request.setting, torch.zeros(32))
            self.first[slot] = len(request.prompt) - 1 + self.after

    def at(self, site, x, now):
        assert x.shape[:2] == (len(now.requests), now.width)
        self.seen.append(now)
        where = (now.positions >= 0) & (now.positions >= self.first[:, None])
        return x + torch.from_numpy(where)[..., None] * self.rows[:, None]


def test_answers_depend_neither_on_batch_nor_on_order(model):
    asked = requests(64, longest=8)
    together = generate(model, asked, PLAIN, batch=64)
    assert len({len(r.tokens) for r in together}) > 5  # else no row is retired early
    for batch in (1, 17):
        apart = generate(model, asked, PLAIN, batch=batch)
        assert [r.tokens for r in apart] == [r.tokens for r in together]
        for a, b in zip(apart, together, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)
    shuffled = np.random.default_rng(1).permutation(64)
    again = generate(model, [asked[i] for i in shuffled], PLAIN, batch=7)
    assert [r.tokens for r in again] == [together[i].tokens for i in shuffled]


@pytest.mark.parametrize(
    "decoding",
    [PLAIN, Decoding(0.7, 0.8, (END,)), Decoding(0.0, stop=(END,)), Decoding(1.3)],
    ids=["T=1", "T=.7 p=.8", "greedy", "no stop"],
)
def test_cached_decoding_is_a_whole_forward_pass_for_each_token(model, decoding):
    asked = requests()
    for request, got in zip(asked, generate(model, asked, decoding, batch=5), strict=True):
        verify(got, request, model.net, decoding)


def test_every_architecture_decodes_as_its_own_forward_does(any_model):
    asked = requests(9, samples=1, longest=12)
    for request, got in zip(asked, generate(any_model, asked, PLAIN, batch=4), strict=True):
        verify(got, request, any_model.net)


def test_greedy_is_what_hugging_face_generates(model):
    prompts = [(3, 4, 5), (6, 7, 8), (9, 10, 11)]
    asked = [Request(str(i), 0, p, 20) for i, p in enumerate(prompts)]
    ours = generate(model, asked, Decoding(temperature=0, stop=(END,)))
    theirs = model.net.generate(
        torch.tensor(prompts), max_new_tokens=20, do_sample=False, eos_token_id=END, pad_token_id=0
    )
    for got, row in zip(ours, theirs[:, 3:].tolist(), strict=True):
        assert list(got.tokens) == row[: len(got.tokens)]
        assert set(row[len(got.tokens) :]) <= {0}


def test_a_full_buffer_is_shifted_without_harm(model, monkeypatch):
    shifts = []
    plain = RowCache.shift
    monkeypatch.setattr(
        RowCache, "shift", lambda self, end: (shifts.append((self.end, end)), plain(self, end))[1]
    )
    # The largest budgets come first: two prompts of two tokens, before any longer prompt.
    short = [Request("s", i, (3 + i, 4), 3, None, "s") for i in range(2)]
    asked = [*requests(40, samples=1, longest=2)[::-1], *short]
    got = generate(model, asked, Decoding(), batch=2)
    assert any(before > after for before, after in shifts)  # compacted
    assert any(0 < before < after for before, after in shifts)  # made room for a longer prompt
    for request, rollout in zip(asked, got, strict=True):
        verify(rollout, request, model.net, Decoding())


def test_the_buffer_holds_little_more_than_what_is_alive(model, monkeypatch):
    room = []
    plain = RowCache.update

    def update(self, *args):
        room.append((self.capacity, self.end, self.buffer is None or self.buffer.shape[-2]))
        return plain(self, *args)

    monkeypatch.setattr(RowCache, "update", update)
    generate(model, [Request("p", 0, (3, 4), 80), Request("q", 0, (3, 4, 5), 4)], Decoding())
    assert all(end < capacity <= end + 17 for capacity, end, _ in room if end)
    assert {buffer for _, _, buffer in room[-3:]} == {room[-1][0]}
    assert room[-1][0] < 100  # not the budget twice over, nor what was retired


def test_long_budgets_are_not_left_for_the_end(model):
    """Of two rows, one writes 16 tokens while the other writes eight answers of 2."""
    short = [Request(f"s{i}", 0, (3 + i, 4), 2) for i in range(8)]
    long = Request("l", 0, (20, 4), 16)
    for asked in ([*short, long], [long, *short]):
        observer = Add({})
        generate(model, asked, Decoding(), batch=2, observers=[observer])
        assert sum(now.width == 1 and now.start[0] > 0 for now in observer.seen) == 16


def test_equal_prompts_are_prefilled_once(model):
    asked = requests(48, samples=12, longest=4)
    computed = []
    hook = model.net.register_forward_pre_hook(
        lambda _, __, named: computed.append(named["input_ids"].shape), with_kwargs=True
    )
    generate(model, asked, PLAIN, batch=16)
    hook.remove()
    prefilled = sum(rows for rows, width in computed if width > 1)
    assert prefilled == len({r.prompt for r in asked if len(r.prompt) > 1}) == 3


class Crossed:
    """At every third token the decider chooses, elsewhere the executor: both read everything."""

    def __init__(self, decider, executor):
        self.steppers = (decider, executor)

    def next(self, tokens, turn):
        decider, executor = (
            choose(s.forward(tokens), turn.uniforms, turn.decoding) for s in self.steppers
        )
        decides = torch.tensor([len(w) % 3 == 0 for w in turn.written])
        return Choice(*(torch.where(decides, a, b) for a, b in zip(decider, executor, strict=True)))


def test_two_models_in_lockstep_cross_as_defined(model, other):
    asked = requests()
    got = generate(Crossed(Stepper(model), Stepper(other)), asked, PLAIN, batch=7)
    for request, rollout in zip(asked, got, strict=True):
        verify(rollout, request, [model.net, other.net, other.net] * 5)


def test_a_model_crossed_with_itself_is_itself(model):
    asked = requests()
    crossed = generate(Crossed(Stepper(model), Stepper(model)), asked, PLAIN, batch=7)
    plain = generate(model, asked, PLAIN, batch=30)
    assert [r.tokens for r in crossed] == [r.tokens for r in plain]


def test_observers_of_two_steppers_on_one_model_do_not_meet(model):
    """Hooks that outlived their pass would steer the other stepper too."""
    asked = requests(10)
    add = {None: 3 * torch.ones(32)}
    steered = generate(model, asked, PLAIN, observers=[Add(add)])
    plain = generate(model, asked, PLAIN)
    assert [r.tokens for r in steered] != [r.tokens for r in plain]
    for pair, alone in (
        ((Stepper(model), Stepper(model, [Add(add)])), plain),
        ((Stepper(model, [Add(add)]), Stepper(model)), steered),
    ):

        class First:
            steppers = pair

            def next(self, tokens, turn):
                logits = [s.forward(tokens) for s in self.steppers]
                return choose(logits[0], turn.uniforms, turn.decoding)

        assert [r.tokens for r in generate(First(), asked, PLAIN, batch=6)] == [
            r.tokens for r in alone
        ]


@pytest.mark.parametrize("after", [0, 3, -4], ids=["generated", "later", "from the prompt on"])
def test_settings_mixed_in_one_batch_are_steered_as_each_would_be_alone(model, after):
    generator = torch.Generator().manual_seed(0)
    vectors = {s: 2 * torch.randn(32, generator=generator) for s in ("x", "y")}
    asked = requests(24, samples=1, settings=("x", "y", "none"))
    got = generate(model, asked, PLAIN, batch=7, observers=[Add(vectors, after=after)])
    block, _ = submodule(model, 1, "hook_resid_post")
    for request, rollout in zip(asked, got, strict=True):

        def edit(_, __, output, r=request):
            first = max(0, len(r.prompt) - 1 + after)
            output = output.clone()
            output[:, first:] += vectors.get(r.setting, 0)
            return output

        handle = block.register_forward_hook(edit)
        verify(rollout, request, model.net)
        handle.remove()
    plain = generate(model, asked, PLAIN)
    differs = {r.setting for r, p in zip(got, plain, strict=True) if r.tokens != p.tokens}
    assert differs == {"x", "y"}  # and "none" is none


def test_settings_share_their_random_numbers(model):
    asked = requests(20, settings=("x", "y"))
    by_setting = {"x": [], "y": []}
    for rollout in generate(model, asked, PLAIN):
        by_setting[rollout.setting].append(rollout.tokens)
    shorter = [min(len(a), len(b)) for a, b in zip(*by_setting.values(), strict=True)]
    for a, b, n in zip(*by_setting.values(), shorter, strict=True):
        assert a[:n] == b[:n]


def test_passes_know_every_position(model):
    """Each position of each row once, except that a shared prefix is computed once for all."""
    observer = Add({})
    asked = requests(12, samples=1)
    got = generate(model, asked, PLAIN, batch=6, observers=[observer])
    seen = sorted(
        (request.problem, int(position))
        for now in observer.seen
        for request, row in zip(now.requests, now.positions, strict=True)
        for position in row
        if position >= 0
    )
    assert seen == sorted(
        (r.problem, p)
        for r, rollout in zip(asked, got, strict=True)
        for p in range(len(r.prompt) - 1 + len(rollout.tokens))
    )


def test_a_site_that_does_not_run_raises(model, monkeypatch):
    monkeypatch.setattr(model.net.config, "num_hidden_layers", 2)  # Llama now skips block 2
    with pytest.raises(RuntimeError, match=r"blocks\.2\.hook_mlp_out did not run"):
        next(replay(model, [(3, 4)], observers=[Add({}, "blocks.2.hook_mlp_out")]))


def test_no_hook_outlives_its_pass(model):
    def hooks():
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.net.modules())

    class Breaks(Add):
        def at(self, site, x, now):
            assert hooks() == before + 1
            raise KeyError("broken")

    before = hooks()  # other tests, and transformers itself, may have left some
    with pytest.raises(KeyError, match="broken"):
        generate(model, requests(3), observers=[Breaks({})])
    assert hooks() == before


def test_replay_is_the_forward_pass_of_each_sequence(any_model):
    rng = np.random.default_rng(0)
    sequences = [tuple(map(int, rng.integers(2, 28, n))) for n in rng.integers(1, 30, 20)]
    found = {}
    for rows, logits, now in replay(any_model, sequences, batch=6):
        assert len(rows) <= 6
        for i, row, start in zip(rows, logits, now.start, strict=True):
            found[i] = row[-start:] if start else row
    for i, sequence in enumerate(sequences):
        expected = any_model.net(torch.tensor([sequence])).logits[0]
        torch.testing.assert_close(found[i], expected, atol=2e-5, rtol=1e-5)


def test_long_sequences_are_replayed_in_smaller_batches(model, monkeypatch):
    monkeypatch.setattr("probes.generate.teacher_forcing.MASK_CELLS", 1000)
    sizes = [(len(r.rows), r.now.width) for r in replay(model, [(3,) * 25] * 4 + [(3,) * 5] * 64)]
    assert sizes[:4] == [(1, 25)] * 4
    assert sizes[4:] == [(40, 5), (24, 5)]


def test_a_pass_that_stops_early_runs_no_deeper_layer(model):
    whole, part = Add({}), Add({})
    ran = []
    hook = model.net.model.layers[2].register_forward_hook(lambda *_: ran.append(2))
    (stopped,) = replay(model, [(3, 4, 5)], observers=[part], stop_after=1)
    assert not ran
    (full,) = replay(model, [(3, 4, 5)], observers=[whole])
    hook.remove()
    assert ran
    assert stopped.logits is None
    assert full.logits is not None
    assert len(part.seen) == len(whole.seen) == 1


def test_a_vector_is_trained_through_the_hook_that_applies_it(model):
    request = [Request("p", 0, (3, 4), 3, "v")]
    vector = torch.zeros(32, requires_grad=True)

    def loss(v):
        steer = Add({"v": v})
        (done,) = replay(model, [(3, 4, 5, 6)], requests=request, observers=[steer], gradients=True)
        return torch.log_softmax(done.logits.double(), -1)[0, [1, 2], [5, 6]].sum()

    (gradient,) = torch.autograd.grad(loss(vector), vector)
    direction = torch.randn(32, generator=torch.Generator().manual_seed(0))
    step = 1e-2 * direction
    slope = (loss(step) - loss(-step)) / 2e-2
    assert slope.item() == pytest.approx((gradient @ direction).item(), rel=2e-2)
    assert abs(slope) > 1e-3


def test_taking_tokens_back_leaves_no_trace(model):
    asked = requests(6)
    stepper = Stepper(model, rows=6)
    stepper.seat(range(6), asked)
    newest = torch.tensor([r.prompt[-1] for r in asked])
    first = stepper.forward(newest)
    for junk in (5, 6, 7):
        stepper.forward(torch.full((6,), junk))
    stepper.rewind(4)
    torch.testing.assert_close(stepper.forward(newest), first)


@pytest.mark.parametrize(
    ("temperature", "top_p"), [(1, 1), (0.5, 1), (2, 0.9), (1, 0.6), (1, 0.5), (0.7, 1e-6)]
)
def test_tokens_come_as_often_as_the_closed_form_says(temperature, top_p):
    p = np.array([0.1, 0.3, 0.05, 0.3, 0.2, 0.05])
    shares = p ** (1 / temperature)
    expected = kept(shares / shares.sum(), top_p)
    expected /= expected.sum()
    count = 20_000
    grid = (np.arange(count) + 0.5) / count
    logits = torch.from_numpy(np.log(p)).float().expand(count, -1)
    tokens, logprobs = choose(logits, grid, Decoding(temperature, top_p))
    frequency = np.bincount(tokens.numpy(), minlength=6) / count
    assert frequency == pytest.approx(expected, abs=2 / count)
    assert logprobs.exp().numpy() == pytest.approx(expected[tokens.numpy()], abs=1e-6)


def test_the_ends_of_the_unit_interval_choose_allowed_tokens():
    logits = torch.tensor([[-float("inf"), 0.0, -float("inf"), 1.0, -float("inf")]] * 2)
    ends = np.array([0.0, 1 - 2**-53])
    assert choose(logits, ends, Decoding()).tokens.tolist() == [1, 3]
    assert choose(logits, ends, Decoding(top_p=0.7)).tokens.tolist() == [3, 3]


def test_greedy_reports_the_log_probability_at_temperature_one():
    logits = torch.tensor([[0.0, 2.0, 1.0]])
    tokens, logprobs = choose(logits, np.zeros(1), Decoding(temperature=0))
    assert tokens.item() == 1
    assert logprobs.item() == pytest.approx(logits.log_softmax(-1)[0, 1].item())
    assert distribution(logits, Decoding(0)).exp().sum().item() == pytest.approx(1)


def test_random_numbers_follow_their_key_and_nothing_else():
    long = uniforms(0, "p", 3, "tokens", 1000)
    assert uniforms(0, "p", 3, "tokens", 10).tolist() == long[:10].tolist()
    assert long[:2].tolist() == PINNED  # another machine or numpy must give the same rollouts
    for other in ((1, "p", 3, "tokens"), (0, "q", 3, "tokens"), (0, "p", 4, "tokens")):
        assert abs(np.corrcoef(long, uniforms(*other, 1000))[0, 1]) < 0.12  # 4 sigma: .126
    assert not np.array_equal(long, uniforms(0, "p", 3, "route", 1000))
    assert ((long >= 0) & (long < 1)).all()
    assert long.mean() == pytest.approx(0.5, abs=0.04)


PINNED = [0.769798942022097, 0.2946685461521362]


def test_requests_that_can_never_work_are_refused(model):
    good = Request("p", 0, (3, 4), 5)
    for asked, message in (
        ([Request("p", 0, (3,) * 90, 7)], "90 prompt tokens.*7 new.*reads 96.*at most 6"),
        ([Request("p", 0, (), 5)], "0 prompt tokens"),
        ([Request("p", 0, (3,), 0)], "asks for 0 new"),
        ([good, good], "twice"),
    ):
        with pytest.raises(Refusal, match=message):
            generate(model, asked)
    assert len(generate(model, [Request("p", 0, (3,) * 90, 6)], Decoding())[0].tokens) == 6
    with pytest.raises(Refusal, match="batch of 0"):
        generate(model, [good], batch=0)
    with pytest.raises(Refusal, match="belong to its steppers"):
        generate(Crossed(Stepper(model), Stepper(model)), [good], observers=[Add({})])
    with pytest.raises(Refusal, match=r"layer 3 is not in this model, whose layers are 0\.\.2"):
        generate(model, [good], observers=[Add({}, "blocks.3.hook_resid_post")])
    with pytest.raises(Refusal, match="lies behind layer 0"):
        next(replay(model, [(3,)], observers=[Add({})], stop_after=0))
    with pytest.raises(Refusal, match="1 to 97 tokens; tiny-llama reads 1 to 96"):
        next(replay(model, [(3,) * 97, (3,)]))
    for bad in ({"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"temperature": float("nan")}):
        with pytest.raises(Refusal, match="temperature"):
            Decoding(**bad)


def test_nothing_asked_is_nothing_done(model):
    assert generate(model, []) == []
    assert list(replay(model, [])) == []


def test_progress_counts_every_answer(model):
    done = []
    generate(model, requests(10, longest=4), PLAIN, batch=3, progress=done.append)
    assert sum(done) == 10
