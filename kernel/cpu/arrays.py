"""How arrays of any layout enter the kernels, which know flat arrays of one type only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import EqkernelError

LINE = 64  # bytes that a cache fetches at a time, and a vector: loads that cross a border of two are half as fast


def flat_in(array: NDArray, shape: tuple[int, ...], like: NDArray) -> NDArray:
    """An array to be read, flat and of the type of `like`; copied if it was laid out otherwise.

    Raises EqkernelError if it does not have `shape`, which the arrays it meets demand.
    """
    if array.shape != shape:
        raise EqkernelError(f"an array of shape {array.shape} meets others that want {shape}")
    return np.ascontiguousarray(array, like.dtype).reshape(-1)


def flat_out(array: NDArray) -> NDArray:
    """A flat view of an array to be written; EqkernelError if only a copy could be flat."""
    if not array.flags.c_contiguous:
        raise EqkernelError("a kernel writes C-contiguous arrays only: pass np.ascontiguousarray(...) and copy back")
    return array.reshape(-1)


def aligned(rows: int, columns: int, dtype: np.dtype) -> NDArray:
    """An array (rows, >= columns) whose every row begins a line of the cache; what is in it is undefined."""
    line = LINE // dtype.itemsize
    columns = -(-columns // line) * line
    whole = np.empty(rows * columns + line, dtype)
    skip = -whole.ctypes.data % LINE // dtype.itemsize
    return whole[skip : skip + rows * columns].reshape(rows, columns)
