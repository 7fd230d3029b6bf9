"""The command line: parse, call, print.

    whenhow verdict                                   # the main job, on the models that ship
    whenhow verdict --base DIR --tuned DIR --json
    whenhow train base --recipe chain-base --seed 1 --out runs/base
    whenhow train rl --recipe chain-rl --base runs/base --out runs/rl
    whenhow train sft --recipe chain-sft --base runs/base --teacher runs/rl --out runs/sft
    whenhow train rft --recipe chain-rft --base runs/base --out runs/rft
    whenhow sample --model runs/rl --out runs/rl.parquet
    whenhow sample --server http://host:8000/v1 --served-model NAME --out runs/rl.parquet
    whenhow divergence                                # where base and tuned part in what they say
    whenhow boundary                                  # pass@k and its critics, with nulls
    whenhow drift                                     # how tuning moved the activations
    whenhow sae train --model DIR --task chain --out DIR/sae/blocks.1.hook_resid_post
    whenhow sae score --sae DIR/sae/SITE              # latents of reasoning; before and after RL
    whenhow sae steer --sae DIR/sae/SITE --latents 17 # what they do, beside their controls
    whenhow vectors train --tuned DIR --out runs/v    # vectors that steer the base, by category
    whenhow vectors show                              # those that ship
    whenhow directions                                # vectors of strategies, by layer
    whenhow strategies label --rollouts FILE          # sentences of answers, by labellers
    whenhow strategies agree --labels FILE FILE       # how far they agree
    whenhow sweep run chain                           # many settings, beside their controls
    whenhow sweep plan FILE                           # what it would run, and what is wrong
    whenhow sweep table | plot                        # of a finished one
    whenhow route                                     # steer the base as the tuned model says
    whenhow calibrate                                 # the verdict, where the truth is known
    whenhow models list                               # the published pairs
    whenhow models check orz-0.5b                     # or two names: can they be compared?

A verb is a frozen dataclass: fields are flags, the docstrings below them the help. Standard output
is the path of the result (or JSON), so verbs chain in a shell; progress and tables go to standard
error. Status 2 is a request that we refuse, 1 a run that failed, 130 an interrupt.

This package imports tyro and what is as light; a verb imports what it needs when it runs, so
`whenhow --help` loads no torch.
"""

import errno
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, OmitSubcommandPrefixes, subcommand

from probes.records import Refusal
from probes.served import ServerUnavailable
from probes.verify import GraderFailure
from steering.cli.boundary import Boundary
from steering.cli.calibrate import Calibrate
from steering.cli.directions import Directions
from steering.cli.divergence import Divergence
from steering.cli.drift import Drift
from steering.cli.models import ModelsCheck, ModelsList
from steering.cli.route import Route
from steering.cli.sae import SaeScore, SaeShow, SaeTrain
from steering.cli.sample import Sample
from steering.cli.steer_features import SaeSteer
from steering.cli.strategies import StrategiesAgree, StrategiesLabel
from steering.cli.sweep import SweepPlan, SweepPlot, SweepRun, SweepTable
from steering.cli.train import TrainBase, TrainRft, TrainRl, TrainSft
from steering.cli.vectors import VectorsShow, VectorsTrain
from steering.cli.verdict import Verdict


@runtime_checkable
class Verb(Protocol):
    """What a verb has beside its flags."""

    resume: str
    """What to do after an interrupt."""

    @property
    def out(self) -> Path:
        """Where its results go."""
        ...

    def run(self) -> str:
        """Do it; what standard output shows."""
        ...


@dataclass(frozen=True)
class Train:
    """Make a model organism from its recipe."""

    verb: (
        Annotated[TrainBase, subcommand("base", prefix_name=False)]
        | Annotated[TrainRl, subcommand("rl", prefix_name=False)]
        | Annotated[TrainSft, subcommand("sft", prefix_name=False)]
        | Annotated[TrainRft, subcommand("rft", prefix_name=False)]
    )


@dataclass(frozen=True)
class Dictionaries:
    """Sparse dictionaries of a model's activations, in SAELens' format."""

    verb: (
        Annotated[SaeTrain, subcommand("train", prefix_name=False)]
        | Annotated[SaeScore, subcommand("score", prefix_name=False)]
        | Annotated[SaeShow, subcommand("show", prefix_name=False)]
        | Annotated[SaeSteer, subcommand("steer", prefix_name=False)]
    )


@dataclass(frozen=True)
class TrainedVectors:
    """Steering vectors trained on a frozen base, a category of steps each."""

    verb: (
        Annotated[VectorsTrain, subcommand("train", prefix_name=False)]
        | Annotated[VectorsShow, subcommand("show", prefix_name=False)]
    )


@dataclass(frozen=True)
class Sweep:
    """Many settings, judged on the same problems beside their controls."""

    verb: (
        Annotated[SweepRun, subcommand("run", prefix_name=False)]
        | Annotated[SweepPlan, subcommand("plan", prefix_name=False)]
        | Annotated[SweepTable, subcommand("table", prefix_name=False)]
        | Annotated[SweepPlot, subcommand("plot", prefix_name=False)]
    )


@dataclass(frozen=True)
class Strategies:
    """Label the sentences of answers, and say how far labellers agree."""

    verb: (
        Annotated[StrategiesLabel, subcommand("label", prefix_name=False)]
        | Annotated[StrategiesAgree, subcommand("agree", prefix_name=False)]
    )


@dataclass(frozen=True)
class Models:
    """Pairs of models: the published ones, and whether two can be compared."""

    verb: (
        Annotated[ModelsList, subcommand("list", prefix_name=False)]
        | Annotated[ModelsCheck, subcommand("check", prefix_name=False)]
    )


VERBS: Any = (
    Annotated[Verdict, subcommand("verdict")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Sample, subcommand("sample")]
    | Annotated[Divergence, subcommand("divergence")]
    | Annotated[Boundary, subcommand("boundary")]
    | Annotated[Drift, subcommand("drift")]
    | Annotated[Dictionaries, subcommand("sae")]
    | Annotated[TrainedVectors, subcommand("vectors")]
    | Annotated[Directions, subcommand("directions")]
    | Annotated[Strategies, subcommand("strategies")]
    | Annotated[Sweep, subcommand("sweep")]
    | Annotated[Route, subcommand("route")]
    | Annotated[Calibrate, subcommand("calibrate")]
    | Annotated[Models, subcommand("models")]
)

GROUPS = (Train, Dictionaries, TrainedVectors, Strategies, Sweep, Models)
"""Verbs that hold several."""

FILES = (Sample,)
"""Verbs whose result is a file; that of the others is a folder."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command and leave the process with its status."""
    verb = tyro.cli(
        VERBS,
        prog="whenhow",
        description="Did RL create a model's reasoning, or does it deploy what the base had?",
        args=args,
        config=(OmitArgPrefixes, OmitSubcommandPrefixes, FlagCreatePairsOff),
    )
    os.environ.setdefault(
        "HF_HUB_DISABLE_PROGRESS_BARS", "1"
    )  # a bar for each file read or written
    sys.exit(status(verb.verb if isinstance(verb, GROUPS) else verb))


def status(verb: Verb) -> int:
    """Run a verb, print its result, and say in one line what went wrong, if anything did."""
    try:
        check_out(verb)
        print(verb.run())
    except KeyboardInterrupt:
        return _say(f"interrupted; {verb.resume}", 130)
    except Refusal as refusal:
        return _say(str(refusal), 2)
    except (FloatingPointError, GraderFailure) as error:
        return _say(str(error), 1)
    except ServerUnavailable as error:
        return _say(f"{error} What is finished is kept; {verb.resume}", 1)
    except Exception as error:  # whatever else went wrong is a bug, and its traceback is wanted
        if not _disk_is_full(error):
            raise
        return _say(
            f"the disk is full; nothing was left half-written under {verb.out}. Free some space; "
            f"{verb.resume}",
            1,
        )
    return 0


def check_out(verb: Verb) -> None:
    """Refuse an --out that nothing can be written to, before any work is done for it."""
    file = isinstance(verb, FILES)
    out = Path(verb.out)
    try:
        if file and out.is_dir():
            raise Refusal(f"--out {out} is a folder; a file's name is needed.")
        place = out.parent if file else out
        while not place.exists() and place != place.parent:
            place = place.parent
        if not place.is_dir():
            wanted = "a file in a folder" if file else "a folder"
            raise Refusal(f"--out {out}: {place} is a file, and the results are {wanted}.")
        os.rmdir(tempfile.mkdtemp(prefix=".whenhow-", dir=place))
    except (OSError, ValueError) as error:
        if isinstance(error, Refusal) or _disk_is_full(error):
            raise
        raise Refusal(f"--out {out} can't be written: {error}.") from None


def _disk_is_full(error: BaseException) -> bool:
    """Whether it is that, from the system, from a library's words for it, or from a worker."""
    full = (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "errno", None) in full or "No space left on device" in str(error)


def _say(message: str, code: int) -> int:
    print(f"whenhow: {message}", file=sys.stderr)
    return code
