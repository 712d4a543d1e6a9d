"""Dense connection, Phi(pre, post) = post . (W pre): pre (B, n_pre), post (B, n_post), weight (n_post, n_pre).

Arrays lie on the device, C-contiguous and of one type. The functions with a `scale` serve `lateral` too.
"""

from __future__ import annotations

from typing import Any

from .checks import check
from .launcher import launch

TILE, GEMM_THREADS = 64, 256  # of gemm.cuh


def tiles(rows: int, columns: int) -> tuple[int, int]:
    """The grid of a matrix product whose result is (rows, columns)."""
    return -(-columns // TILE), -(-rows // TILE)


def energy(energy: Any, pre: Any, post: Any, weight: Any) -> None:
    """energy[b] -= post[b] . (W pre[b])."""
    scaled_energy(energy, pre, post, weight, 1.0)


def drive_post(drive: Any, pre: Any, weight: Any) -> None:
    """drive += pre W^T: what pre does to post."""
    scaled_drive_post(drive, pre, weight, 1.0)


def drive_pre(drive: Any, post: Any, weight: Any) -> None:
    """drive += post W: the same synapse read backwards."""
    scaled_drive_pre(drive, post, weight, 1.0)


def hebbian(trace: Any, pre: Any, post: Any, scale: float) -> None:
    """trace += scale * post^T pre, summed over the batch."""
    (n_post, n_pre), batch = trace.shape, len(pre)
    check(trace, trace.shape, (pre, (batch, n_pre)), (post, (batch, n_post)))
    arguments = trace, pre, post, float(scale), batch, n_pre, n_post
    launch("dense", "hebbian", trace.dtype, tiles(n_post, n_pre), GEMM_THREADS, arguments)


def scaled_energy(energy: Any, pre: Any, post: Any, weight: Any, scale: float) -> None:
    """energy[b] -= scale * post[b] . (W pre[b])."""
    (n_post, n_pre), batch = weight.shape, len(energy)
    check(energy, (batch,), (pre, (batch, n_pre)), (post, (batch, n_post)), (weight, weight.shape))
    arguments = energy, pre, post, weight, scale, batch, n_pre, n_post
    launch("dense", "energy", energy.dtype, (-(-batch * 32 // 256),), 256, arguments)


def scaled_drive_post(drive: Any, pre: Any, weight: Any, scale: float) -> None:
    """drive += scale * pre W^T."""
    (n_post, n_pre), batch = weight.shape, len(drive)
    check(drive, (batch, n_post), (pre, (batch, n_pre)), (weight, weight.shape))
    arguments = drive, pre, weight, scale, batch, n_pre, n_post
    launch("dense", "drive_post", drive.dtype, tiles(batch, n_post), GEMM_THREADS, arguments)


def scaled_drive_pre(drive: Any, post: Any, weight: Any, scale: float) -> None:
    """drive += scale * post W."""
    (n_post, n_pre), batch = weight.shape, len(drive)
    check(drive, (batch, n_pre), (post, (batch, n_post)), (weight, weight.shape))
    arguments = drive, post, weight, scale, batch, n_pre, n_post
    launch("dense", "drive_pre", drive.dtype, tiles(batch, n_pre), GEMM_THREADS, arguments)
