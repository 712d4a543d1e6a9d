"""How the factors of large networks' products are rounded: tensor cores want TF32 or BF16."""

from __future__ import annotations

import numpy as np

from ..errors import EqkernelError, lookup
from .device import current

PRECISIONS = {"float32": 0, "tf32": 1, "bf16": 2}  # of ptx.cuh
_precision = "float32"


def set_precision(name: str) -> None:
    """Round factors to "tf32" or "bf16" from now on, for the tensor cores of sm_80 and later; "float32" does not round.

    It concerns float32 networks settled layer by layer (tensor.cu); sums, states and updates stay float32. Raises
    EqkernelError for a device without such cores.
    """
    global _precision
    lookup("precision", name, PRECISIONS)
    if name != "float32" and current().capability < 80:
        raise EqkernelError(
            f"precision {name!r} needs a GPU of compute capability 8.0, not {current().capability / 10}"
        )
    _precision = name


def get_precision() -> str:
    """The precision of factors."""
    return _precision


def code_for(dtype: np.dtype) -> int:
    """The code of the precision by which kernels know it; float64 is never rounded."""
    return PRECISIONS[_precision] if dtype == np.float32 else 0
