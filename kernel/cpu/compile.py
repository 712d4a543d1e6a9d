"""How every CPU kernel is compiled, and how tiles are spread over threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba
from numba import types
from numba.core import config
from numba.extending import intrinsic

from ..errors import EqkernelError, is_whole


def _prefer_wide_vectors() -> None:
    """Let LLVM use 512-bit registers where the CPU has them.

    Several CPU models carry the tuning flag `prefer-256-bit`, which splits each of our vectors in two and
    costs about half the speed. It must be cleared before Numba compiles anything; a user's own setting wins.
    """
    features = llvm.get_host_cpu_features()
    if config.CPU_FEATURES is None and config.CPU_NAME is None and features.get("avx512f"):
        config.CPU_FEATURES = features.flatten() + ",-prefer-256-bit"


_prefer_wide_vectors()

_SOURCES = [*Path(__file__).parent.glob("*.py"), Path(__file__).parent.parent / "neurons.py"]
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
    # Numba stamps a cached kernel with its own file alone; ours hold code of the other files of this folder too.
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


_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_pool: ThreadPoolExecutor | None = None


def set_threads(count: int) -> None:
    """Use `count` threads in the CPU kernels from now on; results do not depend on it."""
    global _threads, _pool
    if not is_whole(count, 1):
        raise EqkernelError(f"threads must be a whole number of at least 1, not {count!r}")
    if count != _threads:
        _threads, _pool = count, None


def get_threads() -> int:
    """How many threads the CPU kernels use."""
    return _threads


WORTH_A_THREAD = 4e7  # operations: some 0.3 ms, where to wake a thread can take 0.05


def spread(run: Callable[[int, int], None], parts: int, flops: float) -> None:
    """Call run(part, parts) for every part, at most one a thread; kernels release the GIL. Little work stays here."""
    global _pool
    parts = min(parts, _threads) if flops > WORTH_A_THREAD else 1
    if parts <= 1:
        run(0, 1)
        return
    if _pool is None:
        _pool = ThreadPoolExecutor(_threads - 1, thread_name_prefix="eqkernel")
    others = [_pool.submit(run, part, parts) for part in range(1, parts)]
    run(0, parts)
    for other in others:
        other.result()
