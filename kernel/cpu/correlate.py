"""Correlation of features-first tiles with packed weights, and its adjoint.

A pixel's channels are neighbouring rows of a tile and a row of pixels is contiguous, so the taps of one kernel row are
one run of rows: an output pixel is a sum over kernel rows of (weights) x (a run), with no copy of the image. At the
borders the runs are clipped. The sums run in one order for every pixel and lane, whatever the batch.

The adjoint gathers. The pixels y of `pre` with (y + padding) mod stride = r meet only the taps r, r + stride, ..., so
each of the stride^2 phases is itself a correlation, of stride 1, with those taps turned round.

Weights are packed as the register block reads them, [block of rows][tap][input channel][row of the block], after a
block of zeros and one of biases, the two values a sum may start from. `shape` is what `shape_of` makes of a geometry.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..geometry import AVERAGE, NONE, ConvGeometry
from .compile import inline, kernel, never_inline
from .microkernel import PATCHES, VECTOR_BYTES, patch
from .tiles import ONE, ZERO

_patch_a, _patch_b, _patch1 = (patch(rows) for rows in PATCHES)
_HEIGHT, _LOW, _ = PATCHES
NUMBERS = len(ConvGeometry._fields) + 3  # of a shape: a ConvGeometry's, and three more
(
    PRE_H, PRE_W, PRE_C, MAP_H, MAP_W, POST_H, POST_W, POST_C, KERNEL, STRIDE, PADDING, POOL, WINDOW,
    TAPS, SPREAD, STEP,
) = tuple(np.arange(NUMBERS))  # fmt: skip


def shape_of(g: ConvGeometry) -> NDArray:
    """A geometry as the kernels take it, where an average of windows is a convolution too.

    It is one by the average of `spread` x `spread` kernels that lie `step` apart: wider by (spread - 1) step, but for
    one pixel in place of a window. So there is no pooling where a window is averaged, and `kernel` and `stride` are
    those of the wider kernel; `taps` is the side of what learns.
    """
    taps, step, spread = g.kernel, g.stride, g.window if g.pool == AVERAGE else 1
    if spread > 1:
        g = g._replace(
            map_height=g.post_height, map_width=g.post_width, pool=NONE, window=1,
            kernel=taps + (spread - 1) * step, stride=spread * step,
        )  # fmt: skip
    return np.array([*g, taps, spread, step])


@kernel
def block_of(left):
    """Rows of the register block that is used when `left` are left."""
    return _HEIGHT if left >= _HEIGHT else _LOW if left >= _LOW else 1


@inline
def sum_taps(count, c, c_at, c_row, keep, a, start, a_at, a_outer, a_inner, b, b_at, b_outer, b_inner, outer, inner):
    """`patch` of `count` rows, one of the heights that `block_of` gives."""
    if count == _HEIGHT:
        _patch_a(c, c_at, c_row, keep, a, start, a_at, a_outer, a_inner, b, b_at, b_outer, b_inner, outer, inner)
    elif count == _LOW:
        _patch_b(c, c_at, c_row, keep, a, start, a_at, a_outer, a_inner, b, b_at, b_outer, b_inner, outer, inner)
    else:
        _patch1(c, c_at, c_row, keep, a, start, a_at, a_outer, a_inner, b, b_at, b_outer, b_inner, outer, inner)


@kernel
def filter_size(shape):
    """Weights of one filter."""
    return shape[TAPS] * shape[TAPS] * shape[PRE_C]


@kernel
def kernel_size(shape):
    """Numbers of one kernel: a filter, or an average of filters."""
    return shape[KERNEL] * shape[KERNEL] * shape[PRE_C]


@kernel
def averaged_size(shape):
    """Elements of the averaged kernels, where there are any."""
    return shape[POST_C] * kernel_size(shape) if shape[SPREAD] > 1 else 0


@kernel
def packed_up(shape):
    """Elements of the packed weights of a correlation: zeros, biases, blocks."""
    return _HEIGHT + shape[POST_C] * (1 + kernel_size(shape))


@kernel
def packed_down(shape):
    """Elements of the packed weights of its adjoint: zeros, blocks."""
    return _HEIGHT + shape[POST_C] * kernel_size(shape)


@kernel
def biases_at(packed):
    """Where the biases are in weights packed at `packed`."""
    return packed + _HEIGHT


@kernel
def average_kernels(kernels, at, weight, weight_at, shape):
    """kernels (C_out, K, K, C_in) at `at` = the averages of weight (C_out, k, k, C_in)."""
    line, wide, spread = shape[TAPS] * shape[PRE_C], shape[KERNEL] * shape[PRE_C], shape[SPREAD]
    share = weight.dtype.type(1) / weight.dtype.type(spread * spread)
    kernels[at : at + averaged_size(shape)] = weight.dtype.type(0)
    for row in range(shape[POST_C] * shape[TAPS]):
        source = weight_at + row * line
        for y in range(spread):
            for x in range(spread):
                kernel_row = row // shape[TAPS] * shape[KERNEL] + row % shape[TAPS] + y * shape[STEP]
                place = at + kernel_row * wide + x * shape[STEP] * shape[PRE_C]
                for i in range(line):
                    kernels[place + i] += share * weight[source + i]


@kernel
def pack_up(packed, at, weight, weight_at, bias, bias_at, shape):
    """Pack weight (C_out, K, K, C_in) and, unless bias_at is negative, the biases (C_out,)."""
    rows, depth = shape[POST_C], kernel_size(shape)
    packed[at : at + _HEIGHT + rows] = packed.dtype.type(0)
    if bias_at >= 0:
        for i in range(rows):
            packed[at + _HEIGHT + i] = bias[bias_at + i]
    out, i = at + _HEIGHT + rows, 0
    while i < rows:
        count = block_of(rows - i)
        for k in range(depth):
            for r in range(count):
                packed[out] = weight[weight_at + (i + r) * depth + k]
                out += 1
        i += count


@kernel
def pack_down(packed, at, weight, weight_at, gain, shape):
    """Pack gain * weight for the adjoint, phase after phase of those that the map has a pixel of."""
    rows, depth, size, stride = shape[PRE_C], shape[POST_C], shape[KERNEL], shape[STRIDE]
    packed[at : at + _HEIGHT] = packed.dtype.type(0)
    out = at + _HEIGHT
    for y0 in range(min(stride, shape[PRE_H])):
        phase_y = (y0 + shape[PADDING]) % stride
        taps_y = taps_of(size, stride, phase_y)
        for x0 in range(min(stride, shape[PRE_W])):
            phase_x = (x0 + shape[PADDING]) % stride
            taps_x, i = taps_of(size, stride, phase_x), 0
            while i < rows:
                count = block_of(rows - i)
                for ty in range(taps_y):
                    y = phase_y + (taps_y - 1 - ty) * stride
                    for tx in range(taps_x):
                        x = phase_x + (taps_x - 1 - tx) * stride
                        for c in range(depth):
                            place = weight_at + ((c * size + y) * size + x) * rows + i
                            for r in range(count):
                                packed[out] = gain * weight[place + r]
                                out += 1
                i += count


@kernel
def taps_of(size, stride, phase):
    """Taps phase, phase + stride, ... of `size`."""
    return (size - phase + stride - 1) // stride


@kernel
def correlate(
    out, out_at, out_row, out_pixel, height, width, rows, source, source_at, source_h, source_w, depth,
    packed, start, start_step, blocks, taps_y, taps_x, stride, pad_y, pad_x, lanes,
):  # fmt: skip
    """out[y, x, :] = start + sum over taps of weights * source[y stride - pad_y + tap_y, x stride - pad_x + tap_x, :].

    y < height, x < width; pixels of `out` lie out_row and out_pixel apart. Channel i starts from
    packed[start + i start_step]; the weights follow from packed[blocks].
    """
    never_inline()
    vector = VECTOR_BYTES // out.itemsize
    run = taps_x * depth
    for y in range(height):
        top = y * stride - pad_y
        first_y, end_y = max(0, -top), min(taps_y, source_h - top)
        for x in range(width):
            left = x * stride - pad_x
            first_x, end_x = max(0, -left), min(taps_x, source_w - left)
            outer, inner, skip = end_y - first_y, (end_x - first_x) * depth, first_y * run + first_x * depth
            corner = source_at + ((top + first_y) * source_w + left + first_x) * depth * lanes
            pixel = out_at + y * out_row + x * out_pixel
            for lane in range(0, lanes, vector):
                i, weights = 0, blocks
                while i < rows:
                    count = block_of(rows - i)
                    sum_taps(
                        count, out, pixel + i * lanes + lane, lanes, ZERO,
                        packed, start + i * start_step, weights + skip * count, run * count, count,
                        source, corner + lane, source_w * depth * lanes, lanes, outer, inner,
                    )  # fmt: skip
                    weights += count * taps_y * run
                    i += count


@kernel
def correlate_up(tile, lanes, out, source, packed, biased, shape):
    """out (map before pooling) = K * source (+ bias); all are places in the tile."""
    rows, size = shape[POST_C], shape[KERNEL]
    start = biases_at(packed) if biased else packed
    correlate(
        tile, out, shape[MAP_W] * rows * lanes, rows * lanes, shape[MAP_H], shape[MAP_W], rows,
        tile, source, shape[PRE_H], shape[PRE_W], shape[PRE_C],
        tile, start, ONE if biased else ZERO, packed + _HEIGHT + rows,
        size, size, shape[STRIDE], shape[PADDING], shape[PADDING], lanes,
    )  # fmt: skip


@kernel
def correlate_down(tile, lanes, out, source, packed, shape):
    """out (pre) = gain * (the adjoint of K *) source (map before pooling); all are places in the tile."""
    rows, size, stride, padding = shape[PRE_C], shape[KERNEL], shape[STRIDE], shape[PADDING]
    blocks = packed + _HEIGHT
    for y0 in range(min(stride, shape[PRE_H])):
        phase_y = (y0 + padding) % stride
        taps_y = taps_of(size, stride, phase_y)
        pad_y = taps_y - 1 - (y0 + padding - phase_y) // stride
        for x0 in range(min(stride, shape[PRE_W])):
            phase_x = (x0 + padding) % stride
            taps_x = taps_of(size, stride, phase_x)
            pad_x = taps_x - 1 - (x0 + padding - phase_x) // stride
            correlate(
                tile, out + (y0 * shape[PRE_W] + x0) * rows * lanes,
                stride * shape[PRE_W] * rows * lanes, stride * rows * lanes,
                taps_of(shape[PRE_H], stride, y0), taps_of(shape[PRE_W], stride, x0), rows,
                tile, source, shape[MAP_H], shape[MAP_W], shape[POST_C],
                tile, packed, ZERO, blocks, taps_y, taps_x, ONE, pad_y, pad_x, lanes,
            )  # fmt: skip
            blocks += taps_y * taps_x * shape[POST_C] * rows
