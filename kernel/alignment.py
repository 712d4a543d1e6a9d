"""Where arrays begin: loads that cross from one line of the cache into the next are half as fast."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LINE = 64  # bytes that a cache fetches at a time, and a vector


def aligned(rows: int, columns: int, dtype: np.dtype) -> NDArray:
    """An array (rows, >= columns) of zeros whose every row begins a line of the cache."""
    line = LINE // dtype.itemsize
    columns = -(-columns // line) * line
    whole = np.zeros(rows * columns + line, dtype)
    skip = -whole.ctypes.data % LINE // dtype.itemsize
    return whole[skip : skip + rows * columns].reshape(rows, columns)
