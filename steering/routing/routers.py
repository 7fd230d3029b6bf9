"""Who chooses the next token: gates, and what happens where a gate is open.

    full = Gated(disagree, Steer(by_taxonomy(taxonomy, vectors), (0.5, 1.0)))
    null = Gated(at_rates(rates), Steer(by_taxonomy(taxonomy, vectors)))
    Gated(kl_above(0.5), TAKE)            # plain substitution where the models differ much
    recorded(writer.log.answers)          # exactly what another writer did

A `Gate` says of every row whether it is open; where it is closed the base chooses. What stands
behind an open gate is a push of the base (`Steer`), the tuned model's own token (`TAKE`), or the
tuned model's choice among the base's likeliest tokens (`Among`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.generate import uniforms
from probes.records import Refusal
from probes.taxonomy.record import Taxonomy
from steering.routing.crossed import Chooser, at_random
from steering.routing.hybrid import AMONG, BASE, FIELDS, MODELS, STEERED, TUNED, Key, Plan, View
from steering.vectors.record import Vectors

Gate = Callable[[View], Bool[Tensor, " rows"]]
"""In which rows somebody else than the base chooses."""

Categories = Callable[[View], Int[Tensor, "rows kinds"]]
"""The categories that are tried in each row."""


@dataclass(frozen=True)
class Steer:
    """The base is pushed: by each of its categories at each coefficient, the best one taken."""

    categories: Categories
    coefficients: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        """Refuse a choice of nothing."""
        if not self.coefficients:
            raise Refusal("no coefficient was given: there is no candidate to steer with.")

    @cached_property
    def sizes(self) -> Float[Tensor, " coefficients"]:
        """The coefficients as a tensor."""
        return torch.tensor(self.coefficients, dtype=torch.float32)

    def candidates(
        self, view: View
    ) -> tuple[Int[Tensor, "rows candidates"], Float[Tensor, "rows candidates"]]:
        """Every category at every coefficient, the coefficients of a category side by side."""
        kinds, sizes = self.categories(view), self.sizes.to(view.device)
        rows, count = kinds.shape
        shape = rows, count, len(sizes)
        pairs = kinds[..., None].expand(shape), sizes.expand(shape)
        return pairs[0].reshape(rows, -1), pairs[1].reshape(rows, -1)


@dataclass(frozen=True)
class Among:
    """The tuned model chooses among so many of the base's likeliest tokens."""

    count: int

    def __post_init__(self) -> None:
        """Refuse a choice of nothing."""
        if self.count < 1:
            raise Refusal(f"the tuned model can't choose among {self.count} tokens; 1 is the base.")


TAKE = "take"
"""The tuned model chooses."""


@dataclass(frozen=True)
class Gated:
    """A router: behind an open gate `then`, the base everywhere else."""

    gate: Gate
    then: Any
    """A `Steer`, an `Among`, or `TAKE`."""

    def __call__(self, view: View) -> Plan:
        """The plan for these rows."""
        opened = self.gate(view)
        if isinstance(self.then, Steer):
            who = torch.where(opened, STEERED, BASE)
            return Plan(who, *self.then.candidates(view))
        if isinstance(self.then, Among):
            return Plan(torch.where(opened, AMONG, BASE), among=self.then.count)
        return Plan(torch.where(opened, TUNED, BASE))


# ------------------------------------------------------------------ gates


def disagree(view: View) -> Bool[Tensor, " rows"]:
    """Where the two models' likeliest tokens differ: the gate of Venhoff et al."""
    return view.top[0] != view.top[1]


def always(view: View) -> Bool[Tensor, " rows"]:
    """At every token."""
    return torch.ones_like(view.top[0], dtype=torch.bool)


def never(view: View) -> Bool[Tensor, " rows"]:
    """Nowhere: the base by itself."""
    return torch.zeros_like(view.top[0], dtype=torch.bool)


def kl_above(threshold: float) -> Gate:
    """Where KL(tuned || base) exceeds so many nats."""
    return lambda view: view.kl > threshold


def entropy_above(threshold: float, *, of: str = "base") -> Gate:
    """Where the next-token distribution of "base" or "tuned" has an entropy above so many nats."""
    if of not in MODELS:
        raise Refusal(f"entropy of {of!r}: it is that of base or tuned.")

    def gate(view: View) -> Bool[Tensor, " rows"]:
        log = view.logs[MODELS.index(of)].double()
        return torch.where(log > -torch.inf, -log.exp() * log, 0.0).sum(-1) > threshold

    return gate


def but(gate: Gate) -> Gate:
    """Everywhere else."""
    return lambda view: ~gate(view)


def at_rates(rates: Mapping[str, float], *, seed: int = 0) -> Gate:
    """Each token with the chance `rates[problem]`, whatever it is: the null of any gate.

    Its coins are those of `crossed.at_random`.
    """
    return by_rule(at_random(rates, seed=seed))


def by_rule(chooser: Chooser) -> Gate:
    """By request and text so far, such as the task's decision tokens (`crossed.at_decisions`)."""

    def gate(view: View) -> Bool[Tensor, " rows"]:
        pairs = zip(view.turn.requests, view.turn.written, strict=True)
        return torch.tensor([chooser(r, w) for r, w in pairs], device=view.device)

    return gate


# ------------------------------------------------------------------ categories


def by_taxonomy(taxonomy: Taxonomy, vectors: Vectors) -> Categories:
    """The taxonomy's category of the tuned model's newest residual, as a row of the vectors.

    Raises:
        Refusal: a category without a vector.
    """
    if vectors.taxonomy and vectors.taxonomy != taxonomy.data:
        raise Refusal(
            "the vectors were trained with the categories of another taxonomy: give the one that "
            "was saved beside them."
        )
    lines = torch.tensor(lines_of(taxonomy, vectors))

    def categories(view: View) -> Int[Tensor, "rows kinds"]:
        x = view.residual("tuned", taxonomy.site)
        found = lines.to(x.device)[taxonomy.category(x)]
        return found.to(view.device)[:, None]

    return categories


def lines_of(taxonomy: Taxonomy, vectors: Vectors) -> list[int]:
    """Of each latent of the taxonomy, the row of the vectors that is named alike."""
    if taxonomy.names == vectors.names:
        return list(range(len(vectors.names)))
    known = {name: i for i, name in enumerate(vectors.names)}
    missing = [name for name in dict.fromkeys(taxonomy.names) if name not in known]
    if missing or len(known) < len(vectors.names):
        raise Refusal(
            f"the taxonomy names {', '.join(taxonomy.names)} and the vectors "
            f"{', '.join(vectors.names)}: "
            + (f"there is no vector for {missing[0]!r}. " if missing else "names are there twice. ")
            + "Train vectors with this taxonomy, or give the one they were trained with."
        )
    return [known[name] for name in taxonomy.names]


def by_chance(kinds: Sequence[int], *, seed: int = 0) -> Categories:
    """One of these categories, all as likely, by a stream of numbers of its own."""
    drawn = _Drawn(seed, "category")

    def categories(view: View) -> Int[Tensor, "rows kinds"]:
        chosen = np.asarray(kinds)[(drawn(view) * len(kinds)).astype(np.int64)]
        return torch.from_numpy(chosen).to(view.device)[:, None]

    return categories


def living(categories: Categories, kinds: Sequence[int], *, seed: int = 0) -> Categories:
    """The same; in place of a category that is none of these, one of them by chance."""
    chance = by_chance(kinds, seed=seed)

    def kept(view: View) -> Int[Tensor, "rows kinds"]:
        found = categories(view)
        known = torch.isin(found, torch.tensor(list(kinds), device=found.device))
        return torch.where(known, found, chance(view))

    return kept


def by_draw(categories: Categories, draws: int, *, seed: int = 0) -> Categories:
    """Of vectors that hold so many in place of each, the one that the problem has throughout."""
    number = _Drawn(seed, "draw").of

    def drawn(view: View) -> Int[Tensor, "rows kinds"]:
        of = [int(number(r.problem, 0, 1, 0) * draws) for r in view.turn.requests]
        found = categories(view)
        return found * draws + torch.tensor(of, device=found.device)[:, None]

    return drawn


def every(kinds: Sequence[int]) -> Categories:
    """All of these categories, for an oracle to choose from."""

    def categories(view: View) -> Int[Tensor, "rows kinds"]:
        every = torch.tensor(list(kinds), device=view.device)
        return every.expand(view.pair.shape[1], -1)

    return categories


class _Drawn:
    """One number in [0, 1) a token, keyed by (seed, problem, sample, place)."""

    def __init__(self, seed: int, stream: str) -> None:
        self.seed, self.stream = seed, stream
        self.numbers: dict[tuple[str, int], np.ndarray] = {}

    def __call__(self, view: View) -> Float[np.ndarray, " rows"]:
        pairs = zip(view.turn.requests, view.turn.written, strict=True)
        return np.array([self.of(r.problem, r.sample, r.max_new, len(w)) for r, w in pairs])

    def of(self, problem: str, sample: int, most: int, place: int) -> float:
        known = self.numbers.get((problem, sample))
        if known is None or len(known) < most:
            known = uniforms(self.seed, problem, sample, self.stream, most)
            self.numbers[problem, sample] = known
        return float(known[place])


# ------------------------------------------------------------------ replay


def recorded(answers: Mapping[Key, Float[np.ndarray, "tokens f"]]) -> Callable[[View], Plan]:
    """Whoever chose each token in a record (`hybrid.Log.answers`), under the same push.

    Raises:
        Refusal: at an answer that the record lacks, or behind its end there.
    """
    who, kind, size, most = (
        FIELDS.index(name) for name in ("chooser", "category", "coefficient", "among")
    )

    def router(view: View) -> Plan:
        rows = []
        for request, written in zip(view.turn.requests, view.turn.written, strict=True):
            key = (request.problem, request.sample, request.setting)
            known = answers.get(key, ())
            if len(written) >= len(known):
                raise Refusal(
                    f"the record has {len(known)} tokens of answer {key}, and token "
                    f"{len(written)} is asked for: it is of other requests, or of other models."
                )
            rows.append(known[len(written)])
        table = torch.from_numpy(np.array(rows)).to(view.device)
        steered = bool((table[:, who] == STEERED).any())
        return Plan(
            table[:, who].long(),
            table[:, kind : kind + 1].long().clamp_min(0) if steered else None,
            table[:, size : size + 1].float() if steered else None,
            int(table[:, most].max()),
        )

    return router
