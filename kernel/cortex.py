"""What cortical learning adds to equilibrium propagation: a global reward, and adjusted adaptation.

Both act between the nudged phase and the update, for any network and engine: they change the nudged states that the
synapses compare. (The third, the adaptation current, belongs to a Layer.) docs/cortex.md tells where each comes from,
what it does to the gradient, and what it was measured to be worth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import EqkernelError, is_finite, is_whole, lookup, make_plain
from .interop import check_finite, targets_of
from .network import Network
from .phases import Equilibrium, Nudged


@dataclass(frozen=True)
class Reward:
    """One global signal a sample, r(C) >= 0, that scales every weight change by how wrong the answer was.

    It depends on the sample's cost C alone. The update is then the gradient of the mean of R(C), R' = r: as exact as
    before, for a loss that counts easy samples less.
    """

    name: str
    factor: Callable[[NDArray], NDArray]
    loss: Callable[[NDArray], NDArray]  # R

    def __post_init__(self) -> None:
        if not (callable(self.factor) and callable(self.loss)):
            raise EqkernelError(f"the factor and loss of reward {self.name!r} must be functions of the costs (B,)")


REWARDS = {
    reward.name: reward
    for reward in (
        # With squared error |t - s|^2, at most 1.
        Reward("error", lambda C: np.minimum(2 * C, 1), lambda C: np.where(C < 0.5, C * C, C - 0.25)),
        # With cross-entropy 1 - p of the right class.
        Reward("surprise", lambda C: -np.expm1(-C), lambda C: C + np.exp(-C)),
    )
}


def find_reward(reward: str | Reward) -> Reward:
    """The reward called `reward`, or `reward` itself if it is one."""
    return reward if isinstance(reward, Reward) else lookup("reward", reward, REWARDS)


def rewarded(network: Network, free: Equilibrium, y: ArrayLike, nudged: Nudged, reward: str | Reward) -> Nudged:
    """The nudged states with every sample's difference times its reward; y labels (B,) or targets (B, n_L)."""
    reward, cost = find_reward(reward), network.cost.loss(free.output, targets_of(network, y))
    factor = network.arrays.asarray(reward.factor(cost))
    if factor.shape != cost.shape or factor.dtype.kind not in "fiub":
        raise EqkernelError(
            f"reward {reward.name!r} must give {cost.shape} numbers for the costs of as many samples, not "
            f"{factor.dtype} of shape {factor.shape}"
        )
    factor = factor.astype(network.dtype)
    check_finite(f"what reward {reward.name!r} gives", factor)
    return nudged._replace(difference=[d * factor[:, None] for d in nudged.difference])


@dataclass(frozen=True)
class Adjustment:
    """Adjusted adaptation (Kubo, Chalmers & Luczak 2022, eq. 8): nudged states relax back towards the free ones.

    `steps` times s <- (1 - rate) s + rate s_free, which is s_free + (1 - rate)^steps (s - s_free) in one.
    """

    rate: float = 0.05
    steps: int = 20

    def __post_init__(self) -> None:
        if not (is_finite(self.rate) and 0 <= self.rate < 1):
            raise EqkernelError(f"the rate of an adjustment must lie in [0, 1), not {self.rate!r}")
        if not is_whole(self.steps, 0):
            raise EqkernelError(f"the steps of an adjustment must be a whole number of at least 0, not {self.steps!r}")
        make_plain(self, float, "rate")

    @property
    def kept(self) -> float:
        """What is left of the distance from the free state."""
        return (1 - self.rate) ** self.steps


def adjusted(network: Network, free: Equilibrium, nudged: Nudged, adjustment: Adjustment) -> Nudged:
    """The nudged states after the adjustment; the error of a softmax readout, which is no state, stays."""
    kept = network.dtype.type(adjustment.kept)
    mean = [s + kept * (m - s) for s, m in zip(free.state, nudged.mean, strict=True)]
    difference = [kept * d for d in nudged.difference]
    if network.has_readout:
        difference[-1] = nudged.difference[-1]
    return nudged._replace(mean=mean, difference=difference)


def modulated(
    network: Network,
    free: Equilibrium,
    y: ArrayLike,
    nudged: Nudged,
    reward: str | Reward | None,
    adjustment: Adjustment | None,
) -> Nudged:
    """The nudged states that synapses learn from: adjusted and rewarded, where that is asked for."""
    if adjustment is not None:
        if not isinstance(adjustment, Adjustment):
            raise EqkernelError(f"adjustment must be an Adjustment(rate, steps), not {adjustment!r}")
        nudged = adjusted(network, free, nudged, adjustment)
    return nudged if reward is None else rewarded(network, free, y, nudged, reward)
