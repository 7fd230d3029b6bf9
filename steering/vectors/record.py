"""Trained steering vectors: one a category, and what it took to fit them."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.records import Refusal, parse_site


@dataclass(frozen=True, eq=False)
class Vectors:
    """What is added to the residual of the frozen base, by category, at one site.

    Used exactly as trained: after the block, at the site's own hook, on the position whose next
    token is to change. (The authors' first release trained before a block and steered behind it.)
    """

    site: str
    """Full name."""
    vectors: Float[Tensor, "categories d"]
    coefficients: Float[Tensor, " categories"]
    """Factor of each vector; all 1 in the first form."""
    bias: Float[Tensor, " d"] | None
    """Added whatever the category; None in the current form."""
    names: tuple[str, ...]
    """Of the categories, in the order of the taxonomy that they were trained with."""
    form: Literal["first", "current"]
    parameters: int
    """Numbers that were fitted, coefficients, bias and a coefficient network included."""
    base: str
    """Content hash of the model that is steered."""
    tuned: str
    """Content hash of the model that it was steered towards."""
    taxonomy: str
    """Hash of the data of the taxonomy that gave the categories; "" where they were known."""
    data: str
    """Hash of the texts they were fitted to."""
    counts: tuple[int, ...]
    """Positions that each category was fitted to."""
    network: dict[str, Tensor] | None = None
    """Weights of the coefficient network, where there is one in place of `coefficients`."""

    def __post_init__(self) -> None:
        """Refuse parts that don't belong together."""
        parse_site(self.site)
        categories, width = self.vectors.shape
        sizes = (len(self.coefficients), len(self.names), len(self.counts))
        if set(sizes) != {categories} or (self.bias is not None and len(self.bias) != width):
            raise Refusal(f"{categories} vectors of width {width}, but parts of {sizes}.")
        if not torch.isfinite(self.vectors).all():
            raise Refusal("a vector that is not finite steers nowhere.")

    def pushes(
        self, category: Int[Tensor, " rows"], coefficient: float = 1.0
    ) -> Float[Tensor, "rows d"]:
        """What is added to rows of these categories: coefficient x (own factor x vector + bias)."""
        at = category.cpu()
        push = self.coefficients[at, None] * self.vectors[at]
        return coefficient * (push if self.bias is None else push + self.bias)
