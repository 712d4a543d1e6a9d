"""How a settled field answers a small current: the raw Jacobian is lopsided, the effective response is symmetric.

Linearised about a stationary state, d/dt (du, dv) = J (du, dv) + (i, 0) with J = [[-A, -1], [eps, -eps B]],
A = -(Du lap + 1 - 3 u^2) and B = alpha - Dv/eps lap, both symmetric. At rest dv = B^-1 du, so du = M^-1 i with
M = A + B^-1: what a current at site j does at site i is what the same current at i does at j (reciprocity), although
the two species pull in opposite ways. J itself is self-adjoint only in the indefinite metric diag(1, -1/eps).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import DivergenceError, EqkernelError, is_finite, is_whole
from .fields import FitzHughNagumo
from .reference.diffusion import laplacian

MOST = 4096  # cells; every matrix here is dense


@dataclass(frozen=True)
class Response:
    """Of a field of n cells, linearised at activator u (n,): all float64."""

    u: NDArray
    A: NDArray  # (n, n), the activator's own curvature
    B: NDArray  # (n, n), the inhibitor's
    eps: float

    @property
    def raw(self) -> NDArray:
        """J (2n, 2n), d(du/dt, dv/dt)/d(u, v): u first, then v."""
        one = np.eye(len(self.u))
        return np.block([[-self.A, -one], [self.eps * one, -self.eps * self.B]])

    @property
    def effective(self) -> NDArray:
        """M^-1 = (A + B^-1)^-1 (n, n): du at rest for a unit of current into u. EqkernelError if M is singular."""
        M = self.A + np.linalg.inv(self.B)
        if np.linalg.cond(M) > 1e12:
            raise EqkernelError(
                "the response is singular: a pattern slides along periodic boundaries without resistance; "
                "choose boundary='neumann'"
            )
        return np.linalg.inv(M)

    @property
    def metric(self) -> NDArray:
        """S = diag(1, -1/eps) (2n, 2n), for which S J is symmetric."""
        n = len(self.u)
        return np.diag(np.concatenate([np.ones(n), np.full(n, -1 / self.eps)]))


def linearise(field: FitzHughNagumo, u: ArrayLike | None = None) -> Response:
    """The response of `field` at the activator u, by default its own, of the field's shape."""
    u = np.asarray(field.u if u is None else u, float).ravel()
    n = u.size
    if n > MOST:
        raise EqkernelError(f"the response of {n} cells is a dense matrix: choose a field of at most {MOST}")
    if u.size != np.prod(field.shape):
        raise EqkernelError(f"u has {u.size} cells, and the field {np.prod(field.shape)}")
    L = laplacian(np.eye(n).reshape(n, *field.shape), field.boundary).reshape(n, n) / field.dx**2
    A = -(field.Du * L + np.diag(1 - 3 * u * u))
    B = field.alpha * np.eye(n) - field.Dv / field.eps * L
    return Response(u, A, B, field.eps)


def stationary(
    field: FitzHughNagumo, current: ArrayLike = 0.0, u: ArrayLike | None = None, iterations: int = 40
) -> NDArray:
    """The activator at rest, of the field's shape, with a steady `current` into it (a number, or one for each cell).

    Newton's method on Du lap u + u - u^3 - B^-1 (u - beta) + current = 0 from `u`, by default the field's own, which
    is left as it is. Raises DivergenceError if it does not arrive: step the field further first.
    """
    start = linearise(field, u)
    inverse_B = np.linalg.inv(start.B)
    linear = start.A + np.diag(1 - 3 * start.u**2) + inverse_B  # without reaction
    u, i = start.u.copy(), np.broadcast_to(np.asarray(current, float), field.shape).ravel()
    least = np.inf
    for _ in range(iterations):
        residual = u - u**3 - linear @ u + inverse_B.sum(axis=1) * field.beta + i
        change = np.linalg.solve(linear - np.diag(1 - 3 * u**2), residual)
        u = u + change
        size = abs(change).max()
        if not np.isfinite(size):
            break
        # It converges quadratically until only rounding moves it.
        if size < 1e-9 and size >= least / 2:
            return u.reshape(field.shape)
        least = min(least, size)
    raise DivergenceError(
        "Newton's method found no stationary state nearby: step the field until its residual is small, and choose "
        "boundary='neumann' if the pattern can slide"
    )


def reciprocity(
    field: FitzHughNagumo, i: int, j: int, current: float = 1e-4, u: ArrayLike | None = None
) -> tuple[float, float]:
    """(du_i/dcurrent_j, du_j/dcurrent_i) of the whole nonlinear field, by pushing cells j and i and letting it settle.

    Central differences at `current` and twice that, extrapolated to none: error O(current^4). i, j: flat indices of
    cells. `u` is a stationary activator, by default the one near the field's own.
    """
    n = int(np.prod(field.shape))
    for cell in (i, j):
        if not (is_whole(cell, 0) and cell < n):
            raise EqkernelError(f"cell {cell} is not one of the field's 0 to {n - 1}")
    if not (is_finite(current) and current):
        raise EqkernelError(f"current must be a number other than 0, not {current!r}")
    rest = stationary(field) if u is None else np.asarray(u, float)

    def slope(at: int, of: int, current: float) -> float:
        push = np.zeros(field.shape)
        push.flat[at] = current
        rise = stationary(field, push, rest) - stationary(field, -push, rest)
        return float(rise.flat[of] / (2 * current))

    def answer(at: int, of: int) -> float:
        return (4 * slope(at, of, current) - slope(at, of, 2 * current)) / 3

    return answer(j, i), answer(i, j)


def asymmetry(matrix: ArrayLike) -> float:
    """|X - X^T| / |X| in the Frobenius norm."""
    matrix = np.asarray(matrix)
    return float(np.linalg.norm(matrix - matrix.T) / np.linalg.norm(matrix))
