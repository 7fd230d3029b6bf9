"""A dictionary on disk: SAELens' own folder, with what we know of it added in its places.

    cfg.json                   SAELens' settings; the facts are in its metadata, under "whenhow"
    sae_weights.safetensors    SAELens' tensors, float16; read as float32, by SAELens too
    features.parquet           a `Feature` a latent

A folder that only SAELens wrote loads as well: it has no facts and no table.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from probes.models import Model, layer_index
from probes.records import Refusal, parse_site, read_table, write_json, write_table
from probes.sae.record import KINDS, Feature, Sae

CONFIG, WEIGHTS, FEATURES = "cfg.json", "sae_weights.safetensors", "features.parquet"
FACTS = "whenhow"
"""Key of our facts in the metadata of cfg.json."""

FOLDS = {
    "expected_average_only_in": "fold_activation_norm_scaling_factor",
    "covariance_whitening": "fold_activation_whitening",
}
"""What in SAELens folds a normalisation into the weights; the others depend on the row, and no
weight can hold them."""


def load_sae(
    folder: str | Path, model: Model | None = None, *, device: str | torch.device | None = None
) -> Sae:
    """A dictionary from a folder in SAELens' format.

    Args:
        folder: cfg.json and sae_weights.safetensors, of any of the kinds that `Sae` runs.
        model: refuse unless it is a dictionary of this one; None takes any (one model's latents
            on another's activations).
        device: where it is; the model's own by default, else the CPU.

    Raises:
        Refusal: a missing or damaged file, an architecture or site that can't be run here, a site,
            width or digest that isn't the model's.
    """
    folder = Path(folder)
    said = _config(folder)
    loaded = _load(folder, str(device or (model.device if model else "cpu")))
    config = loaded.cfg
    kind = config.architecture()
    site = config.metadata.hook_name or said.get("hook_name")
    if kind not in KINDS or not hasattr(loaded, "b_enc"):
        raise Refusal(f"{folder} is a {kind} dictionary; what runs here is {', '.join(KINDS)}.")
    _check_plain(folder, config.normalize_activations, config.reshape_activations)
    if not site:
        raise Refusal(f"{folder}/{CONFIG} names no site: its metadata has no hook_name.")
    parse_site(site)
    if getattr(config, "rescale_acts_by_decoder_norm", False):
        loaded.fold_W_dec_norm()  # the same function, with tensors that mean what they say
    facts = dict(config.metadata.get(FACTS) or {})
    if not facts and config.metadata.model_name:
        facts = {"model": str(config.metadata.model_name)}
    found = Sae(
        site=site,
        folder=folder,
        model=str(facts.get("digest", "")),
        sae=loaded,
        encoder=loaded.W_enc.data,
        encoder_bias=loaded.b_enc.data,
        decoder=loaded.W_dec.data,
        decoder_bias=loaded.b_dec.data,
        threshold=loaded.threshold.data if kind == "jumprelu" else None,
        kind=kind,
        subtracts_bias=bool(config.apply_b_dec_to_input),
        facts=facts,
        features=_features(folder, loaded.W_dec.shape[0]),
    )
    if model is not None:
        check_fits(found, model)
    return found


def check_fits(sae: Sae, model: Model) -> None:
    """Refuse a dictionary that isn't of this model.

    Raises:
        Refusal: no such layer, another width, the digest of another model or, where there is none,
            its name.
    """
    layer_index(parse_site(sae.site)[0], model.depth)
    if sae.width != model.width:
        raise Refusal(
            f"{sae.folder} is for activations of width {sae.width}, those of {model.name} have "
            f"{model.width}: it is of another model."
        )
    if sae.model and model.digest and sae.model != model.digest:
        whose = sae.facts.get("model", "another model")
        raise Refusal(
            f"{sae.folder} was trained on {whose} (digest {sae.model[:12]}), and {model.name} is "
            f"{model.digest[:12]}: other weights, other latents. Train one on this model."
        )
    named = str(sae.facts.get("model", ""))
    if not sae.model and named and Path(named).name.lower() != Path(model.name).name.lower():
        raise Refusal(
            f"{sae.folder} says that it is of {named}, and this is {model.name}. If they are one "
            f"model under two names, write this one into model_name in the metadata of {CONFIG}."
        )


@contextmanager
def whole(folder: str | Path) -> Iterator[Path]:
    """A hidden neighbour that takes the folder's name when the block ends, or leaves no trace.

    Raises:
        Refusal: the folder holds something.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Refusal(f"{folder} already holds something; a dictionary goes to a new folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
    os.chmod(partial, 0o755)  # mkdtemp makes folders that only their owner can enter
    try:
        yield partial
        if folder.exists():
            folder.rmdir()
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def save_weights(trained: Any, folder: Path) -> None:
    """The inference form of a SAELens training object, its tensors rounded to float16.

    A plain SAELens object is saved as it is. What is measured of it should be measured on what
    `load_sae` gives back, rounding included.
    """
    save = getattr(trained, "save_inference_model", None) or trained.save_model
    save(folder)
    weights = {name: w.half().contiguous() for name, w in load_file(folder / WEIGHTS).items()}
    if bad := [name for name, w in weights.items() if not torch.isfinite(w).all()]:
        raise FloatingPointError(f"{', '.join(bad)} of the dictionary can't be held in float16.")
    save_file(weights, folder / WEIGHTS)
    config = json.loads((folder / CONFIG).read_text())
    # float16 on disk is a rounding of the weights; by these words everyone computes in float32.
    write_json(folder / CONFIG, config | {"dtype": "float32", "device": "cpu"})


def save_facts(folder: Path, facts: Mapping[str, Any], features: Sequence[Feature] = ()) -> None:
    """Put facts ("digest" is the model's) and table into a folder that has its weights."""
    config = json.loads((folder / CONFIG).read_text())
    config["metadata"][FACTS] = dict(facts)
    write_json(folder / CONFIG, config)
    if features:
        write_table(folder / FEATURES, features, Feature)


def _config(folder: Path) -> dict[str, Any]:
    """What cfg.json says, both files being there."""
    if not folder.is_dir():
        raise Refusal(f"there is no dictionary at {folder}: no such folder.")
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise Refusal(
                f"{folder} has no {name}: a dictionary in SAELens' format is {CONFIG} and "
                f"{WEIGHTS}."
            )
    try:
        said = json.loads((folder / CONFIG).read_text())
    except ValueError as error:
        raise Refusal(f"{folder / CONFIG} is damaged: {error}") from None
    if not isinstance(said, dict):
        raise Refusal(f"{folder / CONFIG} is damaged: it holds no settings.")
    return said


def _check_plain(folder: Path, normalise: str, reshape: str) -> None:
    """Refuse a dictionary that isn't of the activations as they are."""
    if (normalise, reshape) == ("none", "none"):
        return
    # SAELens scales by an average or whitens in its training loader only, so such a dictionary
    # would run here on activations of another size. By the row it does in encode, but then latents
    # are of another size in each row, and no edit of a single one says what it adds.
    fold = FOLDS.get(normalise)
    todo = f" Fold it into the weights first ({fold} in SAELens) and save it again." if fold else ""
    raise Refusal(
        f"{folder} normalises or reshapes each activation ({normalise}, {reshape}) before "
        f"encoding, which is not supported.{todo}"
    )


def _load(folder: Path, device: str) -> Any:
    """SAELens' object, in float32 and for inference."""
    from sae_lens import SAE

    try:
        loaded = SAE.load_from_disk(folder, device=device, dtype="float32")
    except SafetensorError as error:
        raise Refusal(f"{folder / WEIGHTS} is damaged or cut short: {error}") from None
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise Refusal(
            f"{folder}: SAELens can't make a dictionary of {CONFIG} and {WEIGHTS} (damaged, or of "
            f"two dictionaries?): {str(error) or repr(error)}"
        ) from None
    for name, weight in loaded.named_parameters():
        if not torch.isfinite(weight).all():
            raise Refusal(f"{folder / WEIGHTS}: {name} has values that are not finite.")
    return loaded.eval().requires_grad_(False)


def _features(folder: Path, latents: int) -> tuple[Feature, ...]:
    """The table, a line a latent in order; () where there is none."""
    path = folder / FEATURES
    if not path.is_file():
        return ()
    found = tuple(read_table(path, Feature)[0])
    if [feature.latent for feature in found] != list(range(latents)):
        raise Refusal(f"{path} has {len(found)} features for {latents} latents: it is of another.")
    return found
