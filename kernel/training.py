"""The training loop: shuffled mini-batches through `train_step`, and a record of every epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .cortex import Adjustment, Reward
from .costs import one_hot
from .data import as_pair, batches
from .errors import EqkernelError, check_seed, is_whole
from .interop import check_finite, stream_of, to_host
from .learning import check_optimiser, predict, train_step
from .network import Network
from .optimisers import Optimiser
from .outcomes import Outcome
from .phases import check_input, free_phase, nudged_phase

PART = 4096  # samples that are looked at together
SEEDS_APART = 1_000_003  # between the shuffles of two seeds: more than any run has epochs


@dataclass(frozen=True)
class Epoch:
    """What an epoch did so far; means are over its samples, each seen before the update it leads to."""

    number: int  # from 1
    batches: int
    loss: float
    accuracy: float
    free_steps: float
    nudged_steps: float
    residual: float  # the largest of any batch
    unsettled: int  # batches whose settle ran out of steps
    samples_per_second: float  # of training alone
    held_out: float | None = None  # accuracy on samples not learned from, once the epoch is over


def fit(
    net: Network,
    x: NDArray,
    y: NDArray,
    *,
    epochs: int,
    batch: int = 64,
    optimiser: Optimiser,
    beta: float = 0.02,
    variant: str = "centered",
    seed: int = 0,
    held_out: tuple[NDArray, NDArray] | None = None,
    callback: Callable[[Epoch], None] | None = None,
    reward: str | Reward | None = None,
    adjustment: Adjustment | None = None,
) -> list[Epoch]:
    """Trains `net` in place on x (n, n_0) and labels y (n,); a record for each epoch.

    `held_out` is an (x, y) whose accuracy is measured after every epoch. `callback` gets the epoch so far
    after every batch, and once more with `held_out` filled in. `seed` and the epoch's number set the shuffle.
    `reward` and `adjustment` are train_step's, and its DivergenceError is raised.
    """
    if not is_whole(epochs, 1):
        raise EqkernelError(f"epochs is {epochs!r}: it must be a whole number of at least 1")
    check_seed(seed)
    check_optimiser(net, optimiser)
    x, y = as_pair(x, y)
    _check(net, x, y)  # refused now is what would end an epoch
    if held_out is not None:
        if not isinstance(held_out, tuple | list) or len(held_out) != 2:
            raise EqkernelError(f"held_out must be a pair (x, y), not {type(held_out).__name__}")
        held_out = _check(net, *held_out)
    if not (callback is None or callable(callback)):
        raise EqkernelError(f"callback must be a function of an Epoch, not {callback!r}")
    report = callback or (lambda epoch: None)
    history = []
    for number in range(1, epochs + 1):
        samples, totals = 0, np.zeros(4)
        residual, unsettled, seconds = 0.0, 0, 0.0
        for count, (xb, yb) in enumerate(batches(x, y, batch, int(seed) * SEEDS_APART + number), 1):
            start = time.perf_counter()
            step = train_step(
                net, xb, yb, beta=beta, optimiser=optimiser, variant=variant, reward=reward, adjustment=adjustment
            )
            seconds += time.perf_counter() - start
            samples += len(xb)
            totals += len(xb) * np.array([step.loss, step.accuracy, step.free_steps, step.nudged_steps])
            residual = max(residual, step.residual)
            unsettled += step.outcome is Outcome.OUT_OF_STEPS
            loss, right, free, nudged = (totals / samples).tolist()
            speed = samples / seconds
            epoch = Epoch(number, count, loss, right, free, nudged, residual, unsettled, speed)
            report(epoch)
        if held_out is not None:
            epoch = replace(epoch, held_out=accuracy(net, *held_out))
            report(epoch)
        history.append(epoch)
    return history


def accuracy(net: Network, x: ArrayLike, y: ArrayLike) -> float:
    """The share of x (n, n_0) that `net` gives its label y (n,); EqkernelError for what are no labels."""
    x, labels = _labelled(net, x, y)
    return float((to_host(predict(net, x)) == labels).mean())


def _check(net: Network, x: Any, y: Any) -> tuple[Any, NDArray]:
    """As `_labelled`; EqkernelError for an x too that the network cannot take, looked at a part at a time."""
    x, labels = _labelled(net, x, y)
    for first in range(0, len(x), PART):
        part = x[first : first + PART]
        with stream_of(net, part):
            check_finite("x", check_input(net, part))
    return x, labels


def _labelled(net: Network, x: Any, y: Any) -> tuple[Any, NDArray]:
    """x, and its labels on the host; EqkernelError for those that the network cannot give."""
    x, y = as_pair(x, y)
    _check_labels(y)
    labels = to_host(y, "y")
    one_hot(labels, net.sizes[-1], net.dtype)
    return x, labels


def _check_labels(y: Any) -> None:
    """EqkernelError unless y is (n,)."""
    if len(y.shape) != 1 or not len(y):
        raise EqkernelError(f"labels are (n,), at least one, not y of shape {tuple(y.shape)}")


def residual_curves(net: Network, x: NDArray, y: NDArray, beta: float) -> tuple[list[float], list[float]]:
    """Residuals after 1, 2, ... steps of the free phase and of the nudged phase that follows it.

    At least ten steps. Every point is a settle of its own, so that kernels need offer no trace of one.
    """
    steps = max(10, net.schedule.free_steps, net.schedule.nudged_steps)
    schedule = net.schedule.but(free_steps=steps, tolerance=None, early_stop=False)
    counts = range(1, steps + 1)
    settled = free_phase(net, x, schedule)
    free = [free_phase(net, x, schedule.but(free_steps=n)).residual for n in counts]
    nudged = [nudged_phase(net, settled, y, beta, schedule=schedule.but(nudged_steps=n)) for n in counts]
    return free, [phase.residual for phase in nudged]
