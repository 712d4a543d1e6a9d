"""Neuron models: rate, relax, difference, potential (see `eqkernel.reference.neurons` for the equations)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..neurons import SOFTMAX, find_neuron
from ..reference import neurons as reference
from .checks import check
from .device import current
from .launcher import across, launch


def rate(out: Any, drive: Any, neuron: str) -> None:
    """out = rho(drive)."""
    check(out, out.shape, (drive, out.shape))
    code, n = find_neuron(neuron).code, out.size
    if code == SOFTMAX:
        rows, classes = n // out.shape[-1], out.shape[-1]
        launch("neurons", "softmax", out.dtype, (-(-rows * 32 // 256),), 256, (out, drive, rows, classes))
    else:
        launch("neurons", "rate", out.dtype, across(n), 256, (out, drive, n, code))


def relax(state: Any, drive: Any, step: float, neuron: str) -> None:
    """state += step (rho(drive) - state)."""
    check(state, state.shape, (drive, state.shape))
    arguments = state, drive, state.size, float(step), find_neuron(neuron).code
    launch("neurons", "relax", state.dtype, across(state.size), 256, arguments)


def difference(out: Any, mean: Any, drive_difference: Any, neuron: str) -> None:
    """out = rho(mean + c/2) - rho(mean - c/2), c = drive_difference, without cancellation."""
    check(out, out.shape, (mean, out.shape), (drive_difference, out.shape))
    arguments = out, mean, drive_difference, out.size, find_neuron(neuron).code
    launch("neurons", "difference", out.dtype, across(out.size), 256, arguments)


def potential(energy: Any, state: Any, neuron: str) -> None:
    """energy += sum_i Psi(s_i): no part of a settle, so the reference does it, on the host."""
    total = np.zeros(len(energy))
    reference.potential(total, state.get().astype(float), neuron)
    energy += current().arrays.asarray(total.astype(energy.dtype))
