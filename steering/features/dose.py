"""How much of a feature does what: right answers, strategies and lengths beside their controls.

At every strength of every feature its controls are sampled too, on the same problems and the same
random numbers, all in one batch: random features of the same firing rate, random directions that
move every row as far at every position, and unsteered answers of the same mean length. As one
draw of a control says little, several are made and their rates averaged by problem.

Not here: what is measured of the answers (`steering.features.responses`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from probes.models import Model
from probes.records import Measurement, Problem, Refusal
from probes.sae import Sae
from probes.tasks import Task
from steering.evaluate import evaluate
from steering.features.controls import same_rate, same_size
from steering.features.edits import FeatureEdit
from steering.features.responses import ALIKE, FEATURE, LENGTH, RANDOM, Arm, measurements
from steering.interventions import GENERATED, LogitBias, Steer, Steered, Window


@dataclass(frozen=True)
class DoseSettings:
    """What is done to the features, and how often."""

    op: Literal["add", "ablate", "clamp"] = "clamp"
    strengths: tuple[float, ...] = (0.5, 1.0, 2.0)
    """In multiples of each feature's largest activation."""
    samples: int = 8
    """Answers of each problem in each setting."""
    draws: int = 2
    """Random features, and random directions, for each feature."""
    biases: tuple[float, ...] = (-6.0, -4.0, -2.0, -1.0, 1.0, 2.0, 4.0)
    """Nats on the tokens that end an answer, for unsteered answers of other lengths."""
    window: Window = GENERATED
    foreign: bool = False
    """Allow a dictionary of another model, as `FeatureEdit` has it."""
    seed: int = 0
    batch: int = 64

    def __post_init__(self) -> None:
        """Refuse what can never work."""
        if not self.strengths or self.samples < 1 or self.draws < 1 or 0.0 in self.biases:
            raise Refusal(
                f"strengths {self.strengths}, samples {self.samples}, draws {self.draws}: at least "
                f"one of each; biases {self.biases}: not 0, which is the unsteered model."
            )
        if self.op != "clamp" and 0.0 in self.strengths:
            raise Refusal(f"{self.op} of strength 0 is the unsteered model, which is there anyway.")


def dose_response(
    model: Model,
    task: Task,
    problems: Sequence[Problem],
    sae: Sae,
    latents: Sequence[int],
    settings: DoseSettings = DoseSettings(),  # noqa: B008 - frozen
    *,
    activations: Float[Tensor, "rows d"],
    ending: Sequence[int] = (),
    which: str = "",
    progress: Callable[[int], Any] | None = None,
) -> list[Measurement]:
    """Sample every feature at every strength with its controls, and measure.

    Args:
        model: what is steered.
        task: made the problems.
        problems: each once.
        sae: the dictionary, with its table of features.
        latents: the features.
        settings: operation, strengths, samples.
        activations: of the site, plain: what random directions are shaped like.
        ending: tokens whose choice ends an answer, for the control of length; the end-of-sequence
            token if none are given. Where a final answer is announced by a word, give that word.
        which: name of the model, for the rows.
        progress: called with the number of answers finished since the last call.

    Raises:
        Refusal: a feature that can't be edited or controlled for; no features.
        NotFired: an edit was not made where its window said.
    """
    if not latents or len(set(latents)) < len(latents):
        raise Refusal(f"features {list(latents)}: name at least one latent, and each once.")
    arms = [arm for i in latents for arm in feature_arms(sae, i, settings, activations)]
    ends: Any = tuple(ending) or (model.tokenizer.eos_token_id,)
    arms += [length_arm(ends, bias) for bias in settings.biases]
    steer = Steer(model, {arm.name: arm.operations for arm in arms})
    judged = evaluate(
        Steered(steer),
        task,
        problems,
        samples=settings.samples,
        seed=settings.seed,
        settings=(None, *(arm.name for arm in arms)),
        batch=settings.batch,
        progress=progress,
    )
    steer.check()
    about = {"model": which, "site": sae.site}
    return measurements(task, judged, arms, seed=settings.seed, about=about)


def feature_arms(
    sae: Sae, latent: int, settings: DoseSettings, activations: Float[Tensor, "rows d"]
) -> list[Arm]:
    """The feature and its controls, at every strength."""
    kind, seed = f"feature {latent}", settings.seed
    seeds = [(seed * sae.latents + latent) * settings.draws + i for i in range(settings.draws)]
    known = FeatureEdit(settings.op, sae, latent)  # refuses before the draw of others
    others = same_rate(sae, known.latent, settings.draws, seed=seed)
    arms = []
    for x in settings.strengths:
        edit = FeatureEdit(
            settings.op, sae, latent, x, window=settings.window, foreign=settings.foreign
        )
        about = sae.features[latent]
        note = (
            f"{settings.op}, of {about.max_activation:.4g}; fires at {about.firing_rate:.2g} of "
            f"positions"
        )
        arms.append(Arm(kind, FEATURE, x, 0, (edit,), note))
        for draw, other in enumerate(others):
            alike = FeatureEdit(
                settings.op, sae, other, x, window=settings.window, foreign=settings.foreign
            )
            note = f"latents {', '.join(map(str, others))}"
            arms.append(Arm(kind, ALIKE, x, draw, (alike,), note))
            random = same_size(edit, activations, seed=seeds[draw])
            arms.append(Arm(kind, RANDOM, x, draw, (random,), f"{settings.draws} directions"))
    return arms


def length_arm(ending: Sequence[int], bias: float) -> Arm:
    """Unsteered, but for the tokens that end an answer."""
    return Arm("", LENGTH, bias, 0, (LogitBias(dict.fromkeys(ending, 1.0), bias, GENERATED),))
