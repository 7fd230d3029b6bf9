"""Where the residual stream of a Hugging Face model can be read and edited.

Layer i is the output of block i, counted from 0; -1 is the last. Four sites a block, by their
TransformerLens names; `hook_attn_out` and `hook_mlp_out` are what is *added to the residual*, so
on Gemma 2, Gemma 3 and OLMo 2 they are the outputs of the norms behind attention and MLP.
Hugging Face's ``hidden_states[i + 1]`` is layer i, except the last one, which it has normed.

An architecture is one line of `ARCHITECTURES`. One that isn't there is refused: a guess would
read some other tensor of the same shape.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from probes.records import SITES, Refusal


@dataclass(frozen=True)
class Architecture:
    """How one family of models names its parts."""

    blocks: str
    """Dotted path from the causal LM to its list of blocks."""
    attn: str
    """Submodule of a block whose output attention adds to the residual."""
    mlp: str
    """The same for the MLP."""
    masks: str = "full"
    """Which attention mask its forward takes: "full"; "window" where every layer slides if the
    config sets a window; "by kind" where it takes a dict of one mask for each kind of layer."""


ARCHITECTURES = {
    "LlamaForCausalLM": Architecture("model.layers", "self_attn", "mlp"),
    "MistralForCausalLM": Architecture("model.layers", "self_attn", "mlp", "window"),
    "Qwen2ForCausalLM": Architecture("model.layers", "self_attn", "mlp", "by kind"),
    "Qwen3ForCausalLM": Architecture("model.layers", "self_attn", "mlp", "by kind"),
    "GPT2LMHeadModel": Architecture("transformer.h", "attn", "mlp"),
    "GPTNeoXForCausalLM": Architecture("gpt_neox.layers", "attention", "mlp"),
    "Gemma2ForCausalLM": Architecture(
        "model.layers", "post_attention_layernorm", "post_feedforward_layernorm", "by kind"
    ),
    "Gemma3ForCausalLM": Architecture(
        "model.layers", "post_attention_layernorm", "post_feedforward_layernorm", "by kind"
    ),
    "Olmo2ForCausalLM": Architecture(
        "model.layers", "post_attention_layernorm", "post_feedforward_layernorm"
    ),
}
"""By the class of the causal LM, as `architectures` in its config.json names it."""


def architecture(net: nn.Module) -> Architecture:
    """How the model names its parts.

    Raises:
        Refusal: its class is not in the table.
    """
    name = type(net).__name__
    if name not in ARCHITECTURES:
        raise Refusal(
            f"{name} is not a known architecture; known are {', '.join(ARCHITECTURES)}. What is "
            f"missing is a line in probes.models.sites.ARCHITECTURES: the path of its blocks, and "
            f"the submodules whose outputs attention and MLP add to the residual."
        )
    return ARCHITECTURES[name]


def blocks(net: nn.Module) -> list[nn.Module]:
    """The blocks of a causal LM, first to last."""
    return list(net.get_submodule(architecture(net).blocks))  # type: ignore[arg-type]


def layer_index(layer: int, depth: int) -> int:
    """The layer as 0..depth-1, with -1 the last, -2 the one before.

    >>> layer_index(-1, depth=3)
    2

    Raises:
        Refusal: there is no such layer.
    """
    if not -depth <= layer < depth:
        off_by_one = (
            f" Hugging Face's hidden_states[{depth}] is layer {depth - 1} here."
            if layer == depth
            else ""
        )
        raise Refusal(
            f"layer {layer} is not in this model, whose layers are 0..{depth - 1} "
            f"(layer i is the output of block i; -1 is the last).{off_by_one}"
        )
    return layer % depth


def submodule(model: Any, layer: int, site: str) -> tuple[nn.Module, str]:
    """The module to hook for a site, and whether the site is its "input" or its "output".

    Args:
        model: a `Model`, or the causal LM itself.
        layer: 0..depth-1, or counted from the end.
        site: one of `probes.records.SITES`.

    Raises:
        Refusal: unknown architecture, layer or site, or a block without the expected submodule.
    """
    net = getattr(model, "net", model)
    names = architecture(net)
    stack = blocks(net)
    block = stack[layer_index(layer, len(stack))]
    if site not in SITES:
        raise Refusal(f"site {site!r} is not known; the sites of a block are {', '.join(SITES)}.")
    if site in ("hook_resid_pre", "hook_resid_post"):
        return block, "input" if site == "hook_resid_pre" else "output"
    part = names.attn if site == "hook_attn_out" else names.mlp
    try:
        return block.get_submodule(part), "output"
    except AttributeError:
        raise Refusal(
            f"block {layer} of this {type(net).__name__} has no {part!r}, only "
            f"{', '.join(n for n, _ in block.named_children())}: was the model wrapped or edited?"
        ) from None


def check_sites(net: nn.Module) -> None:
    """Refuse a model of which some block lacks a site, before anything of it is read or edited.

    Raises:
        Refusal: no blocks, or the first that isn't as its architecture's line says.
    """
    depth = len(blocks(net))
    if not depth:
        raise Refusal(f"this {type(net).__name__} has no blocks: is its config.json right?")
    for layer in range(depth):
        for site in SITES:
            submodule(net, layer, site)
