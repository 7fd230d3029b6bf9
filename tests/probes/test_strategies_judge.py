"""A judge model: what it is asked, that it is asked once, and every way in which it can fail."""

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from probes.records import Refusal
from probes.strategies.chat import Chat, OtherModel, Refused, TimedOut
from probes.strategies.judge import ByJudge
from probes.strategies.labellers import Failure, Labeller, Passage, Unlabelled
from probes.strategies.rubric import SHIPPED, load_rubric
from probes.strategies.sentences import sentences

MODEL = "judge-7b"
OWN = """
source = "me"
none = "none"
system = "sort"
ask = "{labels}|{question}|{before}|{sentence}"
[labels]
back = "goes back"
sum = "adds"
"""


@pytest.fixture
def rubric(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text(OWN)
    return load_rubric(file)


def passage(text, problem="p", prompt="why?"):
    return Passage(problem, 0, "", prompt, text, (), tuple(sentences(text)))


def by_words(messages):
    """A judge that names the label whose name is in the sentence."""
    sentence = messages[-1]["content"].split("|")[-1]
    return next((label for label in ("back", "sum") if label in sentence), "none")


class Counted:
    """A judge that counts what it is asked."""

    def __init__(self, says=by_words):
        self.says, self.asked = says, []

    def __call__(self, messages):
        self.asked.append(json.dumps(messages))
        return self.says(messages)


def test_a_sentence_is_shown_with_its_question_and_what_stands_before_it(rubric):
    system, user = rubric.messages("what {sentence}?", "he says {before}", "so {labels} it is")
    assert system == {"role": "system", "content": "sort"}
    listed = "- back: goes back\n- sum: adds\n- none: none of these"
    assert user["content"] == f"{listed}|what {{sentence}}?|he says {{before}}|so {{labels}} it is"


def test_only_the_end_of_a_long_answer_is_shown(rubric):
    content = rubric.messages("q", "x" * 5000 + "end", "s")[1]["content"]
    assert content.count("x") == 1997
    assert "xend|s" in content


@pytest.mark.parametrize(
    ("said", "label"),
    [
        ("back", "back"),
        ("  Back\n", "back"),
        ("none", ""),
        ("", None),
        ("back.", None),
        ("back or sum", None),
        ("The label is back", None),
        ("backwards", None),
        ("__import__('os').getcwd()", None),
    ],
)
def test_an_answer_is_a_label_or_nothing(rubric, said, label):
    assert rubric.read(said) == label


@pytest.mark.parametrize("name", [f.stem for f in SHIPPED.glob("*.toml")])
def test_every_shipped_rubric_has_a_source(name):
    assert "arXiv" in load_rubric(name).source


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('source = "me"', ""), "source = .* is missing"),
        (("{question}", ""), "each once"),
        (("{question}", "{question}{answer}"), "each once"),
        (('[labels]\nback = "goes back"\nsum = "adds"', ""), "names each label"),
        (('back = "goes back"', "back = 1"), "is a text, not 1"),
        (('back = "goes back"', 'Sum = "x"'), "told apart"),
        (('none = "none"', 'none = "SUM"'), "told apart"),
    ],
)
def test_a_rubric_that_cannot_be_asked_is_refused(tmp_path, change, says):
    assert change[0] in OWN
    file = tmp_path / "own.toml"
    file.write_text(OWN.replace(*change))
    with pytest.raises(Refusal, match=says):
        load_rubric(file)


TEXTS = [
    passage("We go back to it. Then we sum it up.", "p"),
    passage("It is five here. We go back to it.", "q"),
]


def test_segments_have_the_labels_that_the_judge_names(rubric, tmp_path):
    judge = ByJudge(by_words, MODEL, rubric, tmp_path / "kept")
    assert isinstance(judge, Labeller)
    assert judge.label(TEXTS) == [["back", "sum"], ["", "back"]]


def test_nothing_is_asked_twice_neither_in_a_run_nor_in_the_next(rubric, tmp_path):
    ask = Counted()
    judge = ByJudge(ask, MODEL, rubric, tmp_path / "kept")
    same = [passage("We go back to it.", name) for name in "abc"]  # one question, thrice
    assert judge.label(same) == [["back"]] * 3
    assert len(ask.asked) == 1
    judge.label([*same, *TEXTS])
    again = ByJudge(ask, MODEL, rubric, tmp_path / "kept").label([*TEXTS, *same])
    assert again == [["back", "sum"], ["", "back"], ["back"], ["back"], ["back"]]
    assert max(Counter(ask.asked).values()) == 1


def test_another_judge_another_wording_or_another_question_is_asked_anew(rubric, tmp_path):
    ask, kept = Counted(), tmp_path / "kept"
    ByJudge(ask, MODEL, rubric, kept).label(TEXTS[:1])
    first = len(ask.asked)
    ByJudge(ask, "other", rubric, kept).label(TEXTS[:1])
    assert len(ask.asked) == 2 * first
    file = tmp_path / "b.toml"
    file.write_text(OWN.replace("sort", "sort it"))
    ByJudge(ask, MODEL, load_rubric(file), kept).label(TEXTS[:1])
    assert len(ask.asked) == 3 * first
    ByJudge(ask, MODEL, rubric, kept).label([passage(TEXTS[0].text, prompt="how?")])
    assert len(ask.asked) == 4 * first


@pytest.mark.parametrize("damage", ["", "{", '{"said": "back"}', "[]", "null"])
def test_a_damaged_answer_is_asked_for_again_and_mended(rubric, tmp_path, damage):
    ask = Counted()
    judge = ByJudge(ask, MODEL, rubric, tmp_path / "kept")
    judge.label(TEXTS)
    file = sorted((tmp_path / "kept").rglob("*.json"))[0]
    file.write_text(damage)
    assert judge.label(TEXTS) == [["back", "sum"], ["", "back"]]
    assert len(ask.asked) == 5
    judge.label(TEXTS)
    assert len(ask.asked) == 5


def test_an_answer_under_anothers_name_is_not_believed(rubric, tmp_path):
    ask = Counted()
    judge = ByJudge(ask, MODEL, rubric, tmp_path / "kept")
    judge.label(TEXTS)
    files = sorted((tmp_path / "kept").rglob("*.json"))
    files[0].write_text(files[1].read_text())
    assert judge.label(TEXTS) == [["back", "sum"], ["", "back"]]
    assert len(ask.asked) == 5


def test_failures_are_typed_and_only_answers_are_kept(rubric, tmp_path):
    def says(messages):
        sentence = messages[-1]["content"].split("|")[-1]
        if "back" in sentence:
            raise TimedOut("late")
        if "sum" in sentence:
            raise Refused("no")
        return "I would say back"

    ask = Counted(says)
    judge = ByJudge(ask, MODEL, rubric, tmp_path / "kept", at_once=1)
    (back, total), (five, _) = judge.label(TEXTS)
    assert back == Unlabelled(Failure.TIMEOUT, "late")
    assert total == Unlabelled(Failure.REFUSED, "no")
    assert five == Unlabelled(Failure.UNPARSABLE, "it said 'I would say back'")
    ask.says = by_words
    now = judge.label(TEXTS)
    assert now[0] == ["back", "sum"]
    assert now[1][0] == five  # it was answered, and that answer stays unreadable
    assert now[1][1] == "back"
    assert len(ask.asked) == 4 + 3


def test_a_server_that_is_away_ends_the_run_and_what_was_answered_is_kept(rubric, tmp_path):
    def says(messages):
        if len(ask.asked) > 2:
            raise TimedOut("away")
        return "none"

    ask = Counted(says)
    many = [passage(f"This is number {i}.", str(i)) for i in range(40)]
    with pytest.raises(TimedOut, match="away"):
        ByJudge(ask, MODEL, rubric, tmp_path / "kept", at_once=1).label(many)
    assert len(ask.asked) < 10, "the rest is not asked for"
    assert len(list((tmp_path / "kept").rglob("*.json"))) == 2


def test_three_lost_of_three_are_a_server_that_is_away_and_two_are_failures(rubric, tmp_path):
    def says(messages):
        raise TimedOut("away")

    few = [passage(f"This is number {i}.", str(i)) for i in range(3)]
    judge = ByJudge(says, MODEL, rubric, tmp_path / "kept", at_once=1)
    with pytest.raises(TimedOut, match="away"):
        judge.label(few)
    lost = Unlabelled(Failure.TIMEOUT, "away")
    assert judge.label(few[:2]) == [[lost], [lost]]


def test_what_stands_before_a_sentence_is_what_stands_before_it(rubric, tmp_path):
    ask = Counted(lambda messages: messages[-1]["content"] and "none")
    ByJudge(ask, MODEL, rubric, tmp_path / "kept", at_once=1).label(TEXTS[:1])
    parts = [json.loads(asked)[-1]["content"].split("|")[1:] for asked in ask.asked]
    first, second = (s.text for s in TEXTS[0].segments)
    assert parts == [["why?", "", first], ["why?", f"{first} ", second]]


def test_answers_of_another_model_end_the_run(rubric, tmp_path):
    def says(messages):
        raise OtherModel("not that one")

    with pytest.raises(OtherModel, match="not that one"):
        ByJudge(says, MODEL, rubric, tmp_path / "kept").label(TEXTS)
    assert not list(tmp_path.rglob("*.json"))


class Server:
    """A chat server on loopback that gives its replies in order, the last one for ever."""

    def __init__(self):
        self.replies, self.seen = [(200, completion())], []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):  # noqa: N802 - the library's name
                size = int(self.headers["content-length"])
                server.seen.append(
                    (self.path, dict(self.headers), json.loads(self.rfile.read(size)))
                )
                reply = server.replies.pop(0) if len(server.replies) > 1 else server.replies[0]
                if reply == "reset":
                    self.connection.close()
                    return
                if reply == "slow":
                    server.free.wait(5)
                    return
                status, body = reply
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.free = threading.Event()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def chat(self, **about):
        return Chat(self.address, MODEL, patience=0.001, **{"timeout": 2.0, "tries": 3, **about})


def completion(content="back", model=MODEL, **more):
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, **more}
    return {"id": "x", "model": model, "choices": [choice]}


@pytest.fixture
def server():
    made = Server()
    yield made
    made.free.set()
    made.http.shutdown()
    made.http.server_close()


ASKED = [{"role": "user", "content": "which?"}]


def test_a_question_is_posted_as_the_interface_has_it(server, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "sesame")
    assert server.chat(key_env="JUDGE_KEY", budget=7)(ASKED) == "back"
    path, headers, posted = server.seen[0]
    assert path == "/v1/chat/completions"
    assert {k.lower(): v for k, v in headers.items()}["authorization"] == "Bearer sesame"
    assert posted == {"model": MODEL, "messages": ASKED, "max_tokens": 7, "temperature": 0}


@pytest.mark.parametrize(
    "fault",
    [
        "reset",
        (429, {}),
        (500, {}),
        (503, b"busy"),
        (200, b'{"model": "ju'),
        (200, {"choices": []}),
    ],
    ids=["reset", "429", "500", "503", "cut", "empty"],
)
def test_what_may_pass_is_tried_again(server, fault):
    server.replies = [fault, fault, (200, completion("sum"))]
    assert server.chat()(ASKED) == "sum"
    assert len(server.seen) == 3
    server.replies = [fault]
    with pytest.raises(TimedOut, match="no whole answer in 3 tries"):
        server.chat()(ASKED)


def test_a_slow_server_times_out(server):
    server.replies = ["slow"]
    with pytest.raises(TimedOut, match="ReadTimeout"):
        server.chat(timeout=0.1, tries=2)(ASKED)
    assert len(server.seen) == 2


def test_nobody_at_the_address_is_a_time_out():
    with pytest.raises(TimedOut, match="ConnectError"):
        Chat("http://127.0.0.1:9/v1", MODEL, tries=2, patience=0.001)(ASKED)


@pytest.mark.parametrize(
    "reply",
    [
        (400, {"error": "too long"}),
        (200, completion("", finish_reason="content_filter")),
        (200, completion(message={"content": None, "refusal": "I can't"})),
    ],
    ids=["400", "filter", "refusal"],
)
def test_a_question_may_be_refused(server, reply):
    server.replies = [reply]
    with pytest.raises(Refused):
        server.chat()(ASKED)
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_model_is_no_failure_of_one_question(server, status):
    server.replies = [(status, {"error": "who are you"})]
    with pytest.raises(Refusal, match=f"refuses every question with status {status}"):
        server.chat()(ASKED)
    assert len(server.seen) == 1


@pytest.mark.parametrize("model", ["judge-7b-mini", "judge", "other", None, 7, "judge-7b-1"])
def test_an_answer_by_another_model_is_thrown_away(server, model):
    server.replies = [(200, completion(model=model))]
    with pytest.raises(OtherModel, match="judge-7b was asked"):
        server.chat()(ASKED)


@pytest.mark.parametrize("model", ["judge-7b-2024-08-06", "judge-7b-20250101", "judge-7b-0613"])
def test_a_dated_name_is_that_model(server, model):
    server.replies = [(200, completion(model=model))]
    assert server.chat()(ASKED) == "back"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"address": "localhost:8000"}, "no address"),
        ({"model": ""}, "name the model"),
        ({"tries": 0}, "at least 1"),
        ({"key_env": "NO_SUCH_KEY_HERE"}, "holds no key"),
    ],
)
def test_what_cannot_be_asked_is_refused(given, says):
    with pytest.raises(Refusal, match=says):
        Chat(**{"address": "http://127.0.0.1:9/v1", "model": MODEL, **given})


def test_the_whole_way_over_http_beside_a_fault(server, rubric, tmp_path):
    server.replies = [(200, completion("back")), "reset", (200, completion("sum"))]
    judge = ByJudge(server.chat(), MODEL, rubric, tmp_path / "kept", at_once=1)
    assert judge.label(TEXTS[:1]) == [["back", "sum"]]
    assert len(server.seen) == 3
