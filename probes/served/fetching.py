"""One request and its failures: which may pass, which never will, and how long to wait."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from probes.served.failures import Passing, ServerRefused, ServerUnavailable, Unspoken, WrongKey

Got = TypeVar("Got")

LONGEST = 3600.0
"""Seconds that a server may make us wait; one that asks for more is unavailable today."""


async def fetched(client: Any, method: str, path: str, posted: Any = None) -> Any:
    """The parsed JSON of a whole response.

    Args:
        client: an `httpx.AsyncClient`.
        method: "GET" or "POST".
        path: below the client's address.
        posted: sent as JSON.

    Raises:
        Passing: a reset, 408, 429, any 5xx, a body that is cut or no JSON.
        WrongKey: 401 or 403.
        ServerRefused: any other status; `Unspoken` where other words may do.
        ServerUnavailable: it asks us to wait for longer than an hour.
    """
    import httpx

    try:
        response = await client.request(method, path, json=posted)
    except httpx.RequestError as error:
        raise Passing(f"{type(error).__name__}: {error}") from None
    status = response.status_code
    said = f"status {status}: {' '.join(response.text[:300].split())}"
    if status in (408, 429) or status >= 500:
        raise Passing(said, asked_to_wait(response.headers.get("retry-after")))
    if status in (401, 403):
        raise WrongKey(
            f"the server refused the key, or wants one ({said}): the environment variable that "
            f"holds it is named with --key-env."
        )
    if status != 200:
        hint = "; the address ends in the version, as in /v1" if status == 404 else ""
        kind = Unspoken if status in (400, 422) else ServerRefused
        raise kind(f"the server refused /{path} with {said}{hint}.")
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        raise Passing("the response is cut short, or no JSON") from None


def asked_to_wait(header: str | None) -> float | None:
    """Seconds of a Retry-After, which is a number or a date; None where it says nothing.

    >>> asked_to_wait("2"), asked_to_wait("Wed, 21 Oct 2015 07:28:00 GMT"), asked_to_wait("soon")
    (2.0, 0.0, None)
    """
    seconds = None
    with suppress(ValueError, TypeError):
        seconds = float(header or "")
    if seconds is None:
        with suppress(ValueError, TypeError, OverflowError):
            seconds = parsedate_to_datetime(header or "").timestamp() - time.time()
    if seconds is None or seconds != seconds:
        return None
    if seconds > LONGEST:
        raise ServerUnavailable(f"the server asks to be left alone for {seconds:.0f} s.")
    return max(0.0, seconds)


async def tried(
    ask: Callable[[], Awaitable[Got]], *, tries: int, patience: float | int, timeout: float | int
) -> Got:
    """What it gives in the end.

    Args:
        ask: one try, which raises `Passing` where another may succeed.
        tries: at most.
        patience: seconds, the scale of the random wait before the second; it doubles, up to 60.
        timeout: seconds that one try may take as a whole.

    Raises:
        ServerUnavailable: it failed at every try.
    """
    import tenacity

    back_off = tenacity.wait_random_exponential(multiplier=patience, max=60)

    def wait(state: tenacity.RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome else None
        after = getattr(failure, "after", None)
        # Asked to wait, all would come back at once: so a little more.
        return back_off(state) if after is None else after + min(back_off(state), 1.0)

    async def once() -> Got:
        try:
            async with asyncio.timeout(timeout):
                return await ask()
        except TimeoutError:
            raise Passing(f"no answer within {timeout:g} s") from None

    trying = tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(tries),
        wait=wait,
        retry=tenacity.retry_if_exception_type(Passing),
        reraise=True,
    )
    try:
        return await trying(once)
    except Passing as passing:
        raise ServerUnavailable(
            f"the server gave no whole answer in {tries} tries; the last time: {passing}."
        ) from passing


async def together(work: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Do all of it at once; the first that fails ends the others, and is what is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(_awaited(one))
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None


async def _awaited(work: Callable[[], Awaitable[None]]) -> None:
    await work()
