"""What a kernel demands of the arrays it is given: it trusts their shapes, and reads them flat."""

from __future__ import annotations

from typing import Any

from ..errors import EqkernelError
from .device import current


def check(out: Any, shape: tuple[int, ...], *others: tuple[Any, tuple[int, ...]]) -> None:
    """EqkernelError unless `out` and each of `others` is a C-contiguous device array of its shape, all of one type."""
    for array, wanted in ((out, shape), *others):
        if not isinstance(array, current().arrays.ndarray):
            raise EqkernelError(f"a CUDA kernel takes device arrays, not {type(array).__name__}: see eqkernel.interop")
        if array.shape != wanted:
            raise EqkernelError(f"an array of shape {array.shape} meets others that want {wanted}")
        if array.dtype != out.dtype or str(out.dtype) not in ("float32", "float64"):
            raise EqkernelError(f"arrays of one kernel are all float32 or all float64, not {out.dtype}, {array.dtype}")
        if not array.flags.c_contiguous:
            raise EqkernelError("a CUDA kernel takes C-contiguous arrays only: pass cupy.ascontiguousarray(...)")
