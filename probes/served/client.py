"""Many requests at once, retried with back-off, each answered once.

Nothing is kept half: an answer counts when its whole body has arrived, parses, and says why it
ended. What may pass is tried again (a reset, a time-out, 408, 429, any 5xx, half an answer), after
as long as the server asks, or a random time that doubles; the rest is refused at once.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable
from urllib.parse import urlsplit

from probes.records import Problem, Refusal, Rollout
from probes.served.answers import check_length, read
from probes.served.dialects import CUT, Asked, body
from probes.served.draws import check_varied, request_seed
from probes.served.failures import NoLogprobs
from probes.served.fetching import fetched, together, tried
from probes.served.opening import check_served, understood
from probes.served.tokens import Tokens

Got = TypeVar("Got")


@runtime_checkable
class Budgeted(Protocol):
    """The part of a `probes.tasks.Task` that is needed here."""

    def budget(self, problem: Problem) -> int: ...


@dataclass(frozen=True)
class Server:
    """A model behind an address."""

    address: str
    """With the version, as in http://127.0.0.1:8000/v1. No part of what determines an answer."""
    model: str
    """Its name there."""
    concurrency: int = 32
    """Requests in flight."""
    key_env: str = ""
    """Environment variable that holds the key, where one is needed."""
    timeout: float | int = 600.0
    """Seconds that one try may take as a whole."""
    tries: int = 10
    """Of each request; with the default patience, a minute and a half."""
    patience: float | int = 0.5
    """Seconds: the scale of the random wait before the second try."""
    tokens: Tokens | None = None
    """Of the model, where it is known here: see the package."""
    need_logprobs: bool = False
    """Refuse a server that gives none; without, they are empty then."""
    _spoken: list[str] = field(default_factory=list, repr=False, compare=False)
    """The dialect, once it is known."""

    def __post_init__(self) -> None:
        """Refuse what can't be asked."""
        _check_address(self.address)
        if not self.model:
            raise Refusal("a server may serve several models: name the one that is asked.")
        if self.concurrency < 1 or self.tries < 1 or not self.timeout > 0 or self.patience < 0:
            raise Refusal(
                f"{self.concurrency} requests in flight, {self.tries} tries, {self.timeout:g} s "
                f"each: the first two are at least 1, and the timeout is above 0."
            )
        key = self._key()
        if self.key_env and not (key and key.isascii() and key.isprintable()):
            raise Refusal(
                f"the environment variable {self.key_env} "
                f"{'holds no key' if not key else 'holds what can be no key (in one line, ASCII)'}."
            )

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model

    @property
    def dialect(self) -> str:
        """In which it is asked; "" until it was."""
        return self._spoken[0] if self._spoken else ""

    @property
    def whole(self) -> bool:
        """Whether it was told to sample from the whole distribution, in words that it accepts."""
        return bool(self._spoken) and self.dialect not in CUT

    def identity(self, prompt: str) -> dict[str, Any]:
        """What determines its answers, beside problems, decoding and seed.

        Args:
            prompt: one that the model can read, to ask for a token behind it.

        Raises:
            ServerRefused: it doesn't serve the model, wants another key, or refuses the prompt.
            ServerUnavailable: it can't be reached.
        """
        _finished(self._open(prompt))
        digest = self.tokens.digest if self.tokens else ""
        return {"model": self.model, "dialect": self.dialect, "digest": digest}

    def write(
        self,
        task: Budgeted,
        problems: Sequence[Problem],
        samples: range,
        *,
        temperature: float | int = 1.0,
        top_p: float | int = 1.0,
        seed: int = 0,
        progress: Callable[[int], Any] | None = None,
    ) -> list[Rollout]:
        """Answers to every problem, in order of problems and then of samples.

        Args:
            task: says how long an answer may be.
            problems: each once.
            samples: which of their samples.
            temperature: 0 is greedy.
            top_p: sample from the likeliest tokens of this mass.
            seed: of the seeds that are sent.
            progress: called with the number of answers finished since the last call.

        Raises:
            ServerRefused: an answer that will never be had, or one by another model, or answers
                that don't differ where they should.
            ServerUnavailable: no whole answer to some request after all tries.
        """
        asked = [
            Asked(p.id, i, p.prompt, task.budget(p), request_seed(seed, p.id, i))
            for p in problems
            for i in samples
        ]
        if not asked:
            raise Refusal(f"{len(problems)} problems and {len(samples)} samples: at least 1 each.")
        if self.need_logprobs and not comparable(temperature, top_p):
            raise Refusal(
                f"log-probabilities are required, and at temperature {temperature:g} and top_p "
                f"{top_p:g} servers differ in what they mean by them: they are kept where both "
                f"are 1, or the temperature is 0."
            )
        told = progress or (lambda _: None)
        written = _finished(self._all(asked, temperature, top_p, told))
        if temperature > 0:
            check_varied((r.problem, r.text) for r in written)
        return written

    async def _all(
        self,
        asked: Sequence[Asked],
        temperature: float | int,
        top_p: float | int,
        progress: Callable[[int], Any],
    ) -> list[Rollout]:
        """All answers, by as many workers as requests may be in flight."""
        import httpx

        await self._open(asked[0].prompt)
        answers: list[Rollout | None] = [None] * len(asked)
        left = iter(enumerate(asked))
        how: dict[str, Any] = {"comparable": comparable(temperature, top_p), "tokens": self.tokens}
        trust = httpx.create_ssl_context()

        async def work() -> None:
            # A client each: httpx looks through all connections of one at every request.
            async with self._connected(trust) as client:
                for place, one in left:
                    posted = body(one, self.model, temperature, top_p, self.dialect)

                    async def ask(one: Asked = one, posted: dict = posted) -> Rollout:
                        content = await fetched(client, "POST", "completions", posted)
                        answer = read(content, one, self.model, **how)
                        check_length(content, one)
                        return answer

                    answers[place] = await self._tried(ask)
                    self._check_logprobs(answers[place])
                    progress(1)

        await together([work] * min(self.concurrency, len(asked)))
        whole = [one for one in answers if one is not None]
        assert len(whole) == len(asked)
        return whole

    async def _open(self, prompt: str) -> None:
        """See that the server has the model, and find the dialect in which it can be asked."""
        async with self._connected() as client:
            how = {"tries": self.tries, "patience": self.patience, "timeout": self.timeout}
            await check_served(client, self.address, self.model, **how)
            if not self._spoken:
                more = {"tokens": self.tokens, "need_logprobs": self.need_logprobs}
                self._spoken.append(await understood(client, self.model, prompt, **more, **how))

    async def _tried(self, ask: Callable[[], Awaitable[Got]]) -> Got:
        return await tried(ask, tries=self.tries, patience=self.patience, timeout=self.timeout)

    def _check_logprobs(self, answer: Rollout | None) -> None:
        if self.need_logprobs and answer and not answer.logprobs:
            raise NoLogprobs(
                f"sample {answer.sample} of problem {answer.problem} came without a "
                f"log-probability for each of its tokens, and they are required."
            )

    def _key(self) -> str:
        return os.environ.get(self.key_env, "").strip() if self.key_env else ""

    def _connected(self, trust: Any = True) -> Any:
        """A client for one request at a time; `trust` is as `httpx.AsyncClient.verify`."""
        import httpx

        return httpx.AsyncClient(
            base_url=self.address.rstrip("/") + "/",
            headers={"Authorization": f"Bearer {key}"} if (key := self._key()) else {},
            timeout=None,  # a try is timed as a whole: a server that drips is slow, too
            verify=trust,
        )


def comparable(temperature: float | int, top_p: float | int) -> bool:
    """Whether log-probabilities mean the same on all servers.

    They differ in whether it is that before or after temperature and top_p (vLLM before, SGLang
    after); greedy, all mean temperature 1, as `Rollout` does.
    """
    return temperature == 0 or temperature == top_p == 1


def _check_address(address: str) -> None:
    try:
        parts = urlsplit(address)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound, parts = False, urlsplit("")
    if not sound or parts.query or parts.fragment or any(c.isspace() for c in address):
        raise Refusal(
            f"server {address!r} is no address: give it whole, with the version, such as "
            f"http://127.0.0.1:8000/v1."
        )
    if parts.username is not None or parts.password is not None:
        raise Refusal(
            "the server's address holds a name or a password, and is kept beside the answers: "
            "put a key into an environment variable, and name that."
        )


def _finished(work: Coroutine[Any, Any, Got]) -> Got:
    """What it gives; in a notebook, whose own loop is running, by a thread beside it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as beside:
        return beside.submit(asyncio.run, work).result()
