"""Dense connection: Phi = post . (W pre), W (n_post, n_pre)."""

import numpy as np
from numpy.typing import NDArray


def energy(energy: NDArray, pre: NDArray, post: NDArray, weight: NDArray) -> None:
    """energy (B,) -= Phi = sum_ij post_i W_ij pre_j."""
    energy -= np.sum(post * (pre @ weight.T), axis=1)


def drive_post(drive: NDArray, pre: NDArray, weight: NDArray) -> None:
    """drive (B, n_post) += dPhi/dpost = W pre."""
    drive += pre @ weight.T


def drive_pre(drive: NDArray, post: NDArray, weight: NDArray) -> None:
    """drive (B, n_pre) += dPhi/dpre = W^T post."""
    drive += post @ weight


def hebbian(trace: NDArray, pre: NDArray, post: NDArray, scale: float) -> None:
    """trace (n_post, n_pre) += scale sum_B dPhi/dW, dPhi/dW_ij = post_i pre_j."""
    trace += scale * (post.T @ pre)
