"""A taxonomy as a labeller of sentences (`probes.strategies.labellers`)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from probes.records import Refusal
from probes.strategies.labellers import Given, Passage
from probes.strategies.residuals import SentenceMeans
from probes.taxonomy.record import Taxonomy


@dataclass(frozen=True)
class ByTaxonomy:
    """Each sentence has the name of the latent that is strongest in its mean residual.

    Latents of one name are one label. A name such as "latent 3" is a label too: agreement with
    others then asks for a map of names (`probes.strategies.between.renamed`).
    """

    taxonomy: Taxonomy
    read: SentenceMeans
    """Of the taxonomy's own model and site."""
    title: str = "taxonomy"

    def __post_init__(self) -> None:
        """Refuse activations that the taxonomy was not made for."""
        model, digest = self.read.model, self.taxonomy.model
        if self.read.site != self.taxonomy.site:
            raise Refusal(
                f"the taxonomy sorts activations of {self.taxonomy.site}, and those of "
                f"{self.read.site} are read."
            )
        if digest and model.digest and digest != model.digest:
            raise Refusal(
                f"the taxonomy was made with a model of hash {digest[:12]}, and {model.name} has "
                f"{model.digest[:12]}: it is of another model, or of this one before it changed."
            )

    @property
    def name(self) -> str:
        """With its number of categories."""
        return f"{self.title} of {len(self.taxonomy.names)}"

    @property
    def fitted_on(self) -> frozenset[str]:
        """None: it is fitted to activations, to no labels."""
        return frozenset()

    def label(self, passages: Sequence[Passage]) -> list[list[Given]]:
        """The category of each segment's mean residual."""
        found = self.taxonomy.category(torch.from_numpy(self.read(passages)))
        names = iter([self.taxonomy.names[int(i)] for i in found])
        return [[next(names) for _ in one.segments] for one in passages]
