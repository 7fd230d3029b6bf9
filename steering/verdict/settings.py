"""What a verdict is asked for, in one record; it imports no torch."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from probes.records import Refusal
from steering.verdict.rules import Thresholds

TUNING_ANSWERS = Thresholds.tuning_rollouts
"""How many answers tuning is taken to have sampled where nobody says."""


BESIDE = {
    "taxonomy": "taxonomy.safetensors",
    "vectors": "vectors.safetensors",
    "shared": "one-vector.safetensors",
    "everywhere": "everywhere.safetensors",
}
"""What a training of vectors leaves, by what it is: in a run's folder, or beside a tuned model."""


@dataclass(frozen=True)
class VerdictSettings:
    """Which pair, on which task, from how much evidence."""

    base: str
    """Folder or name of the model before tuning."""
    tuned: str
    """Folder or name of the model after tuning."""
    task: str = "chain"
    """A shipped task's name, or the path of a task's TOML file."""
    out: Path = Path("runs/verdict")
    """Folder of the tables, figures and the verdict; a run that was stopped goes on from there."""
    twin: str = ""
    """A copy of the base pretrained without the special skills, as another baseline of the AUC."""
    again: str = ""
    """A copy tuned as the tuned model was, with another seed: what sets the two apart is a null."""
    fresh: bool = False
    """Sample anew, even where recorded rollouts of this pair lie beside the tuned model; train
    steering vectors anew."""
    seed: int = 0
    """Everything random follows from it."""
    problems: int = 60
    """Test problems for each skill and half of its entries."""
    samples: int = 32
    """Answers to each of them: the largest k of pass@k."""
    select_problems: int = 14
    """Problems of the select split, likewise; directions and all choices are made on them."""
    select_samples: int = 4
    """Answers to each of these."""
    crossed_samples: int = 2
    """Answers to each test problem in each arm of crossed, greedy or steered decoding."""
    strategies: tuple[str, ...] = ()
    """Which to steer along, by name; none given: the two whose rate tuning changed most."""
    strengths: tuple[float, ...] = (-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0)
    """Of steering, in multiples of the mean residual norm at the site."""
    tuning_rollouts: int | None = None
    """How many answers tuning sampled: what is rarer than one in so many it can't have found. None
    given: as many as the tuned model's training.json says, else 38,400."""
    margin: float = 0.05
    """The change of a rate below which two rates count as equal."""
    routed_problems: int = 12
    """Test problems for each skill and half on which the arms of routing are compared."""
    gates: bool = False
    """Route also by a linear probe, by KL and by entropy, each open as often as the models
    disagree."""
    elicitation_updates: int = 40
    """The elicitation budget: supervised updates on valid traces of touched entries."""
    elicitation_batch: int = 64
    """Traces in each of these updates."""
    elicitation_problems: int = 64
    """Test problems of each half on which it is judged."""
    device: str = "cpu"
    """Where the models are: cpu, cuda, cuda:1, mps."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the weights; the narrow ones halve the memory and round."""
    skip: tuple[str, ...] = ()
    """Stages to leave out; what rests on them is then reported as silent."""
    workers: int = 2
    """Processes; 0 does everything in this one."""

    def __post_init__(self) -> None:
        """Refuse what can never work, before any work is done."""
        counts = ("problems", "samples", "select_problems", "select_samples", "crossed_samples")
        if small := [name for name in counts if getattr(self, name) < 1]:
            raise Refusal(f"{small[0]} is {getattr(self, small[0])}; it must be at least 1.")
        if self.problems < 2 or not self.tuning_answers >= 1 or not 0 < self.margin < 1:
            raise Refusal(
                f"problems {self.problems} (at least 2: intervals resample problems), "
                f"tuning_rollouts {self.tuning_answers} (at least 1), margin {self.margin} "
                f"(between 0 and 1)."
            )
        budget = self.elicitation_updates, self.elicitation_batch, self.elicitation_problems - 1
        if min(budget) < 1:
            raise Refusal(
                f"elicitation_updates {self.elicitation_updates} and elicitation_batch "
                f"{self.elicitation_batch} must be at least 1, elicitation_problems "
                f"{self.elicitation_problems} at least 2 (intervals resample problems); to leave "
                f"elicitation out, skip it."
            )
        if self.routed_problems < 2:
            raise Refusal(f"routed_problems is {self.routed_problems}: intervals need at least 2.")
        if self.workers < 0:
            raise Refusal(f"workers is {self.workers}; 0 is this process alone.")
        if 0.0 not in self.strengths or not all(map(math.isfinite, self.strengths)):
            raise Refusal(
                f"strengths {' '.join(map(str, self.strengths))}: they must be finite and contain "
                f"0, or there is nothing to compare a steered rate with."
            )

    @property
    def tuning_answers(self) -> int:
        """How many answers tuning sampled: as told, else as the tuned model's folder tells."""
        if self.tuning_rollouts is not None:
            return self.tuning_rollouts
        try:
            about = json.loads((Path(self.tuned) / "training.json").read_text())
            count = int(about["tuning_rollouts"])
        except (OSError, ValueError, KeyError, TypeError):
            return TUNING_ANSWERS
        return count if count > 0 else TUNING_ANSWERS  # further pretraining sampled none

    @property
    def thresholds(self) -> Thresholds:
        """What the rules need to know."""
        return Thresholds(self.tuning_answers, self.margin)
