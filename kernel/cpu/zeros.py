"""Products that skip zeros, to the bits of those that do not: fma(0, w, sum) = sum for a finite w and a sum from +0.

Images and states of hard sigmoids hold many exact zeros. In a Hebbian product, C = alpha * sum_b post[b] pre[b]^T, the
numbers of one side are taken singly: of each of its units the samples in which it is not zero are the bits of a word,
and the sum runs over the bits, in the order of the samples, along vectors of the other side. What is not finite is no
zero and has its bit. The other side must be finite, or 0 * inf = NaN would be lost: `all_finite` says whether it is,
and if not, nothing is skipped.

In the drive of a tile, C = W S, whose lanes are samples, a row of S is skipped that is zero in all of them: W must be
finite.
"""

from __future__ import annotations

import numpy as np

from .arithmetic import maximum
from .compile import kernel, never_inline
from .gather import gather, get_word, nonzeros, ones, put_place, put_word, spoilt
from .gemm import multiply, transpose
from .microkernel import VECTOR_BYTES, WIDE, transpose_square
from .tiles import ONE, ZERO

# Typed integers, as in `tiles`.
SAMPLES = ONE * 64  # of a word: so many times 7 vectors stay in a cache of 32 KB
BLOCK = ONE * 64  # postsynaptic units at a time
DENSE, BY_POST, BY_PRE = tuple(np.arange(3))

_gather7, _gather4, _gather2, _gather1 = (gather(1, vectors) for vectors in (7, 4, 2, 1))
_pair4, _pair2, _pair1 = (gather(2, vectors) for vectors in (4, 2, 1))


@kernel
def all_finite(values):
    """Whether no number is infinite or NaN."""
    never_inline()
    four = 4 * VECTOR_BYTES // values.itemsize
    rest = values.size // four * four
    largest = values.dtype.type(0)
    for i in range(rest, values.size):
        largest = maximum(largest, abs(values[i]))
    return largest - largest == 0 and spoilt(values, values.size // four) == 0


@kernel
def list_rows(tile, lists, sums, source, lanes, depth):
    """Of the rows k = r, r + sums, ... < depth of a tile from `source` on, list (k - r) / sums where not all is zero.

    One list after the other for r = 0, 1, ..., of depth / sums + 2 elements: how many are listed, then they.
    """
    never_inline()
    last = lanes - VECTOR_BYTES // tile.itemsize  # a tile has one vector or two
    for r in range(sums):
        at, count = lists + r * (depth // sums + 2), ZERO
        for j in range((depth - r + sums - 1) // sums):
            row = source + (r + j * sums) * lanes
            put_place(tile, at + 1 + count, j)
            count += (nonzeros(tile, row) | nonzeros(tile, row + last)) != 0
        put_place(tile, at, count)


@kernel
def listed(a, at, row, rows, columns):
    """The share of numbers that are not zero among (rows, columns) of them, rows apart, and of pairs of neighbours."""
    never_inline()
    vector = VECTOR_BYTES // a.itemsize
    whole = columns // vector * vector
    single = pairs = ZERO
    for i in range(at, at + rows * row, row):
        for j in range(i, i + whole, vector):
            bits = nonzeros(a, j)
            single += ones(bits)
            pairs += 2 * ones((bits | bits >> 1) & 0x5555)
        for j in range(i + whole, i + columns):
            single += a[j] != 0
    return single / (rows * columns), (pairs + rows * (columns - whole)) / (rows * columns)


@kernel
def way_of(post, post_at, n_post, pre, pre_at, n_pre, rows, batch, clamped):
    """How a Hebbian product is made fastest: DENSE, BY_POST or, of the clamped input alone, BY_PRE.

    Measured on AVX-512, in units of the dense product: lists cost a tenth to make, and a number in one costs .9 to 1.2.
    """
    single, _ = listed(post, post_at, n_post, batch, rows)
    way, cost = DENSE, 1.0
    if 0.15 + 1.2 * single < cost:
        way, cost = BY_POST, 0.15 + 1.2 * single
    if clamped and batch <= SAMPLES:
        _, pairs = listed(pre, pre_at, n_pre, batch, n_pre)
        if 0.22 + 0.95 * pairs < cost:
            way = BY_PRE
    if way == BY_POST and not all_finite(pre[pre_at : pre_at + batch * n_pre]):
        return DENSE
    if way == BY_PRE and not all_finite(post[post_at : post_at + (batch - 1) * n_post + rows]):
        return DENSE
    return way


@kernel
def pack(room, packed, row, source, at, source_row, rows, columns):
    """room[packed:], its rows `row` apart, = source[at:] (rows, columns), its rows source_row apart.

    Rows of a power of two would meet in few sets of the cache.
    """
    for b in range(rows):
        to, given = room[packed + b * row :], source[at + b * source_row :]
        for i in range(columns):
            to[i] = given[i]


@kernel
def hebbian_room(n_pre, vector):
    """Elements of room of a product: its result; partial sums or all of pre; post or some sums; words; packed post."""
    return BLOCK * (n_pre + SAMPLES + 2) + SAMPLES * max(BLOCK, 7 * vector) + (SAMPLES + 1) * n_pre


@kernel
def word_of(values, at, samples):
    """A bit for each of so many values from `at` on that is not zero; samples <= SAMPLES."""
    word = ZERO
    for b in range(0, samples, VECTOR_BYTES // values.itemsize):
        word |= nonzeros(values, at + b) << b
    return word & (((ONE + ONE) << (samples - 1)) - 1)


@kernel
def by_post(room, post, post_at, n_post, pre, pre_at, n_pre, rows, batch, alpha, keep):
    """room[:] (rows, n_pre) = alpha * sum_b post[b]^T pre[b] (+ itself if keep), zeros of post skipped; rows <= BLOCK.

    What is in `room` after the result is scratch.
    """
    never_inline()
    vector = VECTOR_BYTES // room.itemsize
    whole, wide = n_pre // vector * vector, 7 * vector
    partial = BLOCK * n_pre  # sums over the samples so far
    units = partial + BLOCK * n_pre
    words = units + BLOCK * SAMPLES
    packed = words + 2 * BLOCK
    for first in range(0, batch, SAMPLES):
        samples = min(SAMPLES, batch - first)
        transpose(room, units, SAMPLES, post, post_at + first * n_post, n_post, samples, rows)
        for i in range(rows):
            put_word(room, words + 2 * i, word_of(room, units + i * SAMPLES, samples))
        last = first + samples == batch
        to, gain, add = (ZERO, alpha, keep) if last else (partial, room.dtype.type(1), ZERO)
        j = ZERO
        while j < whole:
            left = (whole - j) // vector
            vectors = 7 if left >= 7 else 4 if left >= 4 else 2 if left >= 2 else 1
            pack(room, packed, wide, pre, pre_at + first * n_pre + j, n_pre, samples, vectors * vector)
            for i in range(rows):
                values, word, c = units + i * SAMPLES, get_word(room, words + 2 * i), i * n_pre + j
                old = partial + c if first > 0 else -ONE
                if vectors == 7:
                    _gather7(room, to + c, ZERO, old, values, ZERO, word, packed, wide, gain, add)
                elif vectors == 4:
                    _gather4(room, to + c, ZERO, old, values, ZERO, word, packed, wide, gain, add)
                elif vectors == 2:
                    _gather2(room, to + c, ZERO, old, values, ZERO, word, packed, wide, gain, add)
                else:
                    _gather1(room, to + c, ZERO, old, values, ZERO, word, packed, wide, gain, add)
            j += vectors * vector
    multiply(
        room, whole, n_pre, post, post_at, ONE, n_post, pre, pre_at + whole, n_pre,
        rows, batch, n_pre - whole, alpha, keep,
    )  # fmt: skip


@kernel
def list_pre(room, pre, pre_at, n_pre, batch):
    """What `by_pre` reads of pre, whose units are taken in pairs; batch <= SAMPLES."""
    never_inline()
    units = BLOCK * n_pre
    words = units + n_pre * SAMPLES
    transpose(room, units, SAMPLES, pre, pre_at, n_pre, batch, n_pre)
    for i in range(0, n_pre - 1, 2):
        at = units + i * SAMPLES
        put_word(room, words + i, word_of(room, at, batch) | word_of(room, at + SAMPLES, batch))


@kernel
def by_pre(room, post, post_at, n_post, pre, pre_at, n_pre, rows, batch, alpha):
    """room[:] (rows, n_pre) = alpha * sum_b post[b]^T pre[b], zeros of pre skipped; rows <= BLOCK, `list_pre` before.

    Pairs share the loads of post. The sums of a few pairs, in scratch, are one square after another transposed.
    """
    never_inline()
    vector = VECTOR_BYTES // room.itemsize
    whole, whole_rows = n_pre // vector * vector, rows // vector * vector
    units = BLOCK * n_pre
    words = units + n_pre * SAMPLES
    packed = words + n_pre
    square = packed + SAMPLES * BLOCK
    pack(room, packed, BLOCK, post, post_at, n_post, batch, whole_rows)
    for j in range(0, whole, vector):
        for p in range(j, j + vector, 2):
            word, values = get_word(room, words + p), units + p * SAMPLES
            i, c = 0, square + (p - j) * BLOCK
            while i < whole_rows:
                left = (whole_rows - i) // vector
                if WIDE and left >= 4:  # sums for 16 registers of 256 bits
                    _pair4(room, c + i, BLOCK, -ONE, values, SAMPLES, word, packed + i, BLOCK, alpha, ZERO)
                elif left >= 2:
                    _pair2(room, c + i, BLOCK, -ONE, values, SAMPLES, word, packed + i, BLOCK, alpha, ZERO)
                else:
                    _pair1(room, c + i, BLOCK, -ONE, values, SAMPLES, word, packed + i, BLOCK, alpha, ZERO)
                i += (4 if WIDE and left >= 4 else 2 if left >= 2 else 1) * vector
        for i in range(0, whole_rows, vector):
            transpose_square(room, i * n_pre + j, n_pre, room, square + i, BLOCK)
    multiply(
        room, whole, n_pre, post, post_at, ONE, n_post, pre, pre_at + whole, n_pre,
        whole_rows, batch, n_pre - whole, alpha, ZERO,
    )  # fmt: skip
    multiply(
        room, whole_rows * n_pre, n_pre, post, post_at + whole_rows, ONE, n_post, pre, pre_at, n_pre,
        rows - whole_rows, batch, n_pre, alpha, ZERO,
    )  # fmt: skip
