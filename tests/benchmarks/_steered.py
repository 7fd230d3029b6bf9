"""Settings to steer the shipped base by: layers, directions and strengths."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch

from steering.interventions import GENERATED, Intervention

from ._shipped import base

LAYERS = (1, 2)
STRENGTHS = (-0.2, -0.15, -0.1, -0.05, 0.05, 0.1, 0.15, 0.2)
"""In multiples of the residual norm: answers stay answers, of about their usual length."""
NORM = 10.0


def settings(count: int, layers: Sequence[int] = LAYERS) -> dict[int, list[Intervention]]:
    """Layers x strengths x as many random directions as that takes."""
    draws = np.random.Generator(np.random.Philox(0)).standard_normal((count, base().width))
    units = torch.from_numpy(draws / np.linalg.norm(draws, axis=1, keepdims=True)).float()
    grid = list(product(units, layers, STRENGTHS))[:count]
    return {
        i: [Intervention("add", site(layer), unit, strength, NORM, GENERATED)]
        for i, (unit, layer, strength) in enumerate(grid)
    }


def site(layer: int) -> str:
    return f"blocks.{layer}.hook_resid_post"
