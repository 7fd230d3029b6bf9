"""What each measure says of one skill of one copy: a number, above a threshold "deployed".

    found = scores(Evidence(settings))       # of a finished verdict, by measure and skill
    found["crossed decoding", "n"]           # an Estimate, with its interval over problems

Every score is read where tuning gained for certain, on test problems whose entries tuning touched:
there a skill that was created is as much better as one that was deployed, and a measure that can
tell the two apart must do it by something else than the gain. All are signed so that deployment is
the higher side, by what the measure's own paper claims and not by what came out here:

- *boundary*: how far valid@K of the tuned model lies above the base's, negative (Yue et al.,
  arXiv:2504.13837: what the base reaches at large k was only made likelier);
- *base mass*: the base's valid answers above the guess rate;
- *gold trace*: the base's log-probability of one valid trace, in nats;
- *surprise*: the base's mean log-probability of a token of the tuned model's valid answers (Yue's
  perplexity test);
- *KL at decisions*: the share of KL(base || tuned) on the base's texts that lies where strategies
  are chosen;
- *shift*: how far activations moved at the last block, negative;
- *crossed decoding*: the share of the gap that the tuned model's decisions bring to the base;
- *SAE reconstruction*: how much worse the base's dictionary explains the tuned model's activations
  than the base's own, on the same texts of the tuned model, negative;
- *SAE firing*: how far the rates at which its latents fire moved there: squared change over squared
  rate, from two halves of the problems multiplied, so that chance adds nothing; negative;
- *hybrid*, and the arms beside it: the share of the gap that the base recovers when it is pushed
  where, and as, the tuned model says (Venhoff et al., arXiv:2510.07364: much of an RL gap, little
  of that of a distillation).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from probes.capture import from_rollouts
from probes.divergence import Parted, divergences, kl_share
from probes.drift import drift
from probes.intervals import Estimate, bootstrap, bootstrap_weights, recovered, undefined
from probes.records import Measurement, Rollout
from probes.sae import Sums, load_sae, sums
from probes.sae.active import read_rows
from probes.sae.measures import unexplained
from steering.calibration.truth import PARTS
from steering.evaluate import Judged, load_judged
from steering.routing import CELLS
from steering.verdict import VerdictSettings, measured
from steering.verdict.context import Context
from steering.verdict.lines.inside import ROUTED
from steering.verdict.rules import pick
from steering.verdict.stages.rollouts import BATCH

TEXTS = 120
"""Of each skill: what one forward pass of both models is made of."""


class Evidence:
    """A finished verdict of one copy, and both models; everything is read when first needed."""

    def __init__(self, settings: VerdictSettings) -> None:
        self.context = Context(settings)
        self._encoded: dict[str, tuple[Sums, Sums]] = {}
        self.found = measured(settings)

    @property
    def rows(self) -> Sequence[Measurement]:
        """All that the stages measured."""
        return self.found.rows

    @cached_property
    def answers(self) -> dict[str, Judged]:
        """Of base and tuned, to the test problems of the touched half."""
        return {m: self.context.rollouts(m).where(part=PARTS[0]) for m in ("base", "tuned")}

    def encoded(self, skill: str) -> tuple[Sums, Sums] | None:
        """The base's dictionary on both models' activations, on texts of the tuned model."""
        if "base" not in self.context.dictionaries:
            return None
        if skill not in self._encoded:
            base, tuned = self.context.pair
            sae = load_sae(self.context.dictionaries["base"], base)
            answers = self.texts("tuned", skill)
            texts = from_rollouts(tuned, self.answers["tuned"].problems, answers)
            rows = (read_rows(model, sae.site, texts, batch=BATCH) for model in (base, tuned))
            before, after = (sums(sae, x.x, x.problems) for x in rows)
            self._encoded[skill] = before, after
        return self._encoded[skill]

    @cached_property
    def crossed(self) -> Judged:
        """The stage's own arms of crossed decoding."""
        return load_judged(self.context.file("rollouts-crossed.parquet"))[0].where(part=PARTS[0])

    def texts(self, model: str, skill: str, *, valid: bool = False) -> list[Rollout]:
        """A few answers of a model, from as many problems as there are."""
        of_it = self.answers[model].where(skill=skill)
        pairs = zip(of_it.rollouts, of_it.graded, strict=True)
        kept = [r for r, g in pairs if g.valid or not valid]
        return kept[:: max(1, len(kept) // TEXTS)][:TEXTS]

    def parted(self, texts: Sequence[Rollout]) -> list[Parted]:
        """Both models along these texts."""
        problems = self.answers["base"].problems
        return divergences(*self.context.pair, self.context.task, problems, texts, batch=BATCH)


def scores(evidence: Evidence) -> dict[tuple[str, str], Estimate]:
    """Every measure's score of every divided skill; undefined ones say why."""
    skills = sorted({p.skill for p in evidence.answers["base"].problems})
    return {
        (name, skill): measure(evidence, skill)
        for name, measure in MEASURES.items()
        for skill in skills
    }


def gain(evidence: Evidence, skill: str) -> Estimate:
    """Tuned less base, valid answers to the same problems: without one no measure is asked."""
    return _read(pick(evidence.rows, "valid@k", x=1.0, **_where(skill, "tuned - base")))


def boundary(evidence: Evidence, skill: str) -> Estimate:
    where = _where(skill, "tuned - base")
    largest = max(r.x for r in evidence.rows if r.measure == "valid@k")
    return _negative(_read(pick(evidence.rows, "valid@k", x=largest, **where)))


def base_mass(evidence: Evidence, skill: str) -> Estimate:
    mass = _read(pick(evidence.rows, "valid@k", x=1.0, **_where(skill, "base")))
    guess = pick(evidence.rows, "guess rate", skill=skill, part=PARTS[0])
    return _plus(mass, -guess.value if guess else 0.0)


def gold_trace(evidence: Evidence, skill: str) -> Estimate:
    r = pick(evidence.rows, "gold trace probability", **_where(skill, "base"))
    found = _read(r)
    low, value, high = np.log(np.maximum([found.low, found.value, found.high], 1e-12)).tolist()
    return replace(found, value=value, low=low, high=high)


def surprise(evidence: Evidence, skill: str) -> Estimate:
    texts = evidence.texts("tuned", skill, valid=True)
    if not texts:
        return undefined("the tuned model has no valid answer", 0)
    by_problem: dict[str, list[float]] = {}
    for one in evidence.parted(texts):
        by_problem.setdefault(one.problem, []).append(float(one.of.logprob[0].mean()))
    if len(by_problem) < 2:
        return undefined("valid answers to one problem only", len(by_problem))
    return bootstrap(lambda mean: mean, np.array([np.mean(v) for v in by_problem.values()]))


def kl_at_decisions(evidence: Evidence, skill: str) -> Estimate:
    return kl_share(evidence.parted(evidence.texts("base", skill)), "decision")


def shift(evidence: Evidence, skill: str) -> Estimate:
    base, tuned = evidence.context.pair
    answers = evidence.texts("base", skill)
    texts = from_rollouts(base, evidence.answers["base"].problems, answers)
    return _negative(drift(base, tuned, texts)[-1].relative)


def sae_reconstruction(evidence: Evidence, skill: str) -> Estimate:
    return _of_sums(evidence, skill, lambda a, b, w: unexplained(a, w) - unexplained(b, w))


def sae_firing(evidence: Evidence, skill: str) -> Estimate:
    def rates(found: Sums, weights: np.ndarray) -> np.ndarray:
        return weights @ found.fired / np.maximum(weights @ found.rows, 1e-9)[..., None]

    def moved(before: Sums, after: Sums, weights: np.ndarray) -> np.ndarray:
        half = np.arange(weights.shape[-1]) % 2 == 0
        pairs = [(rates(before, weights * h), rates(after, weights * h)) for h in (half, ~half)]
        (a, b), (c, d) = pairs
        return -((b - a) * (d - c)).sum(-1) / ((a + b) * (c + d) / 4).sum(-1)

    return _of_sums(evidence, skill, moved)


def _of_sums(
    evidence: Evidence, skill: str, statistic: Callable[[Sums, Sums, np.ndarray], np.ndarray]
) -> Estimate:
    found = evidence.encoded(skill)
    if found is None:
        return undefined("no dictionary beside the base", 0)
    before, after = found
    if len(before.problems) < 2:
        return undefined("texts of one problem only", len(before.problems))
    return bootstrap_weights(lambda w: statistic(before, after, w), len(before.problems))


def crossed_decoding(evidence: Evidence, skill: str) -> Estimate:
    crossed = evidence.crossed.rates("valid", setting=CELLS[1], skill=skill)
    base, tuned = (evidence.answers[m].rates("valid", skill=skill) for m in ("base", "tuned"))
    return recovered(crossed, base, tuned)


def routed(arm: str) -> Callable[[Evidence, str], Estimate]:
    """The share of the gap that an arm of routing recovers."""

    def score(evidence: Evidence, skill: str) -> Estimate:
        where: dict[str, Any] = {"model": ROUTED, "setting": arm, "skill": skill, "part": PARTS[0]}
        r = pick(evidence.rows, "recovered valid", **where)
        return _read(r)

    return score


MEASURES: dict[str, Callable[[Evidence, str], Estimate]] = {
    "boundary": boundary,
    "base mass": base_mass,
    "gold trace": gold_trace,
    "surprise": surprise,
    "KL at decisions": kl_at_decisions,
    "shift": shift,
    "crossed decoding": crossed_decoding,
    "SAE reconstruction": sae_reconstruction,
    "SAE firing": sae_firing,
    "hybrid": routed("hybrid"),
    "shared vector": routed("shared vector"),
    "unconditional vector": routed("unconditional vector"),
    "random vectors": routed("random vectors"),
    "random candidates": routed("random candidates"),
    "random category": routed("random category"),
    "random position": routed("random position"),
    "guardrail": routed("guardrail"),
}
"""In the order of the table."""


def _where(skill: str, model: str) -> dict[str, Any]:
    return {"skill": skill, "part": PARTS[0], "model": model}


def _read(r: Measurement | None) -> Estimate:
    """A row as an estimate again."""
    if r is None:
        return undefined("not measured", 0)
    if np.isnan(r.value):
        return undefined(r.note or "undefined", r.n)
    return Estimate(r.value, r.low, r.high, r.n)


def _negative(found: Estimate) -> Estimate:
    return replace(found, value=-found.value, low=-found.high, high=-found.low)


def _plus(found: Estimate, number: float) -> Estimate:
    return replace(
        found, value=found.value + number, low=found.low + number, high=found.high + number
    )
