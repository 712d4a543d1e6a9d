"""The errors eqkernel raises for what a user can put right: each a ValueError that says what to do."""

from collections.abc import Mapping
from difflib import get_close_matches
from math import isfinite
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Entry = TypeVar("Entry")
_REAL = (int, float, np.integer, np.floating)


class EqkernelError(ValueError):
    """Base of every error that eqkernel raises on purpose."""


class DivergenceError(EqkernelError):
    """A settle or a training step left the finite numbers, or its residual grew without bound."""


class BackendError(EqkernelError):
    """The backend that was asked for is missing, or does not cover the network."""


def lookup(kind: str, name: object, table: Mapping[str, Entry]) -> Entry:
    """The entry called `name` of `table`; an EqkernelError naming the choices if there is none."""
    if isinstance(name, str) and name in table:
        return table[name]
    close = get_close_matches(name, table, n=1) if isinstance(name, str) else []
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise EqkernelError(f"unknown {kind} {name!r}: {hint}choose one of {', '.join(map(repr, table))}")


def as_array(name: str, values: ArrayLike) -> NDArray:
    """`values` as an array; EqkernelError if they have no rectangular shape, or are a tensor that NumPy cannot read."""
    if isinstance(values, np.ma.MaskedArray):
        raise EqkernelError(f"{name} is a masked array, whose mask would be lost: pass its .filled(...) numbers")
    try:
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:  # of PyTorch: bfloat16, and what requires a gradient
        raise EqkernelError(f"{name} cannot be read as an array: {error}") from None


def as_dtype(dtype: Any) -> np.dtype:
    """The dtype of that name; EqkernelError unless it is "float32" or "float64"."""
    if str(dtype) not in ("float32", "float64"):
        raise EqkernelError(f"dtype must be 'float32' or 'float64', not {dtype!r}")
    return np.dtype(dtype)


def is_finite(value: Any) -> bool:
    """Whether `value` is a single real number, neither infinite nor NaN."""
    try:
        return isinstance(value, _REAL) and not isinstance(value, bool) and isfinite(value)
    except OverflowError:  # an integer beyond all of Python's reals
        return False


def is_whole(value: Any, least: float) -> bool:
    """Whether `value` is a whole number of at least `least`."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= least)


def make_plain(owner: Any, kind: type[float] | type[int], *names: str) -> None:
    """Numbers of NumPy's types, each of its own precision, become Python's in these attributes; None stays None."""
    for name in names:
        value = getattr(owner, name)
        object.__setattr__(owner, name, value if value is None else kind(value))


def check_seed(seed: Any) -> None:
    """EqkernelError for what seeds no generator."""
    if not is_whole(seed, 0):
        raise EqkernelError(f"seed must be a whole number of at least 0, not {seed!r}")


def all_finite(array: NDArray) -> bool:
    """Whether a C-contiguous array holds no NaN and no infinity; its sum of squares decides unless that overflows."""
    # vdot takes an array of any shape, and unlike dot it does not warn where it overflows.
    return isfinite(np.vdot(array, array)) or bool(np.isfinite(array).all())
