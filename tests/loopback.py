"""A server on loopback, by the standard library, that answers as it is told, and fails so, too."""

import asyncio
import json
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

MODEL = "tiny"


@dataclass
class Faulty:
    """What it does, and what was asked of it."""

    model: str = MODEL
    listed: tuple[str, ...] = (MODEL,)
    key: str = ""
    unknown: tuple[str, ...] = ()
    """Fields of a request that it refuses."""
    logprobs: bool = True
    ids: bool = True
    fault: Any = None
    """Of a request and how often it was asked: the name of a fault, or None."""
    text: Any = None
    """Of a request, the answer's text."""
    change: Any = None
    """Edits a finished response."""
    address: str = ""
    stop: Any = None
    asked: list = field(default_factory=list)
    times: Counter = field(default_factory=Counter)
    """How often each (prompt, seed) was asked."""
    given: Counter = field(default_factory=Counter)
    """How often each got a whole answer."""
    flying: int = 0
    most: int = 0
    """Requests that were in flight together."""

    def answer(self, posted):
        text = self.text(posted) if self.text else f"{posted['seed']} of {posted['prompt']}"
        words = text.split()
        choice: dict = {"index": 0, "text": text, "finish_reason": "stop"}
        if self.ids:
            choice["token_ids"] = [*range(len(words)), 28]
        if self.logprobs and "logprobs" in posted:
            of_each = [-0.5] * (len(words) + 1)
            choice["logprobs"] = {"token_logprobs": of_each, "tokens": [*words, "END"]}
        usage = {
            "prompt_tokens": len(posted["prompt"].split()),
            "completion_tokens": len(words) + 1,
        }
        content = {"model": self.model, "choices": [choice], "usage": usage}
        return self.change(content) if self.change else content

    async def serve(self, reader, writer):
        try:
            while line := await reader.readline():
                headers = {}
                while (header := await reader.readline()) not in (b"\r\n", b""):
                    name, _, value = header.decode().partition(":")
                    headers[name.lower()] = value.strip()
                length = int(headers.get("content-length", 0))
                content = await reader.readexactly(length) if length else b""
                if not await self.respond(writer, line.split()[1].decode(), headers, content):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def respond(self, writer, path, headers, content):
        if self.key and headers.get("authorization") != f"Bearer {self.key}":
            return await send(writer, 401, {"error": "bad key"})
        if path == "/v1/models":
            return await send(writer, 200, {"data": [{"id": name} for name in self.listed]})
        if path != "/v1/completions":
            return await send(writer, 404, {"error": "no such page"})
        posted = json.loads(content)
        if wrong := [name for name in self.unknown if name in posted]:
            return await send(writer, 422, {"error": f"unexpected {wrong}"})
        self.flying += 1
        self.most = max(self.most, self.flying)
        try:
            return await self.complete(writer, posted)
        finally:
            self.flying -= 1

    async def complete(self, writer, posted):
        which = (posted["prompt"], posted["seed"])
        self.asked.append(posted)
        self.times[which] += 1
        fault = self.fault(posted, self.times[which]) if self.fault else None
        whole = json.dumps(self.answer(posted)).encode()
        if fault == "reset":
            writer.transport.abort()
            return False
        if fault == "slow":  # and nobody waits for the answer any more
            await asyncio.sleep(60)
        if fault == "half body":  # the length promised is not what comes
            await send(writer, 200, whole[: len(whole) // 2], length=len(whole))
            return False
        if fault == "half json":
            return await send(writer, 200, whole[: len(whole) // 2])
        if fault == "half answer":
            half = json.loads(whole)
            half["choices"][0] |= {"text": "ha", "finish_reason": None}
            return await send(writer, 200, half)
        if fault == "no choice":
            return await send(writer, 200, {"model": self.model, "choices": []})
        if isinstance(fault, int):
            more = {"Retry-After": "0"} if fault == 429 else {}
            return await send(writer, fault, {"error": "not now"}, **more)
        self.given[which] += 1
        return await send(writer, 200, whole)


async def send(writer, status, content, length=None, **headers):
    told = content if isinstance(content, bytes) else json.dumps(content).encode()
    headers |= {"Content-Type": "application/json", "Content-Length": length or len(told)}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"HTTP/1.1 {status} -\r\n{lines}\r\n".encode() + told)
    await writer.drain()
    return True


@contextmanager
def serving(**how):
    """A `Faulty` that is served by a thread of its own while the block runs."""
    faulty, ready = Faulty(**how), threading.Event()

    async def serve():
        server = await asyncio.start_server(faulty.serve, "127.0.0.1", 0, backlog=512)
        faulty.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        faulty.stop = asyncio.get_running_loop(), asyncio.Event()
        ready.set()
        await faulty.stop[1].wait()
        server.close()

    # When it returns, `asyncio.run` ends the connections that are still open.
    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield faulty
    finally:
        loop, stopped = faulty.stop
        loop.call_soon_threadsafe(stopped.set)
        thread.join(10)
        assert not thread.is_alive()


def by_turns(*faults):
    """Each fault once for every request, in turn; then answers."""
    return lambda posted, time: faults[time - 1] if time <= len(faults) else None
