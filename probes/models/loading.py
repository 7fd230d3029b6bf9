"""Load a model, refuse a damaged one, and turn text into its tokens.

    model = load("data/organisms/chain-base")      # or "Qwen/Qwen2.5-0.5B"
    tokens = encode(model, "Q 9 b1 >")

Only safetensors are read: a pickled checkpoint runs code when it is opened. A checkpoint that
lacks a weight is refused, where transformers would fill it with random numbers and warn.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from probes.models.folders import (
    at_revision,
    config_of,
    digest,
    located,
    tokenizer_of,
    weight_files,
)
from probes.models.sites import architecture, blocks, check_sites
from probes.records import Refusal


@dataclass(frozen=True)
class Model:
    """A causal LM with its tokenizer. Frozen: training makes a new one."""

    net: nn.Module
    tokenizer: PreTrainedTokenizerBase
    name: str
    """Path or Hugging Face name, as given."""
    digest: str = ""
    """Hash of its weights and config; "" for a model that was never on disk."""

    @cached_property
    def depth(self) -> int:
        """Number of blocks."""
        return len(blocks(self.net))

    @property
    def config(self) -> Any:
        """The Hugging Face config."""
        return self.net.config

    @property
    def width(self) -> int:
        """Length of a residual vector."""
        return self.config.hidden_size

    @property
    def context(self) -> int:
        """How many tokens, prompt and answer together, it can read."""
        return self.config.max_position_embeddings

    @property
    def device(self) -> torch.device:
        """Where tokens go in; of a model that is partly elsewhere, where it computes."""
        here = (p.device for p in self.net.parameters() if not p.is_meta)
        return next(here, torch.device("meta"))

    @property
    def dtype(self) -> torch.dtype:
        """What the residual stream is in; quantised weights are of another."""
        kinds = (p.dtype for p in self.net.parameters())
        return next(d for d in kinds if d.is_floating_point and d.itemsize > 1)

    @property
    def vocab(self) -> int:
        """How many logits it gives; some real models pad this beyond their tokenizer."""
        return self.config.vocab_size


def load(
    source: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    revision: str | None = None,
    device_map: Any = None,
) -> Model:
    """A model from a folder or from the Hugging Face hub, in eval mode, gradients off.

    Args:
        source: a folder, or a hub name, with @revision or without.
        device: where it computes.
        dtype: of its weights. A quantised checkpoint keeps its own, and this is what it computes
            in, as far as transformers' quantiser lets one choose.
        revision: branch, tag or commit on the hub.
        device_map: in place of `device`, as in transformers: "auto" leaves to memory or disk what
            doesn't fit on one device, and fetches it for each pass. Several computing devices are
            refused.

    Raises:
        Refusal: no such folder or hub name, no safetensors (pickled ones are never opened), a
            truncated file, a weight that is missing or not finite, an unknown architecture, a
            config that is none, no tokenizer or one with more tokens than the model has, a
            quantisation that is unknown or whose library or device isn't here.
    """
    source = at_revision(source, revision)
    folder = located(source)
    config = config_of(source, folder)
    files = weight_files(folder)
    quantised = getattr(config, "quantization_config", None) is not None
    if quantised and device_map is None:
        device_map = {"": device}  # quantised weights are made where they stay
    net = _net(source, folder, dtype, device_map, quantised)
    tokenizer = tokenizer_of(source, folder, net)
    if device_map is None:
        net = net.to(device)
    net = net.eval().requires_grad_(False)
    check_sites(net)
    return Model(net, tokenizer, str(source), digest(folder, files))


def load_on(source: str, device: str, dtype: str) -> Model:
    """`load` by the names of a device and a dtype, as they stand in settings.

    Raises:
        Refusal: a device that torch doesn't know or this machine doesn't have, or as `load`.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        here = [name for name in ("cuda", "mps") if getattr(torch, name).is_available()]
        raise Refusal(
            f"device {device!r} can't be used here; there is {', '.join(['cpu', *here])} "
            f"({str(error).splitlines()[0]})."
        ) from None
    return load(source, device=device, dtype=getattr(torch, dtype))


def outline(source: str | Path, *, revision: str | None = None, weights: bool = True) -> Model:
    """The same without its weights: shapes, sites, tokenizer and digest, to check a plan against.

    The net lies on torch's meta device, so a large model takes no memory; it computes nothing.

    Args:
        source: as in `load`.
        revision: as in `load`.
        weights: whether its weight files must be there. Without them there is no digest, and from
            the hub a few small files are fetched.

    Raises:
        Refusal: as `load`, but for what only the weights show.
    """
    source = at_revision(source, revision)
    folder = located(source, weights=weights)
    config = config_of(source, folder)
    files = weight_files(folder) if weights else []
    try:
        with torch.device("meta"):
            net = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # what a module finds wrong with its config is of any kind
        raise Refusal(f"{source}: its config.json makes no model: {error!r}") from None
    tokenizer = tokenizer_of(source, folder, net)
    check_sites(net)
    return Model(net.eval(), tokenizer, str(source), digest(folder, files) if weights else "")


def _net(
    source: str | Path, folder: Path, dtype: torch.dtype, device_map: Any, quantised: bool
) -> Any:
    """The weights of a folder, all there and finite."""
    try:
        net, report = AutoModelForCausalLM.from_pretrained(  # type: ignore[misc]
            folder,
            dtype=dtype,
            device_map=device_map,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:  # what a module finds wrong with its config is of any kind
        if quantised:
            why = f"{source} is quantised, and transformers can't load it here: {error}"
        elif isinstance(error, (RuntimeError, OSError, SafetensorError)):
            why = f"{source}: the weights don't fit the config: {error}"
        elif device_map is not None:
            why = f"device_map={device_map!r} of {source}: {error}"
        else:
            why = f"{source}: its config.json makes no model: {error!r}"
        raise Refusal(why) from None
    left = getattr(net.config, "quantization_config", None)  # a quantiser that is done deletes it
    if left is not None and getattr(net, "hf_quantizer", None) is None:
        raise Refusal(
            f"{source} is quantised in a way that transformers doesn't know ({left}); its numbers "
            f"would be read as weights."
        )
    if missing := sorted(report["missing_keys"]):
        raise Refusal(
            f"{source} lacks {len(missing)} weights ({', '.join(missing[:4])}, ...): the "
            f"checkpoint is incomplete, or its config.json belongs to another model."
        )
    if more := [k for k in report["unexpected_keys"] if _beyond(k, net)]:
        raise Refusal(
            f"{source} has weights of blocks that its config.json doesn't name ({more[0]}, ...): "
            f"without them it is another model."
        )
    computing = {str(d) for d in getattr(net, "hf_device_map", {}).values()} - {"cpu", "disk"}
    if len(computing) > 1:
        raise Refusal(
            f"device_map={device_map!r} spreads {source} over {', '.join(sorted(computing))}, and "
            f"the cache lies on one device: name one (device='cuda:0'), or hide the others "
            f"(CUDA_VISIBLE_DEVICES=0) and what doesn't fit stays in memory."
        )
    if quantised and all(p.is_floating_point() and p.itemsize > 1 for p in net.parameters()):
        net = net.to(dtype)  # its quantiser gave the numbers back, some in the dtype it stored
    for weight, values in net.named_parameters():
        # What a device_map left outside is not here to be looked at; integers are always finite.
        if values.is_meta or not values.is_floating_point() or values.dtype.itemsize == 1:
            continue
        if not torch.isfinite(values).all():
            raise Refusal(
                f"{source}: {weight} has values that are not finite: a training run "
                f"that diverged, or {dtype} is too narrow for it."
            )
    return net


def _beyond(key: str, net: nn.Module) -> bool:
    """Whether a weight is of a block behind the last one."""
    path = architecture(net).blocks.split(".")[-1]
    found = re.search(rf"(?:^|\.){path}\.(\d+)\.", key)
    return found is not None and 0 < len(blocks(net)) <= int(found[1])


def encode(model: Model, prompt: str) -> tuple[int, ...]:
    """The tokens of a prompt, with those special ones that the model's own tokenizer adds.

    A word-level tokenizer adds none, so there word i is token i. A prompt that begins with the
    tokenizer's own first token, as a rendered chat may, gets no second one.

    Raises:
        Refusal: the prompt is empty, or has a word that the vocabulary lacks.
    """
    begun = bool(model.tokenizer.bos_token) and prompt.startswith(str(model.tokenizer.bos_token))
    tokens = tuple(model.tokenizer(prompt, add_special_tokens=not begun)["input_ids"])
    if not tokens:
        raise Refusal("the prompt is empty: the first token is chosen after at least one.")
    unknown = model.tokenizer.unk_token_id
    if unknown in tokens and str(model.tokenizer.unk_token) not in prompt:
        known = model.tokenizer.get_vocab()
        words = [w for w in prompt.split() if w not in known]
        listed = list(dict.fromkeys(words))
        shown = " ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")
        raise Refusal(
            f"{shown or 'a character'} is not in the vocabulary of "
            f"{model.name} ({len(known)} tokens): is the task of another model?"
        )
    return tokens


def decode(model: Model, tokens: Sequence[int]) -> str:
    """The text of tokens, special ones left out."""
    return str(model.tokenizer.decode(list(tokens), skip_special_tokens=True))
