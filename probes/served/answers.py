"""What comes back: a list of models, or an answer with its ids and log-probabilities."""

import re
from collections.abc import Mapping
from typing import Any

from probes.records import Rollout
from probes.served.dialects import Asked
from probes.served.failures import AnotherModel, Passing, ServerRefused
from probes.served.tokens import Tokens


def listed(content: Any) -> list[str]:
    """Names of the models that a server says it serves."""
    try:
        return [str(one["id"]) for one in content["data"]]
    except (KeyError, TypeError):
        raise Passing("/models gave no list of models") from None


def read(
    content: Any, asked: Asked, model: str, *, comparable: bool, tokens: Tokens | None = None
) -> Rollout:
    """The answer in a completion.

    Args:
        content: the parsed response.
        asked: what it answers.
        model: that was asked for.
        comparable: whether log-probabilities mean the same on all servers.
        tokens: tokenises answers whose ids aren't served.

    Raises:
        AnotherModel: another model wrote it, or it read another number of tokens.
        Passing: it is no whole answer.
    """
    if not isinstance(content, Mapping):
        raise Passing(f"the response is {type(content).__name__}, not an object")
    if not named(content.get("model"), model):
        raise AnotherModel(f"an answer is by model {content.get('model')!r}; {model!r} was asked.")
    choices = content.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], Mapping):
        raise Passing("the response has not the one choice that was asked for")
    (choice,) = choices
    text, stop = choice.get("text"), choice.get("finish_reason")
    if not isinstance(text, str) or stop not in ("stop", "length"):
        raise Passing(f"the answer is unfinished (finish_reason {stop!r})")
    usage = content.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    if tokens is not None:
        _check_read(usage.get("prompt_tokens"), asked, model, tokens)
    # JSON can carry half a character (a lone surrogate); a file can't.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    ids, logprobs = token_ids(choice), log_probabilities(choice)
    counted = usage.get("completion_tokens")
    if counted is None:
        counted = len(ids) or len(logprobs)
    # llama.cpp leaves out tokens that end within a character: then there is not one for each.
    ids = ids if len(ids) == counted else ()
    if tokens is not None and not tokens.spell(ids, text):
        ids = tokens.anew(text, str(stop))
        counted = counted if len(ids) == counted else -1
    kept = logprobs if comparable and len(logprobs) == counted else ()
    return Rollout(asked.problem, asked.sample, ids, kept, text, str(stop))


def check_length(content: Mapping[str, Any], asked: Asked) -> None:
    """Refuse an answer that is longer than was asked for.

    Raises:
        ServerRefused: by what the server counted itself.
    """
    usage = content.get("usage")
    counted = usage.get("completion_tokens") if isinstance(usage, Mapping) else None
    if type(counted) is int and counted > asked.most + 1:  # some count the token that ends it
        raise ServerRefused(
            f"an answer of {counted} tokens, where {asked.most} at most were asked: the server "
            f"ignores max_tokens, and answers of unequal length can't be compared."
        )


def named(told: Any, asked: str) -> bool:
    """Whether a model that a server tells of is the one that was asked for.

    transformers appends the revision to a name that has none.

    >>> named("m", "m"), named("m@main", "m"), named("m@a", "m@b"), named(None, "m")
    (True, True, False, False)
    """
    return isinstance(told, str) and asked in (told, told.partition("@")[0])


def _check_read(count: Any, asked: Asked, model: str, tokens: Tokens) -> None:
    """Refuse a server that read the prompt as another number of tokens."""
    if type(count) is int and count != (ours := len(tokens.of_prompt(asked.prompt))):
        raise AnotherModel(
            f"the server's {model!r} read a prompt as {count} tokens, {tokens.name} makes {ours} "
            f"of it: another tokenizer, a template or a first token that was added, or a prompt "
            f"that was cut."
        )


def token_ids(choice: Mapping[str, Any]) -> tuple[int, ...]:
    """Of an answer, where they are served: by vLLM or by llama.cpp; else none."""
    served: Any = choice.get("token_ids")
    if served is None:
        details = choice.get("logprobs")
        details = details if isinstance(details, Mapping) else {}
        if isinstance(of_each := details.get("content"), list):
            served = [one.get("id") if isinstance(one, Mapping) else None for one in of_each]
        elif isinstance(words := details.get("tokens"), list):
            # An older vLLM writes them where others write the words.
            told = [re.fullmatch(r"token_id:([0-9]{1,10})", str(word)) for word in words]
            served = [int(one[1]) if one else None for one in told]
    if not isinstance(served, list):
        return ()
    return tuple(served) if all(type(i) is int and 0 <= i < 2**31 for i in served) else ()


def log_probabilities(choice: Mapping[str, Any]) -> tuple[float, ...]:
    """Of an answer's tokens, nats, where they are served: as OpenAI or llama.cpp do; else none."""
    details: Any = choice.get("logprobs")
    if not isinstance(details, Mapping):
        return ()
    if isinstance(of_each := details.get("content"), list):
        served: Any = [one.get("logprob") if isinstance(one, Mapping) else None for one in of_each]
    else:
        served = details.get("token_logprobs")
    if not isinstance(served, list):
        return ()
    # A rounded 0 may come out above it; what is further off is no log-probability.
    numbers = [one for one in served if type(one) in (int, float) and -1e9 < one < 1e-3]
    return tuple(map(float, numbers)) if len(numbers) == len(served) else ()
