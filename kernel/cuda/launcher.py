"""Kernels by name: their text made whole, compiled once for each set of constants, and launched on the current stream.

The text that a compiler sees is one piece: what Python knows (types, codes, coefficients), then the project's headers,
then the file. So whoever caches compiled kernels by their text sees every change.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .. import geometry, neurons
from ..cpu import tiles, update
from ..errors import EqkernelError
from .device import Device, current

MOST = 2**31 - 2**21  # elements that a C int counts, with room for a stride beyond the last
HIGHEST = 65535  # blocks of a grid in each direction but the first
HERE = Path(__file__).parent
INCLUDE = re.compile(r'^#include "(\w+\.cuh)"\n', re.MULTILINE)
REAL = {"float32": "float", "float64": "double"}
CODES = {
    name: getattr(module, name)
    for module, names in (
        (neurons, ("HARD_SIGMOID", "SIGMOID", "TANH", "LINEAR", "SOFTMAX", "FHN")),
        (tiles, ("SYNCHRONOUS", "EVEN_ODD", "SWEEP")),
        (tiles, ("RUN_FREE", "RUN_STATE", "RUN_STATES", "RUN_DIFFERENCE", "RUN_MEAN_DIFFERENCE")),
        (geometry, ("NONE", "MAX", "AVERAGE")),
        (update, ("GRADIENT", "SGD", "MOMENTUM", "ADAM")),
    )
    for name in names
}
PRELUDE = {  # RESIDENT: blocks of the largest kernels at once on a multiprocessor, which bounds their registers
    "float": "#define RESIDENT 2\ntypedef float real;\ntypedef unsigned bits;\n#define as_bits(x) __float_as_uint(x)\n"
    "#define from_bits(x) __uint_as_float(x)\n",
    "double": "#define RESIDENT 1\ntypedef double real;\ntypedef unsigned long long bits;\n"
    "#define as_bits(x) ((unsigned long long)__double_as_longlong(x))\n"
    "#define from_bits(x) __longlong_as_double((long long)(x))\n",
}
CUBE_OFFSETS = {"FLOAT": f"{(127 * 2 / 3 - 0.032) * 2**23!r}f", "DOUBLE": f"{(1023 * 2 / 3 - 0.032) * 2**52!r}"}


def text_of(stem: str, dtype: str, defines: tuple[tuple[str, int], ...] = ()) -> str:
    """The whole text of kernel/cuda/<stem>.cu for one floating type, headers and constants included."""
    seen: set[str] = set()

    def paste(match: re.Match[str]) -> str:
        if match[1] in seen:
            return ""
        seen.add(match[1])
        return INCLUDE.sub(paste, (HERE / match[1]).read_text()) + "\n"

    return _constants(dtype, defines) + INCLUDE.sub(paste, (HERE / f"{stem}.cu").read_text())


def _constants(dtype: str, defines: tuple[tuple[str, int], ...]) -> str:
    real = REAL[dtype]
    suffix = "f" if real == "float" else ""
    odd, even = neurons.tanh_coefficients(dtype)
    values = {
        **dict(defines),
        **{name: int(code) for name, code in CODES.items()},
        **{f"CUBE_OFFSET_{kind}": offset for kind, offset in CUBE_OFFSETS.items()},
        "LEAST": f"{float(np.finfo(dtype).tiny)!r}{suffix}",
        "TANH_LIMIT": f"{float(np.dtype(dtype).type(neurons.tanh_limit(dtype)))!r}{suffix}",
    }
    for name, terms in (("ODD", odd), ("EVEN", even)):
        values[f"TANH_{name}"] = "{" + ", ".join(f"{float(term)!r}{suffix}" for term in terms[::-1]) + "}"
    return PRELUDE[real] + "".join(f"#define {name} {value}\n" for name, value in values.items())


@cache
def _module(device: Device, stem: str, dtype: str, defines: tuple[tuple[str, int], ...]) -> Any:
    return device.compile(text_of(stem, dtype, defines), stem)


@cache
def _function(device: Device, stem: str, name: str, dtype: str, defines: tuple[tuple[str, int], ...]) -> Any:
    return _module(device, stem, dtype, defines).get_function(name)


def launch(
    stem: str,
    name: str,
    dtype: np.dtype,
    grid: Sequence[int],
    threads: int,
    arguments: Sequence[Any],
    shared: int = 0,
    **defines: int,
) -> None:
    """Launch kernel `name` of <stem>.cu on the current stream.

    Arguments are device arrays, Python ints (C int) and floats (C real). shared: bytes of dynamic shared memory.
    EqkernelError for more elements or blocks than a kernel can count: nothing has run then.
    """
    function = _function(current(), stem, name, str(dtype), tuple(sorted(defines.items())))
    if shared > 48 * 1024:
        function.max_dynamic_shared_size_bytes = shared
    if max(grid[1:], default=0) > HIGHEST:
        raise too_large(f"a grid of {' x '.join(map(str, grid))} blocks")
    real = dtype.type
    typed = tuple(
        c_int(a) if isinstance(a, int | np.integer) else real(a) if isinstance(a, float | np.floating) else counted(a)
        for a in arguments
    )
    function(tuple(grid), (threads,), typed, shared_mem=shared)


def c_int(number: int | np.integer) -> np.int32:
    """A size, code or place as kernels take it; EqkernelError beyond MOST."""
    if number > MOST:
        raise too_large(f"{number} elements")
    return np.int32(number)


def counted(array: Any) -> Any:
    """The array; EqkernelError if it has more elements than MOST."""
    if array.size > MOST:
        raise too_large(f"an array of {array.size} elements")
    return array


def too_large(what: str) -> EqkernelError:
    """The error for what a kernel cannot count."""
    return EqkernelError(
        f"{what}: CUDA kernels count to {MOST} elements of an array and {HIGHEST} blocks down; pass smaller batches"
    )


def across(elements: int, threads: int = 256) -> tuple[int]:
    """A grid with a thread for each element, up to enough to fill any device (kernels stride over the rest)."""
    return (max(1, min(-(-elements // threads), 4096)),)
