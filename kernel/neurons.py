"""The neuron models and the one table of their arithmetic, shared by every backend.

A neuron turns its drive d into a firing rate s = rho(d), by ds/dt = rho(d) - s. Its potential Psi(s) is the
integral of rho^-1, so that Psi(s) - d s is stationary at s = rho(d).

    name          rho(d)                  rho'(d)             Psi(s)
    hard-sigmoid  clip(d, 0, 1)           1 inside (0, 1)     s^2 / 2 on [0, 1]
    sigmoid       1 / (1 + e^-d)          s (1 - s)           s ln s + (1 - s) ln(1 - s)
    tanh          tanh d                  1 - s^2             [(1 + s) ln(1 + s) + (1 - s) ln(1 - s)] / 2
    linear        d                       1                   s^2 / 2
    fhn           s with s + s^3 = d      1 / (1 + 3 s^2)     s^2 / 2 + s^4 / 4
    softmax       e^d / sum e^d           diag(s) - s s^T     sum s ln s           (readout only)

fhn is the neuron of FitzHugh and Nagumo, u' = u - u^3 - v + d, v' = eps (u - alpha v), with its inhibitor v slaved
to u: a u + u^3 = d, a = 1/alpha - 1. That a is 1 is a choice of units: any other is u = sqrt(a) s, with weights
W / a. `eqkernel.skewgradient` keeps v as a state of its own.
"""

from dataclasses import dataclass
from math import factorial, log

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .errors import EqkernelError, lookup


@dataclass(frozen=True)
class Neuron:
    """A neuron model: the name users write, and the integer by which compiled kernels know it."""

    name: str
    code: int


HARD_SIGMOID, SIGMOID, TANH, LINEAR, SOFTMAX, FHN = range(6)

NEURONS = {
    neuron.name: neuron
    for neuron in (
        Neuron("hard-sigmoid", HARD_SIGMOID),
        Neuron("sigmoid", SIGMOID),
        Neuron("tanh", TANH),
        Neuron("linear", LINEAR),
        Neuron("softmax", SOFTMAX),
        Neuron("fhn", FHN),
    )
}

# Order n of the Pade approximant: the lowest whose truncation error stays below one unit in the last place
# (ulp) up to tanh_limit. With rounding in its own dtype it is then within 7 and 10 ulp of tanh, 1.5 ulp rms.
TANH_ORDER = {np.dtype(np.float32): 13, np.dtype(np.float64): 28}


def find_neuron(name: str) -> Neuron:
    """The neuron model called `name`; EqkernelError naming the models if there is none."""
    return lookup("neuron", name, NEURONS)


def tanh_coefficients(dtype: DTypeLike) -> tuple[NDArray, NDArray]:
    """Coefficients (odd, even), lowest power first, of tanh x = x odd(x^2) / even(x^2) for |x| <= tanh_limit.

    The diagonal Pade approximant e^z = N(z) / N(-z), N(z) = sum_k (2n-k)! n! / ((2n)! k! (n-k)!) z^k, at
    z = 2x makes tanh x = (e^z - 1) / (e^z + 1) the odd part of N over its even part: the n-th convergent of
    Lambert's continued fraction x / (1 + x^2 / (3 + x^2 / (5 + ...))). All coefficients are positive, so
    Horner's rule does not cancel; rounding may carry the result a few ulp past 1.
    Raises EqkernelError unless dtype is float32 or float64.
    """
    n = TANH_ORDER[_float_type(dtype)]
    terms = [
        2**k * factorial(2 * n - k) * factorial(n) / (factorial(2 * n) * factorial(k) * factorial(n - k))
        for k in range(n + 1)
    ]
    return np.array(terms[1::2], dtype), np.array(terms[0::2], dtype)


def tanh_limit(dtype: DTypeLike) -> float:
    """Where tanh rounds to 1: 1 - tanh x = 2 e^-2x falls to half the spacing of the numbers just below 1."""
    return (np.finfo(_float_type(dtype)).nmant + 3) * log(2) / 2


def _float_type(dtype: DTypeLike) -> np.dtype:
    """`dtype` if it is float32 or float64, the two types that kernels compute in."""
    if (found := np.dtype(dtype)) in TANH_ORDER:
        return found
    raise EqkernelError(f"dtype must be float32 or float64, not {found}")
