"""Diffusion on a grid, Phi = -D/2 sum_<ij> (s_i - s_j)^2: states (B, N) or (B, H, W), weight (1,) the constant D."""

from __future__ import annotations

from numpy.typing import NDArray

from ..cpu.diffusion import mirrored
from .library import check, functions, reads, variant, writes


def energy(energy: NDArray, pre: NDArray, post: NDArray, weight: NDArray, boundary: str = "periodic") -> None:
    """energy[b] -= D/2 post[b] . lap pre[b]."""
    run, mirror, sizes = functions(energy.dtype), mirrored(boundary), _sizes(pre)
    shape = (len(energy), *pre.shape[1:])
    pre, post = reads(pre, shape, energy), reads(post, shape, energy)
    check(run.diffusion_energy(variant(), writes(energy), pre, post, float(weight[0]), *sizes, mirror))


def drive_post(drive: NDArray, pre: NDArray, weight: NDArray, boundary: str = "periodic") -> None:
    """drive += D/2 lap pre; drive is C-contiguous."""
    run, mirror = functions(drive.dtype), mirrored(boundary)
    pre = reads(pre, drive.shape, drive)
    check(run.diffusion_drive_post(variant(), writes(drive), pre, float(weight[0]), *_sizes(drive), mirror))


drive_pre = drive_post  # the Laplacian is symmetric


def hebbian(trace: NDArray, pre: NDArray, post: NDArray, scale: float, boundary: str = "periodic") -> None:
    """trace[0] += scale/2 sum_b post[b] . lap pre[b]."""
    run, mirror, sizes = functions(trace.dtype), mirrored(boundary), _sizes(pre)
    shape = pre.shape
    pre, post = reads(pre, shape, trace), reads(post, shape, trace)
    check(run.diffusion_hebbian(variant(), writes(trace), pre, post, scale, *sizes, mirror))


def _sizes(state: NDArray) -> tuple[int, int, int]:
    """Batch, rows and width: a line is a grid of one row."""
    batch, *rows, width = state.shape
    return batch, rows[0] if rows else 1, width
