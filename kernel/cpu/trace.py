"""The Hebbian trace of a convolution, from samples-first maps with their channels last.

    trace[o, u, v, c] += scale sum_B,i,j post[i, j, o] pre[S i + u - p, S j + v - p, c]

For one kernel row u the taps (v, c) are neighbours in a row of pixels, so they make the vectors, and a sum over map
pixels i, j stays in registers. Pre is copied into a frame of zeros, one sample at a time; what a vector reads beyond
the last tap is not used. Where windows are averaged the sums are those of the wider kernel.
"""

from __future__ import annotations

from ..geometry import NONE
from .compile import kernel, never_inline
from .correlate import (
    KERNEL,
    MAP_H,
    MAP_W,
    PADDING,
    POOL,
    POST_C,
    POST_H,
    POST_W,
    PRE_C,
    PRE_H,
    PRE_W,
    SPREAD,
    STEP,
    STRIDE,
    TAPS,
    block_of,
    sum_taps,
)
from .microkernel import VECTOR_BYTES
from .pooling import unpool
from .tiles import ONE


@kernel
def columns_of(shape, vector):
    """Elements of the sums of one kernel row, whole vectors."""
    return (shape[KERNEL] * shape[PRE_C] + vector - 1) // vector * vector


@kernel
def framed(shape):
    """Elements of pre in its frame of zeros."""
    return (shape[PRE_H] + 2 * shape[PADDING]) * (shape[PRE_W] + 2 * shape[PADDING]) * shape[PRE_C]


@kernel
def trace_room(shape, rows, vector):
    """Elements of scratch for the trace of so many rows: sums, the framed pre, and the map before pooling or a line."""
    unpooled = shape[MAP_H] * shape[MAP_W] * shape[POST_C] if shape[POOL] != NONE else 0
    line = shape[TAPS] * shape[PRE_C] if shape[SPREAD] > 1 else 0
    return rows * shape[KERNEL] * columns_of(shape, vector) + framed(shape) + vector + max(unpooled, line)


@kernel
def frame(out, out_at, source, source_at, shape):
    """Copy a map into the middle of its frame."""
    row, padding = shape[PRE_W] * shape[PRE_C], shape[PADDING]
    wide = (shape[PRE_W] + 2 * padding) * shape[PRE_C]
    for y in range(shape[PRE_H]):
        at = out_at + (y + padding) * wide + padding * shape[PRE_C]
        for i in range(row):
            out[at + i] = source[source_at + y * row + i]


@kernel
def sum_sample(room, source, source_at, begin, end, framed_at, columns, shape):
    """Add one sample to the sums; `source` is its map before pooling."""
    never_inline()
    vector = VECTOR_BYTES // room.itemsize
    channels, row = shape[PRE_C], shape[KERNEL] * columns
    wide = (shape[PRE_W] + 2 * shape[PADDING]) * channels
    step, pixel, line = shape[STRIDE], shape[POST_C], shape[MAP_W] * shape[POST_C]
    for u in range(shape[KERNEL]):
        for v in range(0, columns, vector):
            i = begin
            while i < end:
                count = block_of(end - i)
                to, a, b = (i - begin) * row + u * columns + v, source_at + i, framed_at + u * wide + v
                sum_taps(
                    count, room, to, row, ONE, source, a, a, line, pixel,
                    room, b, step * wide, step * channels, shape[MAP_H], shape[MAP_W],
                )  # fmt: skip
                i += count


@kernel
def begin_trace(room, begin, end, shape):
    """Empty sums and an empty frame."""
    vector = VECTOR_BYTES // room.itemsize
    room[: (end - begin) * shape[KERNEL] * columns_of(shape, vector) + framed(shape) + vector] = room.dtype.type(0)


@kernel
def sum_batch(room, pre, pre_at, post, post_at, winners, winners_at, batch, begin, end, shape):
    """Add a batch of pre (B, n_pre), post (B, n_post) to the sums of rows begin..end."""
    vector = VECTOR_BYTES // room.itemsize
    columns = columns_of(shape, vector)
    framed_at = (end - begin) * shape[KERNEL] * columns
    map_at = framed_at + framed(shape) + vector
    n_pre = shape[PRE_H] * shape[PRE_W] * shape[PRE_C]
    n_post = shape[POST_H] * shape[POST_W] * shape[POST_C]
    for b in range(batch):
        frame(room, framed_at, pre, pre_at + b * n_pre, shape)
        if shape[POOL] != NONE:
            unpool(room, map_at, post, post_at + b * n_post, winners, winners_at + b * n_post, shape[POST_C], shape)
            sum_sample(room, room, map_at, begin, end, framed_at, columns, shape)
        else:
            sum_sample(room, post, post_at + b * n_post, begin, end, framed_at, columns, shape)


@kernel
def end_trace(trace, room, begin, end, scale, shape):
    """trace (end - begin, k, k, C_in) += scale * the sums.

    Where kernels were averaged a tap has a share in several, which are added up first: one by one they would be lost
    beside a large trace.
    """
    taps, spread, vector = shape[TAPS], shape[SPREAD], VECTOR_BYTES // room.itemsize
    line, share, columns = taps * shape[PRE_C], scale / trace.dtype.type(spread * spread), columns_of(shape, vector)
    after = (end - begin) * shape[KERNEL] * columns + framed(shape) + vector
    for row in range((end - begin) * taps):
        total = (row // taps * shape[KERNEL] + row % taps) * columns
        if spread > 1:
            sums, total = total, after
            room[total : total + line] = room.dtype.type(0)
            for y in range(spread):
                for x in range(spread):
                    at = sums + y * shape[STEP] * columns + x * shape[STEP] * shape[PRE_C]
                    for i in range(line):
                        room[total + i] += room[at + i]
        for i in range(line):
            trace[row * line + i] += share * room[total + i]
