"""Waiting awake, without the GIL, for a number that another thread changes.

A thread that sleeps is woken in 10 to 30 us, and in a virtual machine, whose idle cores go back to the host, in 200
at times; one that is awake sees the change in less than one. A flag is an int64 alone in its line of the cache.
"""

from __future__ import annotations

import platform
from functools import cache
from time import perf_counter

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from ..alignment import aligned
from .compile import inline, kernel


def flag() -> NDArray:
    """A number, 0, of which other threads may wait for a change."""
    return aligned(1, 1, np.dtype(np.int64))[0]


@intrinsic
def load(typing, flag):  # type: ignore[no-untyped-def]
    """The number as it is now: a loop may not keep it in a register."""

    def emit(context, builder, signature, args):  # type: ignore[no-untyped-def]
        array = context.make_array(signature.args[0])(context, builder, args[0])
        return builder.load_atomic(array.data, "acquire", 8)

    return types.int64(flag), emit


@intrinsic
def store(typing, flag, value):  # type: ignore[no-untyped-def]
    """Set the number, after all that was written before."""

    def emit(context, builder, signature, args):  # type: ignore[no-untyped-def]
        array = context.make_array(signature.args[0])(context, builder, args[0])
        builder.store_atomic(args[1], array.data, "release", 8)
        return context.get_dummy_value()

    return types.void(flag, types.int64), emit


@intrinsic
def pause(typing):  # type: ignore[no-untyped-def]
    """Leave a core's other thread the core for a moment, where the processor has an instruction for that."""

    def emit(context, builder, signature, args):  # type: ignore[no-untyped-def]
        if platform.machine() in ("x86_64", "AMD64"):
            nothing = ir.FunctionType(ir.VoidType(), [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", fnty=nothing), [])
        return context.get_dummy_value()

    return types.void(), emit


@inline
def has_changed(flag, known, looks):  # type: ignore[no-untyped-def]
    for _ in range(looks):
        if load(flag) != known:
            return True
        pause()
    return False


@kernel
def changes(flag, known, looks):  # type: ignore[no-untyped-def]
    """Whether the number becomes another than `known` within so many looks at it."""
    return has_changed(flag, known, looks)


@kernel
def listen(idle, bell, heard, looks, late):  # type: ignore[no-untyped-def]
    """Say that one is idle; then whether `bell` becomes another number than `heard`, and so many looks later."""
    store(idle, 1)
    rung = has_changed(bell, heard, looks)
    if rung:
        for _ in range(late):
            pause()
    return rung


@cache
def looks_in(seconds: float) -> int:
    """How many looks at a number take so long on this processor."""
    nothing, looks, taken = flag(), 200, []
    for _ in range(6):  # the first one may compile, and others be interrupted
        start = perf_counter()
        changes(nothing, 0, looks)
        taken.append(perf_counter() - start)
    return int(looks * seconds / min(taken)) + 1
