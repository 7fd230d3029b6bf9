"""Stretches of text that the base is to write under a push: whole answers, and steps of a kind."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from probes.capture import Text
from probes.generate import Request, replay
from probes.models import Model
from probes.records import Span
from probes.taxonomy import Taxonomy, read_steps
from steering.interventions import Intervention, Steer, Window


@dataclass(frozen=True)
class Target:
    """A stretch of a text that the base is to write under a push."""

    tokens: tuple[int, ...]
    """Up to its end."""
    first: int
    """Own position of the first push: the token before the stretch."""
    category: int
    activation: float
    problem: str

    @property
    def length(self) -> int:
        """How many tokens are to be written."""
        return len(self.tokens) - 1 - self.first


@dataclass(frozen=True)
class Stretches:
    """Whole answers, for the bias; and steps with their categories, for the vectors."""

    answers: tuple[Target, ...]
    steps: tuple[Target, ...]
    data: str


def stretches(
    tuned: Model,
    texts: Sequence[Text],
    spans: Sequence[Sequence[Span]],
    taxonomy: Taxonomy,
    *,
    batch: int = 64,
) -> Stretches:
    """The answers and steps of the tuned model's texts, each step with its category.

    Raises:
        Refusal: as `probes.taxonomy.read_steps`.
    """
    read = read_steps(tuned, texts, spans, [taxonomy.site], batch=batch)
    latents = taxonomy.latents(read.values[taxonomy.site])
    strongest, category = latents.max(-1)
    flat = [(text, span) for text, listed in zip(texts, spans, strict=True) for span in listed]
    steps = [
        Target(
            text.tokens[: len(text.prompt) + span.stop],
            len(text.prompt) + span.start - 1,
            int(category[i]),
            float(strongest[i]),
            text.problem,
        )
        for i, (text, span) in enumerate(flat)
    ]
    answers = [Target(t.tokens, len(t.prompt) - 1, -1, 0.0, t.problem) for t in texts if t.answer]
    return Stretches(tuple(answers), tuple(steps), read.data)


def surprises(
    base: Model,
    site: str,
    targets: Sequence[Target],
    vectors: Float[Tensor, "lines d"] | None,
    *,
    coldness: float = 1.0,
    batch: int = 256,
    gradients: bool = False,
) -> list[Float[Tensor, " tokens"]]:
    """Nats of every token of each target, under its category's line of `vectors` (-1: the first).

    Args:
        base: what writes.
        site: where pushes are added: at every position that a target's token is chosen at.
        targets: what is written.
        vectors: a push a category; None for the base as it is.
        coldness: factor of the logits.
        batch: most rows of a pass.
        gradients: keep the graph.
    """
    requests = [Request(str(i), 0, t.tokens, 1, i) for i, t in enumerate(targets)]
    lines = () if vectors is None else vectors.unbind()
    edits = {}
    for i, target in enumerate(targets):
        push = lines[max(target.category, 0)] if lines else None
        if push is None or not bool((push.detach() != 0).any()):
            edits[i] = []
        else:
            window = Window(target.first, len(target.tokens) - 1)
            edits[i] = [Intervention("add", site, push, window=window)]
    steer = Steer(base, edits)
    found: list[Tensor] = [torch.empty(0)] * len(targets)
    sequences = [t.tokens for t in targets]
    for rows, logits, now in replay(
        base, sequences, observers=[steer], requests=requests, batch=batch, gradients=gradients
    ):
        assert logits is not None, "a replay that isn't stopped has logits"
        steer.check()
        with torch.set_grad_enabled(gradients):
            for row, i in enumerate(rows):
                target, zero = targets[i], int(now.start[row])
                said = logits[row, target.first - zero : now.width - 1].float() * coldness
                wanted = torch.tensor(target.tokens[target.first + 1 :], device=said.device)
                found[i] = torch.nn.functional.cross_entropy(said, wanted, reduction="none")
    return found
