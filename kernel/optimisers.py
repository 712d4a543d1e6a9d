"""Optimisers: what a Hebbian gradient does to the weights.

The arithmetic of those with a `rule` is fused into the update kernels; the others, which look at a whole matrix at
once (`eqkernel.orthogonal`), get its gradient.

Weight decay is decoupled (Loshchilov & Hutter 2019) and leaves biases alone. The learning rate of step t is
lr * schedule(t); `cosine` and `constant` make schedules.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from math import cos, pi
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .alignment import aligned
from .errors import EqkernelError, is_finite
from .interop import to_host, write

if TYPE_CHECKING:
    from .network import Network

LARGEST = float(np.finfo(np.float32).max)  # of a rate or decay: beyond it, float32 weights are no numbers
RateSchedule = Callable[[int], float]
OTHERS = "this optimiser holds the moments of another network: give every network its own"


def constant() -> RateSchedule:
    """A learning rate that does not change."""
    return _constant


def cosine(total_steps: int, warmup: int = 0) -> RateSchedule:
    """A learning rate that falls from 1 to 0 over `total_steps` along half a cosine, after `warmup` steps of rising."""
    if not (is_finite(total_steps) and total_steps >= 1):
        raise EqkernelError(f"cosine needs at least one step, not {total_steps!r}")
    if not (is_finite(warmup) and warmup >= 0):
        raise EqkernelError(f"warmup must be a number of at least 0, not {warmup!r}")
    return partial(_cosine, total_steps, 1 / max(1, warmup))


# Functions of the module, so that an optimiser can be pickled.
def _constant(step: int) -> float:
    return 1.0


def _cosine(total_steps: int, rise: float, step: int) -> float:
    return min(1.0, (step + 1) * rise) * 0.5 * (1 + cos(pi * min(step, total_steps) / total_steps))


class Optimiser:
    """An optimiser of one network: it holds its moments, flat arrays laid out as the network's buffer.

    Once the network is gone it begins anew with another. A copy, or what was pickled, goes on with the first network of
    the same size that it meets: the copy of the one it had.
    `rule` is the number by which the update kernels know it, None if they do not: backends then call `apply`.
    """

    rule: ClassVar[int | None] = None
    moments: ClassVar[int] = 0

    def __init__(self, lr: float, weight_decay: float = 0.0, schedule: RateSchedule | None = None) -> None:
        if not (is_finite(lr) and lr > 0):
            raise EqkernelError(f"lr must be a positive number, not {lr!r}")
        if not (is_finite(weight_decay) and 0 <= float(weight_decay) <= LARGEST):
            raise EqkernelError(f"weight_decay must be a number of at least 0 that float32 holds, not {weight_decay!r}")
        if not (schedule is None or callable(schedule)):
            raise EqkernelError(f"schedule must be a function of the step, such as cosine(1000), not {schedule!r}")
        self.lr, self.weight_decay = float(lr), float(weight_decay)
        self.schedule = schedule or constant()
        self.steps = 0
        self.owner: weakref.ref[NDArray] | None = None
        self.state: list[NDArray] = []

    def rate(self) -> float:
        """The learning rate of the step to come; EqkernelError if the schedule gives none."""
        factor = self.schedule(self.steps)
        if not is_finite(factor):
            raise EqkernelError(f"schedule must give a number for every step, not {factor!r} for step {self.steps}")
        rate = self.lr * float(factor)
        if abs(rate) > LARGEST:
            raise EqkernelError(f"schedule gives {factor!r} for step {self.steps}: a learning rate of {rate:.3g}")
        return rate

    def hyper(self) -> tuple[float, ...]:
        """The constants of the step to come, as `eqkernel.cpu.update.learn` takes them."""
        return ()

    def moments_for(self, parameters: NDArray) -> list[NDArray]:
        """The two moment arrays (empty where unused) of the network whose flat buffer is `parameters`."""
        if self.owner is None or self.owner() is None:
            self._adopt(parameters)
        if self.moments and self.owner() is not parameters:  # type: ignore[misc]
            raise EqkernelError(OTHERS)
        return self.state

    def _adopt(self, parameters: NDArray) -> None:
        """Take a network, with the moments that a copy came with, else with new ones."""
        used = [parameters if i < self.moments else parameters[:0] for i in range(2)]
        on_cpu = isinstance(parameters, np.ndarray)
        state = [aligned(1, p.size, p.dtype)[0] if on_cpu else np.zeros_like(p) for p in used]
        if self.owner is None and self.state:
            if [m.size for m in self.state] != [m.size for m in state]:
                raise EqkernelError(OTHERS)
            for mine, came in zip(state, self.state, strict=True):
                write(mine, came)
        elif self.owner is not None and self.moments:
            self.steps = 0
        self.owner, self.state = weakref.ref(parameters), state

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "owner": None, "state": [to_host(m) for m in self.state]}

    def has_moments_for(self, parameters: NDArray) -> bool:
        """Whether `moments_for` these would neither make moments nor refuse to."""
        return not self.moments or (self.owner is not None and self.owner() is parameters)

    def apply(self, network: Network, gradients: list[NDArray]) -> None:
        """One step on every connection of `network`, given an array for each."""
        moments = self.moments_for(network.buffer)
        each = zip(network.offsets, network.connections, network.parameters, gradients, strict=True)
        for at, connection, weight, gradient in each:
            mine = [m[at : at + weight.size].reshape(weight.shape) if m.size else m for m in moments]
            self.learn(weight, gradient, mine, decay=connection.pre is not None)

    def learn(self, weight: NDArray, gradient: NDArray, moments: list[NDArray], decay: bool) -> None:
        """One step on `weight` in place: the equations that the fused kernels implement."""
        rate = self.rate()
        if decay:
            weight *= 1 - rate * self.weight_decay
        weight -= rate * self.direction(gradient, moments)

    def direction(self, gradient: NDArray, moments: list[NDArray]) -> NDArray:
        """What to subtract at learning rate 1."""
        return gradient


class SGD(Optimiser):
    """w -= lr g."""

    rule = 1


class Momentum(Optimiser):
    """v = momentum v + g, w -= lr v (Polyak 1964)."""

    rule: ClassVar[int | None] = 2
    moments: ClassVar[int] = 1

    def __init__(
        self,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        schedule: RateSchedule | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, schedule)
        if not (is_finite(momentum) and 0 <= momentum < 1):
            raise EqkernelError(f"momentum must lie in [0, 1), not {momentum!r}")
        self.momentum = float(momentum)

    def hyper(self) -> tuple[float, ...]:
        return (self.momentum,)

    def direction(self, gradient: NDArray, moments: list[NDArray]) -> NDArray:
        velocity = moments[0]
        velocity *= self.momentum
        velocity += gradient
        return velocity


class Adam(Optimiser):
    """m, v = running means of g, g^2, corrected for their start at 0; w -= lr m / (sqrt v + eps) (Kingma & Ba 2015)."""

    rule: ClassVar[int | None] = 3
    moments: ClassVar[int] = 2

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        schedule: RateSchedule | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, schedule)
        pair = isinstance(betas, tuple | list) and len(betas) == 2
        if not (pair and all(is_finite(b) and 0 <= b < 1 for b in betas)):
            raise EqkernelError(f"betas must lie in [0, 1), two of them, not {betas!r}")
        if not (is_finite(eps) and eps > 0):
            raise EqkernelError(f"eps must be positive, not {eps!r}")
        self.betas, self.eps = (float(betas[0]), float(betas[1])), float(eps)

    def hyper(self) -> tuple[float, ...]:
        a, b = self.betas
        t = self.steps + 1
        return a, 1 - a, b, 1 - b, self.eps, 1 / (1 - a**t), 1 / (1 - b**t)

    def direction(self, gradient: NDArray, moments: list[NDArray]) -> NDArray:
        a, fresh_a, b, fresh_b, eps, unbias_mean, unbias_square = self.hyper()
        mean, square = moments
        mean *= a
        mean += fresh_a * gradient
        square *= b
        square += fresh_b * gradient * gradient
        return unbias_mean * mean / (np.sqrt(unbias_square * square) + eps)
