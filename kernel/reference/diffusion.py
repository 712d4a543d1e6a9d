"""Diffusion between the neurons of a grid: Phi = -D/2 sum_<ij> (s_i - s_j)^2 = D/2 s . (lap s), <ij> all neighbours.

Like a lateral connection it joins a layer s to itself, and each of its two drives carries half of dPhi/ds = D lap s.
States are lines (B, N) or sheets (B, H, W), where a neuron has two or four neighbours. `boundary` is "periodic" or
"neumann" (zero flux). weight (1,) is D in units of dx^2 a unit of time, fixed or learned; negative D is not diffusion.
"""

import numpy as np
from numpy.typing import NDArray

from ..errors import lookup

BEYOND = {"periodic": "wrap", "neumann": "edge"}  # what lies beyond an edge, in the words of numpy.pad


def laplacian(s: NDArray, boundary: str) -> NDArray:
    """Sum over the neighbours j of neuron i of s_j - s_i: the five-point Laplacian in units of 1/dx^2, s (B, ...)."""
    total = np.zeros_like(s)
    for axis in range(1, s.ndim):
        width = [(int(a == axis),) * 2 for a in range(s.ndim)]
        total += np.diff(np.pad(s, width, mode=lookup("boundary", boundary, BEYOND)), 2, axis)  # type: ignore[call-overload]
    return total


def energy(energy: NDArray, pre: NDArray, post: NDArray, weight: NDArray, boundary: str = "periodic") -> None:
    """energy (B,) -= Phi = -D/2 sum_<ij> (post_i - post_j) (pre_i - pre_j)."""
    energy -= 0.5 * weight[0] * (post * laplacian(pre, boundary)).reshape(len(post), -1).sum(axis=1)


def drive_post(drive: NDArray, pre: NDArray, weight: NDArray, boundary: str = "periodic") -> None:
    """drive (B, ...) += dPhi/dpost = D/2 lap pre."""
    drive += 0.5 * weight[0] * laplacian(pre, boundary)


def drive_pre(drive: NDArray, post: NDArray, weight: NDArray, boundary: str = "periodic") -> None:
    """drive (B, ...) += dPhi/dpre = D/2 lap post: the Laplacian is symmetric."""
    drive += 0.5 * weight[0] * laplacian(post, boundary)


def hebbian(trace: NDArray, pre: NDArray, post: NDArray, scale: float, boundary: str = "periodic") -> None:
    """trace (1,) += scale sum_B dPhi/dD = -scale/2 sum_B sum_<ij> (post_i - post_j) (pre_i - pre_j)."""
    trace += 0.5 * scale * np.sum(post * laplacian(pre, boundary))
