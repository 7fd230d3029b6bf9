"""Checkpoints of a training run: whole or absent, and only ever continued by the same run.

    start, curve = restore(out, net, optimiser, identity, CurveRow)      # 0, [] in a new folder
    for step in range(start, settings.steps):
        ...
        save(out, step + 1, net, optimiser, curve, identity, CurveRow)

A checkpoint is the folder ``out/checkpoint-STEP``: `weights.safetensors`, `moments.safetensors`
(what the optimiser keeps of each weight, under the weight's name), `curve.parquet` (the rows so
far) and `state.json` (the step, the identity of the run, the hashes of the other files). It is
written beside its place and renamed, so a run killed at any moment leaves the last whole one.

The identity is what determines the result: settings, first weights, data. A folder that holds a
run of another identity is refused, or a changed setting would silently continue the old run.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from probes.records import Refusal, file_hash, read_table, write_json, write_table

FILES = ("weights.safetensors", "moments.safetensors", "curve.parquet")


def weights_digest(net: nn.Module) -> str:
    """Hex digest of the parameters' names, types, shapes and bytes; shared ones count once."""
    digest = hashlib.blake2b(digest_size=16)
    for name, weight in sorted(net.named_parameters()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        raw = weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().tobytes())
    return digest.hexdigest()


def new_optimiser(net: nn.Module, *, rate: float, decay: float) -> torch.optim.AdamW:
    """AdamW over the trainable weights; matrices decay, gains and biases don't.

    The second moment's 0.95 instead of torch's 0.999 is the language-model custom (GPT-3,
    arXiv:2005.14165, appendix B): runs of a few hundred steps never forget the first ones else.
    """
    trained = [p for p in net.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95))


def save(
    out: Path,
    step: int,
    net: nn.Module,
    optimiser: torch.optim.Optimizer,
    curve: Sequence[Any],
    identity: Mapping[str, Any],
    kind: type,
) -> None:
    """Write the checkpoint of `step` finished steps, then drop older ones.

    Args:
        out: the run's folder; ``curve.parquet`` is refreshed there too, for whoever looks on.
        step: how many steps are done.
        net: its parameters are saved, a shared one once.
        optimiser: its state is saved, by the names of the parameters.
        curve: instances of `kind`, one for every step done.
        identity: JSON-able; what determines the run's result.
        kind: the dataclass of the curve's rows.
    """
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".checkpoint-", dir=out))
    names: dict[torch.Tensor, str] = {weight: name for name, weight in net.named_parameters()}
    weights = {name: weight.detach().cpu().contiguous() for weight, name in names.items()}
    moments = {
        f"{names[weight]}:{key}": value.detach().cpu().contiguous()
        for weight, state in optimiser.state.items()
        for key, value in state.items()
    }
    save_file(weights, folder / FILES[0])
    save_file(moments, folder / FILES[1])
    write_table(folder / FILES[2], curve, kind, identity=identity)
    hashes = {name: file_hash(folder / name) for name in FILES}
    write_json(folder / "state.json", {"step": step, "identity": identity, "hashes": hashes})
    _to_disk(folder)
    place = out / f"checkpoint-{step:06d}"
    if place.exists():  # a damaged one that `restore` was told to do without
        shutil.rmtree(place)
    folder.chmod(0o755)  # mkdtemp makes folders that only their owner can read
    folder.rename(place)
    _to_disk(out, files=False)
    write_table(out / "curve.parquet", curve, kind, identity=identity)
    for other in out.glob("checkpoint-*"):
        if other != place:
            shutil.rmtree(other)


def restore(
    out: Path,
    net: nn.Module,
    optimiser: torch.optim.Optimizer,
    identity: Mapping[str, Any],
    kind: type,
) -> tuple[int, list[Any]]:
    """Load the newest checkpoint of `out` into `net` and `optimiser`.

    Returns:
        How many steps are done, and the curve's rows so far; 0 and [] where there is none.

    Raises:
        Refusal: the checkpoint is damaged, or belongs to a run of another identity.
    """
    from safetensors.torch import load_file

    for leftover in out.glob(".checkpoint-*"):
        shutil.rmtree(leftover)
    found = [p for p in out.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d{6,}", p.name)]
    if not found:
        return 0, []
    newest = max(found, key=lambda p: int(p.name.split("-")[1]))
    state = _checked_state(newest, identity)
    weights, moments = (load_file(newest / name) for name in FILES[:2])
    with torch.no_grad():
        for name, weight in net.named_parameters():
            weight.copy_(weights[name])
            mine = {
                k.rpartition(":")[2]: v for k, v in moments.items() if k.rpartition(":")[0] == name
            }
            if mine:  # AdamW keeps its count of steps on the host, whatever the device
                optimiser.state[weight] = {
                    k: v.clone() if k == "step" else v.to(weight.device) for k, v in mine.items()
                }
    curve, _ = read_table(newest / FILES[2], kind)
    return state["step"], curve


def _checked_state(folder: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """`state.json` of a checkpoint, after its files and its identity were compared with it."""
    try:
        state = json.loads((folder / "state.json").read_text())
        whole = all(file_hash(folder / name) == state["hashes"][name] for name in FILES)
    except (OSError, ValueError, KeyError):
        whole = False
    if not whole:
        raise Refusal(
            f"{folder} is damaged (a file is missing or differs from its recorded hash): delete "
            f"it, and the run starts again from its beginning."
        )
    wanted = json.loads(json.dumps(identity))
    if state["identity"] != wanted:
        there = state["identity"]
        parts = sorted(k for k in there.keys() | wanted.keys() if there.get(k) != wanted.get(k))
        raise Refusal(
            f"{folder.parent} holds a run with other values of {', '.join(parts)} "
            f"({', '.join(f'{k}: {there.get(k)} there, {wanted.get(k)} now' for k in parts)}): "
            f"choose another folder, or the values it was started with."
        )
    return state


def _to_disk(folder: Path, *, files: bool = True) -> None:
    """Flush a folder, and its files, so that a rename never outruns the bytes it names."""
    for path in [*(sorted(folder.iterdir()) if files else []), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
