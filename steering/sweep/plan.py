"""Which answers each shard holds: laid down once, by the settings and never by the timing.

    plan = extend(load_plan(folder), frame, wanted, samples)      # new shards for what is missing
    save_plan(folder, plan)
    plan.shards[3]                                                # blocks, in order

A shard is a list of blocks: one setting, a range of its problems, a range of sample indices; all
of one model, so that they are decoded as one batch. Shards that are there are never composed anew:
where axes or samples grow, what is missing goes into new ones, behind them. So whoever runs a
shard, wherever and after whatever interruption, decodes the same rows side by side.

    plan/settings.parquet    every setting that was ever planned
    plan/blocks.parquet      the composition; in its metadata, the frame: what all shards share, and
                             the hash of both
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

from probes.records import Refusal, content_hash, read_table, write_table
from steering.shards import composition
from steering.sweep.settings import Setting

VERSION = 1
"""Raised whenever the composition or the columns of answers change."""

SETTINGS, BLOCKS = "plan/settings.parquet", "plan/blocks.parquet"


@dataclass(frozen=True)
class Block:
    """One setting's answers to some of its problems, in one shard."""

    shard: int
    key: str
    """Of the setting."""
    first: int
    """Of the problems, by their place in the setting's list (the task's own, then those beside)."""
    last: int
    """The one after the last."""
    sample: int
    """First sample index."""
    samples: int
    """How many."""

    @property
    def answers(self) -> int:
        """How many it holds."""
        return (self.last - self.first) * self.samples


@dataclass
class Plan:
    """Every shard of a sweep, finished or not."""

    frame: dict[str, Any]
    """What all shards share; another frame is another sweep."""
    settings: dict[str, Setting] = field(default_factory=dict)
    """By key, those of earlier runs included."""
    shards: list[list[Block]] = field(default_factory=list)

    def of(self, keys: set[str], samples: int) -> Iterator[int]:
        """The shards that hold one of so many answers of these settings."""
        for index, blocks in enumerate(self.shards):
            if any(b.key in keys and b.sample < samples for b in blocks):
                yield index

    def drawn(self) -> dict[str, int]:
        """How many samples of each setting are planned, from index 0 on."""
        found: dict[str, int] = {}
        for blocks in self.shards:
            for b in blocks:
                found[b.key] = max(found.get(b.key, 0), b.sample + b.samples)
        return found


def extend(
    plan: Plan,
    wanted: Sequence[Setting],
    problems: Mapping[str, int],
    samples: int,
    size: int,
) -> int:
    """Lay what is missing into new shards, and say how many those are.

    Args:
        plan: is extended.
        wanted: settings in the order of the file; one may be there several times.
        problems: how many problems a setting is asked, by `Setting.problems`.
        samples: answers to each.
        size: most answers of a shard.
    """
    known = plan.drawn()
    models: dict[str, list[Setting]] = {}
    for setting in dict.fromkeys(wanted):
        models.setdefault(setting.digest, []).append(setting)
    before = len(plan.shards)
    for of_model in models.values():
        room = 0
        for setting in of_model:
            start = known.get(setting.key, 0)
            plan.settings[setting.key] = setting  # which says where its files lie today
            known[setting.key] = max(start, samples)
            if start >= samples:
                continue
            for asked, drawn in composition(problems[setting.problems], samples - start, size):
                answers = len(asked) * len(drawn)
                if answers > room:
                    plan.shards.append([])
                    room = size
                room -= answers
                block = (setting.key, asked.start, asked.stop, start + drawn.start, len(drawn))
                plan.shards[-1].append(Block(len(plan.shards) - 1, *block))
    return len(plan.shards) - before


def save_plan(folder: Path, plan: Plan) -> None:
    """Write both tables; settings first, so that no block ever names one that isn't there."""
    write_table(folder / SETTINGS, list(plan.settings.values()), Setting)
    blocks = [b for shard in plan.shards for b in shard]
    write_table(folder / BLOCKS, blocks, Block, frame=plan.frame, hash=_hash(plan.frame, blocks))


def _hash(frame: dict[str, Any], blocks: Sequence[Block]) -> str:
    return content_hash([frame, [astuple(b) for b in blocks]])


def load_plan(folder: Path, frame: dict[str, Any]) -> Plan:
    """The plan of a folder, an empty one where there is none.

    Raises:
        Refusal: the folder belongs to another sweep, its plan is damaged, or something else lies
            in it.
    """
    if not (folder / BLOCKS).exists():
        there = {p.name for p in folder.iterdir() if p.name[0] != "."} if folder.is_dir() else set()
        if other := sorted(there - {"plan"}):
            raise Refusal(
                f"{folder} holds {', '.join(other[:4])} and no sweep: choose another --out, or "
                f"remove it."
            )
        return Plan(frame)
    blocks, about = _read(folder / BLOCKS, Block)
    settings, _ = _read(folder / SETTINGS, Setting)
    found = about.get("frame", {})
    check_version(folder, found)
    plan = Plan(frame, {s.key: s for s in settings})
    if about.get("hash") != _hash(found, blocks) or not {b.key for b in blocks} <= set(
        plan.settings
    ):
        raise Refusal(_damaged(folder / BLOCKS, "it is not what was written"))
    check_frame(folder, found, frame)
    for block in blocks:
        while len(plan.shards) <= block.shard:
            plan.shards.append([])
        plan.shards[block.shard].append(block)
    return plan


def _read(path: Path, kind: type[Any]) -> tuple[list[Any], dict[str, Any]]:
    """A table of the plan; whatever a flipped byte makes of it, a refusal."""
    try:
        return read_table(path, kind)
    except Refusal as refusal:
        raise Refusal(_damaged(path, str(refusal))) from None
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, OSError) as error:
        raise Refusal(_damaged(path, repr(error))) from None


def _damaged(path: Path, why: str) -> str:
    return (
        f"{path} is damaged, and without it nobody knows which answers a shard holds ({why}). "
        f"Choose another --out, or remove {path.parent.parent}."
    )


def check_version(folder: Path, found: Mapping[str, Any]) -> None:
    """Refuse what a newer whenhow planned.

    Raises:
        Refusal: it did.
    """
    if found.get("version", 0) > VERSION:
        raise Refusal(
            f"{folder} was made by a newer whenhow (plan {found['version']}, this one knows "
            f"{VERSION})."
        )


def check_frame(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse another frame than the folder's, with what differs.

    Raises:
        Refusal: something that all shards share is another.
    """
    differing = [k for k in {**found, **wanted} if found.get(k) != wanted.get(k)]
    if differing == ["kl_samples"] and 0 in (found.get("kl_samples"), wanted.get("kl_samples")):
        how = "without" if wanted["kl_samples"] else "with"
        raise Refusal(
            f"{folder} belongs to another sweep: it was made {how} the metric kl, measured "
            f"while answers are written (kl_samples). Choose another --out, or leave it as it was."
        )
    if differing:
        said = ", ".join(f"{k} {found.get(k)!r} and not {wanted.get(k)!r}" for k in differing[:4])
        raise Refusal(
            f"{folder} belongs to another sweep ({said}): axes and samples may grow, the rest may "
            f"not change. Choose another --out, or remove that folder."
        )
