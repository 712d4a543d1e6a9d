"""Convolution, Phi(pre, post) = <post, P(K * pre)>: flat maps (B, n), channels last, weight (C_out, k, k, C_in).

`geometry` is a ConvGeometry; `winners` (B, n_post) are the frozen places of max pooling, None without it. What is
written must be C-contiguous; what is read may have any layout. Equivalent to the reference verbs; each sample's result
is the same bits whatever its batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EqkernelError
from ..geometry import MAX, ConvGeometry
from .library import check, check_shape, ffi, functions, reads, variant, writes


def energy(
    energy: NDArray, pre: NDArray, post: NDArray, weight: NDArray, geometry: ConvGeometry, winners: NDArray | None
) -> None:
    """energy[b] -= <post[b], P(K * pre[b])>."""
    batch, g, run = len(energy), geometry, functions(energy.dtype)
    pre, post = reads(pre, (batch, g.n_pre), energy), reads(post, (batch, g.n_post), energy)
    _call(run.conv_energy, energy, (batch,), (pre, post, _weight(weight, g, energy)), winners, g, batch)


def drive_post(drive: NDArray, pre: NDArray, weight: NDArray, geometry: ConvGeometry, winners: NDArray | None) -> None:
    """drive += P(K * pre): what pre does to post."""
    batch, g, run = len(drive), geometry, functions(drive.dtype)
    arrays = reads(pre, (batch, g.n_pre), drive), _weight(weight, g, drive)
    _call(run.conv_drive_post, drive, (batch, g.n_post), arrays, winners, g, batch)


def drive_pre(drive: NDArray, post: NDArray, weight: NDArray, geometry: ConvGeometry, winners: NDArray | None) -> None:
    """drive += K^T P^T post: the same synapses read backwards."""
    batch, g, run = len(drive), geometry, functions(drive.dtype)
    arrays = reads(post, (batch, g.n_post), drive), _weight(weight, g, drive)
    _call(run.conv_drive_pre, drive, (batch, g.n_pre), arrays, winners, g, batch)


def hebbian(
    trace: NDArray, pre: NDArray, post: NDArray, scale: float, geometry: ConvGeometry, winners: NDArray | None
) -> None:
    """trace += scale * the correlation of P^T post with pre, summed over the batch."""
    batch, g, run = len(pre), geometry, functions(trace.dtype)
    arrays = reads(pre, (batch, g.n_pre), trace), reads(post, (batch, g.n_post), trace), float(scale)
    _call(run.conv_hebbian, trace, g.weight_shape, arrays, winners, g, batch)


def choose(winners: NDArray, pre: NDArray, weight: NDArray, geometry: ConvGeometry) -> None:
    """winners = the place in each window where K * pre is largest, the first of equals."""
    batch, g = len(pre), geometry
    check_shape(winners, (batch, g.n_post))
    found = np.zeros(winners.shape, np.int32)
    conv, work = _prepare(g, weight.dtype)
    pre, weight = reads(pre, (batch, g.n_pre), weight), _weight(weight, g, weight)
    run, places = functions(work.dtype), ffi.from_buffer("int32_t[]", found)
    check(run.conv_choose(variant(), places, pre, weight, conv, batch, ffi.from_buffer(work), work.nbytes))
    winners[...] = found


def _call(
    verb: Any, out: NDArray, shape: tuple[int, ...], arrays: tuple[Any, ...], winners: NDArray | None,
    geometry: ConvGeometry, batch: int,
) -> None:  # fmt: skip
    check_shape(out, shape)
    places = ffi.NULL
    if geometry.pool == MAX:
        if winners is None:
            raise EqkernelError("max pooling needs `winners`, which `choose` writes")
        check_shape(winners, (batch, geometry.n_post))
        places = ffi.from_buffer("int32_t[]", np.require(winners, np.int32, ["C", "A"]))
    conv, work = _prepare(geometry, out.dtype)
    check(verb(variant(), writes(out), *arrays, places, conv, batch, ffi.from_buffer(work), work.nbytes))


def _prepare(geometry: ConvGeometry, dtype: np.dtype) -> tuple[Any, NDArray]:
    """The convolution as the library takes it, and its working memory."""
    g = geometry
    sides = (g.pre_height, g.pre_width, g.pre_channels, g.post_channels, g.kernel, g.stride, g.padding)
    conv = ffi.new("eqk_conv *", (*sides, g.pool, g.window))
    return conv, np.empty(functions(dtype).conv_workspace(conv) // dtype.itemsize, dtype)


def _weight(weight: NDArray, geometry: ConvGeometry, like: NDArray) -> Any:
    return reads(weight, geometry.weight_shape, like)
