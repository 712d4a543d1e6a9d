"""Dense connection, Phi(pre, post) = post . (W pre): pre (B, n_pre), post (B, n_post), weight (n_post, n_pre).

Arrays lie on the device, C-contiguous and of one type. The functions with a `scale` serve `lateral` too.
"""

from __future__ import annotations

from typing import Any

from .checks import check
from .launcher import launch
from .products import product


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
    how = product(n_post, n_pre, trace.dtype)
    launch("dense", "hebbian", trace.dtype, how.grid, how.threads, arguments, **how.defines)


def input_drive(drive: Any, pre: Any, weight: Any, bias: Any) -> None:
    """drive = pre W^T + bias, bias (n_post,): all that a clamped input does."""
    (n_post, n_pre), batch = weight.shape, len(drive)
    check(drive, (batch, n_post), (pre, (batch, n_pre)), (weight, weight.shape), (bias, (n_post,)))
    how = product(batch, n_post, drive.dtype)
    arguments = drive, pre, weight, bias, batch, n_pre, n_post
    launch("dense", "input_drive", drive.dtype, how.grid, how.threads, arguments, **how.defines)


def scaled_energy(energy: Any, pre: Any, post: Any, weight: Any, scale: float) -> None:
    """energy[b] -= scale * post[b] . (W pre[b])."""
    (n_post, n_pre), batch = weight.shape, len(energy)
    check(energy, (batch,), (pre, (batch, n_pre)), (post, (batch, n_post)), (weight, weight.shape))
    arguments = energy, pre, post, weight, scale, batch, n_pre, n_post
    any_tile = product(1, 1, energy.dtype).defines
    launch("dense", "energy", energy.dtype, (-(-batch * 32 // 256),), 256, arguments, **any_tile)


def scaled_drive_post(drive: Any, pre: Any, weight: Any, scale: float) -> None:
    """drive += scale * pre W^T."""
    (n_post, n_pre), batch = weight.shape, len(drive)
    check(drive, (batch, n_post), (pre, (batch, n_pre)), (weight, weight.shape))
    arguments = drive, pre, weight, scale, batch, n_pre, n_post
    how = product(batch, n_post, drive.dtype)
    launch("dense", "drive_post", drive.dtype, how.grid, how.threads, arguments, **how.defines)


def scaled_drive_pre(drive: Any, post: Any, weight: Any, scale: float) -> None:
    """drive += scale * post W."""
    (n_post, n_pre), batch = weight.shape, len(drive)
    check(drive, (batch, n_pre), (post, (batch, n_post)), (weight, weight.shape))
    arguments = drive, post, weight, scale, batch, n_pre, n_post
    how = product(batch, n_pre, drive.dtype)
    launch("dense", "drive_pre", drive.dtype, how.grid, how.threads, arguments, **how.defines)
