"""Lateral connection within a layer: Phi = 1/2 s . (W s), W (n, n) symmetric.

The layer s is both pre and post. Each of the two drives carries half of dPhi/ds = W s; a layer sums both.
"""

import numpy as np
from numpy.typing import NDArray


def energy(energy: NDArray, pre: NDArray, post: NDArray, weight: NDArray) -> None:
    """energy (B,) -= Phi = 1/2 sum_ij post_i W_ij pre_j."""
    energy -= 0.5 * np.sum(post * (pre @ weight.T), axis=1)


def drive_post(drive: NDArray, pre: NDArray, weight: NDArray) -> None:
    """drive (B, n) += dPhi/dpost = 1/2 W pre."""
    drive += 0.5 * (pre @ weight.T)


def drive_pre(drive: NDArray, post: NDArray, weight: NDArray) -> None:
    """drive (B, n) += dPhi/dpre = 1/2 W^T post."""
    drive += 0.5 * (post @ weight)


def hebbian(trace: NDArray, pre: NDArray, post: NDArray, scale: float) -> None:
    """trace (n, n) += scale sum_B dPhi/dW, dPhi/dW_ij = 1/2 post_i pre_j."""
    trace += 0.5 * scale * (post.T @ pre)
