"""From measurements to conclusions, by written rules; pure, and the same in every calibration.

    concluded = conclude(rows, Thresholds(tuning_rollouts=38_400, margin=0.05))
    concluded.answer                    # "deployed", "created", "mixed", "no gain", "undecided"
    concluded.sentences                 # at most four
    concluded.silent                    # what the evidence doesn't say, and what would

Everything is read on *valid* answers (right by a valid trace), by skill and half of its entries.
With B and T the valid mass of base and tuned, and the limit the larger of the guess rate and one
in all rollouts that tuning made, of a half where T gained:

- **deployed**: B's lower bound exceeds the limit (B's lower bound is the sampled one, or the mean
  probability of one canonical valid trace if that is higher);
- **not found in the base at this detection limit**: B's upper bound lies below the limit and T's
  lower bound above;
- **undecided** otherwise.

A gain is a paired difference above 0 with all halves tested at once (Bonferroni): a model against
itself would otherwise gain somewhere in one run out of four. **No gain** is the interval of the
difference within the margin; a gain neither shown nor excluded is undecided.

Of a skill the half that tuning never met decides. Where only the half that it met gained, the
conclusion says so, and a skill that the base has is then **touched only** and not deployed: that
entries were rewritten can't be told from it. Not found becomes **created** if the elicitation
budget failed too. A gain that sampling the base does not explain, not found or undecided, is
**latent** if the budget brought it out of the base: a locked skill looks absent to sampling.

    evidence    looking numbers up, and saying them
    halves      one half of a skill, by the three rules
    skills      one skill, from its halves and its elicitation
    sentences   the conclusion in words
"""

from collections.abc import Sequence
from dataclasses import dataclass

from probes.records import Measurement, unique
from steering.verdict.rules.evidence import detectable, pick, said, widened
from steering.verdict.rules.halves import Reading, Thresholds, limit_of, read
from steering.verdict.rules.sentences import sentences, silences
from steering.verdict.rules.skills import GAINED, UNTOUCHED, SkillVerdict, judge

__all__ = [
    "GAINED",
    "UNTOUCHED",
    "Conclusion",
    "Reading",
    "SkillVerdict",
    "Thresholds",
    "conclude",
    "detectable",
    "judge",
    "limit_of",
    "pick",
    "read",
    "said",
    "widened",
]


@dataclass(frozen=True)
class Conclusion:
    """What follows from the measurements."""

    answer: str
    """"deployed", "created", "mixed", "no gain" or "undecided"."""
    sentences: tuple[str, ...]
    """At most four."""
    silent: tuple[str, ...]
    """What the evidence doesn't say; each with what would."""
    skills: tuple[SkillVerdict, ...]


def conclude(rows: Sequence[Measurement], limits: Thresholds) -> Conclusion:
    """The answer, its sentences and its silences."""
    cells = unique([(r.skill, r.part) for r in rows if r.measure == "guess rate"])
    skills = tuple(judge(rows, s, limits, len(cells)) for s in unique([s for s, _ in cells]))
    return Conclusion(_answer(skills), sentences(rows, skills), silences(rows, skills), skills)


def _answer(skills: Sequence[SkillVerdict]) -> str:
    labels = {s.label for s in skills}
    gained = labels & set(GAINED)
    if gained and gained <= {"deployed", "latent"}:
        return "deployed"
    if gained == {"created"}:
        return "created"
    if gained:
        return "mixed" if gained & {"deployed", "latent", "created"} else "undecided"
    if labels == {"no gain"}:
        return "no gain"
    return "lost" if labels and labels <= {"no gain", "lost"} else "undecided"
