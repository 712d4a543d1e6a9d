"""Matrix products built from the register block: C += alpha * A B in the two shapes the kernels need."""

from __future__ import annotations

from .arithmetic import fma
from .compile import kernel, never_inline
from .gather import get_place
from .microkernel import DOTS, HEIGHTS, SUMS, VECTOR_BYTES, block, dots, transpose_square
from .tiles import ONE, ZERO

# Numba sees plain names only.
_wide_a, _wide_b, _wide_c, _wide1 = (block(rows, 2) for rows in HEIGHTS)
_narrow_a, _narrow_b, _narrow_c, _narrow1 = (block(rows, 1) for rows in HEIGHTS)
_row8 = block(1, 8)
_A, _B, _C, _ = HEIGHTS


@kernel
def panel(c, c_at, c_row, a, a_at, a_row, a_step, b, b_at, b_row, rows, depth, places, alpha, keep, vectors):
    """C[i, :] = alpha * sum_k A[i, k] B[k, :] (+ C[i, :] if keep) for one panel of 1 or 2 vectors of columns.

    All arrays are flat; `*_at` is where the operand starts, `*_row` the distance of its rows, `a_step` the distance of
    neighbours along k in A; `places` is that of `block`. C must not overlap A or B.
    """
    never_inline()
    i = 0
    while i < rows:
        left, ci, ai = rows - i, c_at + i * c_row, a_at + i * a_row
        if vectors == 2:
            if left >= _A:
                _wide_a(c, ci, c_row, a, ai, a_row, a_step, b, b_at, b_row, depth, places, alpha, keep)
            elif left >= _B:
                _wide_b(c, ci, c_row, a, ai, a_row, a_step, b, b_at, b_row, depth, places, alpha, keep)
            elif left >= _C:
                _wide_c(c, ci, c_row, a, ai, a_row, a_step, b, b_at, b_row, depth, places, alpha, keep)
            else:
                _wide1(c, ci, c_row, a, ai, a_row, a_step, b, b_at, b_row, depth, places, alpha, keep)
        else:
            if left >= _A:
                _narrow_a(c, ci, c_row, a, ai, a_row, a_step, b, b_at, b_row, depth, places, alpha, keep)
            elif left >= _B:
                _narrow_b(c, ci, c_row, a, ai, a_row, a_step, b, b_at, b_row, depth, places, alpha, keep)
            elif left >= _C:
                _narrow_c(c, ci, c_row, a, ai, a_row, a_step, b, b_at, b_row, depth, places, alpha, keep)
            else:
                _narrow1(c, ci, c_row, a, ai, a_row, a_step, b, b_at, b_row, depth, places, alpha, keep)
        i += _A if left >= _A else _B if left >= _B else _C if left >= _C else 1


@kernel
def multiply(c, c_at, c_row, a, a_at, a_row, a_step, b, b_at, b_row, rows, depth, columns, alpha, keep):
    """C[i, j] = alpha * sum_k A[i, k] B[k, j] (+ C[i, j] if keep) for any number of columns, of stride 1."""
    never_inline()
    vector = VECTOR_BYTES // c.itemsize
    j = 0
    while j + vector <= columns:
        vectors = 2 if j + 2 * vector <= columns else 1
        panel(c, c_at + j, c_row, a, a_at, a_row, a_step, b, b_at + j, b_row, rows, depth, ZERO, alpha, keep, vectors)
        j += vectors * vector
    for i in range(rows):
        for q in range(j, columns):
            total = c.dtype.type(0)
            for k in range(depth):
                total += a[a_at + i * a_row + k * a_step] * b[b_at + k * b_row + q]
            kept = c[c_at + i * c_row + q] if keep else c.dtype.type(0)
            c[c_at + i * c_row + q] = kept + alpha * total


@kernel
def forward_panel(c, c_at, c_row, a, a_at, a_row, b, b_at, b_row, rows, depth, lists, alpha, keep, vectors):
    """`panel` for an A whose rows lie in one piece, its sum made of SUMS interleaved ones, k = r, r + SUMS, ...

    C = fma(alpha, sum_r, C) for r = 0, 1, ... in turn: an order that `times_vector` can follow without transposing A,
    and whose chains of additions are short. `lists` is where in b they are as `zeros.list_rows` makes them, or 0.
    """
    never_inline()
    length = depth // SUMS + 2
    for i in range(0, rows, _A):
        count = min(_A, rows - i)
        for r in range(SUMS):
            places = lists + r * length + 1 if lists else lists
            terms = get_place(b, places - 1) if lists else (depth - r + SUMS - 1) // SUMS
            panel(
                c, c_at + i * c_row, c_row, a, a_at + i * a_row + r, a_row, ONE * SUMS,
                b, b_at + r * b_row, SUMS * b_row, count, terms, places, alpha, keep + r, vectors,
            )  # fmt: skip


@kernel
def forward_times_vector(c, c_at, a, a_at, a_row, x, x_at, rows, depth, alpha, keep, room_at):
    """c[i] = alpha * sum_k A[i, k] x[k] (+ c[i] if keep): `forward_panel` for one sample, to the same bits.

    c, with SUMS * DOTS elements of scratch at room_at, must not overlap A or x.
    """
    never_inline()
    whole = depth // SUMS * SUMS
    for i in range(0, rows, DOTS):
        count = min(DOTS, rows - i)
        dots(c, room_at, a, a_at + i * a_row, a_row, count, x, x_at, whole)
        totals, out = c[room_at : room_at + SUMS * count], c[c_at + i : c_at + i + count]
        for r in range(depth - whole):
            for q in range(count):
                place = SUMS * q + r
                totals[place] = fma(a[a_at + (i + q) * a_row + whole + r], x[x_at + whole + r], totals[place])
        for q in range(count):
            value = fma(alpha, totals[SUMS * q], out[q]) if keep else alpha * totals[SUMS * q]
            for r in range(1, SUMS):
                value = fma(alpha, totals[SUMS * q + r], value)
            out[q] = value


@kernel
def times_vector(c, c_at, a, a_at, a_step, x, x_at, rows, depth, alpha, keep):
    """c[i] = alpha * sum_k A[i, k] x[k] (+ c[i] if keep), A read backwards: `panel` for one sample, to the same bits.

    Rows of A's transpose, a_step apart, times one x[k] each. c must not overlap A or x.
    """
    never_inline()
    vector = VECTOR_BYTES // c.itemsize
    i = ZERO
    while i + vector <= rows:
        if i + 8 * vector <= rows:
            _row8(c, c_at + i, ZERO, x, x_at, ZERO, ONE, a, a_at + i, a_step, depth, ZERO, alpha, keep)
            i += 8 * vector
        elif i + 2 * vector <= rows:
            _wide1(c, c_at + i, ZERO, x, x_at, ZERO, ONE, a, a_at + i, a_step, depth, ZERO, alpha, keep)
            i += 2 * vector
        else:
            _narrow1(c, c_at + i, ZERO, x, x_at, ZERO, ONE, a, a_at + i, a_step, depth, ZERO, alpha, keep)
            i += vector
    for q in range(i, rows):
        total = c.dtype.type(0)
        for k in range(depth):
            total = fma(a[a_at + q + k * a_step], x[x_at + k], total)
        c[c_at + q] = fma(alpha, total, c[c_at + q]) if keep else alpha * total


@kernel
def transpose(out, out_at, out_row, source, source_at, source_row, rows, columns):
    """out[j, i] = source[i, j] for i < rows, j < columns: between samples-first and features-first order."""
    never_inline()
    if (rows == 1 and out_row == 1) or (columns == 1 and source_row == 1):  # a single sample
        to, given = out[out_at : out_at + rows * columns], source[source_at : source_at + rows * columns]
        for i in range(to.size):
            to[i] = given[i]
        return
    vector = VECTOR_BYTES // out.itemsize
    whole_rows, whole_columns = rows // vector * vector, columns // vector * vector
    for i in range(0, whole_rows, vector):
        for j in range(0, whole_columns, vector):
            transpose_square(out, out_at + j * out_row + i, out_row, source, source_at + i * source_row + j, source_row)
    for i in range(rows):
        for j in range(whole_columns if i < whole_rows else 0, columns):
            out[out_at + j * out_row + i] = source[source_at + i * source_row + j]
