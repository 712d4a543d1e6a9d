"""Bias, Phi = b . post: a vector sum, where NumPy is already at the memory's speed."""

from ..reference.bias import drive_post, energy, hebbian

__all__ = ["drive_post", "energy", "hebbian"]
