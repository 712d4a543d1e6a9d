"""The compiled library: its functions by type, its errors as Python's, and which variant of the kernels runs."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EqkernelError, lookup

try:
    from ._eqkernel import ffi, lib
except ImportError as error:
    if isinstance(error, ModuleNotFoundError) and error.name == f"{__package__}._eqkernel":
        raise ModuleNotFoundError("the C library was not built when eqkernel was installed") from None
    raise ImportError(f"the C library was built, but does not load: {error}") from None

SUFFIX = {np.dtype(np.float32): "f32", np.dtype(np.float64): "f64"}
VARIANTS = {
    "auto": lib.EQK_AUTO,
    "scalar": lib.EQK_SCALAR,
    "avx2": lib.EQK_AVX2,
    "avx512": lib.EQK_AVX512,
    "avx512-intel": lib.EQK_AVX512_INTEL,
}


def _functions(suffix: str) -> SimpleNamespace:
    end = f"_{suffix}"
    names = [name for name in dir(lib) if name.startswith("eqk_") and name.endswith(end)]
    return SimpleNamespace(**{name[4 : -len(end)]: getattr(lib, name) for name in names})


FUNCTIONS = {dtype: _functions(suffix) for dtype, suffix in SUFFIX.items()}
POINTER = {dtype: f"{'float' if suffix == 'f32' else 'double'}[]" for dtype, suffix in SUFFIX.items()}

if lib.eqk_abi_version() != lib.EQK_ABI_VERSION:  # cannot happen in one extension, but the check is the ABI's contract
    raise ImportError("the C library and its header are of different versions: reinstall eqkernel")

_variant = lib.EQK_AUTO


def use_variant(name: str) -> None:
    """Run the kernels of "scalar", "avx2", "avx512" or "avx512-intel" from now on, or of "auto" the fastest here.

    Results are the same bits. EqkernelError for a variant that this processor cannot run.
    """
    global _variant
    code = lookup("variant", name, VARIANTS)
    if not lib.eqk_runs_variant(code):
        raise EqkernelError(f"this processor cannot run the variant {name!r}: the best it can is {best_variant()!r}")
    _variant = code


def variant() -> int:
    """The code of the variant that runs, as the library takes it."""
    return _variant


def best_variant() -> str:
    """The name of the fastest variant that this processor can run."""
    return ffi.string(lib.eqk_variant_name(lib.eqk_best_variant())).decode()


def variant_name() -> str:
    """The name of the variant that runs."""
    return best_variant() if _variant == lib.EQK_AUTO else ffi.string(lib.eqk_variant_name(_variant)).decode()


def check(status: int) -> None:
    """EqkernelError for a status that is not EQK_OK."""
    if status:
        raise EqkernelError(f"the C library refused a call: {ffi.string(lib.eqk_status_text(status)).decode()}")


def functions(dtype: np.dtype) -> Any:
    """The library's functions for arrays of `dtype`, without prefix and suffix; EqkernelError for another type."""
    if dtype not in FUNCTIONS:
        raise EqkernelError(f"the C library computes in float32 and float64, not {dtype}")
    return FUNCTIONS[dtype]


def check_shape(array: NDArray, shape: tuple[int, ...]) -> None:
    """EqkernelError for an array that does not have the shape that the arrays it meets demand."""
    if array.shape != shape:
        raise EqkernelError(f"an array of shape {array.shape} meets others that want {shape}")


def reads(array: NDArray, shape: tuple[int, ...], like: NDArray) -> Any:
    """A pointer to an array that is read, in the type of `like`; copied if it was laid out otherwise.

    EqkernelError if it does not have `shape`, which the arrays it meets demand.
    """
    check_shape(array, shape)
    return ffi.from_buffer(POINTER[like.dtype], np.require(array, like.dtype, ["C", "A"]))


def writes(array: NDArray) -> Any:
    """A pointer to an array that is written; EqkernelError if the library could write only a copy of it."""
    functions(array.dtype)
    if not (array.flags.c_contiguous and array.flags.aligned):
        raise EqkernelError("a kernel writes C-contiguous arrays only: pass np.ascontiguousarray(...) and copy back")
    return ffi.from_buffer(POINTER[array.dtype], array, require_writable=True)


if chosen := os.environ.get("EQKERNEL_C_VARIANT"):
    try:
        use_variant(chosen)
    except EqkernelError as error:
        raise EqkernelError(f"EQKERNEL_C_VARIANT={chosen}: {error}") from None
