"""Bias, Phi = b . post, shared by the positions of a map: sums of vectors, at the memory's speed in any library."""

from __future__ import annotations

from typing import Any

from .checks import check


def energy(energy: Any, pre: None, post: Any, weight: Any) -> None:
    """energy[b] -= b . post[b]."""
    check(energy, (len(post),), (post, post.shape), (weight, weight.shape))
    energy -= (_positions(post, weight) * weight).sum(axis=(1, 2))


def drive_post(drive: Any, pre: None, weight: Any) -> None:
    """drive += b."""
    check(drive, drive.shape, (weight, weight.shape))
    positions = _positions(drive, weight)
    positions += weight


def hebbian(trace: Any, pre: None, post: Any, scale: float) -> None:
    """trace += scale * post, summed over the batch and the positions."""
    check(trace, trace.shape, (post, post.shape))
    trace += trace.dtype.type(scale) * _positions(post, trace).sum(axis=(0, 1))


def _positions(state: Any, weight: Any) -> Any:
    """A view (B, positions, channels) of a state (B, n)."""
    return state.reshape(len(state), -1, len(weight))
