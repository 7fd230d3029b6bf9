"""Before the first question: does the server have the model, and in which dialect is it asked?"""

from typing import Any

from probes.records import Rollout
from probes.served.answers import listed, named, read
from probes.served.dialects import DIALECTS, Asked, body
from probes.served.failures import AnotherModel, NoLogprobs, ServerRefused, Unspoken
from probes.served.fetching import fetched, tried
from probes.served.tokens import Tokens

FIRST_TRIES, FIRST_TIMEOUT = 3, 30.0
"""Of the list of models, which a server that is there at all gives at once: a wrong address is
told within seconds, not after all the tries of an answer."""


async def check_served(
    client: Any,
    address: str,
    model: str,
    *,
    tries: int,
    patience: float | int,
    timeout: float | int,
) -> None:
    """Refuse a server that doesn't list the model.

    Raises:
        AnotherModel: it serves others.
        WrongKey: it wants another key.
        ServerUnavailable: it doesn't answer.
    """

    async def models() -> list[str]:
        return listed(await fetched(client, "GET", "models"))

    first = {"tries": min(tries, FIRST_TRIES), "timeout": min(timeout, FIRST_TIMEOUT)}
    served = await tried(models, patience=patience, **first)
    if not any(named(one, model) for one in served):
        raise AnotherModel(
            f"the server at {address} serves {', '.join(served) or 'nothing'}; asked for {model}."
        )


async def understood(
    client: Any,
    model: str,
    prompt: str,
    *,
    tokens: Tokens | None,
    need_logprobs: bool,
    tries: int,
    patience: float | int,
    timeout: float | int,
) -> str:
    """Name of the first dialect that the server accepts, asked for one token behind a prompt.

    Raises:
        AnotherModel: it answers for another model, or read another number of tokens.
        NoLogprobs: they are needed, and it gives none.
        ServerRefused: it accepts none; with what it said to the first.
        ServerUnavailable: it doesn't answer.
    """
    first: ServerRefused | None = None
    one = Asked("", 0, prompt, 1, 0)
    for name in DIALECTS:
        posted = body(one, model, 1.0, 1.0, name)

        async def ask(posted: dict = posted) -> Rollout:
            content = await fetched(client, "POST", "completions", posted)
            return read(content, one, model, comparable=True, tokens=tokens)

        try:
            answer = await tried(ask, tries=tries, patience=patience, timeout=timeout)
        except Unspoken as refused:
            first = first or refused
            continue
        if need_logprobs and not answer.logprobs:
            raise NoLogprobs(
                f"the server gives no log-probabilities of {model}, and they are required. "
                f"llama-cpp-python gives them with --logits_all true, transformers' server never "
                f"does; where they aren't required they are left empty."
            )
        return name
    assert first is not None
    raise first
