"""`whenhow sweep run|plan|table|plot`: many settings, in batches, on many machines."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

if TYPE_CHECKING:
    import pandas as pd

    from steering.sweep import Prepared

TIMED = 256
"""Answers that `plan` decodes to see how fast this machine is."""


@dataclass(frozen=True)
class SweepRun:
    """Run a sweep, or what is missing of it."""

    file: Positional[str]
    """A sweep file (TOML), or the name of one that ships: chain."""
    out: Path = Path("runs/sweep")
    """Its folder. A sweep that was stopped, or whose axes grew, goes on where it was."""
    engine: Literal["local", "ray"] = "local"
    """Processes of this machine, or actors of a Ray cluster."""
    workers: int | None = None
    """By default one a core, or one a GPU; 0 does all in this process."""
    address: str = ""
    """HOST:PORT of a Ray cluster that runs already; by default one is started here."""
    device: Literal["cpu", "cuda"] = "cpu"
    """cuda: a GPU for each worker."""
    top: int = 10
    """Lines of the table that is shown."""
    json: bool = False
    """Print the best settings as JSON, in place of the path of the folder."""

    resume = "the same command goes on: at most the shards in flight are lost."

    def run(self) -> str:
        """Plan, run, write, draw, show; the path of the folder, or the JSON."""
        from probes.plots.sweep import figures
        from steering.cli.progress import bars, console
        from steering.sweep import prepare, read_settings, run

        ready = prepare(self.file, self.out)
        for line in begun(ready):
            console().print(line, highlight=False)
        with bars() as advance:

            def tell(who: str, more: int, total: int) -> None:
                advance("answers", more, total)
                if who:
                    advance(f"  {who}", more, total)

            run(
                ready,
                engine_name=self.engine,
                workers=self.workers,
                address=self.address,
                device=self.device,
                progress=tell,
            )
        frame, about = read_settings(self.out)
        figures(frame, about, self.out / "figures")
        shown(self.out, frame, about, self.top)
        return best(self.out) if self.json else str(self.out)


@dataclass(frozen=True)
class SweepPlan:
    """Say what a sweep would run, how long and how large, and everything wrong with its file."""

    file: Positional[str]
    """A sweep file (TOML), or the name of one that ships."""
    out: Path = Path("runs/sweep")
    """The folder that it would go to; what is finished there is left out. Nothing is written."""
    workers: int = 0
    """For the estimate of time; 0: one a core."""
    no_timing: bool = False
    """Don't decode a few answers to see how fast this machine is."""
    json: bool = False
    """Print the plan as JSON."""

    resume = "nothing was written."

    def run(self) -> str:
        """Prepare and estimate; a table, or the JSON."""
        import json
        import os

        from rich.table import Table

        from steering.cli.progress import console
        from steering.sweep import prepare

        ready = prepare(self.file, self.out)
        about = planned(ready)
        if not self.no_timing and about["answers to run"]:
            workers = self.workers or os.cpu_count() or 1
            about |= estimated(ready, about["answers to run"], workers)
        if self.json:
            return json.dumps(about, indent=2)
        for line in begun(ready):
            console().print(line, highlight=False)
        table = Table(show_header=False, title=f"{ready.file.name}: the plan")
        for name, value in about.items():
            table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
        console().print(table)
        return str(self.out)


@dataclass(frozen=True)
class SweepTable:
    """Show the settings of a finished sweep, best first, beside their controls."""

    out: Positional[Path] = Path("runs/sweep")
    """Folder of the sweep."""
    sort: str = ""
    """Metric to rank by; by default the file's first."""
    top: int = 20
    """How many."""
    controls: bool = False
    """Controls as rows of their own, too."""
    json: bool = False
    """Print all rows as JSON, in place of the path of the table."""

    resume = "the same command shows it again."

    def run(self) -> str:
        """Read and show; the path of the table, or the JSON."""
        import json

        from probes.records import Refusal, finite
        from steering.sweep import read_settings

        frame, about = read_settings(self.out)
        metric = self.sort or about["metrics"][0]
        if metric not in about["metrics"]:
            raise Refusal(f"metric {metric!r} is not in this sweep: {', '.join(about['metrics'])}.")
        kept = frame if self.controls else frame[frame.control == ""]
        kept = kept.sort_values(metric, ascending=False, kind="stable")  # type: ignore[call-overload]
        if self.json:
            rows = json.loads(kept.to_json(orient="records") or "[]")
            return json.dumps(finite({**about, "settings": rows}), indent=2)
        shown(self.out, frame, about, self.top, metric, controls=self.controls)
        return str(self.out / "settings.parquet")


@dataclass(frozen=True)
class SweepPlot:
    """Draw the figures of a finished sweep: leaderboard, heatmap, dose-response, side effects."""

    out: Positional[Path] = Path("runs/sweep")
    """Folder of the sweep; figures go to its folder figures/."""
    metric: str = ""
    """By default the file's first."""

    resume = "the same command draws them again."

    def run(self) -> str:
        """Read and draw; the paths of the figures, one a line."""
        from probes.plots.sweep import figures
        from probes.records import Refusal
        from steering.sweep import read_settings

        frame, about = read_settings(self.out)
        if self.metric and self.metric not in about["metrics"]:
            named = ", ".join(about["metrics"])
            raise Refusal(f"metric {self.metric!r} is not in this sweep: {named}.")
        made = figures(frame, about, self.out / "figures", metric=self.metric)
        return "\n".join(str(p) for p in made if p.suffix == ".png")


def begun(ready: "Prepared") -> list[str]:
    """What there is already, in sentences."""
    said = [f"{path} is damaged: it is made again." for path in ready.damaged]
    done = ready.answers() - ready.answers(ready.pending)
    if done:
        said.append(f"{done:,} of {ready.answers():,} answers are there already: skipped.")
    if ready.foreign:
        said.append(
            f"{ready.foreign} settings of earlier runs are not asked for any more: their answers "
            f"stay in shards/, and are in no table."
        )
    return said


def planned(ready: "Prepared") -> dict[str, Any]:
    """Counts of everything."""
    wanted = ready.wanted
    controls = sum(bool(s.control) for s in wanted)
    todo = ready.answers(ready.pending)
    models = list(dict.fromkeys(s.model for s in wanted))
    return {
        "points of the axes": len(ready.resolved),
        "settings, each once": len(wanted) - controls,
        "controls": controls,
        "models": ", ".join(models),
        "problems": sum(len(a.problems) for a in next(iter(ready.asked.values()))),
        "samples": ready.file.samples,
        "answers": ready.answers(),
        "answers to run": todo,
        "shards to run": len(ready.pending),
    }


def estimated(ready: "Prepared", answers: int, workers: int) -> dict[str, Any]:
    """Time and disk, from a few answers of the plan's first shard, decoded here and thrown away."""
    import time
    from dataclasses import replace

    import torch

    from steering.sweep.running import work_of
    from steering.sweep.working import Worker

    torch.set_num_threads(1)
    blocks, left = [], TIMED
    for block in ready.plan.shards[ready.pending[0]]:
        wide = block.last - block.first
        samples = max(1, min(block.samples, left // wide))
        blocks.append(replace(block, samples=samples))
        left -= wide * samples
        if left <= 0:
            break
    worker = Worker(work_of(ready, "cpu"))
    settings = {b.key: ready.plan.settings[b.key] for b in blocks}
    worker.model(settings[blocks[0].key])
    begun = time.perf_counter()
    done = worker.run(blocks, settings)
    rate = done.answers / (time.perf_counter() - begun)
    seconds = answers / rate / workers
    size = 2 * answers * len(done.table) / done.answers  # shards, and the table of all
    return {
        "answers a second and worker": round(rate, 1),
        "time": f"about {seconds / 60:.1f} min on {workers} workers of this kind",
        "disk": f"about {size / 1e6:.1f} MB",
        "measured on": f"{done.answers} answers, CPU, one thread",
    }


def best(out: Path) -> str:
    """What `best.json` holds."""
    return (out / "best.json").read_text().rstrip()


def shown(
    out: Path,
    frame: "pd.DataFrame",
    about: dict[str, Any],
    top: int,
    metric: str = "",
    *,
    controls: bool = False,
) -> None:
    """The leaderboard, and above it the best on problems that did not choose it."""
    import json

    from steering.cli.progress import console

    metric = metric or about["metrics"][0]
    console().print(leaderboard(frame, about, top, metric, controls=controls))
    failed = frame[frame.status == "failed"]
    for reason, some in failed.groupby("reason"):
        console().print(f"{len(some)} setting(s) failed: {reason}", highlight=False)
    names = shortened(frame)
    for one in json.loads((out / "best.json").read_text()):
        console().print(sentence(one, about["metrics"][0], names), highlight=False)


def shortened(frame: "pd.DataFrame") -> dict[str, str]:
    """Short names of the models, tasks, pushes and windows of a table."""
    from probes.plots.sweep import short_names

    names: dict[str, str] = {}
    for axis in ("model", "task", "push", "window"):
        for kept in (frame[frame.control != ""], frame[frame.control == ""]):
            names |= short_names(str(v) for v in kept[axis])  # a control's are full paths
    return names


def sentence(one: dict[str, Any], metric: str, names: Mapping[str, str]) -> str:
    """The best push of a model and task, reported where it was not chosen."""
    said = one["reported_on"]
    model, task, push = (names.get(one[k], one[k]) for k in ("model", "task", "push"))
    place = "" if one["layer"] is None else f" in layer {one['layer']}"

    def interval(name: str) -> str:
        value, low, high = (float("nan") if x is None else x for x in said[name])
        return f"{value:.3f} [{low:.3f}, {high:.3f}]"

    return (
        f"Best of {one['looked_at']} of {model} on {task}: {push}{place} at {one['strength']:g}, "
        f"chosen on {one['chosen_on']['problems']} problems ({metric} "
        f"{one['chosen_on'][metric]:.3f}). On the other {said['problems']}: {metric} "
        f"{interval(metric)}, beyond the unsteered model {interval(f'{metric}_gain')}, beyond its "
        f"controls {interval(f'{metric}_beyond')}; p {one['p_corrected']:.3g} on all, corrected "
        f"for {one['looked_at']} looks."
    )


def leaderboard(
    frame: "pd.DataFrame", about: dict[str, Any], top: int, metric: str, *, controls: bool
) -> Any:
    """The best settings, each beside the unsteered model and its controls."""
    from rich.table import Table

    from probes.plots.style import where

    ok = frame.status == "ok"
    kept = where(frame, ok if controls else ok & (frame.control == ""))
    kept = kept.drop_duplicates(["setting", "model", "task"])  # two names may be of equal weights
    kept = kept.sort_values(metric, ascending=False, kind="stable").head(top)
    axes = [a for a in about["axes"] if a in kept.columns]
    axes += ["control"] if controls else []
    names = shortened(frame)
    table = Table(title=f"settings by {metric}, of {frame.problems.iloc[0]} problems")
    others = [m for m in about["metrics"] if m != metric]
    columns = [metric, "- unsteered", "- controls", "p corrected", *others]
    for name in (*axes, *columns):
        table.add_column(name, overflow="fold")
    for _, row in kept.iterrows():
        cells = [short(row[a], names) for a in axes]
        cells += [interval(row, n) for n in (metric, f"{metric}_gain", f"{metric}_beyond")]
        cells += ["" if row.p_corrected != row.p_corrected else f"{row.p_corrected:.3g}"]
        cells += [f"{row[m]:.3g}" for m in others]
        table.add_row(*cells)
    return table


def short(value: Any, names: Mapping[str, str]) -> str:
    """An axis' value in few words; "" where there is none."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return "" if text in ("<NA>", "nan") else names.get(text, text)


def interval(row: Any, name: str) -> str:
    """A number with its interval; "" where there is none."""
    if row[name] != row[name]:
        return ""
    return f"{row[name]:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"
