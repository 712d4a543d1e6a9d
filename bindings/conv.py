"""Convolution: the verbs of the `cpu` backend."""

from ..cpu.conv import choose, drive_post, drive_pre, energy, hebbian

__all__ = ["choose", "drive_post", "drive_pre", "energy", "hebbian"]
