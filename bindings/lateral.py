"""Lateral connection within a layer, Phi = s . (W s) / 2: pre and post are both its state (B, n), weight (n, n)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .library import check, ffi, functions, reads, variant, writes


def energy(energy: NDArray, pre: NDArray, post: NDArray, weight: NDArray) -> None:
    """energy[b] -= post[b] . (W pre[b]) / 2."""
    batch, n, run = len(energy), len(weight), functions(energy.dtype)
    pre, post, weight = (reads(a, s, energy) for a, s in ((pre, (batch, n)), (post, (batch, n)), (weight, (n, n))))
    check(run.lateral_energy(variant(), writes(energy), pre, post, weight, batch, n))


def drive_post(drive: NDArray, pre: NDArray, weight: NDArray) -> None:
    """drive += W pre / 2."""
    (batch, n), run = drive.shape, functions(drive.dtype)
    work = np.empty(run.dense_workspace(n, n), np.uint8)
    pre, weight = reads(pre, (batch, n), drive), reads(weight, (n, n), drive)
    check(run.lateral_drive_post(variant(), writes(drive), pre, weight, batch, n, ffi.from_buffer(work), work.size))


def drive_pre(drive: NDArray, post: NDArray, weight: NDArray) -> None:
    """drive += W^T post / 2."""
    (batch, n), run = drive.shape, functions(drive.dtype)
    post, weight = reads(post, (batch, n), drive), reads(weight, (n, n), drive)
    check(run.lateral_drive_pre(variant(), writes(drive), post, weight, batch, n))


def hebbian(trace: NDArray, pre: NDArray, post: NDArray, scale: float) -> None:
    """trace += scale / 2 * post^T pre, summed over the batch."""
    (n, _), batch, run = trace.shape, len(pre), functions(trace.dtype)
    pre, post = reads(pre, (batch, n), trace), reads(post, (batch, n), trace)
    check(run.lateral_hebbian(variant(), writes(trace), pre, post, scale, batch, n))
