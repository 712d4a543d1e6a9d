"""FitzHugh-Nagumo field: several time steps of reaction and diffusion in one pass over memory (see src/field.h)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..cpu.diffusion import mirrored
from ..cpu.threads import get_threads, spread
from ..reference.field import Constants
from .library import check, ffi, functions, lib, variant, writes

STEPS = int(lib.EQK_FIELD_STEPS)  # at most, in one pass over memory
FLOPS = 24  # of a cell in a step


def advance(state: NDArray, spare: NDArray, steps: int, constants: Constants, boundary: str) -> float:
    """state (2, ...) after `steps` steps of time; `spare`, of its shape, is overwritten. Both are C-contiguous.

    Returns the largest |u| or |v|, NaN if there is one. Results do not depend on the number of threads, nor on how
    many calls the steps are divided into.
    """
    run, mirror, numbers = functions(state.dtype), mirrored(boundary), ffi.new("eqk_field *", tuple(constants))
    grids, kind = (writes(state), writes(spare)), variant()
    rows, width = state.shape[1:] if state.ndim == 3 else (1, state.shape[1])
    threads = max(1, min(get_threads(), rows // (4 * STEPS)))
    most = STEPS if rows == 1 else max(1, min(STEPS, rows // 32))  # few rows: fewer are computed twice
    passes = -(-steps // most)
    passes += passes % 2 and passes < steps  # an even number ends where it began
    work = np.empty((threads, run.field_workspace(width, most)), np.uint8)
    buffers = [ffi.from_buffer(row) for row in work]
    largest = np.zeros(threads, state.dtype)
    peaks = writes(largest)

    for done in range(passes):
        now = steps * (done + 1) // passes - steps * done // passes
        before, after = grids[done % 2], grids[1 - done % 2]

        def part(index: int, parts: int, before=before, after=after, now=now) -> None:  # type: ignore[no-untyped-def]
            first, last = rows * index // parts, rows * (index + 1) // parts
            check(
                run.field_advance(
                    kind, after, before, numbers, rows, width, now, mirror, first, last, peaks + index,
                    buffers[index], work.shape[1],
                )
            )  # fmt: skip

        largest[:] = 0
        spread(part, threads, FLOPS * state.size / 2 * now)
    if passes % 2:
        state[...] = spare
    return float(largest.max() if passes else abs(state).max())
