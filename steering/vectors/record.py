"""Trained steering vectors: one a category, and what it took to fit them."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.records import Refusal, parse_site

NETWORK = ("trunk", "trunk_bias", "heads", "heads_bias")
"""Tensors of a coefficient network: (hidden, d), (hidden,), (categories, hidden), (categories,)."""


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
    """Factor of each vector; all 1 in the first form and where there is a network."""
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
    """Positions (first form: steps) that each category was fitted to; a category left out has the
    vector zero, which steers nowhere."""
    network: dict[str, Tensor] | None = None
    """Weights of the coefficient network, where there is one in place of `coefficients`."""
    losses: tuple[tuple[float, float], ...] = ()
    """Of each category, on test problems: the mean loss without and with it; nan without any."""
    command: str = ""
    """What made it."""

    def __post_init__(self) -> None:
        """Refuse parts that don't belong together."""
        parse_site(self.site)
        categories, width = self.vectors.shape
        sizes = (len(self.coefficients), len(self.names), len(self.counts))
        if set(sizes) != {categories} or (self.bias is not None and len(self.bias) != width):
            raise Refusal(f"{categories} vectors of width {width}, but parts of {sizes}.")
        if self.losses and len(self.losses) != categories:
            raise Refusal(f"{categories} vectors, but losses of {len(self.losses)}.")
        if not torch.isfinite(self.vectors).all():
            raise Refusal("a vector that is not finite steers nowhere.")
        if self.network is not None and set(self.network) != set(NETWORK):
            raise Refusal(f"a coefficient network has {', '.join(NETWORK)}.")

    def pushes(
        self,
        category: Int[Tensor, " rows"],
        coefficient: float = 1.0,
        x: Float[Tensor, "rows d"] | None = None,
    ) -> Float[Tensor, "rows d"]:
        """What is added to rows of these categories: coefficient x (own factor x vector + bias).

        Args:
            category: of each row.
            coefficient: of the whole push.
            x: the base's own residual at the site, which a coefficient network reads.

        Raises:
            Refusal: there is a coefficient network and no `x`.
        """
        at = category.to(self.vectors.device)
        factor = self.coefficients[at]
        if self.network is not None:
            if x is None:
                raise Refusal(
                    "these vectors have a coefficient network, so what is added depends on the "
                    "residual that is there: pushes(category, coefficient, x)."
                )
            factor = network_factor(self.network, x.to(self.vectors), at)
        push = factor[:, None] * self.vectors[at]
        return coefficient * (push if self.bias is None else push + self.bias)


def network_factor(
    network: dict[str, Tensor], x: Float[Tensor, "rows d"], category: Int[Tensor, " rows"]
) -> Float[Tensor, " rows"]:
    """Softplus(head of the category (GELU(trunk x))): arXiv:2510.07364v4, the coefficient MLP."""
    hidden = torch.nn.functional.gelu(x @ network["trunk"].T + network["trunk_bias"])
    raw = (hidden * network["heads"][category]).sum(-1) + network["heads_bias"][category]
    return torch.nn.functional.softplus(raw)
