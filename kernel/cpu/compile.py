"""How every CPU kernel is compiled."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba
from numba import types
from numba.core import config
from numba.extending import intrinsic


def _prefer_wide_vectors() -> None:
    """Let LLVM use 512-bit registers where the CPU has them.

    Several CPU models carry the tuning flag `prefer-256-bit`, which splits each of our vectors in two and
    costs about half the speed. It must be cleared before Numba compiles anything; a user's own setting wins.
    """
    features = llvm.get_host_cpu_features()
    if config.CPU_FEATURES is None and config.CPU_NAME is None and features.get("avx512f"):
        config.CPU_FEATURES = features.flatten() + ",-prefer-256-bit"


_prefer_wide_vectors()

# All whose text or numbers are compiled into kernels: codes of neurons and of pooling come from outside this folder.
_HERE = Path(__file__).parent
_SOURCES = [*_HERE.glob("*.py"), _HERE.parent / "geometry.py", _HERE.parent / "neurons.py"]
_STAMP = sha256(b"".join(path.read_bytes() for path in sorted(_SOURCES))).hexdigest()

# Contraction to FMA is wanted; reassociation is not: results must not depend on the vector width.
_OPTIONS: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract", "nsz", "arcp"}}
INLINE: dict[str, Any] = {**_OPTIONS, "forceinline": True}


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a CPU kernel: cached on disk, releases the GIL, vectorises around float division, and cannot allocate.

    Without Numba's runtime (`_nrt`) an allocation, even a hidden temporary, is an error at compile time, and
    views cost nothing to make.
    """
    dispatcher = numba.njit(**_OPTIONS, cache=True, nogil=True, _nrt=False)(function)
    # Numba stamps a cached kernel with its own file alone; ours hold code of other files too.
    file = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if file is not None:
        file._source_stamp = _STAMP
    return dispatcher


def inline(function: Callable[..., Any]) -> Any:
    """Compile a helper that LLVM pastes into each kernel that calls it."""
    return numba.njit(**INLINE)(function)


def paste(function: Callable[..., Any]) -> Any:
    """Compile a helper that Numba itself pastes into each kernel that calls it, which lets it give back a view."""
    return numba.njit(**_OPTIONS, inline="always")(function)


@intrinsic
def never_inline(typing):  # type: ignore[no-untyped-def]
    """Called in a kernel, keeps LLVM from pasting that kernel into its callers: compile time, not speed."""

    def emit(context, builder, signature, args):  # type: ignore[no-untyped-def]
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), emit
