"""Dense connection, Phi(pre, post) = post . (W pre): pre (B, n_pre), post (B, n_post), weight (n_post, n_pre).

What is written must be C-contiguous; what is read may have any layout. Equivalent to the reference verbs; each sample's
result is the same bits whatever its batch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .library import check, ffi, functions, reads, variant, writes


def energy(energy: NDArray, pre: NDArray, post: NDArray, weight: NDArray) -> None:
    """energy[b] -= post[b] . (W pre[b])."""
    batch, (n_post, n_pre), run = len(energy), weight.shape, functions(energy.dtype)
    pre, post = reads(pre, (batch, n_pre), energy), reads(post, (batch, n_post), energy)
    weight = reads(weight, (n_post, n_pre), energy)
    check(run.dense_energy(variant(), writes(energy), pre, post, weight, batch, n_pre, n_post))


def drive_post(drive: NDArray, pre: NDArray, weight: NDArray) -> None:
    """drive += pre W^T: what pre does to post."""
    (batch, n_post), n_pre, run = drive.shape, pre.shape[-1], functions(drive.dtype)
    work = np.empty(run.dense_workspace(n_pre, n_post), np.uint8)
    pre, weight = reads(pre, (batch, n_pre), drive), reads(weight, (n_post, n_pre), drive)
    check(
        run.dense_drive_post(
            variant(), writes(drive), pre, weight, batch, n_pre, n_post, ffi.from_buffer(work), work.size
        )
    )


def drive_pre(drive: NDArray, post: NDArray, weight: NDArray) -> None:
    """drive += post W: the same synapse read backwards."""
    (batch, n_pre), n_post, run = drive.shape, post.shape[-1], functions(drive.dtype)
    post, weight = reads(post, (batch, n_post), drive), reads(weight, (n_post, n_pre), drive)
    check(run.dense_drive_pre(variant(), writes(drive), post, weight, batch, n_pre, n_post))


def hebbian(trace: NDArray, pre: NDArray, post: NDArray, scale: float) -> None:
    """trace += scale * post^T pre, summed over the batch."""
    (n_post, n_pre), batch, run = trace.shape, len(pre), functions(trace.dtype)
    pre, post = reads(pre, (batch, n_pre), trace), reads(post, (batch, n_post), trace)
    check(run.dense_hebbian(variant(), writes(trace), pre, post, scale, batch, n_pre, n_post))
