"""Equilibrium propagation on one page (Scellier & Bengio 2017; centred: Laborieux et al. 2021).

    1. free phase      settle with the input clamped
    2. nudged phase    settle again with the cost pulling the output by +beta and by -beta
    3. update          every weight learns from the difference of its own two ends

If Phi is what the connections contribute to the energy, dL/dW = -[dPhi/dW(s+) - dPhi/dW(s-)] / (2 beta), averaged over
the batch: nothing is propagated through a stored graph.

Threads may share a network: calls on it take turns, and a result is the caller's own unless it was asked for with
reuse=True, which the network's next call overwrites.
"""

from __future__ import annotations

from numpy.typing import ArrayLike, NDArray

from .cortex import Adjustment, Reward, modulated
from .errors import EqkernelError, is_whole
from .interop import resident, returner, states_of, stream_of, turn_of
from .network import Network
from .optimisers import SGD, Optimiser
from .phases import Nudged, check_input, free_phase, measure, nudged_phase
from .schedules import Schedule, is_normal, plan_of
from .step import Step, step_at_once, summary


def train_step(
    network: Network,
    x: ArrayLike,
    y: ArrayLike,
    *,
    beta: float = 0.02,
    lr: float | None = None,
    optimiser: Optimiser | None = None,
    variant: str = "centered",
    schedule: str | Schedule | None = None,
    reward: str | Reward | None = None,
    adjustment: Adjustment | None = None,
) -> Step:
    """One step of equilibrium propagation on a batch; the parameters change in place.

    x (B, n_0), y labels (B,) or targets (B, n_L). Give an optimiser, or lr for plain gradient descent. `reward` and
    `adjustment` change the nudged states before the update (`eqkernel.cortex`). Raises
    EqkernelError for bad input, before anything is changed, and DivergenceError if a phase or the loss diverges.
    """
    if (lr is None) == (optimiser is None):
        raise EqkernelError("give train_step either lr (plain gradient descent) or an optimiser")
    optimiser = SGD(lr) if optimiser is None else optimiser  # type: ignore[arg-type]
    check_optimiser(network, optimiser)

    with turn_of(network), stream_of(network, x):
        x = resident(network, x)
        if reward is adjustment is None and (step := step_at_once(network, x, y, beta, optimiser, variant, schedule)):
            return step  # the phases below in one call of the engine, to the same result
        free = free_phase(network, x, schedule, reuse=True)
        nudged = nudged_phase(network, free, y, beta, variant, reuse=True)
        nudged = modulated(network, free, y, nudged, reward, adjustment)
        loss, accuracy = measure(network, free, y)
        hebbian_update(network, nudged, optimiser)

    phases = ((phase.steps, phase.residual, phase.outcome) for phase in (free, nudged))
    return summary(loss, accuracy, *phases)


def hebbian_update(network: Network, nudged: Nudged, optimiser: Optimiser) -> None:
    """One optimiser step on the Hebbian contrast of the nudged states, then the projection of bounded weights.

    The states may be arrays of any layout and real type. Raises EqkernelError, before anything is changed, where they
    are not (B, n_l) for every layer l; DivergenceError if bounded weights are no longer finite.
    """
    check_optimiser(network, optimiser)
    if not isinstance(nudged, Nudged):
        raise EqkernelError(f"nudged must be what nudged_phase returned, not {type(nudged).__name__}")
    plan = plan_of(network, nudged.schedule)
    with turn_of(network), stream_of(network, nudged.mean[0] if len(nudged.mean) else None):
        mean, difference = states_of(network, mean=nudged.mean, difference=nudged.difference)
        network.engine.update(mean, difference, optimiser, plan)
        network.project()
        optimiser.steps += 1


def check_optimiser(network: Network, optimiser: Optimiser) -> None:
    """EqkernelError for what is no optimiser, or has a learning rate that the network's type does not."""
    if not isinstance(optimiser, Optimiser):
        raise EqkernelError(
            f"optimiser must be one of SGD, Momentum, Adam, Muon, AdaGO with its settings, not {optimiser!r}"
        )
    for name, value in (("lr", optimiser.lr), ("eps", getattr(optimiser, "eps", 1e-8))):
        if not is_normal(value, network.dtype):
            raise EqkernelError(f"{name}={value!r} leaves {network.dtype}: choose a usual one, as lr=0.01, eps=1e-8")


def ep_gradient(
    network: Network,
    x: ArrayLike,
    y: ArrayLike,
    beta: float = 0.02,
    variant: str = "centered",
    schedule: str | Schedule | None = None,
    reward: str | Reward | None = None,
    adjustment: Adjustment | None = None,
) -> list[NDArray]:
    """The gradient of the mean loss as equilibrium propagation estimates it, one array a connection; pure.

    With a reward it is that of the mean of R(C) (see `eqkernel.cortex.Reward`).
    """
    back = returner(network, x)
    with turn_of(network), stream_of(network, x):
        free = free_phase(network, resident(network, x), schedule)
        nudged = nudged_phase(network, free, y, beta, variant, reuse=True)
        nudged = modulated(network, free, y, nudged, reward, adjustment)
        return back(network.engine.gradient(nudged.mean, nudged.difference, nudged.schedule))


def predict(network: Network, x: ArrayLike, *, output: bool = False, size: int = 512) -> NDArray:
    """Labels (B,) of the most active output, or with output=True the outputs (B, n_L) themselves.

    Settles `size` samples at a time, so memory does not grow with B.
    """
    if not is_whole(size, 1):
        raise EqkernelError(f"size must be a whole number of at least 1, not {size!r}")
    back = returner(network, x)
    with turn_of(network), stream_of(network, x):
        x = check_input(network, x)
        outputs = network.arrays.empty((len(x), network.sizes[-1]), network.dtype)
        for first in range(0, len(x), size):
            batch = slice(first, first + size)
            outputs[batch] = free_phase(network, x[batch], reuse=True).output
        return back(outputs if output else outputs.argmax(axis=1))
