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
- *latent scaling*: the share of the tuned model's own latents of which the base has less than half,
  by nu on the same texts (Minder et al., arXiv:2504.02922: such latents are new), negative;
- *latent scaling, error*: the same by nu on what each model's activations have left unexplained;
- *latent scaling, median*: the middle nu of the latents;
- *hybrid*, and the arms beside it: the share of the gap that the base recovers when it is pushed
  where, and as, the tuned model says (Venhoff et al., arXiv:2510.07364: much of an RL gap, little
  of that of a distillation);
- *oracle category*: that share where of all pushes the best is taken;
- *substitution*: that share where the tuned model itself writes what the two would write apart.
  Greedy, as all arms are, that is the tuned model token for token: 1, whatever is true;
- *linear gate*, *steered at KL*, *steered at entropy*: that share where a probe on the base's
  residual, KL(tuned || base) or the base's entropy says where to push;
- *KL gate*, *entropy gate*: crossed decoding that doesn't know the decisions: the tuned model
  writes where KL or entropy is high; and *random tokens* of each, as many at random places.

The three gates are fitted on select problems, to open as often as the two models disagree there
(`steering.routing.learnt`): what is true has no part in it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from probes.capture import from_rollouts
from probes.divergence import kl_share
from probes.drift import drift, latent_scaling
from probes.drift.scaling import Scaling
from probes.intervals import Estimate, bootstrap, bootstrap_weights, recovered, undefined
from probes.records import Measurement
from probes.sae import Sums, sums
from probes.sae.measures import unexplained
from steering.calibration.evidence import Evidence
from steering.calibration.truth import PARTS
from steering.routing import CELLS
from steering.verdict.lines.inside import ROUTED
from steering.verdict.rules import pick


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
    sae = evidence.dictionary("base")
    if sae is None:
        return undefined("no dictionary beside the base", 0)
    before, after = (sums(sae, x.x, x.problems) for x in evidence.read(skill, sae.site))
    if len(before.problems) < 2:
        return undefined("texts of one problem only", len(before.problems))
    return bootstrap_weights(lambda w: statistic(before, after, w), len(before.problems))


def scaled(statistic: Callable[[Scaling], Estimate]) -> Callable[[Evidence, str], Estimate]:
    """A number of how much the base has of the tuned model's own latents."""

    def score(evidence: Evidence, skill: str) -> Estimate:
        sae = evidence.dictionary("tuned")
        if sae is None:
            return undefined("no dictionary beside the tuned model", 0)
        base, tuned = evidence.read(skill, sae.site)
        if len(set(tuned.problems)) < 2:
            return undefined("texts of one problem only", len(set(tuned.problems)))
        return statistic(latent_scaling(sae, tuned, base))

    return score


def crossed_decoding(evidence: Evidence, skill: str) -> Estimate:
    crossed = evidence.crossed.rates("valid", setting=CELLS[1], skill=skill)
    base, tuned = (evidence.answers[m].rates("valid", skill=skill) for m in ("base", "tuned"))
    return recovered(crossed, base, tuned)


def routed(arm: str) -> Callable[[Evidence, str], Estimate]:
    """The share of the gap that an arm of routing recovers; its threshold is the copy's own."""

    def score(evidence: Evidence, skill: str) -> Estimate:
        names = {r.setting for r in evidence.rows if r.model == ROUTED}
        (name, *more) = sorted(n for n in names if n == arm or n.startswith(f"{arm} > ")) or [arm]
        assert not more, f"one threshold a gate, and not {name}, {', '.join(more)}"
        where: dict[str, Any] = {"model": ROUTED, "setting": name, "skill": skill, "part": PARTS[0]}
        return _read(pick(evidence.rows, "recovered valid", **where))

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
    "latent scaling": scaled(lambda found: _negative(found.share_below())),
    "latent scaling, error": scaled(lambda found: _negative(found.share_below(target="error"))),
    "latent scaling, median": scaled(Scaling.median),
    "hybrid": routed("hybrid"),
    "shared vector": routed("shared vector"),
    "unconditional vector": routed("unconditional vector"),
    "random vectors": routed("random vectors"),
    "random candidates": routed("random candidates"),
    "random category": routed("random category"),
    "random position": routed("random position"),
    "guardrail": routed("guardrail"),
    "oracle category": routed("oracle category"),
    "substitution": routed("substitution"),
    "linear gate": routed("linear gate"),
    "steered at KL": routed("steered at KL"),
    "steered at entropy": routed("steered at entropy"),
    "KL gate": routed("tuned at KL"),
    "random tokens, KL": routed("as many tokens as tuned at KL"),
    "entropy gate": routed("tuned at entropy"),
    "random tokens, entropy": routed("as many tokens as tuned at entropy"),
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
