"""Bias: Phi = b . post. It has no presynaptic layer: pre is None and there is no drive_pre.

b is (n_post,), or (C,) for a map of any number of positions times C channels, which share it: post_(i, c) then has b_c.
"""

import numpy as np
from numpy.typing import NDArray


def energy(energy: NDArray, pre: None, post: NDArray, weight: NDArray) -> None:
    """energy (B,) -= Phi = sum_i b_i post_i."""
    energy -= by_position(post, weight).sum(axis=1) @ weight


def drive_post(drive: NDArray, pre: None, weight: NDArray) -> None:
    """drive (B, n_post) += dPhi/dpost = b."""
    drive += np.tile(weight, drive.shape[1] // len(weight))


def hebbian(trace: NDArray, pre: None, post: NDArray, scale: float) -> None:
    """trace (n_post,) += scale sum_B dPhi/db, dPhi/db_i = post_i."""
    trace += scale * by_position(post, weight=trace).sum(axis=(0, 1))


def by_position(post: NDArray, weight: NDArray) -> NDArray:
    """A state (B, n_post) as (B, positions, C)."""
    return post.reshape(len(post), -1, len(weight))
