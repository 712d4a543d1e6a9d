"""FitzHugh-Nagumo field: reaction and diffusion of both species, several time steps in one pass over memory.

The rows of a tile of columns stream through a chain of line buffers, two at a time. Level 0 holds rows as they are in
memory, level l the same rows l steps later; `stencil` computes a row of level l as soon as three rows of level l - 1
are there, from the cache, and only the last level is written back. A tile is loaded with as many columns and rows
around it as there are steps, so tiles and threads need nothing from each other, and the boundary is only a matter of
which cell is loaded: beyond a periodic edge lies the other end, beyond a zero-flux edge the mirror image, which stays
one under diffusion. Every cell is the same sum in the same order wherever tiles end: results do not depend on tiles,
steps a pass, or threads.
"""

from __future__ import annotations

import numpy as np

from ..reference.field import Constants
from .arithmetic import maximum
from .compile import inline, kernel
from .diffusion import mirrored, source
from .stencil import rows_of_field
from .threads import get_threads, spread

STEPS = 16  # at most, in one pass over memory
TILE = 4096  # bytes of a tile's row: all levels fit the second cache
MARGIN = 16  # columns on either side of a tile: whole vectors, and no fewer than STEPS
PAD = 16  # elements before the first and after the last row, for their neighbours
BLOCK = 2  # rows of a level made in a turn: as many as the kernel takes at once
RING = 4  # rows kept of a level: a power of two, at least the BLOCK + 2 that are read
FLOPS = 24  # of a cell in a step
SHARE = STEPS // (4 * BLOCK)  # levels that fetch one row: BLOCK rows of two species come, and as many go
_one_row, _two_rows = rows_of_field(1, SHARE), rows_of_field(2, SHARE)


@kernel
def load(out, row, first, mirror):
    """out = cells first, first + 1, ... of an endless row."""
    low = min(max(-first, 0), out.size)
    high = max(min(row.size - first, out.size), low)
    inside, target = row[first + low : first + high], out[low:high]
    for j in range(inside.size):
        target[j] = inside[j]
    period = 2 * row.size if mirror else row.size
    for start, stop in ((0, low), (high, out.size)):
        cell = (first + start) % period
        for j in range(start, stop):
            out[j] = row[cell if cell < row.size else period - 1 - cell]
            cell = cell + 1 if cell + 1 < period else 0


@inline
def whole(columns):
    """Columns that fill whole vectors."""
    return (columns + MARGIN - 1) // MARGIN * MARGIN


@inline
def place(level, row, stride):
    return PAD + (level * RING + (row & (RING - 1))) * 2 * stride


@kernel
def largest_of(row):
    largest = row.dtype.type(0)
    for j in range(row.size):
        largest = maximum(largest, abs(row[j]))
    return largest


@kernel
def sweep(after, before, c, steps, mirror, first, last, columns, buffer):
    """Rows first to last - 1 of `after` become those of `before` `steps` steps later, both (2, rows, width).

    Returns the largest |u| or |v| among them, NaN if there is one. Every level is computed over its whole row: what is
    wrong in the outermost column moves inwards by one a level, and reaches no cell of the tile.

    c: Du dt, Dv dt, dt, eps dt_v, alpha, beta, 4.   buffer: as `line_buffers` makes it.
    """
    rows, width = before.shape[1:]
    reach = 1 if rows > 1 else 0  # a single row is its own neighbour above and below: diffusion in one dimension
    largest = after.dtype.type(0)
    stride = whole(columns) + 2 * MARGIN
    for left in range(0, width, columns):
        count = min(columns, width - left)
        n = whole(count) + 2 * MARGIN
        for top in range(first - reach * steps, last + reach * steps, BLOCK):
            for i in range(top, min(top + BLOCK, last + reach * steps)):
                for species in range(2):
                    at = place(0, i, stride) + species * stride
                    row = before[species, source(i, rows, mirror)]
                    load(buffer[at + MARGIN - steps : at + MARGIN + count + steps], row, left - steps, mirror)
            for level in range(1, steps + 1):
                # Of what the next turn loads, and then of what it stores, a part comes meanwhile from memory.
                line = (level - 1) // SHARE
                grid, back = (after, reach * steps) if line >= 2 * BLOCK else (before, 0)
                soon = grid[line // BLOCK % 2, source(top + BLOCK + line % BLOCK - back, rows, mirror)]
                begin = left + (level - 1) % SHARE * count // SHARE
                more = reach * (steps - level)
                start = max(top - reach * level, first - more)
                stop = min(top - reach * level + BLOCK, last + more)
                out, next_out = place(level, start, stride), place(level, start + 1, stride)
                north, here = place(level - 1, start - reach, stride), place(level - 1, start, stride)
                south, beyond = place(level - 1, start + reach, stride), place(level - 1, start + 2, stride)
                if stop - start == BLOCK:
                    _two_rows(buffer, stride, n, out, next_out, north, here, south, beyond, soon, begin, c)
                elif stop - start == 1:
                    _one_row(buffer, stride, n, out, next_out, north, here, south, beyond, soon, begin, c)
                if level == steps:
                    for i in range(start, stop):
                        for species in range(2):
                            at = place(level, i, stride) + species * stride + MARGIN
                            done = buffer[at : at + count]
                            target = after[species, i, left : left + count]
                            for j in range(count):
                                target[j] = done[j]
                            largest = maximum(largest, largest_of(done))
    return largest


def line_buffers(levels: int, columns: int, dtype: np.dtype) -> np.ndarray:
    """Zeros: PAD, then levels x RING rows x 2 species of a tile and its margins, on vector boundaries, then PAD."""
    size = levels * RING * 2 * (-(-columns // MARGIN) * MARGIN + 2 * MARGIN) + 2 * PAD
    memory = np.zeros(size + 64 // dtype.itemsize, dtype)
    start = -memory.ctypes.data % 64 // dtype.itemsize
    return memory[start : start + size]


def advance(state: np.ndarray, spare: np.ndarray, steps: int, constants: Constants, boundary: str) -> float:
    """state (2, ...) after `steps` steps of time; `spare`, of its shape, is overwritten. Both are C-contiguous.

    Returns the largest |u| or |v|, NaN if there is one. Results do not depend on the number of threads, nor on how
    many calls the steps are divided into.
    """
    Du, Dv, eps, alpha, beta, dt, dt_v = constants
    c = np.array([Du * dt, Dv * dt_v, dt, eps * dt_v, alpha, beta, 4], state.dtype)
    grids = [a if a.ndim == 3 else a[:, None] for a in (state, spare)]
    _, rows, width = state.shape if state.ndim == 3 else (2, 1, state.shape[1])
    columns = min(TILE // state.itemsize, width)
    threads = max(1, min(get_threads(), rows // (4 * STEPS)))
    most = STEPS if rows == 1 else max(1, min(STEPS, rows // 16))  # few rows: fewer are computed twice
    passes = -(-steps // most)
    passes += passes % 2 and passes < steps  # an even number ends where it began
    buffers = [line_buffers(most + 1, columns, state.dtype) for _ in range(threads)]
    largest = np.empty(threads, state.dtype)
    mirror = mirrored(boundary)

    for done in range(passes):
        now = steps * (done + 1) // passes - steps * done // passes
        before, after = grids[done % 2], grids[1 - done % 2]

        def run(part: int, parts: int, before=before, after=after, now=now) -> None:  # type: ignore[no-untyped-def]
            first, last = rows * part // parts, rows * (part + 1) // parts
            largest[part] = sweep(after, before, c, now, mirror, first, last, columns, buffers[part])

        largest[:] = 0
        spread(run, threads, FLOPS * state.size / 2 * now)
    if passes % 2:
        state[...] = spare
    return float(largest.max() if passes else abs(state).max())
