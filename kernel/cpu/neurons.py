"""Neuron models: rate, relax, difference, potential (see `eqkernel.reference.neurons` for the equations).

The kernels work on flat arrays, such as pieces of a tile in the fused settle; the verbs at the end take any shape.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..neurons import FHN, HARD_SIGMOID, SIGMOID, SOFTMAX, TANH, find_neuron
from ..reference import neurons as reference
from .arithmetic import exp_of_negative, maximum, minimum, real, tanh
from .arrays import flat_in, flat_out
from .compile import inline, kernel, never_inline
from .cubic import root_of_cubic


@inline
def clip01(x):
    return minimum(maximum(x, real(0.0, x)), real(1.0, x))


@inline
def sigmoid(x):
    half = real(0.5, x)
    return half + half * tanh(half * x)


@inline
def difference_hard_sigmoid(m, c):
    half = real(0.5, c) * abs(c)
    rise = minimum(maximum(real(1.0, c) - m, -half), half) + minimum(maximum(m, -half), half)
    return rise if c >= real(0.0, c) else -rise


@inline
def difference_tanh(m, c):
    half = real(0.5, c) * c
    return tanh(c) * (real(1.0, c) - tanh(m + half) * tanh(m - half))


@inline
def difference_sigmoid(m, c):
    return real(0.5, c) * difference_tanh(real(0.5, c) * m, real(0.5, c) * c)


@inline
def difference_fhn(m, c):
    half = real(0.5, c) * c
    p, q = root_of_cubic(m + half), root_of_cubic(m - half)
    return c / (real(1.0, c) + (p * p + p * q + q * q))


@kernel
def rate_of(out, drive, code):
    """out = rho(drive), element by element; returns nothing."""
    if code == HARD_SIGMOID:
        for i in range(out.size):
            out[i] = clip01(drive[i])
    elif code == SIGMOID:
        for i in range(out.size):
            out[i] = sigmoid(drive[i])
    elif code == TANH:
        for i in range(out.size):
            out[i] = tanh(drive[i])
    elif code == FHN:
        for i in range(out.size):
            out[i] = root_of_cubic(drive[i])
    else:
        for i in range(out.size):
            out[i] = drive[i]


@kernel
def relax_towards(state, drive, more, step, code):
    """state += step (rho(drive + more) - state); returns the largest change, NaN if any state became NaN."""
    never_inline()
    largest = state.dtype.type(0)
    if code == HARD_SIGMOID:
        for i in range(state.size):
            change = step * (clip01(drive[i] + more[i]) - state[i])
            state[i] += change
            largest = maximum(largest, abs(change))
    elif code == SIGMOID:
        for i in range(state.size):
            change = step * (sigmoid(drive[i] + more[i]) - state[i])
            state[i] += change
            largest = maximum(largest, abs(change))
    elif code == TANH:
        for i in range(state.size):
            change = step * (tanh(drive[i] + more[i]) - state[i])
            state[i] += change
            largest = maximum(largest, abs(change))
    elif code == FHN:
        for i in range(state.size):
            change = step * (root_of_cubic(drive[i] + more[i]) - state[i])
            state[i] += change
            largest = maximum(largest, abs(change))
    else:
        for i in range(state.size):
            change = step * (drive[i] + more[i] - state[i])
            state[i] += change
            largest = maximum(largest, abs(change))
    return largest


@kernel
def relax_difference(difference, mean, drive, more, step, code):
    """With c = drive + more: difference += step (rho(mean + c/2) - rho(mean - c/2) - difference), without cancellation;
    returns the largest change."""
    never_inline()
    largest = difference.dtype.type(0)
    if code == HARD_SIGMOID:
        for i in range(difference.size):
            change = step * (difference_hard_sigmoid(mean[i], drive[i] + more[i]) - difference[i])
            difference[i] += change
            largest = maximum(largest, abs(change))
    elif code == SIGMOID:
        for i in range(difference.size):
            change = step * (difference_sigmoid(mean[i], drive[i] + more[i]) - difference[i])
            difference[i] += change
            largest = maximum(largest, abs(change))
    elif code == TANH:
        for i in range(difference.size):
            change = step * (difference_tanh(mean[i], drive[i] + more[i]) - difference[i])
            difference[i] += change
            largest = maximum(largest, abs(change))
    elif code == FHN:
        for i in range(difference.size):
            change = step * (difference_fhn(mean[i], drive[i] + more[i]) - difference[i])
            difference[i] += change
            largest = maximum(largest, abs(change))
    else:
        for i in range(difference.size):
            change = step * (drive[i] + more[i] - difference[i])
            difference[i] += change
            largest = maximum(largest, abs(change))
    return largest


@kernel
def relax_mean(state, mean, drive, more, step, code):
    """With c = drive + more: state += step ((rho(mean + c/2) + rho(mean - c/2)) / 2 - state);
    returns the largest change."""
    never_inline()
    largest, half = state.dtype.type(0), real(0.5, step)
    if code == HARD_SIGMOID:
        for i in range(state.size):
            h = half * (drive[i] + more[i])
            change = step * (half * (clip01(mean[i] + h) + clip01(mean[i] - h)) - state[i])
            state[i] += change
            largest = maximum(largest, abs(change))
    elif code == SIGMOID:
        for i in range(state.size):
            h = half * (drive[i] + more[i])
            change = step * (half * (sigmoid(mean[i] + h) + sigmoid(mean[i] - h)) - state[i])
            state[i] += change
            largest = maximum(largest, abs(change))
    elif code == TANH:
        for i in range(state.size):
            h = half * (drive[i] + more[i])
            change = step * (half * (tanh(mean[i] + h) + tanh(mean[i] - h)) - state[i])
            state[i] += change
            largest = maximum(largest, abs(change))
    elif code == FHN:
        for i in range(state.size):
            h = half * (drive[i] + more[i])
            change = step * (half * (root_of_cubic(mean[i] + h) + root_of_cubic(mean[i] - h)) - state[i])
            state[i] += change
            largest = maximum(largest, abs(change))
    else:
        for i in range(state.size):
            change = step * (mean[i] - state[i])
            state[i] += change
            largest = maximum(largest, abs(change))
    return largest


@kernel
def softmax_rows(out, drive, lanes):
    """out = softmax of drive over its rows, for each lane; both flat, (n rows) x lanes."""
    never_inline()
    n = drive.size // lanes
    for b in range(lanes):
        highest = drive[b]
        for i in range(1, n):
            highest = maximum(highest, drive[i * lanes + b])
        total = out.dtype.type(0)
        for i in range(n):
            out[i * lanes + b] = exp_of_negative(drive[i * lanes + b] - highest)
            total += out[i * lanes + b]
        for i in range(n):
            out[i * lanes + b] /= total


def rate(out: NDArray, drive: NDArray, neuron: str) -> None:
    """out = rho(drive)."""
    code = find_neuron(neuron).code
    if code == SOFTMAX:
        reference.rate(out, drive, neuron)
    else:
        rate_of(flat_out(out), flat_in(drive, out.shape, out), code)


def relax(state: NDArray, drive: NDArray, step: float, neuron: str) -> None:
    """state += step (rho(drive) - state)."""
    nothing = np.zeros(state.size, state.dtype)
    relax_towards(
        flat_out(state), flat_in(drive, state.shape, state), nothing, state.dtype.type(step), find_neuron(neuron).code
    )


def difference(out: NDArray, mean: NDArray, drive_difference: NDArray, neuron: str) -> None:
    """out = rho(mean + c/2) - rho(mean - c/2), c = drive_difference, without cancellation."""
    target, nothing = flat_out(out), np.zeros(out.size, out.dtype)
    target[:] = 0
    one, code = out.dtype.type(1), find_neuron(neuron).code
    mean, drive_difference = flat_in(mean, out.shape, out), flat_in(drive_difference, out.shape, out)
    relax_difference(target, mean, drive_difference, nothing, one, code)


potential = reference.potential
