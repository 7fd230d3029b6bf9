"""Steering vectors trained on a frozen base."""

from steering.vectors.record import Vectors

__all__ = ["Vectors"]
