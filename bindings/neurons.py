"""Neuron models: rate, relax, difference, potential (see `eqkernel.reference.neurons` for the equations)."""

from __future__ import annotations

from numpy.typing import NDArray

from ..neurons import SOFTMAX, find_neuron
from .library import check, functions, reads, variant, writes


def rate(out: NDArray, drive: NDArray, neuron: str) -> None:
    """out = rho(drive)."""
    code, run = find_neuron(neuron).code, functions(out.dtype)
    target, drive = writes(out), reads(drive, out.shape, out)
    if code == SOFTMAX:
        check(run.neurons_softmax(variant(), target, drive, out.size // out.shape[-1], out.shape[-1]))
    else:
        check(run.neurons_rate(variant(), target, drive, out.size, code))


def relax(state: NDArray, drive: NDArray, step: float, neuron: str) -> None:
    """state += step (rho(drive) - state)."""
    run, drive = functions(state.dtype), reads(drive, state.shape, state)
    check(run.neurons_relax(variant(), writes(state), drive, step, state.size, find_neuron(neuron).code))


def difference(out: NDArray, mean: NDArray, drive_difference: NDArray, neuron: str) -> None:
    """out = rho(mean + c/2) - rho(mean - c/2), c = drive_difference, without cancellation."""
    run, mean, c = functions(out.dtype), reads(mean, out.shape, out), reads(drive_difference, out.shape, out)
    check(run.neurons_difference(variant(), writes(out), mean, c, out.size, find_neuron(neuron).code))


def potential(energy: NDArray, state: NDArray, neuron: str) -> None:
    """energy (B,) += sum_i Psi(s_i), Psi' = rho^-1; the state must be in the range of rho."""
    (batch, n), run = state.shape, functions(energy.dtype)
    state = reads(state, (len(energy), n), energy)
    check(run.neurons_potential(variant(), writes(energy), state, batch, n, find_neuron(neuron).code))
