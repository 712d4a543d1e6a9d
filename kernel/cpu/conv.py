"""Convolution: the reference verbs, which run in any dtype (see `eqkernel.reference.conv`)."""

from ..reference.conv import choose, drive_post, drive_pre, energy, hebbian

__all__ = ["choose", "drive_post", "drive_pre", "energy", "hebbian"]
