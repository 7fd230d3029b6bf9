"""A model seen through TransformerLens, for what the four sites don't show.

TransformerBridge gives patterns, heads and everything else inside attention, at the price of
eager attention. Booting one takes the model apart (blocks are replaced, names of weights change,
saving fails), so it boots a copy that shares the weights.
"""

import copy
from typing import Any

from probes.models.loading import Model


def bridge(model: Model) -> Any:
    """A TransformerBridge of the model; the model stays whole, the weights are shared.

    Only the modules are copied: every parameter and buffer of the copy is the original's own
    tensor, so the bridge takes no memory of its own and sees any later training step.
    """
    from transformer_lens.model_bridge import TransformerBridge

    tensors = [*model.net.parameters(), *model.net.buffers()]
    shared = copy.deepcopy(model.net, {id(t): t for t in tensors})
    # The bridge chooses its adapter by this name, which a model made from a config lacks.
    shared.config.architectures = [type(model.net).__name__]  # type: ignore[union-attr]
    return TransformerBridge.boot_transformers(
        model.name,
        hf_model=shared,
        tokenizer=copy.deepcopy(model.tokenizer),  # it is given a beginning-of-text token
        device=model.device,
        dtype=model.dtype,
    )
