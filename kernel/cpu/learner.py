"""What engines of fused kernels share, of any backend: one `_update` is their optimiser's step and their gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from ..optimisers import Optimiser
from ..schedules import Schedule
from .update import GRADIENT

if TYPE_CHECKING:
    from ..network import Network


class Learner(ABC):
    """An engine whose `_update` applies a rule to flat parameters and moments, by the contrast of nudged states."""

    network: Network

    def update(
        self, mean: list[Any], difference: list[Any], optimiser: Optimiser, schedule: Schedule, **known: Any
    ) -> None:
        """One optimiser step on every connection; `known` is what `_update` need not find out."""
        if optimiser.rule is None:
            return optimiser.apply(self.network, self.gradient(mean, difference, schedule))
        buffer, rates = self.network.buffer, (optimiser.rate(), optimiser.weight_decay)
        first, second = optimiser.moments_for(buffer)
        rule, hyper = optimiser.rule, optimiser.hyper()
        self._update(buffer, first, second, mean, difference, schedule, rule, rates, hyper, **known)

    def gradient(self, mean: list[Any], difference: list[Any], schedule: Schedule) -> list[Any]:
        """The descent gradient of the mean loss, one array a connection."""
        network = self.network
        out, none = np.zeros_like(network.buffer), network.buffer[:0]
        self._update(out, none, none, mean, difference, schedule, GRADIENT, (0.0, 0.0), ())
        shapes = zip(network.offsets, network.parameters, strict=True)
        return [out[at : at + w.size].reshape(w.shape) for at, w in shapes]

    @abstractmethod
    def _update(self, theta, first, second, mean, difference, schedule, rule, rates, hyper) -> None:  # type: ignore[no-untyped-def]
        """One step of a rule of the kernels on theta, with rates (rate, decay); GRADIENT writes the gradient there."""
