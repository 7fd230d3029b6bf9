"""What kinds of steps a model's traces have, found from the bottom up."""

from probes.taxonomy.record import Taxonomy

__all__ = ["Taxonomy"]
