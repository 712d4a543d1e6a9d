"""FitzHugh-Nagumo field: reaction and diffusion of both species, several steps in one pass over memory (field.cu)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import lookup
from ..reference.field import Constants
from .device import current
from .diffusion import MIRROR
from .launcher import launch

EDGE, THREADS = 40, 256  # of field.cu
STEPS = 4  # in one pass: a square of 40 x 40 cells is left with 32 x 32


def advance(state: Any, spare: Any, steps: int, constants: Constants, boundary: str) -> float:
    """state (2, ...) after `steps` steps of time; `spare`, of its shape, is overwritten.

    On the device both stay there; host arrays travel there and back. Returns the largest |u| or |v|, NaN if there is
    one. Results do not depend on how many calls the steps are divided into.
    """
    arrays = current().arrays
    mirror = lookup("boundary", boundary, MIRROR)
    home = state
    if isinstance(state, np.ndarray):
        state, spare = arrays.asarray(state), arrays.empty(state.shape, state.dtype)
    rows, width = (1, state.shape[1]) if state.ndim == 2 else state.shape[1:]
    Du, Dv, eps, alpha, beta, dt, dt_v = (float(c) for c in constants)
    largest = arrays.zeros(1, np.uint32 if state.dtype == np.float32 else np.uint64)
    before, after, left = state, spare, steps
    while left:
        now = min(left, STEPS)
        inner = EDGE - 2 * now
        grid = -(-width // inner), -(-rows // inner) if rows > 1 else 1
        largest.fill(0)
        launch(
            "field", "advance", state.dtype, grid, THREADS,
            (after, before, largest, rows, width, now, mirror, Du * dt, Dv * dt_v, dt, eps * dt_v, alpha, beta),
            shared=4 * EDGE * EDGE * state.dtype.itemsize,
        )  # fmt: skip
        before, after, left = after, before, left - now
    if before is not state:
        state[...] = before
    if home is not state:
        home[...] = state.get()
    return float(largest.get().view(state.dtype)[0]) if steps else float(abs(state).max())
