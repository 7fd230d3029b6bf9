"""Steering vectors trained on a frozen base."""

from steering.vectors.files import load_vectors, nearest, save_vectors
from steering.vectors.record import Vectors

__all__ = ["Vectors", "load_vectors", "nearest", "save_vectors"]
