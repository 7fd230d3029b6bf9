"""Answers from a server that resets, drips, refuses, lies and breaks off: none lost, none twice."""

import asyncio
import random
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass

import pytest

from probes.models import encode
from probes.records import Problem, Refusal
from probes.served import (
    AnotherModel,
    NoLogprobs,
    Server,
    ServerRefused,
    ServerUnavailable,
    WrongKey,
    tokens_of,
)
from probes.served.answers import check_length, log_probabilities, read, token_ids
from probes.served.dialects import DIALECTS, Asked
from probes.served.draws import ALIKE, check_varied, request_seed
from probes.served.tokens import Tokens

PASSING = ("reset", "half body", "half json", "half answer", "no choice", 408, 429, 500, 502, 503)
"""Faults that another try mends."""


@dataclass(frozen=True)
class Brief:
    """A task that allows few tokens."""

    most: int = 7

    def budget(self, problem: Problem) -> int:
        return self.most


def asked(count=3):
    return [Problem("t", f"a b {'c ' * i}d\n", "", "", "", 0, "{}") for i in range(count)]


def server(faulty, **how):
    return Server(faulty.address, "tiny", **{"patience": 0.001, "timeout": 10.0, **how})


def test_answers_come_in_order_with_ids_and_logprobs(loopback):
    problems = asked()
    with loopback.serving() as faulty:
        found = server(faulty).write(Brief(), problems, range(2, 6), seed=3)
    assert [(r.problem, r.sample) for r in found] == [
        (p.id, i) for p in problems for i in range(2, 6)
    ]
    by_id = {p.id: p.prompt for p in problems}
    for one in found:
        assert one.text == f"{request_seed(3, one.problem, one.sample)} of {by_id[one.problem]}"
        assert one.tokens == (*range(len(one.text.split())), 28)
        assert one.logprobs == (-0.5,) * len(one.tokens)
        assert one.stop == "stop"


def test_the_prompt_is_sent_to_the_last_character_with_all_settings(loopback):
    problem = Problem("t", " ünder\n\ta 😀  ", "", "", "", 0, "{}")
    with loopback.serving() as faulty:
        server(faulty).write(Brief(5), [problem], range(1), temperature=0.6, top_p=0.9, seed=1)
    first, posted = faulty.asked
    assert posted["prompt"] == first["prompt"] == problem.prompt
    assert (posted["temperature"], posted["top_p"], posted["max_tokens"]) == (0.6, 0.9, 5)
    assert posted["seed"] == request_seed(1, problem.id, 0)
    assert (posted["n"], posted["stream"], posted["top_k"], posted["min_p"]) == (1, False, -1, 0)


def test_seeds_of_a_problem_are_all_different_and_fit_in_31_bits():
    for seed, name in ((0, "p"), (1, "p"), (0, "q")):
        drawn = [request_seed(seed, name, i) for i in range(20_000)]
        assert len(set(drawn)) == 20_000
        assert 0 <= min(drawn) <= max(drawn) < 2**31
    assert len({request_seed(s, n, 0) for s in range(50) for n in "abcdefgh"}) == 400


@pytest.mark.parametrize("fault", PASSING, ids=str)
def test_what_may_pass_is_tried_again_until_it_has(loopback, fault):
    with loopback.serving(fault=loopback.by_turns(fault, fault)) as faulty:
        found = server(faulty).write(Brief(), asked(), range(2))
    assert set(faulty.times.values()) == {3}
    assert set(faulty.given.values()) == {1}
    assert all(" of " in one.text for one in found)


def test_a_slow_answer_is_asked_for_again(loopback):
    with loopback.serving(fault=loopback.by_turns(None, "slow")) as faulty:
        one = server(faulty, timeout=0.3)
        one.identity(asked()[0].prompt)
        began = time.monotonic()
        assert len(one.write(Brief(), asked(1), range(3), seed=5)) == 3
        assert time.monotonic() - began < 3


@pytest.mark.slow
def test_ten_thousand_requests_with_faults_in_a_twentieth_are_each_answered_once(loopback):
    """The faults follow (request, time), so the count of requests can be told beforehand."""
    kinds = [*PASSING, "slow"]

    def fault(posted, time):
        drawn = random.Random(f"{posted['prompt']} {posted['seed']} {time}")
        return drawn.choice(kinds) if drawn.random() < 0.05 else None

    problems, samples, told = asked(100), range(100), []
    with loopback.serving(fault=fault) as faulty:
        one = server(faulty, timeout=3.0)
        found = one.write(Brief(200), problems, samples, progress=told.append)
    wanted = [(p.id, i) for p in problems for i in samples]
    assert [(r.problem, r.sample) for r in found] == wanted
    by_id = {p.id: p.prompt for p in problems}
    texts = [f"{request_seed(0, r.problem, r.sample)} of {by_id[r.problem]}" for r in found]
    assert [r.text for r in found] == texts
    assert sum(told) == 10_000
    probe = [key for key in faulty.times if key[1] == 0]
    assert len(faulty.given) - len(probe) == 10_000
    assert Counter(faulty.given.values()).keys() == {1}, "an answer was given twice"
    failed = sum(faulty.times.values()) - sum(faulty.given.values())
    assert 400 < failed < 650
    assert faulty.most >= 30, "requests were not in flight together"


def test_a_server_that_never_recovers_is_unavailable_and_says_why(loopback):
    with loopback.serving(fault=lambda posted, time: 503) as faulty:
        with pytest.raises(ServerUnavailable, match=r"in 3 tries.*503.*not now"):
            server(faulty, tries=3).write(Brief(), asked(), range(2))
        assert max(faulty.times.values()) == 3


def test_nobody_there_is_told_within_seconds(loopback):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    began = time.monotonic()
    with pytest.raises(ServerUnavailable, match="ConnectError"):
        Server(address, "tiny").write(Brief(), asked(), range(1))
    assert time.monotonic() - began < 10


def test_a_server_that_accepts_and_says_nothing_is_unavailable():
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        silent = Server(f"http://127.0.0.1:{deaf.getsockname()[1]}/v1", "tiny", timeout=0.2)
        with pytest.raises(ServerUnavailable, match=r"no answer within 0.2 s"):
            silent.identity("a")


def test_one_that_asks_to_be_left_alone_for_a_day_is_unavailable(loopback, monkeypatch):
    async def send(writer, status, content, length=None, **headers):
        if status == 429:
            headers["Retry-After"] = "86400"
        return await sent(writer, status, content, length, **headers)

    sent = loopback.send
    monkeypatch.setattr(loopback, "send", send)
    with (
        loopback.serving(fault=lambda *_: 429) as faulty,
        pytest.raises(ServerUnavailable, match="86400 s"),
    ):
        server(faulty).identity("a")


def test_another_model_is_refused_by_the_list(loopback):
    with (
        loopback.serving(listed=("large", "small")) as faulty,
        pytest.raises(AnotherModel, match=r"serves large, small; asked for tiny"),
    ):
        server(faulty).write(Brief(), asked(), range(1))
    assert not faulty.asked


@pytest.mark.parametrize("told", ["other", None, "tiny2"])
def test_another_model_is_refused_by_its_answers(loopback, told):
    with (
        loopback.serving(model=told) as faulty,
        pytest.raises(AnotherModel, match=rf"by model '?{told}'?; 'tiny' was asked"),
    ):
        server(faulty).write(Brief(), asked(), range(4))
    assert max(faulty.times.values()) == 1, "what can't be mended was tried again"


def test_a_revision_may_follow_a_name_that_has_none(loopback):
    with loopback.serving(model="tiny@main") as faulty:
        assert len(server(faulty).write(Brief(), asked(), range(1))) == 3
        with pytest.raises(AnotherModel, match="serves tiny; asked for tiny@other"):
            Server(faulty.address, "tiny@other").identity("a")


def test_a_wrong_key_is_refused_at_once_and_a_right_one_is_sent(loopback, monkeypatch):
    with loopback.serving(key="secret") as faulty:
        with pytest.raises(WrongKey, match="wants one.*401.*--key-env"):
            server(faulty).write(Brief(), asked(), range(1))
        monkeypatch.setenv("THE_KEY", "wrong")
        with pytest.raises(WrongKey):
            server(faulty, key_env="THE_KEY").write(Brief(), asked(), range(1))
        monkeypatch.setenv("THE_KEY", "secret\n")
        right = server(faulty, key_env="THE_KEY")
        assert len(right.write(Brief(), asked(), range(1))) == 3
        assert "secret" not in repr(right)


def test_a_key_may_be_wanted_for_answers_alone(loopback):
    """As llama.cpp does, which lists its models for anybody."""
    with (
        loopback.serving(fault=lambda *_: 401) as faulty,
        pytest.raises(WrongKey),
    ):
        server(faulty).identity("a")
    assert len(faulty.asked) == 1, "other dialects were tried, and none is a key"


def test_without_logprobs_they_are_empty_or_refused(loopback):
    with loopback.serving(logprobs=False, ids=False) as faulty:
        found = server(faulty).write(Brief(), asked(), range(2))
        assert {(one.tokens, one.logprobs) for one in found} == {((), ())}
        with pytest.raises(NoLogprobs, match="gives no log-probabilities of tiny.*required"):
            server(faulty, need_logprobs=True).write(Brief(), asked(), range(2))
    with loopback.serving() as faulty:
        needy = server(faulty, need_logprobs=True)
        assert all(one.logprobs for one in needy.write(Brief(), asked(), range(2)))
        with pytest.raises(Refusal, match="temperature 0.6"):
            needy.write(Brief(), asked(), range(2), temperature=0.6)


def test_logprobs_of_some_answers_only_are_not_enough_where_they_are_needed(loopback):
    def fewer(content):
        if content["choices"][0]["text"].startswith(str(request_seed(0, asked()[1].id, 1))):
            content["choices"][0]["logprobs"]["token_logprobs"].pop()
        return content

    with loopback.serving(change=fewer) as faulty:
        found = server(faulty).write(Brief(), asked(), range(2))
        assert [bool(one.logprobs) for one in found] == [True, True, True, False, True, True]
        with pytest.raises(NoLogprobs, match=f"sample 1 of problem {asked()[1].id}"):
            server(faulty, need_logprobs=True).write(Brief(), asked(), range(2))


def test_logprobs_are_kept_where_they_mean_the_same_on_all_servers(loopback):
    with loopback.serving() as faulty:
        one = server(faulty)
        for temperature, top_p, kept in (
            (0, 1, True),
            (0, 0.5, True),
            (0.6, 1, False),
            (1, 0.9, False),
        ):
            found = one.write(Brief(), asked(), range(1), temperature=temperature, top_p=top_p)
            assert all(bool(r.logprobs) is kept for r in found)


@pytest.mark.parametrize(
    ("unknown", "dialect", "whole"),
    [
        ((), "whole", True),
        (("return_token_ids",), "llama", True),
        (("return_token_ids", "logprobs"), "llama-text", True),
        (("min_p",), "transformers", True),
        (("min_p", "generation_config"), "openai", False),
        (("min_p", "generation_config", "logprobs"), "openai-text", False),
    ],
)
def test_the_dialect_is_the_first_that_is_accepted(loopback, unknown, dialect, whole):
    with loopback.serving(unknown=unknown) as faulty:
        one = server(faulty)
        assert one.identity("a b") == {"model": "tiny", "dialect": dialect, "digest": ""}
        assert one.whole is whole
        one.write(Brief(), asked(), range(1))
    assert all(DIALECTS[dialect].items() <= posted.items() for posted in faulty.asked)


def test_a_server_that_accepts_no_words_is_refused_with_what_it_said(loopback):
    with (
        loopback.serving(unknown=("prompt",)) as faulty,
        pytest.raises(ServerRefused, match=r"/completions with status 422.*unexpected.*prompt"),
    ):
        server(faulty).identity("a")


def test_an_address_without_version_is_refused_with_a_hint(loopback):
    with loopback.serving() as faulty, pytest.raises(ServerRefused, match="ends in the version"):
        Server(faulty.address.removesuffix("/v1"), "tiny").identity("a")


def test_half_a_character_is_replaced_and_can_be_written(loopback):
    with loopback.serving(text=lambda posted: f"{posted['seed']} \ud83d x") as faulty:
        found = server(faulty).write(Brief(), asked(1), range(2))
    assert all(one.text.endswith(" \ufffd x") and one.text.encode() for one in found)


@pytest.mark.parametrize(
    ("choice", "ids", "logprobs"),
    [
        ({"token_ids": [3, 4]}, (3, 4), ()),
        ({"token_ids": [3, -4]}, (), ()),
        ({"token_ids": [True]}, (), ()),
        ({"token_ids": "34"}, (), ()),
        ({"logprobs": {"content": [{"id": 5, "logprob": -1}]}}, (5,), (-1.0,)),
        ({"logprobs": {"content": [{"id": 5}]}}, (5,), ()),
        ({"logprobs": {"tokens": ["token_id:7"], "token_logprobs": [-2.5]}}, (7,), (-2.5,)),
        ({"logprobs": {"tokens": ["token_id:7", "8"], "token_logprobs": [None, -2]}}, (), ()),
        ({"logprobs": {"token_logprobs": [float("nan")]}}, (), ()),
        ({"logprobs": {"token_logprobs": [0.7]}}, (), ()),
        ({"logprobs": {"token_logprobs": [-(10**400)]}}, (), ()),
        ({"logprobs": {"token_logprobs": True}}, (), ()),
        ({"logprobs": None}, (), ()),
        ({}, (), ()),
    ],
)
def test_what_is_no_id_or_no_logprob_is_not_taken_for_one(choice, ids, logprobs):
    assert (token_ids(choice), log_probabilities(choice)) == (ids, logprobs)


def test_ids_that_are_not_served_are_those_of_the_text(loopback, model):
    problem = Problem("t", "a b ?", "", "", "", 0, "{}")
    with loopback.serving(ids=False, text=lambda posted: "c = d") as faulty:
        (one,) = server(faulty, tokens=tokens_of(model)).write(Brief(), [problem], range(1))
    assert one.tokens == encode(model, "c = d END")
    assert len(one.logprobs) == 4


def test_logprobs_of_other_tokens_than_those_of_the_text_are_left_out(loopback, model):
    def more(content):
        content["choices"][0]["logprobs"]["token_logprobs"].append(-1.0)
        content["usage"]["completion_tokens"] += 1
        return content

    problem = Problem("t", "a b ?", "", "", "", 0, "{}")
    with loopback.serving(ids=False, text=lambda _: "c = d", change=more) as faulty:
        (one,) = server(faulty, tokens=tokens_of(model)).write(Brief(), [problem], range(1))
    assert (one.tokens, one.logprobs) == (encode(model, "c = d END"), ())


def test_a_server_that_reads_another_number_of_tokens_is_refused(loopback, model):
    def template(content):
        content["usage"]["prompt_tokens"] += 4
        return content

    problem = Problem("t", "a b ?", "", "", "", 0, "{}")
    with (
        loopback.serving(change=template) as faulty,
        pytest.raises(AnotherModel, match=r"as 7 tokens, tiny-llama makes 3.*a template"),
    ):
        server(faulty, tokens=tokens_of(model)).write(Brief(), [problem], range(1))


def test_a_server_that_answers_always_alike_is_refused_at_a_temperature(loopback):
    with loopback.serving(text=lambda posted: "same") as faulty:
        one = server(faulty)
        with pytest.raises(ServerRefused, match="each of 10 problems are all alike"):
            one.write(Brief(), asked(10), range(3))
        for few in ((asked(9), range(3)), (asked(10), range(1))):
            assert one.write(Brief(), *few)
        assert one.write(Brief(), asked(10), range(3), temperature=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"address": "localhost:8000"},
        {"address": "ftp://x/v1"},
        {"address": "http:///v1"},
        {"address": "http://[::1/v1"},
        {"address": "http://me:secret@x/v1"},
        {"address": "http://x/v1?a=b"},
        {"model": ""},
        {"concurrency": 0},
        {"tries": 0},
        {"timeout": 0.0},
        {"timeout": float("nan")},
        {"key_env": "WHENHOW_NO_SUCH_VARIABLE"},
    ],
    ids=str,
)
def test_what_can_not_be_asked_is_refused_before_it_is(wrong):
    with pytest.raises(Refusal):
        Server(**{"address": "http://x/v1", "model": "m", **wrong})


def test_it_can_be_asked_where_a_loop_is_running_as_in_a_notebook(loopback):
    async def cell():
        return server(faulty).write(Brief(), asked(), range(1))

    with loopback.serving() as faulty:
        assert len(asyncio.run(cell())) == 3


def test_the_first_refusal_ends_all_requests(loopback):
    def fault(posted, time):
        return 413 if posted["prompt"] == asked(1)[0].prompt and posted["seed"] else None

    with loopback.serving(fault=fault) as faulty:
        with pytest.raises(ServerRefused, match="413"):
            server(faulty, concurrency=2).write(Brief(), asked(50), range(4))
        assert len(faulty.asked) < 20
    assert not [t for t in threading.enumerate() if "asyncio" in t.name and t.is_alive()]


def test_answers_alike_are_told_by_the_whole_run_and_not_by_a_shard():
    alike = [(f"p{i}", "same") for i in range(ALIKE) for _ in range(60)]
    with pytest.raises(ServerRefused, match="are all alike"):
        check_varied(alike)
    check_varied(alike[:-60])  # one problem fewer
    check_varied([*alike[:-1], (f"p{ALIKE - 1}", "another")])


def answer(text, ids, count):
    usage = {"prompt_tokens": 2, "completion_tokens": count}
    choice = {"text": text, "finish_reason": "stop", "token_ids": ids}
    return {"model": "m", "choices": [choice], "usage": usage}


def test_ids_that_do_not_spell_the_text_are_not_kept():
    letters = Tokens(
        lambda prompt: [0, 1],
        lambda text: [ord(c) for c in text],
        lambda ids: "".join(map(chr, ids)),
        None,
        "letters",
    )
    asked = Asked("p", 0, "ab", 3, 1)
    for served in ([97, 98, 99], [97, 98, 100], [99999999, 1, 2]):
        read_ = read(answer("abc", served, 3), asked, "m", comparable=True, tokens=letters)
        assert read_.tokens == (97, 98, 99), served


def test_an_answer_longer_than_was_asked_for_is_refused():
    asked = Asked("p", 0, "ab", 3, 1)
    check_length(answer("abc", [1, 2, 3, 4], 4), asked)
    with pytest.raises(ServerRefused, match="5 tokens, where 3 at most"):
        check_length(answer("abcde", [1, 2, 3, 4, 5], 5), asked)
