"""The phases of large networks: a launch for each visit to a layer (layer.cu), all of a phase in one CUDA graph.

The order of visits is that of `eqkernel.relaxation`. A phase is recorded the second time it runs for a batch size, a
schedule and a beta, and from then on replayed; an early stop must look at every residual, and runs without. Nothing is
allocated while recording: what changes between calls, input and targets, is copied into memory that the graph knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..cpu import tiles
from ..relaxation import Relaxation
from ..schedules import Schedule
from . import dense, neurons, tensor
from .device import current
from .launcher import launch
from .layered import Layered, Settled
from .precision import code_for
from .products import product
from .tensor import DIFFERENCE, MEAN_DIFFERENCE, RELAX, STORE
from .workspace import Channel, Workspace

if TYPE_CHECKING:
    from ..network import Network


class Layerwise(Layered):
    """The phases of one layered network, layer by layer."""

    reports_nan = False  # of a readout
    step = None  # type: ignore[assignment]  # phase by phase

    def __init__(self, network: Network, plan: NDArray) -> None:
        super().__init__(network, plan)
        self.spelt = Relaxation(network, "cuda")  # knows the order of visits
        column: dict[str, dict[int, Any]] = {"dense": {}, "bias": {}, "lateral": {}}
        for connection, parameter in zip(network.connections, network.parameters, strict=True):
            column[connection.stem][connection.post] = parameter
        self.weight, self.bias, self.lateral = column.values()
        self.rounded: dict[int, tensor.RoundedWeights] = {}

    def reserve(self, batch: int, reuse: bool) -> Any:
        code = code_for(self.network.dtype)
        if code and code not in self.rounded:
            self.rounded[code] = tensor.RoundedWeights(self, code)
        if not reuse:
            return Workspace(self.network, batch)
        if self.workspace is None or (self.workspace.batch, self.workspace.code) != (batch, code):  # type: ignore[attr-defined]
            self.workspace = Workspace(self.network, batch)  # type: ignore[assignment]
        return self.workspace

    # -- one visit ---------------------------------------------------------------------------------------------------

    def visit(
        self,
        work: Workspace,
        channel: Channel,
        layers: list[int],
        up: bool,
        down: bool,
        *,
        mode: int = STORE,
        step: float = 1.0,
        gamma: float = 1.0,
        nudge: float = 0.0,
        to_middle: bool = False,
        x: Any = None,
        keep: bool = True,
        most: Any = None,
    ) -> None:
        """Refresh what is asked of the drives of layers that do not see one another; do with them what `mode` says.

        x is the input, to refresh layer 1's `up` with. STORE writes drives to the middle's `up`, or nowhere. With
        keep=False up and down need not be kept where both are refreshed.
        """
        most = work.most[:1] if most is None else most
        # Of the input's drive, or a readout's, there is no lateral.
        beside = mode != STORE or channel is work.difference or not up
        if work.code:
            tensor.visit(
                self, work, channel, layers, up, down, mode, step, gamma, nudge, to_middle, x is not None, beside, keep,
                most,
            )  # fmt: skip
            return
        for layer in layers:
            self.visit_one(work, channel, layer, up, down, mode, step, gamma, nudge, to_middle, x, beside, most)

    def visit_one(
        self, work: Workspace, channel: Channel, layer: int, up: bool, down: bool, mode: int, step: float, gamma: float,
        nudge: float, to_middle: bool, x: Any, beside: bool, most: Any,
    ) -> None:  # fmt: skip
        """The same of one layer, by layer.cu."""
        n, top, other = self.sizes[layer], self.network.top, work.difference
        up, down = up and (layer > 1 or x is not None), down and layer < top
        state, weight = channel.state(layer), self.weight[layer]
        below = x if layer == 1 and x is not None else channel.state(layer - 1) if layer > 1 else state
        above, back = (channel.state(layer + 1), self.weight[layer + 1]) if layer < top else (state, weight)
        lateral = self.lateral.get(layer) if beside else None
        how = product(channel.rows, n, self.network.dtype)
        launch(
            "layer", "relax_layer", self.network.dtype, how.grid, how.threads,
            (
                mode, work.middle.up[layer] if to_middle else channel.next(layer), state, other.next(layer),
                other.state(layer), work.middle.up[layer], channel.up[layer], channel.down[layer], below, weight,
                self.bias[layer], above, back, weight if lateral is None else lateral, work.pull, most,
                channel.rows, work.batch, n, self.sizes[layer - 1] if up else 0, self.sizes[layer + 1] if down else 0,
                int(lateral is not None), int(channel.biased), float(gamma), float(nudge) if layer == top else 0.0,
                float(step), int(self.plan[layer, tiles.NEURON]),
            ),
            **how.defines,
        )  # fmt: skip

    def read_out(self, work: Workspace, channel: Channel) -> None:
        """The softmax readout of a channel."""
        last = len(self.sizes) - 1
        if self.network.top < last:
            self.visit(work, channel, [last], True, False)
            neurons.rate(channel.state(last), channel.up[last], "softmax")

    def aim(self, work: Workspace, channel: Channel) -> None:
        """The nudge at beta = 1 from a channel's own output: t - s, or W^T (t - p) below a readout."""
        last, rows = len(self.sizes) - 1, channel.rows
        error = work.error[:rows] if self.network.top < last else work.pull[:rows]
        np.subtract(work.target[:rows], channel.state(last), out=error)
        if self.network.top < last:
            work.pull.fill(0)
            dense.drive_pre(work.pull[:rows], error, self.weight[last])

    # -- phases ------------------------------------------------------------------------------------------------------

    def steps(
        self,
        work: Workspace,
        run: Callable[[int, list[int], bool, bool], None],
        schedule: Schedule,
        nudged: bool,
        unit: float,
    ) -> Settled | None:
        """All steps of a phase; what it settled to if it may stop early, else None: that is known when it has run."""
        for number in range(schedule.nudged_steps if nudged else schedule.free_steps):
            for layers, up, down in self.visits(schedule.order, number, nudged):
                run(number, layers, up, down)
            if schedule.early_stop:
                settled = self.settled(work, number + 1, schedule, nudged, unit)
                if settled[1] < (schedule.tolerance or 0):
                    return settled
        return self.settled(work, number + 1, schedule, nudged, unit) if schedule.early_stop else None

    def visits(self, order: str, number: int, nudged: bool) -> Iterable[tuple[list[int], bool, bool]]:
        """The groups of a step; layers of one parity, which see only the other, are one."""
        spelt = self.spelt.visits(order, number, nudged)
        if order != "even-odd":
            return spelt
        parts = groupby((layer for layers, _, _ in spelt for layer in layers), key=lambda layer: layer % 2)
        return [(list(layers), True, True) for _, layers in parts]

    def settled(self, work: Workspace, taken: int, schedule: Schedule, nudged: bool, unit: float) -> Settled:
        """(steps taken, last residual, largest residual in the first half of the steps); a NaN wins."""
        residuals = unit * work.most.get().view(self.network.dtype)[:taken].astype(float)
        steps = schedule.nudged_steps if nudged else schedule.free_steps
        return taken, float(residuals[-1]), float(residuals[: (steps + 1) // 2].max())

    def perform(self, work: Workspace, phase: Callable[[], Settled | None], key: Any, ends: list[Channel]) -> Any:
        """Run a phase: at first launch by launch, the second time recorded, then replayed."""
        bits = np.uint32 if self.network.dtype == np.float32 else np.uint64
        count = max(key[0].free_steps, key[0].nudged_steps)
        if work.most is None or len(work.most) < count:
            work.most, work.graphs = current().arrays.zeros(count, bits), {}
        key = (*key, code_for(self.network.dtype))
        if key[0].early_stop or key not in work.graphs:
            work.graphs[key] = None
            work.most.fill(0)
            return phase()
        if work.graphs[key] is None:

            def recorded() -> None:
                work.most.fill(0)
                phase()

            graph = current().record(recorded)
            work.graphs[key] = graph, [turned for channel in ends for turned in channel.turned]
        graph, turned = work.graphs[key]  # type: ignore[misc]
        for channel in ends:
            channel.turned, turned = turned[: len(channel.turned)], turned[len(channel.turned) :]
        graph()
        return None

    def free(self, x: Any, schedule: Schedule, reuse: bool = False) -> tuple[Any, list[Any], Settled]:
        """The free phase from rest, x (B, n_0) on the device."""
        work = self.reserve(len(x), reuse)
        channel, count = work.free, schedule.free_steps

        def phase() -> Settled | None:
            channel.begin()
            channel.up[1][...] = work.middle.down[1]
            found = self.steps(work, relax, schedule, False, 1.0)
            self.read_out(work, channel)
            return found

        def relax(number: int, layers: list[int], up: bool, down: bool) -> None:
            self.visit(
                work, channel, layers, up, down, mode=RELAX, gamma=schedule.gamma, step=schedule.step,
                keep=keeps(schedule) or number + 1 == count, most=work.most[number : number + 1],
            )  # fmt: skip
            for layer in layers:
                channel.turn(layer)

        if work.most is None:
            work.most = current().arrays.zeros(1, np.uint32 if self.network.dtype == np.float32 else np.uint64)
        channel.begin()
        if work.code:
            self.rounded[work.code].take()
            channel.low.take(x)
        self.visit(work, channel, [1], True, False, x=x)
        work.middle.down[1][...] = channel.up[1]  # where no graph of a phase overwrites it
        found = self.perform(work, phase, (schedule, "free"), [channel])
        states = [channel.state(layer) for layer in range(1, len(self.sizes))]
        return work, [x, *states], found or self.settled(work, count, schedule, False, 1.0)

    def nudged(
        self, workspace: Any, x: Any, target: Any, beta: float, variant: str, schedule: Schedule
    ) -> tuple[list[Any], list[Any], Settled]:
        """Mean and difference, per unit of beta, of the nudged states, from the free state that `workspace` holds."""
        work, free, count = workspace, workspace.free, schedule.nudged_steps
        span = 2 * beta if variant == "centered" else beta
        alone = variant != "centered"
        form = "plus-minus" if alone else schedule.form
        sign = -1.0 if variant == "negative" else 1.0
        live = schedule.nudge == "live"
        states = work.mean if alone else work.both
        settling = [states] if form == "plus-minus" else [work.mean, work.difference]

        def phase() -> Settled | None:
            self.aim(work, free)
            if form == "plus-minus":
                work.pull[work.batch :] = work.pull[: work.batch]
                states.begin(free)
            else:
                work.mean.begin(free)
                work.difference.begin()
            if work.code:
                self.rounded[work.code].take(input_too=False)
            if form == "difference":
                self.visit(work, free, [*range(1, self.network.top + 1)], False, False, to_middle=True)
            found = self.steps(work, relax, schedule, True, 1 / (beta if form == "plus-minus" else span))
            self.finish(work, form, variant, beta, states)
            return found

        def relax(number: int, layers: list[int], up: bool, down: bool) -> None:
            common = {
                "gamma": schedule.gamma, "step": schedule.step, "keep": keeps(schedule),
                "most": work.most[number : number + 1],
            }  # fmt: skip
            if form == "plus-minus":
                if live and self.network.top in layers:
                    self.read_out(work, states)
                    self.aim(work, states)
                self.visit(work, states, layers, up, down, mode=RELAX, nudge=sign * beta, **common)
            elif form == "difference":
                self.visit(work, work.difference, layers, up, down, mode=DIFFERENCE, nudge=span, **common)
            else:
                self.visit(work, work.difference, layers, up, down, nudge=span, to_middle=True, **common)
                self.visit(work, work.mean, layers, up, down, mode=MEAN_DIFFERENCE, **common)
            for layer in layers:
                for channel in settling[form == "difference" :]:
                    channel.turn(layer)

        work.target[: work.batch] = target
        work.target[work.batch :] = target
        key = schedule, beta, variant, tuple(free.turned)
        found = self.perform(work, phase, key, settling)
        return [x, *work.means], [x, *work.differences], found or self.settled(work, count, schedule, True, 1 / span)

    def finish(self, work: Workspace, form: str, variant: str, beta: float, states: Channel) -> None:
        """In every form the same result: mean m = (s+ + s-)/2 and difference d = (s+ - s-)/(2 beta) of each layer.

        A softmax readout, which takes no part in the dynamics, gets the free p and the error t - p.
        """
        B, last = work.batch, len(self.sizes) - 1
        for layer in range(1, last + 1):
            mean, difference, free = work.means[layer - 1], work.differences[layer - 1], work.free.state(layer)
            if layer > self.network.top:
                mean[...] = free
                np.subtract(work.target[:B], free, out=difference)
            elif form == "plus-minus":
                plus, minus = states.state(layer)[:B], states.state(layer)[B:]
                if variant != "centered":
                    plus, minus = (plus, free) if variant == "positive" else (free, plus)
                np.add(plus, minus, out=mean)
                np.multiply(mean, mean.dtype.type(0.5), out=mean)
                np.subtract(plus, minus, out=difference)
                span = 2 * beta if variant == "centered" else beta
                np.multiply(difference, mean.dtype.type(1 / span), out=difference)
            else:
                mean[...] = free if form == "difference" else work.mean.state(layer)
                np.multiply(work.difference.state(layer), mean.dtype.type(0.5 / beta), out=difference)


def keeps(schedule: Schedule) -> bool:
    """Whether a visit may find that only one of up and down is new, or the last visit is not known."""
    return schedule.order == "sweep" or schedule.early_stop
