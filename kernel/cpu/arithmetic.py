"""Scalar arithmetic shared by the CPU kernels: no libm, NaN travels through, every line vectorises.

`maximum` and `minimum` are LLVM's NaN-propagating forms. Python's `max` blocks the vectoriser in a reduction and lets a
NaN vanish; with these a residual is NaN exactly when some state is, at no cost.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from ..neurons import tanh_coefficients, tanh_limit
from .compile import INLINE


def _intrinsic(name: str, operands: int) -> Any:
    def emit(context, builder, signature, args):  # type: ignore[no-untyped-def]
        kind = context.get_value_type(signature.args[0])
        suffix = "f32" if isinstance(kind, ir.FloatType) else "f64"
        function_type = ir.FunctionType(kind, [kind] * operands)
        function = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.{name}.{suffix}")
        return builder.call(function, args)

    def of_two(typing, a, b):  # type: ignore[no-untyped-def]
        return a(a, a), emit

    def of_three(typing, a, b, c):  # type: ignore[no-untyped-def]
        return a(a, a, a), emit

    return intrinsic(of_two if operands == 2 else of_three)


maximum = _intrinsic("maximum", 2)
minimum = _intrinsic("minimum", 2)
fma = _intrinsic("fma", 3)


def real(value: float, like: float) -> Any:
    """`value` in the floating type of `like` (a bare literal would turn float32 arithmetic into float64)."""


@overload(real, jit_options=INLINE)
def _real(value, like):  # type: ignore[no-untyped-def]
    if like == types.float32:
        return lambda value, like: np.float32(value)
    return lambda value, like: np.float64(value)


def tanh(x: float) -> Any:
    """tanh as one quotient of polynomials in x*x, to a few units in the last place (see `eqkernel.neurons`)."""


def _tanh_parts(kind: Any) -> tuple[tuple[Any, ...], tuple[Any, ...], Any]:
    dtype = np.dtype("float32" if kind == types.float32 else "float64")
    odd, even = tanh_coefficients(dtype)
    highest_first = lambda c: tuple(dtype.type(v) for v in c[::-1])  # noqa: E731
    return highest_first(odd), highest_first(even), dtype.type(tanh_limit(dtype))


@overload(tanh, jit_options=INLINE)
def _tanh(x):  # type: ignore[no-untyped-def]
    odd, even, limit = _tanh_parts(x)
    terms_odd, terms_even, one = len(odd), len(even), type(limit)(1)

    def quotient(x):  # type: ignore[no-untyped-def]
        x = minimum(maximum(x, -limit), limit)
        z = x * x
        p = odd[0]
        for i in range(1, terms_odd):
            p = p * z + odd[i]
        q = even[0]
        for i in range(1, terms_even):
            q = q * z + even[i]
        return minimum(maximum(x * p / q, -one), one)  # rounding may reach beyond

    return quotient


def exp_of_negative(x: float) -> Any:
    """e^x for x <= 0 to a few units in the last place; for less than that of the least normal number, that one.

    e^x = 2^n e^r, n whole, |r| <= ln 2 / 2, and e^r = (1 + tanh(r/2)) / (1 - tanh(r/2)). ln 2 is split so that n times
    its high part is exact.
    """


@overload(exp_of_negative, jit_options=INLINE)
def _exp(x):  # type: ignore[no-untyped-def]
    single = x == types.float32
    kind, whole = (np.float32, np.int32) if single else (np.float64, np.int64)
    of_bits = (127, 2.0**23) if single else (1023, 2.0**52)
    of_two = (0.693359375, -2.12194440e-4) if single else (6.93147180369123816490e-01, 1.90821492927058770002e-10)
    bias, exponent, high, low, one, half, per_octave = (kind(c) for c in (*of_bits, *of_two, 1, 0.5, 1 / np.log(2)))
    lowest, whole_numbers = kind((1 - of_bits[0]) * np.log(2)), kind(1.5 * of_bits[1])

    def scaled(x):  # type: ignore[no-untyped-def]
        x = maximum(x, lowest)
        n = (x * per_octave + whole_numbers) - whole_numbers  # a sum as large as that has no fraction
        t = tanh(half * ((x - n * high) - n * low))
        return (one + t) / (one - t) * whole((n + bias) * exponent).view(kind)

    return scaled
