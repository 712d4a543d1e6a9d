"""Layers as time: the stationary states of a chain of layers with diffusive coupling, marched or solved.

At rest D (u_{l+1} - 2 u_l + u_{l-1}) + f(u_l) = 0 in every layer l. Solved for u_{l+1} = 2 u_l - u_{l-1} - f(u_l)/D the
layers are time steps (Stoermer-Verlet) of a Hamiltonian system: with momentum p_l = u_l - u_{l-1} the map is symplectic
and reversible, and one pass from layers 0 and 1 gives all.
But a minimum of the energy has kappa = -f'(u)/D > 0, which makes each step hyperbolic: with eigenvalues Lambda and
1/Lambda, Lambda = 1 + kappa/2 + sqrt(kappa + kappa^2/4), every rounding error grows as Lambda^layer. Each digit of
arithmetic buys 1/log10(Lambda) layers, and then there is a wall. As a boundary value problem the same equations are
well posed: Newton's method with a (block-)tridiagonal solve has no wall.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal, DecimalException, localcontext
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import DivergenceError, EqkernelError

Arithmetic = str | type | np.dtype | int  # the name of a NumPy float, or how many decimal digits


class Chain(ABC):
    """What couples the layers and acts within one. A layer is a number, or an array of `width` components.

    Subclasses are frozen dataclasses of their constants.
    """

    width: ClassVar[int | None] = None

    @property
    @abstractmethod
    def diffusion(self) -> Any:
        """D: a number, or one for each component of a layer."""

    @abstractmethod
    def force(self, u: Any) -> Any:
        """f(u) of one layer or of many, components last."""

    @abstractmethod
    def slope(self, u: Any) -> Any:
        """f'(u), or the matrix df_i/du_j of every layer."""

    def to(self, number: Callable[[Any], Any]) -> Self:
        """The same with its constants as that type of number."""
        constants = {name: number(value) for name, value in vars(self).items()}
        return type(self)(**constants)


@dataclass(frozen=True)
class CubicChain(Chain):
    """f(u) = u - u^3, whose minima of energy are u = -1 and 1: kappa = 2/D there."""

    D: Any

    @classmethod
    def of(cls, kappa: float) -> Self:
        """The chain with that kappa > 0 at u = 1; EqkernelError for another."""
        if not 0 < kappa < np.inf:
            raise EqkernelError(f"kappa must be positive and finite, not {kappa}: other states are no energy minima")
        return cls(2 / kappa)

    @property
    def diffusion(self) -> Any:
        return self.D

    def force(self, u: Any) -> Any:
        return u - u * u * u

    def slope(self, u: Any) -> Any:
        return 1 - 3 * u * u


@dataclass(frozen=True)
class FitzHughNagumoChain(Chain):
    """Layers (u, v): Du lap u + u - u^3 - v = 0, Dv lap v + eps (u - alpha v - beta) = 0."""

    Du: Any = 1.0
    Dv: Any = 20.0
    eps: Any = 1.5
    alpha: Any = 0.8
    beta: Any = 0.0
    width: ClassVar[int | None] = 2

    @property
    def diffusion(self) -> Any:
        return np.array([self.Du, self.Dv])

    def force(self, u: Any) -> Any:
        a, b = u[..., 0], u[..., 1]
        return np.stack([a - a * a * a - b, self.eps * (a - self.alpha * b - self.beta)], axis=-1)

    def slope(self, u: Any) -> Any:
        a = u[..., 0]
        one = np.ones_like(a)
        rows = [[one - 3 * a * a, -one], [self.eps * one, -self.eps * self.alpha * one]]
        return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def hamiltonian_march(
    chain: Chain, first: ArrayLike, second: ArrayLike, layers: int, arithmetic: Arithmetic = "float64"
) -> NDArray:
    """States of layers 0..layers, marched from layers 0 and 1: shape (layers + 1,) or (layers + 1, width).

    arithmetic: a NumPy float type ("float16", "float32", "float64", "longdouble"), a number of decimal digits, or
    "object": whatever numbers `first`, `second` and the chain hold (mpmath's mpf, Fraction, ...). A march past the wall
    may overflow: it ends in infinities or NaN, which is no error.
    """
    _check_layers(layers, 1)
    with _arithmetic(arithmetic) as (number, dtype), np.errstate(over="ignore", invalid="ignore"):
        chain = chain.to(number)
        states = np.empty((layers + 1, *_layer_shape(chain)), dtype)
        states[0], states[1] = _numbers(first, number, dtype), _numbers(second, number, dtype)
        D, before, u = chain.diffusion, states[0], states[1]
        for l in range(2, layers + 1):
            try:
                before, u = u, 2 * u - before - chain.force(u) / D
            except DecimalException:  # beyond 10^(10^18)
                states[l:] = number("nan")
                break
            states[l] = u
    return states


def stationary_newton(
    chain: Chain,
    first: ArrayLike,
    last: ArrayLike,
    layers: int,
    arithmetic: Arithmetic = "float64",
    start: ArrayLike | None = None,
    iterations: int = 60,
) -> NDArray:
    """States of layers 0..layers at rest between the given ends: Newton's method on the tridiagonal system.

    start: (layers + 1,) or (layers + 1, width), by default the chain's rest state (1, or 0 for several components)
    between the ends. Chains of several components are solved in NumPy floats only. Raises DivergenceError if Newton's
    method does not arrive.
    """
    _check_layers(layers, 2)
    with _arithmetic(arithmetic) as (number, dtype):
        chain = chain.to(number)
        shape = _layer_shape(chain)
        if start is None:
            start = np.full((layers + 1, *shape), 0 if shape else 1)
        u = _numbers(start, number, dtype).reshape(layers + 1, *shape)
        u[0], u[-1] = _numbers(first, number, dtype), _numbers(last, number, dtype)
        D = chain.diffusion
        unit = _last_place(arithmetic, number)
        least = None
        for _ in range(iterations):
            residual = D * ((u[2:] - u[1:-1]) - (u[1:-1] - u[:-2])) + chain.force(u[1:-1])
            change = _tridiagonal(D, chain.slope(u[1:-1]), -residual)
            u[1:-1] += change
            size = abs(change).max()
            if not size < 10**9:
                break
            # It converges quadratically until only rounding moves it.
            if size <= 4 * unit or (size < 10_000 * unit and least is not None and size >= least):
                return u
            least = size if least is None else min(size, least)
    raise DivergenceError(f"Newton's method found no stationary state of {layers} layers: begin nearer, with `start`")


def thomas(lower: Any, diagonal: NDArray, upper: Any, right: NDArray) -> NDArray:
    """x of lower x_{l-1} + diagonal_l x_l + upper x_{l+1} = right_l: (n,) in any arithmetic (Thomas 1949)."""
    n = len(diagonal)
    c, d = np.empty_like(right), np.empty_like(right)
    c[0], d[0] = upper / diagonal[0], right[0] / diagonal[0]
    for l in range(1, n):
        pivot = diagonal[l] - lower * c[l - 1]
        c[l], d[l] = upper / pivot, (right[l] - lower * d[l - 1]) / pivot
    for l in range(n - 2, -1, -1):
        d[l] = d[l] - c[l] * d[l + 1]
    return d


def block_thomas(coupling: NDArray, diagonal: NDArray, right: NDArray) -> NDArray:
    """x (n, m) of coupling (x_{l-1} + x_{l+1}) + diagonal_l x_l = right_l, coupling (m, m), diagonal (n, m, m)."""
    n, m = right.shape
    c, d = np.empty((n, m, m), right.dtype), np.empty_like(right)
    for l in range(n):
        pivot, rest = diagonal[l], right[l]
        if l:
            pivot, rest = pivot - coupling @ c[l - 1], rest - coupling @ d[l - 1]
        solved = np.linalg.solve(pivot, np.column_stack([coupling, rest]))
        c[l], d[l] = solved[:, :m], solved[:, m]
    for l in range(n - 2, -1, -1):
        d[l] -= c[l] @ d[l + 1]
    return d


def growth(kappa: ArrayLike) -> Any:
    """Lambda >= 1, by which a layer of curvature kappa multiplies an error; 1 in the elliptic band -4 <= kappa <= 0."""
    k = np.asarray(kappa, complex)
    root = np.sqrt(k + k * k / 4)
    return np.maximum(abs(1 + k / 2 + root), abs(1 + k / 2 - root))[()]


def layers_per_digit(kappa: float) -> float:
    """How many layers further the wall is for each decimal digit of arithmetic: 1 / log10(Lambda), infinite for 1."""
    rate = float(np.log10(growth(kappa)))
    return 1 / rate if rate > 1e-12 else np.inf


def wall(marched: NDArray, settled: NDArray, tolerance: float = 0.1) -> int | None:
    """The first layer in which the march is off by more than `tolerance` in some component; None if there is none."""
    for l, (found, true) in enumerate(zip(marched, settled, strict=False)):
        error = max(abs(float(a) - float(b)) for a, b in zip(np.ravel(found), np.ravel(true), strict=True))
        if not error <= tolerance:
            return l
    return None


def predicted_wall(
    chain: Chain, settled: NDArray, arithmetic: Arithmetic = "float64", tolerance: float = 0.1
) -> int | None:
    """The layer at which rounding is expected to have grown to `tolerance`; None if beyond the last of `settled`.

    Errors obey the march linearised about the settled states (layers,), e_{l+1} = (2 - f'(u_l)/D) e_l - e_{l-1}. Every
    number that is rounded adds an error, independent and uniform within half of its last place, and the variances are
    carried along.
    """
    u = np.array([float(value) for value in settled])
    if isinstance(arithmetic, int):
        unit, base = 10.0 ** (1 - arithmetic), 10.0
    else:
        unit, base = float(np.finfo(arithmetic).eps), 2.0
    chain = chain.to(float)
    bend, pull = 2 - chain.slope(u) / chain.diffusion, chain.force(u) / chain.diffusion

    def variance(value: float) -> float:
        """Of the rounding of a number: its last place squared, over 12."""
        place = unit * base ** np.floor(np.log(max(abs(value), 1e-300)) / np.log(base))
        return float(place**2 / 12)

    covariance = np.diag([variance(u[1]), variance(u[0])])  # of (e_l, e_{l-1}): both inputs are rounded
    for l in range(1, len(u) - 1):
        step = np.array([[bend[l], -1.0], [1.0, 0.0]])
        covariance = step @ covariance @ step.T
        covariance[0, 0] += variance(2 * u[l] - u[l - 1]) + variance(pull[l]) + variance(u[l + 1])
        if covariance[0, 0] > tolerance**2:
            return l + 1
    return None


def _tridiagonal(D: Any, slope: NDArray, right: NDArray) -> NDArray:
    if right.ndim == 1:
        return thomas(D, slope - 2 * D, D, right)
    if right.dtype.kind == "O":
        raise EqkernelError("chains of several components are solved in NumPy floats only")
    return block_thomas(np.diag(D), slope - 2 * np.diag(D), right)


def _layer_shape(chain: Chain) -> tuple[int, ...]:
    return () if chain.width is None else (chain.width,)


def _last_place(arithmetic: Arithmetic, number: Callable[[Any], Any]) -> Any:
    """Of numbers near 1, and a little more for decimals."""
    return number(10) ** (2 - arithmetic) if isinstance(arithmetic, int) else np.finfo(arithmetic).eps


def _check_layers(layers: int, least: int) -> None:
    if isinstance(layers, bool) or not isinstance(layers, int | np.integer) or layers < least:
        raise EqkernelError(f"layers must be a whole number of at least {least}, not {layers!r}")


def _numbers(values: ArrayLike, number: Callable[[Any], Any], dtype: Any) -> Any:
    given = np.asarray(values, object if dtype is object else None)
    out = np.empty(given.shape, dtype)
    for index in np.ndindex(given.shape):
        out[index] = number(given[index])
    return out[()]  # one number is itself, not an array


@contextmanager
def _arithmetic(arithmetic: Arithmetic) -> Iterator[tuple[Callable[[Any], Any], Any]]:
    """(constructor of a number, dtype of an array of them); inside the block decimals have their digits."""
    if isinstance(arithmetic, int):
        if arithmetic < 2:
            raise EqkernelError(f"arithmetic of {arithmetic} decimal digits: choose at least 2")
        with localcontext() as context:
            context.prec = arithmetic
            yield lambda value: +Decimal(str(value) if isinstance(value, np.generic) else value), object
        return
    try:
        dtype: np.dtype | None = np.dtype(arithmetic)
    except TypeError:
        dtype = None
    if dtype is not None and dtype.kind == "O":
        yield lambda value: value, object
    elif dtype is not None and np.issubdtype(dtype, np.floating):
        yield dtype.type, dtype
    else:
        raise EqkernelError(f"unknown arithmetic {arithmetic!r}: a NumPy float type or a number of decimal digits")
