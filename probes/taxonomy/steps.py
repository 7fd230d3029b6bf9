"""The activations of steps: the mean over a step's tokens, read through one model.

    marked = [task.spans(problem, rollout.text) for ...]
    steps = read_steps(model, texts, marked, ["blocks.1.hook_resid_post"])
    steps.values["blocks.1.hook_resid_post"]        # (steps, d)

The mean is over tokens [start - 1, stop) of a step, as in arXiv:2510.07364, section 3: the token
before the first one is where the step was chosen. What is held is one row a step and one a text.

Words are tokens here: a tokenizer that cuts words is refused.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from probes.capture import Text
from probes.generate import Held, replay
from probes.models import Model, decode, layer_index
from probes.records import Refusal, Span, content_hash, parse_site, site_name


@dataclass(frozen=True, eq=False)
class Steps:
    """Step means, and what is known of each step; arrays run over the steps of all texts."""

    values: dict[str, Float[Tensor, "steps d"]]
    """Raw means by full name of the site, float32 on the host."""
    responses: dict[str, Float[Tensor, "texts d"]]
    """Mean over the positions at which each whole answer was chosen."""
    kinds: Shaped[np.ndarray, " steps"]
    """Known kind of each step, as its span was labelled."""
    problems: Shaped[np.ndarray, " steps"]
    """Id of each step's problem: the unit of every interval."""
    texts: Int[np.ndarray, " steps"]
    """Which text each step is of."""
    model: str
    """Content hash of the model that read them."""
    data: str
    """Hash of the tokens and spans."""

    def centre(self, site: str) -> Float[Tensor, " d"]:
        """Mean of the responses' means: every answer counts once, however long it is."""
        return self.responses[site].mean(0)

    def relabelled(self, kinds: Sequence[str]) -> "Steps":
        """The same steps under other known kinds.

        Raises:
            Refusal: another number of kinds than steps.
        """
        if len(kinds) != len(self.kinds):
            raise Refusal(f"{len(kinds)} kinds for {len(self.kinds)} steps.")
        return replace(self, kinds=np.array(kinds))


def read_steps(
    model: Model,
    texts: Sequence[Text],
    spans: Sequence[Sequence[Span]],
    sites: Sequence[str],
    *,
    batch: int = 64,
    progress: Callable[[int], Any] | None = None,
) -> Steps:
    """Mean residual of every step of finished texts.

    Args:
        model: what reads them; it need not have written them.
        texts: prompts with answers.
        spans: of each text, its steps in words of the answer, labelled with their known kind.
        sites: full names; -1 is the last layer.
        batch: most texts of a pass.
        progress: called with the number of texts done since the last call.

    Raises:
        Refusal: no step in any text, another number of spans than texts, a step outside its
            answer, or a tokenizer that gives the answer another number of tokens than words.
    """
    check_spans(model, texts, spans)
    sites = [
        site_name(layer_index(layer, model.depth), kind) for layer, kind in map(parse_site, sites)
    ]
    whole = [len(text.prompt) for text in texts]
    held = Held(sites)
    means: dict[str, list[Tensor]] = {site: [torch.empty(0)] * len(texts) for site in sites}
    deepest = max(parse_site(site)[0] for site in sites)
    sequences = [text.tokens for text in texts]
    for rows, _, now in replay(model, sequences, observers=[held], batch=batch, stop_after=deepest):
        for site in sites:
            sums = held.x[site].float().cumsum(1)
            for row, i in enumerate(rows):
                zero = whole[i] - int(now.start[row])
                cells = [(0, len(texts[i].answer)), *((s.start, s.stop) for s in spans[i])]
                found = [_mean(sums[row], zero + a - 1, zero + b) for a, b in cells]
                means[site][i] = torch.stack(found).cpu()
        if progress:
            progress(len(rows))
    where = [(i, span) for i, listed in enumerate(spans) for span in listed]
    return Steps(
        values={site: torch.cat([m[1:] for m in means[site]]) for site in sites},
        responses={site: torch.stack([m[0] for m in means[site]]) for site in sites},
        kinds=np.array([span.strategy for _, span in where]),
        problems=np.array([texts[i].problem for i, _ in where]),
        texts=np.array([i for i, _ in where]),
        model=model.digest,
        data=content_hash(
            [
                [list(t.tokens), [[s.start, s.stop] for s in listed]]
                for t, listed in zip(texts, spans, strict=True)
            ]
        ),
    )


def check_spans(model: Model, texts: Sequence[Text], spans: Sequence[Sequence[Span]]) -> None:
    """Refuse spans that don't lie in their answers, word by word.

    Raises:
        Refusal: see `read_steps`.
    """
    if len(texts) != len(spans):
        raise Refusal(f"{len(spans)} lists of steps for {len(texts)} texts.")
    if not any(map(len, spans)):
        raise Refusal(
            f"none of the {len(texts)} texts has a step: there is nothing to sort into kinds. Are "
            f"they answers to this task?"
        )
    for text, listed in zip(texts, spans, strict=True):
        for span in listed:
            if not 0 <= span.start < span.stop <= len(text.answer):
                raise Refusal(
                    f"step {span.start}..{span.stop} is not in the answer {text.problem}/"
                    f"{text.sample} of {len(text.answer)} words: is it of another text?"
                )
        if listed and not aligned(model, text, max(span.stop for span in listed)):
            words = decode(model, text.answer).split()
            raise Refusal(
                f"the answer {text.problem}/{text.sample} has {len(words)} words and "
                f"{len(text.answer)} tokens: steps are counted in words, so each word must be one "
                f"token, and special ones may only stand behind the last step."
            )


def aligned(model: Model, text: Text, until: int) -> bool:
    """Whether word i of the answer is token i, at least for the first `until` of them."""
    special = set(model.tokenizer.all_special_ids)
    plain = [token for token in text.answer if token not in special]
    words = decode(model, text.answer).split()
    return len(plain) == len(words) and not special & set(text.answer[:until])


def openings(spans: Sequence[Span], response: str) -> list[Span]:
    """The same steps, each named after its first word without digits: what it opens with.

    In chain that is the family of the function, or the sign of a check, repair or jump.

    >>> openings([Span(0, 3, "step"), Span(3, 6, "check")], "n0 = 21 ? 2 no")
    [Span(start=0, stop=3, strategy='n'), Span(start=3, stop=6, strategy='?')]
    """
    words = response.split()
    return [replace(s, strategy=re.sub(r"\d+", "", words[s.start]) or "number") for s in spans]


def _mean(sums: Float[Tensor, "width d"], start: int, stop: int) -> Float[Tensor, " d"]:
    """Mean of columns start..stop-1 from their running sum."""
    before = sums[start - 1] if start > 0 else torch.zeros_like(sums[0])
    return (sums[stop - 1] - before) / (stop - start)
