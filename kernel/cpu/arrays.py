"""How arrays of any layout enter the kernels, which know flat arrays of one type only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import EqkernelError


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
