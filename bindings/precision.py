"""How the factors of a settle's products are rounded: AVX512-BF16 and AMX multiply pairs of bfloat16."""

from __future__ import annotations

import numpy as np

from ..backends import load_backend
from ..errors import EqkernelError, lookup

# eqk_precision: "bf16x3" is the faster of its two kinds that the processor has.
PRECISIONS = {"float32": 0, "bf16x3": 1, "bf16x3-avx512": 2, "bf16x3-amx": 3}
NEEDS = {1: "AVX512-BF16 or AMX", 2: "AVX512-BF16", 3: "AMX"}
_precision, _code = "float32", 0


def set_precision(name: str) -> None:
    """Settle with products of the precision "bf16x3" from now on, by AVX512-BF16 or AMX; "float32" does not round.

    Each factor is the sum of two bfloat16, and their smaller parts' product is left out: a product errs by 3 2^-16 of
    its size at most. It concerns dense and lateral connections in the phases of float32 networks; states, sums and
    updates stay float32. "bf16x3-avx512" and "bf16x3-amx" name the instructions. Raises EqkernelError for a processor
    without such instructions, and where the C library is missing.
    """
    global _precision, _code
    code = lookup("precision", name, PRECISIONS)
    if code:
        load_backend("c")
        from .library import variant_name  # here, since without the extension it cannot be imported

        if not _best() or (code > 1 and code > _best()):
            raise EqkernelError(f"precision {name!r} needs {NEEDS[code]}, which this processor, system or build lacks")
        if not variant_name().startswith("avx512"):
            raise EqkernelError(f"precision {name!r} needs the kernels 'avx512', not {variant_name()!r}")
    _precision, _code = name, _best() if code == 1 else code  # to find the best anew in every call takes microseconds


def get_precision() -> str:
    """The precision of factors."""
    return _precision


def code_for(dtype: np.dtype) -> int:
    """The code of the precision by which the library knows it; float64 is never rounded."""
    return _code if _code and dtype == np.float32 else 0


def detail() -> str:
    """By which instructions "bf16x3" can run here."""
    from .library import ffi, lib

    best = _best()
    return ffi.string(lib.eqk_precision_name(best)).decode() if best else "no bf16x3: no AVX512-BF16"


def _best() -> int:
    from .library import lib

    return lib.eqk_bf16x3()
