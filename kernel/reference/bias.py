"""Bias: Phi = b . post, b (n_post,). It has no presynaptic layer: pre is None and there is no drive_pre."""

from numpy.typing import NDArray


def energy(energy: NDArray, pre: None, post: NDArray, weight: NDArray) -> None:
    """energy (B,) -= Phi = sum_i b_i post_i."""
    energy -= post @ weight


def drive_post(drive: NDArray, pre: None, weight: NDArray) -> None:
    """drive (B, n_post) += dPhi/dpost = b."""
    drive += weight


def hebbian(trace: NDArray, pre: None, post: NDArray, scale: float) -> None:
    """trace (n_post,) += scale sum_B dPhi/db, dPhi/db_i = post_i."""
    trace += scale * post.sum(axis=0)
