"""What is true of a tuned copy by construction, skill by skill.

It is not the training method: RL can write table entries, and imitation can deploy. And it is
measured apart from what is scored against it: on problems of the select split, which no measure is
reported on, and with what no measure may look at, the twin and which entries tuning touched:

- **deployed**: untouched entries improve, and the twin's, tuned identically, don't;
- **recombined**: the same, where the recipe says that the skill was never shown whole;
- **created**: only touched entries improve, or the twin's improve too;
- **lost**: neither improves, and one becomes worse;
- **no gain**: neither half changes by as much as the margin;
- **unknown**: untouched entries improve and there is no tuned twin to compare with; or a change is
  neither shown nor excluded.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from probes.intervals import Estimate, difference, equivalent, rate
from probes.models import load
from probes.records import Problem
from probes.tasks import load_task
from steering.calibration.copies import Copy
from steering.calibration.thresholds import MARGIN
from steering.evaluate import Judged, evaluate

PARTS = ("touched", "untouched")


@dataclass(frozen=True)
class Half:
    """Share of valid answers to the select problems of one half of a skill's entries."""

    before: Estimate
    after: Estimate
    change: Estimate
    """Paired by problem, at 99%: a table asks dozens of these, and truth should not be chance."""

    def __str__(self) -> str:
        return f"{self.before.value:.2f} to {self.after.value:.2f}, {self.change}"


def halves(copy: Copy, *, problems: int = 40, samples: int = 16) -> dict[str, dict[str, Half]]:
    """Of every skill whose entries are divided, how copy and twin answer the select problems.

    Args:
        copy: which.
        problems: select problems for each half of a skill.
        samples: answers to each.

    Returns:
        By skill, the halves "touched" and "untouched", and "twin": the twin's untouched one.
    """
    task, found = load_task(copy.task), {}
    for skill in task.skills:
        if not task.problems("select", 1, skill=skill)[0].part:
            continue
        of_skill = {}
        for part in PARTS:
            chosen = tuple(task.problems("select", problems, skill=skill, part=part))
            of_skill[part] = half(copy.base, copy.tuned, copy.task, chosen, samples)
            if part == PARTS[1] and copy.twin and copy.tuned_twin:
                of_skill["twin"] = half(copy.twin, copy.tuned_twin, copy.task, chosen, samples)
        found[skill] = of_skill
    return found


def half(base: Path, tuned: Path, task: str, problems: tuple[Problem, ...], samples: int) -> Half:
    """How a pair answers the same problems."""
    before, after = (
        _judged(path, task, problems, samples).rates("valid") for path in (base, tuned)
    )
    return Half(rate(before), rate(after), difference(after, before, level=0.99))


@cache
def _judged(path: Path, task: str, problems: tuple[Problem, ...], samples: int) -> Judged:
    """The base of several copies is sampled once."""
    return evaluate(load(path), load_task(task), problems, samples=samples, batch=192)


def truth(touched: Estimate, untouched: Estimate, twin: Estimate | None, regime: str) -> str:
    """The truth by construction, from the changes of the two halves and of the twin.

    >>> up, flat = Estimate(0.5, 0.4, 0.6, 40), Estimate(0.0, -0.02, 0.02, 40)
    >>> truth(up, up, flat, "locked"), truth(up, up, flat, "composable")
    ('deployed', 'recombined')
    >>> truth(up, up, up, "absent")
    'created'
    >>> truth(up, flat, flat, "rare"), truth(flat, flat, flat, "rare"), truth(up, up, None, "rare")
    ('created', 'no gain', 'unknown')
    >>> down, wide = Estimate(-0.2, -0.3, -0.1, 40), Estimate(0.0, -0.1, 0.1, 40)
    >>> truth(flat, down, None, "rare"), truth(flat, wide, None, "rare")
    ('lost', 'unknown')
    """
    if untouched.low > 0:
        if twin is None:
            return "unknown"
        if twin.low > 0:
            return "created"
        return "recombined" if regime == "composable" else "deployed"
    if touched.low > 0:
        return "created"
    if min(touched.high, untouched.high) < 0:
        return "lost"
    still = all(equivalent(change, MARGIN) for change in (touched, untouched))
    return "no gain" if still else "unknown"
