"""One question to a chat model behind an OpenAI-compatible address, with typed failures.

    ask = Chat("http://127.0.0.1:8000/v1", "Qwen/Qwen2.5-7B-Instruct")
    ask([{"role": "user", "content": "..."}])              # the text of its answer

Whatever takes messages and gives a text will do in its place (`Ask`): another client, a local
model, a function in a test. What may pass (no connection, a time-out, 408, 429, any 5xx, a body
that is cut) is tried again with back-off.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from probes.records import Refusal
from probes.verify import GraderFailure

Ask = Callable[[Sequence[Mapping[str, str]]], str]
"""Messages in, the text of the answer out; raises `TimedOut`, `Refused`, `OtherModel`."""

_DATED = re.compile(r"-(\d{4}(-\d\d){0,2}|\d{8})")
"""What an address appends to a name that stands for the newest: gpt-4o is gpt-4o-2024-08-06."""


class TimedOut(GraderFailure):
    """No whole answer after all tries: the server is away, too busy or too slow."""


class Refused(RuntimeError):
    """It won't answer this one: too long for it, or against its rules."""


class OtherModel(Refusal):
    """The answer says that another model wrote it, or not which: it is thrown away."""


class _Passing(Exception):
    """Another try may mend it."""


@dataclass(frozen=True)
class Chat:
    """A chat model behind an address."""

    address: str
    """With the version, as in http://127.0.0.1:8000/v1."""
    model: str
    """Its name there."""
    key_env: str = ""
    """Environment variable that holds the key, where one is needed."""
    timeout: float = 60.0
    """Seconds that one try may take to connect, and between two pieces of the answer."""
    tries: int = 5
    patience: float = 0.5
    """Seconds: the scale of the random wait before the second try; it doubles, up to 30."""
    budget: int = 64
    """Tokens of an answer: a label and no essay."""

    def __post_init__(self) -> None:
        """Refuse what can't be asked."""
        if not self.address.startswith(("http://", "https://")):
            raise Refusal(
                f"{self.address!r} is no address: give it whole, with the version, such as "
                f"http://127.0.0.1:8000/v1."
            )
        if not self.model or self.tries < 1 or self.timeout <= 0:
            raise Refusal("name the model; tries are at least 1, and the timeout is above 0.")
        if self.key_env and not os.environ.get(self.key_env):
            raise Refusal(f"the environment variable {self.key_env} holds no key.")

    def __call__(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The text of the answer, at temperature 0.

        Raises:
            TimedOut: no whole answer after all tries.
            Refused: status 400, 413 or 422, or an answer that its rules cut off.
            OtherModel: by another model, or it doesn't say by which.
            Refusal: any other status (a wrong key, an unknown model): nothing will be answered.
        """
        import tenacity

        trying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.tries),
            wait=tenacity.wait_random_exponential(multiplier=self.patience, max=30),
            retry=tenacity.retry_if_exception_type(_Passing),
            reraise=True,
        )
        try:
            return self._read(trying(self._posted, messages))
        except _Passing as passing:
            raise TimedOut(
                f"{self.address} gave no whole answer in {self.tries} tries; last: {passing}."
            ) from None

    @cached_property
    def _client(self) -> Any:
        """One for all threads, so that connections are kept."""
        import httpx

        key = os.environ.get(self.key_env, "") if self.key_env else ""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(timeout=self.timeout, headers=headers)

    def _posted(self, messages: Sequence[Mapping[str, str]]) -> Any:
        """The parsed body of one whole response."""
        import httpx

        asked = {"model": self.model, "messages": list(messages), "max_tokens": self.budget}
        try:
            url = f"{self.address.rstrip('/')}/chat/completions"
            response = self._client.post(url, json={**asked, "temperature": 0})
        except httpx.TransportError as error:
            raise _Passing(f"{type(error).__name__}: {error}") from None
        status = response.status_code
        said = f"status {status}: {' '.join(response.text[:200].split())}"
        if status in (408, 429) or status >= 500:
            raise _Passing(said)
        if status in (400, 413, 422):
            raise Refused(said)
        if status != 200:
            raise Refusal(f"{self.address} refuses every question with {said}.")
        try:
            body = response.json()
            content = body["choices"][0]["message"]
        except (ValueError, LookupError, TypeError):
            raise _Passing("a body that is cut, or no chat completion") from None
        if not isinstance(content, dict):
            raise _Passing("a choice without a message")
        return body

    def _read(self, body: Any) -> str:
        written, choice = body.get("model"), body["choices"][0]
        if not isinstance(written, str) or not self._is(written):
            raise OtherModel(
                f"{self.model} was asked at {self.address}, and the answer is by "
                f"{written or 'a model that it does not name'}: give --judge-model the name it has "
                f"there, if that is the one you mean."
            )
        refusal = choice["message"].get("refusal")
        if choice.get("finish_reason") == "content_filter" or refusal:
            raise Refused(f"cut off by its rules: {refusal or 'content_filter'}")
        return str(choice["message"].get("content") or "")

    def _is(self, written: str) -> bool:
        asked = self.model
        dated = written.startswith(asked) and _DATED.fullmatch(written[len(asked) :])
        return written == asked or bool(dated)
