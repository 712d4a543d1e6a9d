"""Neurons: rate rho(drive), relaxation, potential Psi = integral of rho^-1, and exact differences of rho.

`neuron` names a model of eqkernel.neurons. Arrays are (B, n); softmax normalises over the n neurons of each.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax, xlogy


def root_of_cubic(d: NDArray) -> NDArray:
    """The real root s of s + s^3 = d: Viete's formula, and a Newton step against its rounding."""
    s = np.sqrt(4 / 3) * np.sinh(np.arcsinh(np.sqrt(27 / 4) * d) / 3)
    return s - (s**3 + s - d) / (3 * s**2 + 1)


RATE = {
    "hard-sigmoid": lambda drive: np.clip(drive, 0, 1),
    "sigmoid": expit,
    "tanh": np.tanh,
    "linear": lambda drive: drive,
    "fhn": root_of_cubic,
    "softmax": lambda drive: softmax(drive, axis=-1),
}

POTENTIAL = {
    "hard-sigmoid": lambda s: s**2 / 2,
    "sigmoid": lambda s: xlogy(s, s) + xlogy(1 - s, 1 - s),
    "tanh": lambda s: (xlogy(1 + s, 1 + s) + xlogy(1 - s, 1 - s)) / 2,
    "linear": lambda s: s**2 / 2,
    "fhn": lambda s: s**2 / 2 + s**4 / 4,
    "softmax": lambda s: xlogy(s, s),
}


def rate(out: NDArray, drive: NDArray, neuron: str) -> None:
    """out = rho(drive)."""
    out[...] = RATE[neuron](drive)


def relax(state: NDArray, drive: NDArray, step: float, neuron: str) -> None:
    """state += step (rho(drive) - state): an Euler step of ds/dt = rho(drive) - s, 0 < step <= 1."""
    state += step * (RATE[neuron](drive) - state)


def potential(energy: NDArray, state: NDArray, neuron: str) -> None:
    """energy (B,) += sum_i Psi(s_i), Psi' = rho^-1; the state must be in the range of rho."""
    energy += POTENTIAL[neuron](state).sum(axis=1)


def difference(out: NDArray, mean: NDArray, drive_difference: NDArray, neuron: str) -> None:
    """out = rho(m + c/2) - rho(m - c/2), m the mean drive, c its difference: fully precise however tiny c."""
    out[...] = DIFFERENCE[neuron](mean, drive_difference)


def clip_difference(m: NDArray, c: NDArray) -> NDArray:
    """clip(m + c/2, 0, 1) - clip(m - c/2, 0, 1): c, less what either end cuts off."""
    half = abs(c) / 2
    return np.copysign(np.clip(1 - m, -half, half) + np.clip(m, -half, half), c)


def tanh_difference(m: NDArray, c: NDArray) -> NDArray:
    """tanh(m + c/2) - tanh(m - c/2) = sinh(c) / (cosh(m + c/2) cosh(m - c/2)), written not to overflow."""
    high, low = abs(m) + abs(c) / 2, abs(m) - abs(c) / 2
    rise = -2 * np.expm1(-2 * abs(c)) / ((1 + np.exp(-2 * high)) * (1 + np.exp(np.minimum(2 * low, 700))))
    return np.copysign(rise, c)


def cubic_difference(m: NDArray, c: NDArray) -> NDArray:
    """p - q for p + p^3 = m + c/2 and q + q^3 = m - c/2, of which c = (p - q) (1 + p^2 + p q + q^2)."""
    p, q = root_of_cubic(m + c / 2), root_of_cubic(m - c / 2)
    return c / (1 + p * p + p * q + q * q)


DIFFERENCE = {
    "hard-sigmoid": clip_difference,
    "sigmoid": lambda m, c: tanh_difference(m / 2, c / 2) / 2,
    "tanh": tanh_difference,
    "linear": lambda m, c: c,
    "fhn": cubic_difference,
}
