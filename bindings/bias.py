"""Bias, Phi = b . post: post (B, n), weight (n,), or (C,) shared by the positions of a map: post (B, positions * C)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import EqkernelError
from .library import check, functions, reads, variant, writes


def energy(energy: NDArray, pre: None, post: NDArray, weight: NDArray) -> None:
    """energy[b] -= b . post[b]."""
    batch, n, run = len(energy), len(weight), functions(energy.dtype)
    rows = _rows(post.shape, batch, n)
    parts = energy if rows == batch else np.zeros(rows, energy.dtype)  # of each position
    post, weight = reads(post, post.shape, energy), reads(weight, (n,), energy)
    check(run.bias_energy(variant(), writes(parts), post, weight, rows, n))
    if parts is not energy:
        energy += parts.reshape(batch, -1).sum(axis=1)


def drive_post(drive: NDArray, pre: None, weight: NDArray) -> None:
    """drive += b."""
    n, run = len(weight), functions(drive.dtype)
    rows = _rows(drive.shape, len(drive), n)
    check(run.bias_drive_post(variant(), writes(drive), reads(weight, (n,), drive), rows, n))


def hebbian(trace: NDArray, pre: None, post: NDArray, scale: float) -> None:
    """trace += scale * post, summed over the batch."""
    (n,), run = trace.shape, functions(trace.dtype)
    rows = _rows(post.shape, len(post), n)
    check(run.bias_hebbian(variant(), writes(trace), reads(post, post.shape, trace), scale, rows, n))


def _rows(shape: tuple[int, ...], batch: int, n: int) -> int:
    """Rows of n numbers that an array (batch, positions * n) of that shape holds; EqkernelError if it is none."""
    if len(shape) != 2 or shape[0] != batch or shape[1] % n:
        raise EqkernelError(f"an array of shape {shape} meets others that want ({batch}, {n}), or a multiple of {n}")
    return batch * shape[1] // n
