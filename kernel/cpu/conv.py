"""Convolution, Phi(pre, post) = <post, P(K * pre)>: flat maps (B, n), channels last, weight (C_out, k, k, C_in).

`geometry` is a ConvGeometry; `winners` (B, n_post) are the frozen places of max pooling, None without it. What is
written must be C-contiguous; what is read may have any layout. Equivalent to the reference verbs; each sample's result
is the same bits whatever its batch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import EqkernelError
from ..geometry import MAX, NONE, ConvGeometry
from .arrays import flat_in, flat_out
from .compile import kernel
from .correlate import (
    MAP_H,
    MAP_W,
    POOL,
    POST_C,
    POST_H,
    POST_W,
    PRE_C,
    PRE_H,
    PRE_W,
    SPREAD,
    average_kernels,
    averaged_size,
    biases_at,
    correlate_down,
    correlate_up,
    pack_down,
    pack_up,
    packed_down,
    packed_up,
    shape_of,
)
from .gemm import transpose
from .microkernel import VECTOR_BYTES
from .pooling import choose_winners, pool, unpool
from .tiles import ONE, ZERO
from .trace import begin_trace, end_trace, sum_batch, trace_room


@kernel
def sizes_of(shape):
    """Neurons of pre, of the map before pooling, of post."""
    return (
        shape[PRE_H] * shape[PRE_W] * shape[PRE_C],
        shape[MAP_H] * shape[MAP_W] * shape[POST_C],
        shape[POST_H] * shape[POST_W] * shape[POST_C],
    )


@kernel
def up_through(tile, lanes, out, source, winners, room, packed, biased, choosing, shape):
    """out (post) = P(K * source) (+ bias) in a tile; with max pooling the `winners` there win, chosen anew if asked.

    All are places in the tile; `room` is for the map before pooling, and no more than read where there is no pooling.
    """
    if shape[POOL] == NONE:
        correlate_up(tile, lanes, out, source, packed, biased, shape)
        return
    width = shape[POST_C] * lanes
    correlate_up(tile, lanes, room, source, packed, ZERO, shape)
    if choosing:
        choose_winners(tile, winners, tile, room, tile, out, width, shape)
    else:
        pool(tile, out, tile, room, tile, winners, width, shape)
    if biased:
        add_bias(tile, lanes, out, packed, shape)


@kernel
def add_bias(tile, lanes, out, packed, shape):
    channels, bias = shape[POST_C], biases_at(packed)
    for i in range(shape[POST_H] * shape[POST_W] * channels):
        row = tile[out + i * lanes : out + (i + 1) * lanes]
        for b in range(lanes):
            row[b] += tile[bias + i % channels]


@kernel
def down_through(tile, lanes, out, source, winners, room, packed, shape):
    """out (pre) = gain * (the adjoint of P(K * .)) source (post) in a tile; arguments as in `up_through`."""
    if shape[POOL] != NONE:
        unpool(tile, room, tile, source, tile, winners, shape[POST_C] * lanes, shape)
        correlate_down(tile, lanes, out, room, packed, shape)
    else:
        correlate_down(tile, lanes, out, source, packed, shape)


@kernel
def _load(scratch, at, lanes, source, first, count, features):
    scratch[at : at + features * lanes] = scratch.dtype.type(0)
    transpose(scratch, at, lanes, source, first * features, features, count, features)


@kernel
def _store(out, scratch, at, lanes, first, count, features, back):
    transpose(scratch, back, features, scratch, at, lanes, features, count)
    for i in range(count * features):
        out[first * features + i] += scratch[back + i]


@kernel
def scratch_for(lanes, shape):
    """Elements of working memory of the drive verbs: a tile of pre, map, post, winners and one state, the weights."""
    n_pre, n_map, n_post = sizes_of(shape)
    weights = max(packed_up(shape), packed_down(shape)) + averaged_size(shape)
    return (n_pre + n_map + 2 * n_post + max(n_pre, n_post)) * lanes + weights


@kernel
def pack_kernels(packed, up, down, room, weight, weight_at, bias, bias_at, gain, shape):
    """Pack weights and biases for the way up at `up` and, times gain, for the way down at `down`; negative for neither.

    All but the weights are places in `packed`; `room` is for averaged kernels.
    """
    if shape[SPREAD] > 1:
        average_kernels(packed, room, weight, weight_at, shape)
        _pack(packed, up, down, packed, room, bias, bias_at, gain, shape)
    else:
        _pack(packed, up, down, weight, weight_at, bias, bias_at, gain, shape)


@kernel
def _pack(packed, up, down, kernels, kernels_at, bias, bias_at, gain, shape):
    if up >= 0:
        pack_up(packed, up, kernels, kernels_at, bias, bias_at, shape)
    if down >= 0:
        pack_down(packed, down, kernels, kernels_at, gain, shape)


@kernel
def _drive(drive, source, weight, winners, shape, upwards, choosing, scratch):
    """Both drives, tile by tile; with `choosing` the winners are what is written."""
    lanes = VECTOR_BYTES // scratch.itemsize
    n_pre, n_map, n_post = sizes_of(shape)
    n_in, n_out = (n_pre, n_post) if upwards else (n_post, n_pre)
    pre, room, post = ZERO, n_pre * lanes, (n_pre + n_map) * lanes
    chosen = post + n_post * lanes
    back = chosen + n_post * lanes
    packed = back + max(n_pre, n_post) * lanes
    up, down = (packed, -ONE) if upwards else (-ONE, packed)
    averaged = packed + max(packed_up(shape), packed_down(shape))
    pack_kernels(scratch, up, down, averaged, weight, ZERO, weight, -ONE, scratch.dtype.type(1), shape)
    for first in range(0, source.size // n_in, lanes):
        count = min(lanes, source.size // n_in - first)
        if winners.size and not choosing:
            _load(scratch, chosen, lanes, winners, first, count, n_post)
        _load(scratch, pre if upwards else post, lanes, source, first, count, n_in)
        if upwards:
            up_through(scratch, lanes, post, pre, chosen, room, packed, ZERO, choosing, shape)
        else:
            down_through(scratch, lanes, pre, post, chosen, room, packed, shape)
        if choosing:
            _store(winners, scratch, chosen, lanes, first, count, n_post, back)
        else:
            _store(drive, scratch, post if upwards else pre, lanes, first, count, n_out, back)


@kernel
def _hebbian(trace, pre, post, winners, scale, shape, room):
    n_pre, _, _ = sizes_of(shape)
    begin_trace(room, ZERO, shape[POST_C], shape)
    sum_batch(room, pre, ZERO, post, ZERO, winners, ZERO, pre.size // n_pre, ZERO, shape[POST_C], shape)
    end_trace(trace, room, ZERO, shape[POST_C], scale, shape)


def _run(
    out: NDArray, source: NDArray, weight: NDArray, geometry: ConvGeometry, winners: NDArray | None, up: bool
) -> None:
    batch, target, shape = len(source), flat_out(out), shape_of(geometry)
    n_in, n_out = (geometry.n_pre, geometry.n_post) if up else (geometry.n_post, geometry.n_pre)
    _check_shape(out, (batch, n_out))
    scratch = np.empty(scratch_for(VECTOR_BYTES // target.itemsize, shape), target.dtype)
    source, weight = flat_in(source, (batch, n_in), target), flat_in(weight, geometry.weight_shape, target)
    _drive(target, source, weight, _flat_winners(winners, batch, geometry, target), shape, up, False, scratch)


def _check_shape(out: NDArray, shape: tuple[int, ...]) -> None:
    if out.shape != shape:
        raise EqkernelError(f"an array of shape {out.shape} is to be written by others that give {shape}")


def _flat_winners(winners: NDArray | None, batch: int, geometry: ConvGeometry, like: NDArray) -> NDArray:
    """The winners as the kernels read them, in the type of the states."""
    if geometry.pool != MAX:
        return np.empty(0, like.dtype)
    if winners is None:
        raise EqkernelError("max pooling needs `winners`, which `choose` writes")
    return flat_in(winners, (batch, geometry.n_post), like)


def energy(
    energy: NDArray, pre: NDArray, post: NDArray, weight: NDArray, geometry: ConvGeometry, winners: NDArray | None
) -> None:
    """energy[b] -= <post[b], P(K * pre[b])>."""
    drive = np.zeros((len(energy), geometry.n_post), energy.dtype)
    _check_shape(post, drive.shape)
    drive_post(drive, pre, weight, geometry, winners)
    energy -= np.sum(post * drive, axis=1)


def drive_post(drive: NDArray, pre: NDArray, weight: NDArray, geometry: ConvGeometry, winners: NDArray | None) -> None:
    """drive += P(K * pre): what pre does to post."""
    _run(drive, pre, weight, geometry, winners, up=True)


def drive_pre(drive: NDArray, post: NDArray, weight: NDArray, geometry: ConvGeometry, winners: NDArray | None) -> None:
    """drive += K^T P^T post: the same synapses read backwards."""
    _run(drive, post, weight, geometry, winners, up=False)


def hebbian(
    trace: NDArray, pre: NDArray, post: NDArray, scale: float, geometry: ConvGeometry, winners: NDArray | None
) -> None:
    """trace += scale * the correlation of P^T post with pre, summed over the batch."""
    batch, out, shape = len(pre), flat_out(trace), shape_of(geometry)
    _check_shape(trace, geometry.weight_shape)
    pre, post = flat_in(pre, (batch, geometry.n_pre), out), flat_in(post, (batch, geometry.n_post), out)
    winners = _flat_winners(winners, batch, geometry, out)
    room = np.empty(trace_room(shape, geometry.post_channels, VECTOR_BYTES // out.itemsize), out.dtype)
    _hebbian(out, pre, post, winners, out.dtype.type(scale), shape, room)


def choose(winners: NDArray, pre: NDArray, weight: NDArray, geometry: ConvGeometry) -> None:
    """winners = the place in each window where K * pre is largest, the first of equals."""
    batch, shape = len(pre), shape_of(geometry)
    _check_shape(winners, (batch, geometry.n_post))
    found = np.zeros(winners.size, weight.dtype)
    scratch = np.empty(scratch_for(VECTOR_BYTES // found.itemsize, shape), found.dtype)
    pre, weight = flat_in(pre, (batch, geometry.n_pre), found), flat_in(weight, geometry.weight_shape, found)
    _drive(found, pre, weight, found, shape, True, True, scratch)
    winners[...] = found.reshape(winners.shape)
