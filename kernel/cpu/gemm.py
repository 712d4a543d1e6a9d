"""Matrix products built from the register block: C += alpha * A B in the two shapes the kernels need."""

from __future__ import annotations

from .arithmetic import fma
from .compile import kernel, never_inline
from .microkernel import VECTOR_BYTES, block, dots, transpose_square
from .tiles import ONE, ZERO

# 14 rows x 2 vectors fill the 32 registers, 10 rows fit ten classes, 4 and 1 finish. (Numba sees plain names only.)
_wide14, _wide10, _wide4, _wide1 = (block(rows, 2) for rows in (14, 10, 4, 1))
_narrow14, _narrow10, _narrow4, _narrow1 = (block(rows, 1) for rows in (14, 10, 4, 1))
_row8 = block(1, 8)
_dots1, _dots2 = dots(1), dots(2)


@kernel
def panel(c, c_at, c_row, a, a_at, a_row, a_step, b, b_at, b_row, rows, depth, alpha, keep, vectors):
    """C[i, :] = alpha * sum_k A[i, k] B[k, :] (+ C[i, :] if keep) for one panel of 1 or 2 vectors of columns.

    All arrays are flat; `*_at` is where the operand starts, `*_row` the distance of its rows, `a_step` the distance of
    neighbours along k in A. C must not overlap A or B.
    """
    never_inline()
    i = 0
    while i < rows:
        left, ci, ai = rows - i, c_at + i * c_row, a_at + i * a_row
        if vectors == 2:
            if left >= 14:
                _wide14(c, ci, c_row, a, ai, a_row, a_step, b, b_at, b_row, depth, alpha, keep)
            elif left >= 10:
                _wide10(c, ci, c_row, a, ai, a_row, a_step, b, b_at, b_row, depth, alpha, keep)
            elif left >= 4:
                _wide4(c, ci, c_row, a, ai, a_row, a_step, b, b_at, b_row, depth, alpha, keep)
            else:
                _wide1(c, ci, c_row, a, ai, a_row, a_step, b, b_at, b_row, depth, alpha, keep)
        else:
            if left >= 14:
                _narrow14(c, ci, c_row, a, ai, a_row, a_step, b, b_at, b_row, depth, alpha, keep)
            elif left >= 10:
                _narrow10(c, ci, c_row, a, ai, a_row, a_step, b, b_at, b_row, depth, alpha, keep)
            elif left >= 4:
                _narrow4(c, ci, c_row, a, ai, a_row, a_step, b, b_at, b_row, depth, alpha, keep)
            else:
                _narrow1(c, ci, c_row, a, ai, a_row, a_step, b, b_at, b_row, depth, alpha, keep)
        i += 14 if left >= 14 else 10 if left >= 10 else 4 if left >= 4 else 1


@kernel
def multiply_add(c, c_at, c_row, a, a_at, a_row, a_step, b, b_at, b_row, rows, depth, columns, alpha):
    """C[i, j] += alpha * sum_k A[i, k] B[k, j] for any number of columns, C and B with unit column stride."""
    never_inline()
    vector = VECTOR_BYTES // c.itemsize
    j = 0
    while j + vector <= columns:
        vectors = 2 if j + 2 * vector <= columns else 1
        panel(c, c_at + j, c_row, a, a_at, a_row, a_step, b, b_at + j, b_row, rows, depth, alpha, ONE, vectors)
        j += vectors * vector
    for i in range(rows):
        for q in range(j, columns):
            total = c.dtype.type(0)
            for k in range(depth):
                total += a[a_at + i * a_row + k * a_step] * b[b_at + k * b_row + q]
            c[c_at + i * c_row + q] += alpha * total


@kernel
def times_vector(c, c_at, a, a_at, a_row, a_step, x, x_at, rows, depth, alpha, keep, room_at):
    """c[i] = alpha * sum_k A[i, k] x[k] (+ c[i] if keep): `panel` for one sample, to the same bits.

    One of A's strides must be 1. c, with two vectors of scratch at room_at, must not overlap A or x.
    """
    never_inline()
    vector = VECTOR_BYTES // c.itemsize
    i = ZERO
    if a_row == 1:  # A is read backwards: rows of its transpose, each times one x[k]
        while i + vector <= rows:
            if i + 8 * vector <= rows:
                _row8(c, c_at + i, ZERO, x, x_at, ZERO, ONE, a, a_at + i, a_step, depth, alpha, keep)
                i += 8 * vector
            elif i + 2 * vector <= rows:
                _wide1(c, c_at + i, ZERO, x, x_at, ZERO, ONE, a, a_at + i, a_step, depth, alpha, keep)
                i += 2 * vector
            else:
                _narrow1(c, c_at + i, ZERO, x, x_at, ZERO, ONE, a, a_at + i, a_step, depth, alpha, keep)
                i += vector
    whole = depth // vector * vector if a_row != 1 else ZERO
    while i < rows:
        count = min(rows - i, 2 * vector)
        total = c[room_at : room_at + count]
        if a_row == 1:
            total[:] = c.dtype.type(0)
        elif count > vector:
            _dots2(c, room_at, a, a_at + i * a_row, a_row, count, x, x_at, whole)
        else:
            _dots1(c, room_at, a, a_at + i * a_row, a_row, count, x, x_at, whole)
        if whole < depth:
            for r in range(count):
                for k in range(whole, depth):
                    total[r] = fma(a[a_at + (i + r) * a_row + k * a_step], x[x_at + k], total[r])
        out = c[c_at + i : c_at + i + count]
        if keep:
            for r in range(count):
                out[r] = fma(alpha, total[r], out[r])
        else:
            for r in range(count):
                out[r] = alpha * total[r]
        i += count


@kernel
def transpose(out, out_at, out_row, source, source_at, source_row, rows, columns):
    """out[j, i] = source[i, j] for i < rows, j < columns: between samples-first and features-first order."""
    never_inline()
    vector = VECTOR_BYTES // out.itemsize
    whole_rows, whole_columns = rows // vector * vector, columns // vector * vector
    for i in range(0, whole_rows, vector):
        for j in range(0, whole_columns, vector):
            transpose_square(out, out_at + j * out_row + i, out_row, source, source_at + i * source_row + j, source_row)
    for i in range(rows):
        for j in range(whole_columns if i < whole_rows else 0, columns):
            out[out_at + j * out_row + i] = source[source_at + i * source_row + j]
