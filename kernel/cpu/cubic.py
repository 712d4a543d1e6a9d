"""The rate of the FitzHugh-Nagumo neuron: the real root s of s + s^3 = x, to one unit in the last place."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from .arithmetic import real
from .compile import INLINE, inline

THIRD = np.float32(1 / 3)
# A float's bits, read as an integer, are nearly its logarithm: a third of them, and two thirds of the exponent's
# offset, make a cube root to 4 %. The 0.032 balances the error of that reading over an octave.
OFFSET_32 = np.float32((127 * 2 / 3 - 0.032) * 2**23)
OFFSET_64 = (1023 * 2 / 3 - 0.032) * 2**52


def rough_cube_root(x: float) -> Any:
    """The cube root of x > 0 to 4 %; of 0, some tiny number."""


@overload(rough_cube_root, jit_options=INLINE)
def _rough_cube_root(x):  # type: ignore[no-untyped-def]
    if x == types.float32:
        return lambda x: np.int32(np.float32(np.float32(x).view(np.int32)) * THIRD + OFFSET_32).view(np.float32)
    return lambda x: np.int64(np.float64(np.float64(x).view(np.int64)) / 3 + OFFSET_64).view(np.float64)


@inline
def halley(s, x):
    """One step of Halley's method for s^3 + s - x = 0: it cubes the error."""
    slope = real(3.0, s) * (s * s) + real(1.0, s)
    excess = s * (s * s) + (s - x)
    return s - excess * slope / (slope * slope - real(3.0, s) * s * excess)


def root_of_cubic(x: float) -> Any:
    """s of s + s^3 = x for |x| < 1e22 (float32) or 1e180 (float64); NaN far beyond.

    Starts within 12 %: x (r^2 + .87) / (r^2 + .87 + r^4), r the rough cube root, tends to x for small x and
    to r for large. Two steps then reach the precision of float32, three that of float64.
    """


@overload(root_of_cubic, jit_options=INLINE)
def _root_of_cubic(x):  # type: ignore[no-untyped-def]
    steps = 2 if x == types.float32 else 3

    def root(x):  # type: ignore[no-untyped-def]
        size = abs(x)
        square = rough_cube_root(size) * rough_cube_root(size)
        shifted = square + real(0.87, x)
        s = size * shifted / (shifted + square * square)
        for _ in range(steps):
            s = halley(s, size)
        return s if x >= real(0.0, x) else -s

    return root
