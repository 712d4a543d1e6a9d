"""FitzHugh-Nagumo networks with the inhibitor v as a state of its own: not a gradient system, but a skew-gradient.

    u' = u - u^3 - v + drive            = +dPhi/du
    v' = eps (u - alpha v - offset)     = -eps dPhi/dv

    Phi = sum of u^2/2 - u^4/4 - u v + alpha v^2/2 + offset v, and of the connections' Phi(u)

u climbs Phi and v descends it. At rest Phi - beta C is stationary all the same, and nothing else is needed: the
Hebbian contrast of the nudged states is the gradient. Only the nudge must follow the metric diag(1, -eps). A cost
C(u) adds -beta dC/du to u', as ever; a cost C(v) adds +eps beta dC/dv to v': the sign is flipped.
At rest v = (u - offset) / alpha, so a u + u^3 = drive + offset / alpha with a = 1/alpha - 1: for alpha = 1/2 and
offset = 0 the rest states are those of "fhn" neurons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from .channel import Channel
from .errors import EqkernelError, lookup
from .models import check_coupling
from .network import Network
from .relaxation import Relaxation, Settled
from .schedules import Schedule

OUTPUTS = {"u": 0, "v": 1}


class Pair(Channel):
    """A channel whose every layer has, beside its state u, the inhibitor v (B, n_l)."""

    def __init__(self, network: Network, batch: int) -> None:
        super().__init__(network, batch)
        self.inhibitor = [np.zeros_like(u) for u in self.state]

    def parts(self) -> Iterator[NDArray]:
        yield from (*super().parts(), *self.inhibitor)

    def copy(self, network: Network) -> Pair:
        other = Pair(network, len(self.state[0]))
        for mine, theirs in zip(other.parts(), self.parts(), strict=True):
            mine[...] = theirs
        return other


class SkewGradient(Relaxation):
    """The phases of a network of "fhn" neurons as pairs (u, v): `net.engine = SkewGradient(net)` installs them.

    The schedule's `step` is the time step, and 0.15 a good one: explicit for u; for v explicit, or semi-implicit,
    its decay taken at the end of the step. output: the cost reads the last layer's u, or with "v" its inhibitor
    (no softmax readout then). Nudged phases carry the two states, whatever the schedule's form.
    Raises EqkernelError naming the condition of stability that fails: coupling < 1/alpha - 1, or
    eps alpha > 1 + coupling (`models.coupling`).
    """

    def __init__(
        self,
        network: Network,
        eps: float = 4.0,
        alpha: float = 0.5,
        offset: float = 0.0,
        semi_implicit: bool = True,
        output: str = "u",
    ) -> None:
        super().__init__(network, network.backend)
        self.eps, self.alpha, self.offset, self.semi_implicit = eps, alpha, offset, semi_implicit
        self.reads_inhibitor = bool(lookup("output", output, OUTPUTS))
        others = {layer.neuron for layer in network.layers[1 : network.top + 1]} - {"fhn"}
        if others:
            raise EqkernelError(f"only 'fhn' neurons have an inhibitor, not {', '.join(sorted(others))}")
        if any(layer.adaptation for layer in network.layers):
            raise EqkernelError("a pair (u, v) takes no adaptation current: v is one already")
        if self.reads_inhibitor and network.has_readout:
            raise EqkernelError("output 'v' needs cost 'squared-error': a softmax readout reads u")
        if not (0 < alpha < 1 and 0 < eps < np.inf):
            raise EqkernelError(f"alpha must lie in (0, 1) and eps be positive, not {alpha} and {eps}")
        found = check_coupling(network, alpha)
        if not eps * alpha > 1 + found:
            raise EqkernelError(
                f"unstable: eps alpha = {eps * alpha:.3g} does not exceed 1 + coupling = {1 + found:.3g}, so the "
                "inhibitor may be too slow for u and oscillate: raise eps"
            )

    def free(self, x: NDArray, schedule: Schedule, reuse: bool = False) -> tuple[Pair, list[NDArray], Settled]:
        """The free phase from u = v = 0, x (B, n_0); always in new memory."""
        channel = Pair(self.network, len(x))
        channel.state[0][...] = x
        settled = self.settle([channel], [self._mover(channel, schedule)], schedule, nudged=False, unit=1)
        self.read_out(channel)
        return channel, [*channel.state[:-1], self._output(channel)], settled

    def nudged(  # type: ignore[override]
        self, free: Pair, x: NDArray, target: NDArray, beta: float, variant: str, schedule: Schedule
    ) -> tuple[list[NDArray], list[NDArray], Settled]:
        """Mean and difference, per unit of beta, of u in the nudged states; target (B, n_L)."""
        strengths = {"centered": (beta, -beta), "positive": (beta, 0.0), "negative": (0.0, -beta)}[variant]
        span, live = strengths[0] - strengths[1], schedule.nudge == "live"
        high, low = (free.copy(self.network) for _ in strengths)
        frozen = self.nudge(free, target)

        def error_of(channel: Pair) -> NDArray:
            if not live:
                return frozen
            self.read_out(channel)
            return self.nudge(channel, target)

        pairs = [(channel, b) for channel, b in zip((high, low), strengths, strict=True) if b]
        movers = [
            self._mover(c, schedule, lambda c=c, b=b: self.pulls(b, error_of(c)))  # type: ignore[misc]
            for c, b in pairs
        ]
        settled = self.settle([c for c, _ in pairs], movers, schedule, nudged=True, unit=1 / beta)
        mean = [(p + m) / 2 for p, m in zip(high.state, low.state, strict=True)]
        difference = [(p - m) / span for p, m in zip(high.state, low.state, strict=True)]
        if self.network.has_readout:
            mean[-1], difference[-1] = free.state[-1], self.network.cost.error(free.state[-1], target)
        return mean, difference, settled

    def nudge(self, channel: Channel, target: NDArray) -> NDArray:
        """-dC/du or -dC/dv of the top layer, (B, n)."""
        if self.reads_inhibitor:
            return self.network.cost.error(self._output(channel), target)
        return super().nudge(channel, target)

    def pulls(self, beta: float, error: NDArray) -> tuple[NDArray, NDArray]:
        """What -beta C adds to u' and to v' / eps of the top layer, by the metric diag(1, -eps)."""
        pull, none = self.network.dtype.type(beta) * error, np.zeros_like(error)
        return (none, -pull) if self.reads_inhibitor else (pull, none)

    def _output(self, channel: Channel) -> NDArray:
        assert isinstance(channel, Pair)
        return channel.inhibitor[-1] if self.reads_inhibitor else channel.state[-1]

    def _mover(
        self,
        channel: Pair,
        schedule: Schedule,
        pulls: Callable[[], tuple[NDArray, NDArray]] | None = None,
    ) -> Callable[[int], float]:
        def relax(layer: int) -> float:
            on_u, on_v = pulls() if pulls and layer == self.network.top else (None, 0.0)
            drive = self.drive(channel, layer, on_u)
            return self._step(channel.state[layer], channel.inhibitor[layer], drive, on_v, schedule.step)

        return relax

    def _step(self, u: NDArray, v: NDArray, drive: NDArray, pull: NDArray | float, step: float) -> float:
        """One time step of a layer; returns the largest change."""
        before = u.copy(), v.copy()
        u += step * (u - u**3 - v + drive)
        rate = step * self.eps
        if self.semi_implicit:
            v += rate * (u - self.offset + pull)
            v /= 1 + rate * self.alpha
        else:
            v += rate * (u - self.offset + pull - self.alpha * v)
        return float(max(abs(new - old).max() for new, old in zip((u, v), before, strict=True)))
