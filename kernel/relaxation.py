"""The phases spelled out with the verbs, for any network and any backend: the specification of every fused settle.

One step in the chosen order refreshes the drives of every channel that settles (see `eqkernel.channel`), from below and
from above, and relaxes the layers. What a connection chooses (max-pooling: which places win) it
chooses with each refresh of `up`, for the channel's own state; a difference has the choices of its mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .backends import verbs
from .channel import Channel, extra_of
from .optimisers import Optimiser
from .schedules import Schedule

if TYPE_CHECKING:
    from .connections import Connection
    from .network import Network

Settled = tuple[int, float, float]  # steps taken, last residual, largest residual in the first half of the steps


class Relaxation:
    """The phases of one network, from the verbs of a backend."""

    def __init__(self, network: Network, backend: str) -> None:
        self.network: Network = network
        self.neurons: Any = verbs(backend, "neurons")
        self.synapses: list[tuple[Connection, Any, NDArray]] = [
            (c, verbs(backend, c.stem), w) for c, w in zip(network.connections, network.parameters, strict=True)
        ]

    # -- drives ------------------------------------------------------------------------------------------------------

    def refresh_up(self, channel: Channel, layer: int) -> None:
        """up = sum of dPhi/ds_layer over connections from below, biases included."""
        up = channel.up[layer]
        up[...] = 0
        for (connection, synapse, weight), extra in zip(self.synapses, channel.extra, strict=True):
            pre = connection.pre
            if connection.post != layer or pre == layer:
                continue
            if channel.is_difference and not pre:  # of a bias and of the clamped input there is none
                continue
            state = None if pre is None else channel.state[pre]
            if connection.chooses and not channel.is_difference:
                choose(synapse, state, weight, extra)
            synapse.drive_post(up, state, weight, *extra)

    def refresh_down(self, channel: Channel, layer: int, gamma: float) -> None:
        """down = sum of gamma^(post - layer) dPhi/ds_layer over connections to layers above within the dynamics."""
        down = channel.down[layer]
        down[...] = 0
        for (connection, synapse, weight), extra in zip(self.synapses, channel.extra, strict=True):
            if connection.pre == layer < connection.post <= self.network.top:
                part = np.zeros_like(down)
                synapse.drive_pre(part, channel.state[connection.post], weight, *extra)
                down += down.dtype.type(gamma ** (connection.post - layer)) * part

    def drive(self, channel: Channel, layer: int, nudge: NDArray | None = None) -> NDArray:
        """up + down + lateral - adaptation, and on the top layer the nudge, if it is one of drives."""
        total = channel.up[layer] + channel.down[layer]
        if (current := channel.current[layer]) is not None:
            total -= total.dtype.type(self.network.layers[layer].adaptation) * current
        for (connection, synapse, weight), extra in zip(self.synapses, channel.extra, strict=True):
            if connection.pre == connection.post == layer:
                synapse.drive_post(total, channel.state[layer], weight, *extra)
                synapse.drive_pre(total, channel.state[layer], weight, *extra)
        if nudge is not None and layer == self.network.top and not self.network.cost.on_rate:
            total += nudge
        return total

    def push(self, layer: int, nudge: NDArray) -> NDArray | float:
        """What a nudge of rates adds to where a layer's state moves; 0 if the cost nudges drives."""
        return nudge if layer == self.network.top and self.network.cost.on_rate else 0.0

    def read_out(self, channel: Channel) -> None:
        """The softmax readout above the dynamics, if there is one."""
        last = len(self.network.layers) - 1
        if self.network.top < last:
            self.refresh_up(channel, last)
            self.neurons.rate(channel.state[last], channel.up[last], "softmax")

    def nudge(self, channel: Channel, target: NDArray) -> NDArray:
        """The nudge on the top layer at beta = 1: t - s, or W^T (t - p) below a readout."""
        network, last = self.network, len(self.network.layers) - 1
        error = network.cost.error(channel.state[last], target)
        if network.top == last:
            return error
        nudge = np.zeros_like(channel.state[network.top])
        for (connection, synapse, weight), extra in zip(self.synapses, channel.extra, strict=True):
            if connection.post == last and connection.pre is not None:
                synapse.drive_pre(nudge, error, weight, *extra)
        return nudge

    # -- one step ----------------------------------------------------------------------------------------------------

    def visits(self, order: str, number: int, nudged: bool) -> Iterator[tuple[list[int], bool, bool]]:
        """Groups of layers relaxed together in step `number`: (layers, refresh up, refresh down)."""
        top = self.network.top
        if order == "synchronous":
            yield list(range(1, top + 1)), True, True
        elif order == "even-odd":
            # The free phase begins at the input's side, the nudged one at the cost's.
            first = top if nudged else 1
            for parity in (first % 2, (first + 1) % 2):
                for layer in range(2 - parity, top + 1, 2):
                    yield [layer], True, True
        else:
            # Half-sweeps: forward over layers 2..top, backward over top-1..1. The first takes every layer, and so does
            # each for a layer whose own state drives it, by lateral connections or adaptation.
            forward = (number % 2 == 0) != nudged
            restless = {c.post for c in self.network.connections if c.pre == c.post}
            restless |= {i for i, layer in enumerate(self.network.layers) if layer.adaptation}
            for layer in range(1, top + 1) if forward else range(top, 0, -1):
                still = layer == (1 if forward else top)
                if number == 0 or not still or layer in restless:
                    yield [layer], forward, not forward

    def settle(self, channels: list[Channel], relax: list, schedule: Schedule, nudged: bool, unit: float) -> Settled:
        """Steps until the residual is below the tolerance or they run out; relax(layer) gives the largest change.

        The residual is the largest change of a state in one step, times `unit`.
        """
        steps = schedule.nudged_steps if nudged else schedule.free_steps
        residual = early = 0.0
        for number in range(steps):
            changes = [0.0]
            for layers, up, down in self.visits(schedule.order, number, nudged):
                for layer in layers:
                    for channel in channels:
                        if up:
                            self.refresh_up(channel, layer)
                        if down:
                            self.refresh_down(channel, layer, schedule.gamma)
                changes += [change(layer) for layer in layers for change in relax]
            residual = unit * float(np.max(changes))
            if 2 * number < steps:
                early = float(np.maximum(early, residual))  # NaN must survive, which max() would drop
            if schedule.early_stop and residual < (schedule.tolerance or 0):
                break
        return number + 1, residual, early

    # -- the two phases ----------------------------------------------------------------------------------------------

    @np.errstate(over="ignore", invalid="ignore")  # divergence shows in the residual
    def free(self, x: NDArray, schedule: Schedule, reuse: bool = False) -> tuple[Channel, list[NDArray], Settled]:
        """The free phase from rest, x (B, n_0); always in new memory."""
        channel = Channel(self.network, len(x))
        channel.state[0][...] = x

        def relax(layer: int) -> float:
            return self._relax(channel, layer, self.drive(channel, layer), schedule)

        settled = self.settle([channel], [relax], schedule, nudged=False, unit=1)
        self.read_out(channel)
        return channel, channel.state, settled

    def detach(self, free: Channel) -> Channel:
        """Memory in which a nudged phase harms nothing that was returned before."""
        return free

    @np.errstate(over="ignore", invalid="ignore")
    def nudged(
        self, free: Channel, x: NDArray, target: NDArray, beta: float, variant: str, schedule: Schedule
    ) -> tuple[list[NDArray], list[NDArray], Settled]:
        """Mean and difference, per unit of beta, of the nudged states; target (B, n_L)."""
        network = self.network
        frozen = self.nudge(free, target)
        signs = {"centered": (1, -1), "positive": (1,), "negative": (-1,)}[variant]
        span = 2 * beta if variant == "centered" else beta
        if schedule.form == "plus-minus" or variant != "centered":
            states = [free.copy(network) for _ in signs]

            def mover(channel: Channel, sign: int):  # type: ignore[no-untyped-def]
                def relax(layer: int) -> float:
                    nudge = frozen
                    if schedule.nudge == "live":
                        self.read_out(channel)
                        nudge = self.nudge(channel, target)
                    nudge = network.dtype.type(sign * beta) * nudge
                    drive = self.drive(channel, layer, nudge)
                    return self._relax(channel, layer, drive, schedule, self.push(layer, nudge))

                return relax

            movers = [mover(channel, sign) for channel, sign in zip(states, signs, strict=True)]
            settled = self.settle(states, movers, schedule, nudged=True, unit=1 / beta)
            high = states[0] if signs[0] == 1 else free
            low = states[-1] if signs[-1] == -1 else free
            mean = [(p + m) / 2 for p, m in zip(high.state, low.state, strict=True)]
            difference = [(p - m) / span for p, m in zip(high.state, low.state, strict=True)]
        else:
            mean_channel = free.copy(network)
            change = Channel(network, len(target), mean_channel)
            mean_drive = [self.drive(free, layer) for layer in range(len(network.layers))]
            nudge = network.dtype.type(span) * frozen

            def relax(layer: int) -> float:
                moved = 0.0
                drive = self.drive(change, layer, nudge)
                if schedule.form == "mean-difference":
                    mean_drive[layer] = self.drive(mean_channel, layer)
                    moved = self._relax_mean(mean_channel, layer, mean_drive[layer], drive, schedule)
                push = self.push(layer, nudge)
                differs = self._relax_difference(change, layer, mean_drive[layer], drive, schedule, push)
                return float(np.maximum(moved, differs))

            evolving = [change] if schedule.form == "difference" else [mean_channel, change]
            settled = self.settle(evolving, [relax], schedule, nudged=True, unit=1 / span)
            mean, difference = mean_channel.state, [d / span for d in change.state]
        if network.has_readout:
            mean[-1] = free.state[-1]
            difference[-1] = network.cost.error(free.state[-1], target)
        return mean, difference, settled

    def _relax(
        self, channel: Channel, layer: int, drive: NDArray, schedule: Schedule, push: NDArray | float = 0.0
    ) -> float:
        """The state moves towards rho(drive) + push."""
        before = channel.state[layer].copy()
        self.neurons.relax(channel.state[layer], drive, schedule.step, self.network.layers[layer].neuron)
        channel.state[layer] += schedule.step * push
        change = float(np.max(np.abs(channel.state[layer] - before)))
        return float(np.maximum(change, self.adapt(channel, layer, schedule.step)))

    def _relax_mean(self, channel: Channel, layer: int, mean: NDArray, drive: NDArray, schedule: Schedule) -> float:
        """The mean of rho(m + c/2) and rho(m - c/2) is what the mean state moves towards."""
        neuron, half = self.network.layers[layer].neuron, drive / 2
        high, low = np.empty_like(mean), np.empty_like(mean)
        self.neurons.rate(high, mean + half, neuron)
        self.neurons.rate(low, mean - half, neuron)
        return self._move(channel, layer, (high + low) / 2, schedule.step)

    def _relax_difference(
        self, channel: Channel, layer: int, mean: NDArray, drive: NDArray, schedule: Schedule, push: NDArray | float
    ) -> float:
        """rho(m + c/2) - rho(m - c/2) + push, without cancellation, is what the difference moves towards."""
        target = np.empty_like(drive)
        self.neurons.difference(target, mean, drive, self.network.layers[layer].neuron)
        return self._move(channel, layer, target + push, schedule.step)

    def _move(self, channel: Channel, layer: int, target: NDArray, step: float) -> float:
        """The state, then its adaptation current, move towards `target` and the state; returns the largest change."""
        move = target.dtype.type(step) * (target - channel.state[layer])
        channel.state[layer] += move
        return float(np.maximum(np.max(np.abs(move)), self.adapt(channel, layer, step)))

    def adapt(self, channel: Channel, layer: int, step: float) -> float:
        """tau da/dt = s - a, of a layer that adapts; returns the largest change that this makes to a drive."""
        current, neurons = channel.current[layer], self.network.layers[layer]
        if current is None:
            return 0.0
        move = current.dtype.type(step / neurons.tau) * (channel.state[layer] - current)
        current += move
        return neurons.adaptation * float(np.max(np.abs(move)))

    # -- learning ----------------------------------------------------------------------------------------------------

    @np.errstate(over="ignore", invalid="ignore")  # divergence shows in the next phase
    def gradient(self, mean: list[NDArray], difference: list[NDArray], schedule: Schedule) -> list[NDArray]:
        """The descent gradient of the mean loss, one array a connection; choices are those of the mean state."""
        gradients = []
        for connection, synapse, weight in self.synapses:
            trace = np.zeros_like(weight)
            pre, post = connection.pre, connection.post
            extra = extra_of(self.network, connection, len(mean[0]))
            if connection.chooses:
                choose(synapse, None if pre is None else mean[pre], weight, extra)
            scale = self.network.scale(connection, schedule) / len(mean[0])
            synapse.hebbian(trace, None if pre is None else mean[pre], difference[post], scale, *extra)
            if pre and post <= self.network.top and (pre == post or not schedule.feed_forward):
                synapse.hebbian(trace, difference[pre], mean[post], scale, *extra)
            gradients.append(trace)
        return gradients

    def update(self, mean: list[NDArray], difference: list[NDArray], optimiser: Optimiser, schedule: Schedule) -> None:
        """One optimiser step on every connection."""
        optimiser.apply(self.network, self.gradient(mean, difference, schedule))


def choose(synapse: Any, state: NDArray | None, weight: NDArray, extra: tuple[Any, ...]) -> None:
    """Let a connection choose which of its synapses act, given its presynaptic state."""
    *constants, winners = extra
    synapse.choose(winners, state, weight, *constants)
