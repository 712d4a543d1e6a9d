"""Dense connection, Phi(pre, post) = post . (W pre): pre (B, n_pre), post (B, n_post), weight (n_post, n_pre).

What is written must be C-contiguous; what is read may have any layout. Equivalent to the reference verbs; each sample's
result is the same bits whatever its batch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .arrays import flat_in, flat_out
from .compile import kernel
from .gemm import multiply, panel, transpose
from .microkernel import VECTOR_BYTES
from .tiles import ONE, ZERO


@kernel
def _energy(energy, pre, post, weight, n_pre, n_post):
    for b in range(energy.size):
        for i in range(n_post):
            total = energy.dtype.type(0)
            for j in range(n_pre):
                total += weight[i * n_pre + j] * pre[b * n_pre + j]
            energy[b] -= post[b * n_post + i] * total


@kernel
def _drive_post(drive, pre, weight, n_pre, n_post, scratch):
    vector, one = VECTOR_BYTES // drive.itemsize, drive.dtype.type(1)
    lanes, batch = 2 * vector, drive.size // n_post
    product = n_pre * lanes  # where in scratch: first the samples with features first, then the product
    for first in range(0, batch, lanes):
        count = min(lanes, batch - first)
        scratch[:product] = drive.dtype.type(0)
        transpose(scratch, ZERO, lanes, pre, first * n_pre, n_pre, count, n_pre)
        panel(
            scratch, product, lanes, weight, ZERO, n_pre, ONE, scratch, ZERO, lanes, n_post, n_pre, ZERO,
            one, ZERO, ONE + ONE,
        )  # fmt: skip
        for b in range(count):
            for i in range(n_post):
                drive[(first + b) * n_post + i] += scratch[product + i * lanes + b]


@kernel
def _drive_pre(drive, post, weight, n_pre, n_post):
    batch, one = drive.size // n_pre, drive.dtype.type(1)
    multiply(drive, ZERO, n_pre, post, ZERO, n_post, ONE, weight, ZERO, n_pre, batch, n_post, n_pre, one, ONE)


@kernel
def _hebbian(trace, pre, post, scale, n_pre, n_post):
    batch = pre.size // n_pre
    multiply(trace, ZERO, n_pre, post, ZERO, ONE, n_post, pre, ZERO, n_pre, n_post, batch, n_pre, scale, ONE)


def energy(energy: NDArray, pre: NDArray, post: NDArray, weight: NDArray) -> None:
    """energy[b] -= post[b] . (W pre[b])."""
    n_post, n_pre = weight.shape
    batch, out = len(energy), flat_out(energy)
    pre, post = flat_in(pre, (batch, n_pre), out), flat_in(post, (batch, n_post), out)
    _energy(out, pre, post, flat_in(weight, (n_post, n_pre), out), n_pre, n_post)


def drive_post(drive: NDArray, pre: NDArray, weight: NDArray) -> None:
    """drive += pre W^T: what pre does to post."""
    batch, n_post, n_pre, out = *drive.shape, pre.shape[-1], flat_out(drive)
    scratch = np.empty((n_pre + n_post) * 2 * VECTOR_BYTES // out.itemsize, out.dtype)
    pre, weight = flat_in(pre, (batch, n_pre), out), flat_in(weight, (n_post, n_pre), out)
    _drive_post(out, pre, weight, n_pre, n_post, scratch)


def drive_pre(drive: NDArray, post: NDArray, weight: NDArray) -> None:
    """drive += post W: the same synapse read backwards."""
    batch, n_pre, n_post, out = *drive.shape, post.shape[-1], flat_out(drive)
    post, weight = flat_in(post, (batch, n_post), out), flat_in(weight, (n_post, n_pre), out)
    _drive_pre(out, post, weight, n_pre, n_post)


def hebbian(trace: NDArray, pre: NDArray, post: NDArray, scale: float) -> None:
    """trace += scale * post^T pre, summed over the batch."""
    n_post, n_pre, batch, out = *trace.shape, len(pre), flat_out(trace)
    pre, post = flat_in(pre, (batch, n_pre), out), flat_in(post, (batch, n_post), out)
    _hebbian(out, pre, post, out.dtype.type(scale), n_pre, n_post)
