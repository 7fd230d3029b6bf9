"""Train a dictionary on an activation store, with SAELens' own trainer and no second forward pass.

    store = capture(model, ["blocks.1.hook_resid_post"], texts, folder, positions="generated")
    sae = train_sae(store, "blocks.1.hook_resid_post", SaeSettings(latents=512, k=12), out)
    sae.facts["fvu"], sae.facts["l0"], sae.facts["dead"]        # on a fifth of the problems

The store's rows are shuffled and handed to `sae_lens.SAETrainer`, which scales them to a mean
length of sqrt(d), and folds that scale back into the weights at the end. A fifth of the problems,
by the hash of their names, is never trained on; everything reported is measured there, on the
weights as they are on disk.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from probes.capture import Store
from probes.intervals import Estimate
from probes.records import Refusal, content_hash, file_hash
from probes.sae.files import load_sae, save_facts, save_weights, whole
from probes.sae.measures import dead, firing, fvu, l0, stored, sum_blocks
from probes.sae.record import Sae

BUFFER = 1 << 18
"""Rows that are held and shuffled at a time; a larger store is read in parts of it."""


@dataclass(frozen=True)
class SaeSettings:
    """What a dictionary is to be."""

    kind: Literal["topk", "batchtopk"] = "topk"
    latents: int = 512
    """How many directions."""
    k: int = 12
    """Latents of a row; of batchtopk: on average."""
    steps: int = 4000
    batch: int = 1024
    """Rows of a step."""
    rate: float = 1e-3
    """Adam's, constant but for the last fifth of the steps, in which it falls to 0."""
    held_out: float = 0.2
    """Share of the problems that are measured on and never trained on."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what can never work."""
        if not 1 <= self.k < self.latents:
            raise Refusal(
                f"k = {self.k} of {self.latents} latents: a row keeps k of them, at least one and "
                f"fewer than all."
            )
        sizes = self.steps >= 1 and 2 <= self.batch <= BUFFER
        if not (sizes and self.rate > 0 and 0 < self.held_out < 1):
            raise Refusal(
                f"steps {self.steps}, batch {self.batch} (2 to {BUFFER}), rate {self.rate} (above "
                f"0), held out {self.held_out} (between 0 and 1)."
            )


def train_sae(
    store: Store,
    site: str,
    settings: SaeSettings,
    out: str | Path,
    progress: Callable[[int], Any] | None = None,
    *,
    facts: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
) -> Sae:
    """Train, save, load, measure: the dictionary that is in `out`.

    Args:
        store: activations of one model; lines that an intervention had edited are left out.
        site: one of its sites.
        settings: kind, size, length and seed.
        out: a folder that holds nothing; it appears whole, or not at all.
        progress: called with the number of steps done since the last call.
        facts: what else to keep, JSON-able (task, command, why this site).
        device: where to train.

    Raises:
        Refusal: an unknown site, too few problems or rows, a folder in use.
        FloatingPointError: the loss is no longer finite.
    """
    if site not in store.sites:
        raise Refusal(f"site {site!r} was not captured; there are {', '.join(store.sites)}.")
    lines, held = divided(store, settings)
    with whole(out) as partial:
        trained = _fit(store, site, lines, settings, device, progress)
        save_weights(trained, partial)
        sae = load_sae(partial, device=device)
        known = sum_blocks(sae, *stored(store, site, lines))
        found = sum_blocks(sae, *stored(store, site, held))
        measured = {
            "fvu": fvu(found, seed=settings.seed),
            "l0": l0(found, seed=settings.seed),
            "dead": dead(found, known.fired.sum(0)),
        }
        said = {
            **{key: store.about.get(key, "") for key in ("digest", "model")},
            "settings": asdict(settings),
            "data": file_hash(store.folder / "store.json"),
            "rows": len(lines),
            "problems": len(known.problems),
            "held_out_rows": len(held),
            "held_out_problems": len(found.problems),
            **{name: _said(estimate) for name, estimate in measured.items()},
            **dict(facts or {}),
        }
        save_facts(partial, said, firing(found, known.largest))
    return load_sae(out, device=device)


def divided(
    store: Store, settings: SaeSettings
) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " held"]]:
    """Lines to train on and lines to measure on; of whole problems, by the hash of their names.

    Raises:
        Refusal: fewer than two problems to measure on, or fewer rows than latents to train on.
    """
    held = is_held(store.index.problem.to_numpy().astype(str), settings.held_out)
    plain = ~store.index.edited.to_numpy().astype(bool)
    train, test = np.flatnonzero(~held & plain), np.flatnonzero(held & plain)
    problems = len(np.unique(store.index.problem.to_numpy().astype(str)[test]))
    if problems < 2 or len(train) < max(settings.latents, settings.batch):
        raise Refusal(
            f"{len(train)} rows to train on and {problems} problems to measure on are too few for "
            f"{settings.latents} latents in batches of {settings.batch}: at least as many rows as "
            f"either, and two problems held out. Give more problems or samples."
        )
    return train, test


def is_held(problems: Shaped[np.ndarray, " rows"], share: float) -> Bool[np.ndarray, " rows"]:
    """Whether each row's problem is held out: by its own hash, so the same in every store."""
    names, codes = np.unique(problems, return_inverse=True)
    drawn = [int(content_hash(["sae", str(name)])[:8], 16) / 2**32 < share for name in names]
    return np.array(drawn, bool)[codes]


def batches(
    store: Store, site: str, lines: Int[np.ndarray, " rows"], size: int, seed: int
) -> Iterator[Float[Tensor, "size d"]]:
    """Shuffled rows in float32, without end; every row once before any comes again.

    What does not fill a batch at the end of a buffer is left out until the next round.
    """
    rng = np.random.default_rng(seed)
    held: Tensor | None = None
    while True:
        order = rng.permutation(lines)
        for start in range(0, len(order), BUFFER):
            part = order[start : start + BUFFER]
            if len(lines) > BUFFER:
                values = store.read(site, part).float()
            else:
                held = store.read(site, lines).float() if held is None else held
                values = held[torch.from_numpy(np.searchsorted(lines, part))]
            for at in range(0, len(values) - size + 1, size):
                yield values[at : at + size]


def _fit(
    store: Store,
    site: str,
    lines: Int[np.ndarray, " rows"],
    settings: SaeSettings,
    device: str | torch.device,
    progress: Callable[[int], Any] | None,
) -> Any:
    """A trained SAELens object, its scale folded into its weights."""
    from sae_lens import SAETrainer
    from sae_lens.config import LoggingConfig, SAETrainerConfig

    config = SAETrainerConfig(
        total_training_samples=settings.steps * settings.batch,
        train_batch_size_samples=settings.batch,
        lr=settings.rate,
        lr_end=settings.rate / 10,
        lr_decay_steps=settings.steps // 5,
        device=str(device),
        dead_feature_window=max(50, settings.steps // 20),
        logger=LoggingConfig(log_to_wandb=False),
    )
    given = batches(store, site, lines, settings.batch, settings.seed)
    width = store.read(site, lines[:1]).shape[1]
    trainer = SAETrainer(config, _new(store, site, width, settings, device), given)
    trainer.activation_scaler.scaling_factor = _scale(store, site, lines)
    # The steps of `SAETrainer.fit`, by its public seams: its own bar would write over ours.
    for _ in range(settings.steps):
        loss = trainer.step(next(trainer.data_provider)).loss.item()
        trainer.n_training_steps += 1
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the dictionary's loss is {loss} after {trainer.n_training_steps} "
                f"steps: lower the rate ({settings.rate})."
            )
        if progress:
            progress(1)
    trained = trainer.sae
    trained.fold_activation_norm_scaling_factor(trainer.activation_scaler.scaling_factor)
    return trained.eval()


def _new(
    store: Store, site: str, width: int, settings: SaeSettings, device: str | torch.device
) -> Any:
    """An untrained SAELens object of these settings, the same for the same seed."""
    from sae_lens import (
        BatchTopKTrainingSAE,
        BatchTopKTrainingSAEConfig,
        TopKTrainingSAE,
        TopKTrainingSAEConfig,
    )
    from sae_lens.saes.sae import SAEMetadata

    said = SAEMetadata(model_name=str(store.about.get("model", "")), hook_name=site)
    sizes: dict[str, Any] = {"d_in": width, "d_sae": settings.latents, "device": str(device)}
    sizes |= {"normalize_activations": "expected_average_only_in", "metadata": said}
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        if settings.kind == "topk":
            return TopKTrainingSAE(TopKTrainingSAEConfig(k=settings.k, **sizes))
        return BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(k=float(settings.k), **sizes))


def _scale(store: Store, site: str, lines: Int[np.ndarray, " rows"]) -> float:
    """What makes the mean length of these rows sqrt(d); SAELens' own estimate, over all of them."""
    total, width = 0.0, 1
    for values, _ in stored(store, site, lines)[1]:
        total += float(np.linalg.norm(values.astype(np.float64), axis=-1).sum())
        width = values.shape[1]
    if not total > 0:
        raise Refusal(f"every activation of {site} is zero: there is nothing to reconstruct.")
    return math.sqrt(width) * len(lines) / total


def _said(estimate: Estimate) -> dict[str, float]:
    """A number with its interval, for JSON."""
    return {key: getattr(estimate, key) for key in ("value", "low", "high", "n")}
