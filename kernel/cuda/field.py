"""FitzHugh-Nagumo field: reaction and diffusion of both species, several steps in one pass over memory (field.cu)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import lookup
from ..reference.field import Constants
from .checks import check
from .device import current
from .diffusion import MIRROR
from .launcher import launch

LANES = 32  # of field.cu: a block is a warp
STEPS = 4  # in one pass: as many as take no more time than the copy that a pass is (docs/cuda.md)
RESIDENT = 12  # warps that a multiprocessor has room for
SHORTEST = 16  # rows that a warp renews, at least: it loads 2 STEPS more


def strips(rows: int, width: int, steps: int, itemsize: int) -> tuple[tuple[int, int], int]:
    """The grid of a pass, and the rows a warp renews: all warps at once on the device, if the field is large enough."""
    wide = 16 // itemsize
    across = -(-width // ((LANES - 2 * -(-steps // wide)) * wide))
    height = max(SHORTEST, -(-rows // max(1, current().processors * RESIDENT // across)))
    return (across, -(-rows // height)), height


def advance(state: Any, spare: Any, steps: int, constants: Constants, boundary: str) -> float:
    """state (2, ...) after `steps` steps of time; `spare`, of its shape, is overwritten.

    On the device both stay there; host arrays travel there and back. Returns the largest |u| or |v|, NaN if there is
    one. Results do not depend on how many calls the steps are divided into. Raises EqkernelError for device arrays that
    `check` refuses.
    """
    arrays = current().arrays
    mirror = lookup("boundary", boundary, MIRROR)
    home = state
    if isinstance(state, np.ndarray):
        state, spare = arrays.asarray(state), arrays.empty(state.shape, state.dtype)
    check(state, state.shape, (spare, state.shape))
    rows, width = (1, state.shape[1]) if state.ndim == 2 else state.shape[1:]
    Du, Dv, eps, alpha, beta, dt, dt_v = (float(c) for c in constants)
    largest = arrays.zeros(1, np.uint32 if state.dtype == np.float32 else np.uint64)
    before, after, left = state, spare, steps
    while left:
        now = min(left, STEPS)
        grid, height = strips(rows, width, now, state.dtype.itemsize)
        launch(
            "field", "advance", state.dtype, grid, LANES,
            (
                after, before, largest, rows, width, height, mirror, int(now == left),
                Du * dt, Dv * dt_v, dt, eps * dt_v, alpha, beta,
            ),
            STEPS=now,
        )  # fmt: skip
        before, after, left = after, before, left - now
    if before is not state:
        state[...] = before
    if home is not state:
        home[...] = state.get()
    return float(largest.get().view(state.dtype)[0]) if steps else float(abs(state).max())
