"""Decode with two models in lockstep: each token is the base's, the steered base's or the tuned's.

    reads = (("tuned", taxonomy.site),)
    writer = Hybrid(base, tuned, router, Pushes(vectors, base.device), reads=reads)
    judged = evaluate(writer, task, problems, samples=1, decoding=Decoding(0))
    writer.log.answers[problem.id, 0, None]     # a line a token: who chose it, under what

Both models read every token, whoever chose it. At each token a `Router` sees both models' logits
and residuals and says of every row who is to choose. Where it says STEERED, the base is asked again
at its newest position under each candidate push (`branches`); of several candidates the one is
taken whose own token the tuned model finds likeliest, which is the perplexity of one token (Venhoff
et al., arXiv:2510.07364, released code `hybrid_token.py`). There is no unsteered candidate.

A token is drawn from the distribution of who chooses it with the row's own uniform number, greedily
at temperature 0: so a writer that always takes the base's word is the base, and one that always
takes the tuned model's is the tuned model, at any temperature.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.generate import Choice, Decoding, Request, Stepper, Turn, choose
from probes.models import Model, check_pair
from probes.records import Refusal
from steering.routing.branches import Branches, Keep
from steering.vectors.record import Vectors

BASE, TUNED, STEERED, AMONG = range(4)
CHOOSERS = ("base", "tuned", "steered", "among")
"""Who chose a token: the base; the tuned model; the base under a push; the tuned model among the
base's likeliest tokens only."""

MODELS = ("base", "tuned")

FIELDS = (
    "token",
    "chooser",
    "category",
    "coefficient",
    "among",
    "base_prob",
    "tuned_prob",
    "base_top",
    "tuned_top",
    "kl",
)
"""What is recorded of every token; both models' probability of it is unsteered, at temperature 1;
`kl` is KL(tuned || base) there, in nats, where the writer was asked to compute it, else NaN."""

Key = tuple[str, int, Hashable]


class View:
    """What a router may look at: every row's two next-token distributions and residuals.

    Row 0 of `pair` is the base's logits, row 1 the tuned model's: side by side, each question costs
    one operation for both. What is asked for is computed then, once.
    """

    def __init__(
        self, turn: Turn, pair: Float[Tensor, "2 rows vocab"], newest: tuple[Keep, Keep]
    ) -> None:
        """Logits of both models, and what their observers kept."""
        self.turn, self.pair, self._newest = turn, pair, newest

    @property
    def device(self) -> torch.device:
        """Where the base is, and all that the router gives."""
        return self.pair.device

    @cached_property
    def top(self) -> Int[Tensor, "2 rows"]:
        """Each model's likeliest token."""
        return self.pair.argmax(-1)

    @cached_property
    def logs(self) -> Float[Tensor, "2 rows vocab"]:
        """Each model's log-probabilities at temperature 1."""
        return torch.log_softmax(self.pair.float(), -1)

    @cached_property
    def kl(self) -> Float[Tensor, " rows"]:
        """KL(tuned || base), in nats and float64."""
        q, p = self.logs.double()
        return torch.where(p.exp() > 0, p.exp() * (p - q), 0.0).sum(-1).clamp_min(0)

    def residual(self, model: str, site: str) -> Float[Tensor, "rows d"]:
        """The newest residual of "base" or "tuned" at a site that the writer reads."""
        return self._newest[MODELS.index(model)].newest[site]


@dataclass(frozen=True)
class Plan:
    """Who chooses the next token of each row, and under which candidates."""

    who: Int[Tensor, " rows"]
    """BASE, TUNED, STEERED or AMONG."""
    categories: Int[Tensor, "rows candidates"] | None = None
    """Of each candidate push; read in STEERED rows only, None where there is none."""
    coefficients: Float[Tensor, "rows candidates"] | None = None
    among: int = 0
    """How many of the base's likeliest tokens the tuned model may choose from."""


Router = Callable[[View], Plan]


class Pushes:
    """What each category adds to the residual, ready on the device."""

    def __init__(self, vectors: Vectors, device: torch.device | str = "cpu") -> None:
        """One line a category, each with its own factor and the bias; a network is asked in use."""
        self.vectors = vectors
        self.lines: Tensor | None = None
        if vectors.network is None:
            self.lines = vectors.pushes(torch.arange(len(vectors.vectors))).to(device)

    def __call__(
        self,
        categories: Int[Tensor, "rows candidates"],
        coefficients: Float[Tensor, "rows candidates"],
        residual: Float[Tensor, "rows d"],
    ) -> Float[Tensor, "rows candidates d"]:
        """Of each candidate, coefficient x push; `residual` is the base's own at the site."""
        if self.lines is not None:
            pushes = self.lines[categories]
        else:
            rows, candidates = categories.shape
            x = residual[:, None].expand(-1, candidates, -1).reshape(rows * candidates, -1)
            flat = self.vectors.pushes(categories.reshape(-1), 1.0, x)
            pushes = flat.to(residual.device).reshape(rows, candidates, -1)
        return coefficients[..., None].to(pushes.dtype) * pushes


@dataclass
class Log:
    """Who chose what, token by token, as it came; put together by answer when it is asked for."""

    steps: list[tuple[tuple[Request, ...], list[int], np.ndarray]] = field(default_factory=list)
    _answers: dict[Key, list[np.ndarray]] | None = None

    def add(
        self, requests: tuple[Request, ...], place: list[int], values: Float[np.ndarray, "f rows"]
    ) -> None:
        """One token of each row; `place` is how many it has before."""
        self.steps.append((requests, place, values))
        self._answers = None

    @property
    def answers(self) -> dict[Key, Float[np.ndarray, "tokens f"]]:
        """By problem, sample and setting; the last time where one was written twice."""
        if self._answers is None:
            found: dict[Key, list[np.ndarray]] = {}
            for requests, place, values in self.steps:
                columns = zip(requests, place, values.T, strict=True)
                for request, at, column in columns:
                    key = (request.problem, request.sample, request.setting)
                    if at == 0:
                        found[key] = []
                    found[key].append(column)
            self._answers = found
        return {key: np.array(rows) for key, rows in self._answers.items()}


class Hybrid:
    """The writer; one router for all its rows."""

    def __init__(
        self,
        base: Model,
        tuned: Model,
        router: Router,
        pushes: Pushes | None = None,
        *,
        reads: Sequence[tuple[str, str]] = (),
        kl: bool = False,
    ) -> None:
        """Hold both models.

        Args:
            base: is steered.
            tuned: says where and in what; it is never steered.
            router: who chooses each token.
            pushes: what STEERED adds; None where the router never says so.
            reads: ("base" or "tuned", site) of what the router looks at.
            kl: record KL(tuned || base) at every token.

        Raises:
            Refusal: models that are no pair, or vectors of another model (`check_vectors`).
        """
        check_pair(base, tuned)
        self.router, self.pushes, self.kl = router, pushes, kl
        self.branches = None
        if pushes is not None:
            check_vectors(pushes.vectors, base)
            self.branches = Branches(base, pushes.vectors.site)
        kept = tuple(Keep([s for m, s in reads if m == of]) for of in MODELS)
        self.kept: tuple[Keep, Keep] = kept  # type: ignore[assignment]
        watching = [kept[0], self.branches.keep] if self.branches else [kept[0]]
        self.steppers = (Stepper(base, watching), Stepper(tuned, [kept[1]]))
        self.log = Log()

    def next(self, tokens: Int[Tensor, " rows"], turn: Turn) -> Choice:
        """One token for each row, from the distribution of who the router chose."""
        ours, theirs = self.steppers
        base, tuned = ours.forward(tokens), theirs.forward(tokens)
        view = View(turn, torch.stack([base, tuned.to(base.device, base.dtype)]), self.kept)
        plan = self.router(view)
        logits = torch.where((plan.who == TUNED)[:, None], view.pair[1], base)
        if plan.among:
            narrow = (plan.who == AMONG)[:, None]
            logits = torch.where(narrow, among(base, view.pair[1], plan.among), logits)
        category = torch.full_like(plan.who, -1)
        coefficient = torch.zeros(plan.who.shape, device=base.device)
        if plan.categories is not None:
            rows = (plan.who == STEERED).nonzero()[:, 0]
            if len(rows):
                self._steer(rows, plan, view, (logits, category, coefficient))
        choice = choose(logits, turn.uniforms, turn.decoding)
        self._record(view, plan, choice, category, coefficient)
        return choice

    def _steer(
        self, rows: Tensor, plan: Plan, view: View, into: tuple[Tensor, Tensor, Tensor]
    ) -> None:
        """Logits, category and coefficient of the candidate that each of these rows takes."""
        if self.branches is None or self.pushes is None or plan.categories is None:
            raise Refusal("the router steers, and the writer was given no vectors to steer with.")
        assert plan.coefficients is not None, "a category comes with its coefficient"
        kinds, sizes = plan.categories[rows], plan.coefficients[rows]
        residual = self.branches.keep.newest[self.branches.site][rows]
        pushes = self.pushes(kinds, sizes, residual)
        found = self.branches.logits(self.steppers[0], rows, pushes)
        at = torch.zeros_like(rows)
        if found.shape[1] > 1:
            u = view.turn.uniforms[rows.cpu().numpy()]
            drawn = candidate_tokens(found, u, view.turn.decoding)
            # Of equally likely ones the first, as the order of coefficients has it.
            at = view.logs[1, rows].gather(1, drawn).argmax(1)
        logits, category, coefficient = into
        taken = torch.arange(len(rows), device=rows.device), at
        # A category that was left at zero pushes nowhere: there the base chooses, and is recorded.
        plan.who[rows[(pushes[taken] == 0).all(-1)]] = BASE
        logits[rows], category[rows] = found[taken], kinds[taken]
        coefficient[rows] = sizes[taken].to(coefficient)

    def _record(
        self, view: View, plan: Plan, choice: Choice, category: Tensor, coefficient: Tensor
    ) -> None:
        tokens = choice.tokens
        probs = view.logs.gather(2, tokens.expand(2, -1)[..., None])[..., 0].exp()
        many = torch.where(plan.who == AMONG, plan.among, 0) if plan.among else 0 * tokens
        kl = view.kl if self.kl else torch.full_like(coefficient, float("nan"))
        # One transfer a step, of the widest type among them: float32 holds ids below 2^24 exactly.
        columns = [tokens, plan.who, category, coefficient, many, *probs, *view.top, kl]
        values = torch.cat(columns).reshape(len(columns), -1).cpu().numpy()
        self.log.add(view.turn.requests, [len(w) for w in view.turn.written], values)


def candidate_tokens(
    logits: Float[Tensor, "rows candidates vocab"],
    uniforms: Float[np.ndarray, " rows"],
    decoding: Decoding,
) -> Int[Tensor, "rows candidates"]:
    """The token that each candidate would choose, with its row's number."""
    rows, candidates, vocab = logits.shape
    if decoding.temperature == 0:
        return logits.argmax(-1)
    flat = choose(logits.reshape(-1, vocab), np.repeat(uniforms, candidates), decoding)
    return flat.tokens.reshape(rows, candidates)


def among(
    base: Float[Tensor, "rows vocab"], tuned: Float[Tensor, "rows vocab"], count: int
) -> Float[Tensor, "rows vocab"]:
    """The tuned model's logits of the base's `count` likeliest tokens; the others can't come.

    With the whole vocabulary this is the tuned model.
    """
    allowed = base.topk(min(count, base.shape[-1]), -1).indices
    narrow = torch.full_like(tuned, float("-inf"))
    return narrow.scatter(-1, allowed, tuned.gather(-1, allowed))


def check_vectors(vectors: Vectors, base: Model, tuned: Model | None = None) -> None:
    """Refuse vectors that were fitted to another pair.

    Raises:
        Refusal: they are of another width, or name another base or tuned model.
    """
    if vectors.vectors.shape[1] != base.width:
        raise Refusal(
            f"the vectors have width {vectors.vectors.shape[1]} and {base.name} has "
            f"{base.width}: they are of another model."
        )
    for what, named, model in (("base", vectors.base, base), ("tuned", vectors.tuned, tuned)):
        if model is not None and named and model.digest and named != model.digest:
            raise Refusal(
                f"the vectors were trained with another {what} model ({named[:12]}...) than "
                f"{model.name} ({model.digest[:12]}...): train them for this pair."
            )
