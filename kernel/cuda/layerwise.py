"""The phases of large networks: a launch for each visit to a layer (layer.cu), all of a phase in one CUDA graph.

The order of visits is that of `eqkernel.relaxation`. A phase is recorded the second time it runs for a batch size, a
schedule and a beta, and from then on replayed; an early stop must look at every residual, and runs without. Nothing is
allocated while recording: what changes between calls, input and targets, is copied into memory that the graph knows.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..cpu import tiles
from ..relaxation import Relaxation
from ..schedules import Schedule
from . import dense, neurons
from .device import current
from .launcher import launch
from .layered import Layered, Settled
from .precision import code_for

if TYPE_CHECKING:
    from ..network import Network

RELAX, DIFFERENCE, STORE, MEAN_DIFFERENCE = range(4)  # of layer.cu


class Channel:
    """One thing that settles: of layers 1..L the state, room for the next state, up and down, (rows, n_l) each."""

    def __init__(self, network: Network, rows: int, biased: bool = True) -> None:
        sizes, self.rows, self.biased = network.sizes[1:], rows, biased
        self.flat = current().arrays.zeros((4, rows * sum(sizes)), network.dtype)
        starts = np.cumsum([0, *sizes])
        pieces = [
            [part[rows * at : rows * (at + n)].reshape(rows, n) for at, n in zip(starts, sizes, strict=False)]
            for part in self.flat
        ]
        self.pair = [[pieces[0][l], pieces[1][l]] for l in range(len(sizes))]
        self.up, self.down = ([None, *part] for part in pieces[2:])
        self.turned = [0] * (len(sizes) + 1)

    def state(self, layer: int) -> Any:
        """(rows, n) of a layer."""
        return self.pair[layer - 1][self.turned[layer]]

    def next(self, layer: int) -> Any:
        """Where its next state goes."""
        return self.pair[layer - 1][1 - self.turned[layer]]

    def turn(self, layer: int) -> None:
        """The next state becomes the state."""
        self.turned[layer] = 1 - self.turned[layer]

    def begin(self, like: Channel | None = None) -> None:
        """At rest, or as another channel of as many rows, or of half as many, twice."""
        if like is None:
            self.turned = [0] * len(self.turned)
            self.flat.fill(0)
        else:
            self.turned = [*like.turned]
            for mine, theirs in zip(self.arrays(), like.arrays(), strict=True):
                for first in range(0, self.rows, like.rows):
                    mine[first : first + like.rows] = theirs

    def arrays(self) -> list[Any]:
        """All its arrays."""
        return [array for pair in self.pair for array in pair] + self.up[1:] + self.down[1:]


class Workspace:
    """All device memory of the phases of a batch, and the graphs that work on it."""

    def __init__(self, network: Network, batch: int) -> None:
        arrays, sizes, dtype = current().arrays, network.sizes, network.dtype
        self.network, self.batch = network, batch
        self.free, self.mean = Channel(network, batch), Channel(network, batch)
        self.difference = Channel(network, batch, biased=False)
        self.both = Channel(network, 2 * batch)  # a + and a - state, or one of them in its first half
        self.middle = Channel(network, batch)  # in its `up`: the drive of the mean, or of the difference
        self.target, self.error = (arrays.zeros((2 * batch, sizes[-1]), dtype) for _ in range(2))
        self.pull = arrays.zeros((2 * batch, sizes[network.top]), dtype)
        self.graphs: dict[Any, tuple[Callable[[], None], list[int]] | None] = {}
        self.most: Any = None
        self.own_results()

    def own_results(self) -> None:
        """New memory for what a nudged phase returns."""
        sizes, arrays = self.network.sizes[1:], current().arrays
        flats = [arrays.zeros(self.batch * sum(sizes), self.network.dtype) for _ in range(2)]
        starts = np.cumsum([0, *sizes])
        self.means, self.differences = (
            [
                flat[self.batch * at : self.batch * (at + n)].reshape(self.batch, n)
                for at, n in zip(starts, sizes, strict=False)
            ]
            for flat in flats
        )

    def with_own_results(self) -> Workspace:
        """A workspace that shares all but the arrays a nudged phase returns, which no recorded graph knows."""
        other = copy(self)
        other.graphs = {}
        other.own_results()
        return other


class Layerwise(Layered):
    """The phases of one layered network, layer by layer."""

    reports_nan = False  # of a readout

    def __init__(self, network: Network, plan: NDArray) -> None:
        super().__init__(network, plan)
        self.spelt = Relaxation(network, "cuda")  # knows the order of visits
        column: dict[str, dict[int, Any]] = {"dense": {}, "bias": {}, "lateral": {}}
        for connection, parameter in zip(network.connections, network.parameters, strict=True):
            column[connection.stem][connection.post] = parameter
        self.weight, self.bias, self.lateral = column.values()

    def reserve(self, batch: int, reuse: bool) -> Any:
        if not reuse:
            return Workspace(self.network, batch)
        if self.workspace is None or self.workspace.batch != batch:
            self.workspace = Workspace(self.network, batch)  # type: ignore[assignment]
        return self.workspace

    # -- one launch --------------------------------------------------------------------------------------------------

    def visit(
        self,
        work: Workspace,
        channel: Channel,
        layer: int,
        up: bool,
        down: bool,
        *,
        mode: int = STORE,
        step: float = 1.0,
        gamma: float = 1.0,
        nudge: float = 0.0,
        out: Any = None,
        below: Any = None,
        most: Any = None,
    ) -> None:
        """Refresh what is asked of a layer's drive, and do with it what `mode` says (layer.cu).

        `below` is the state of the layer below if it is not the channel's own: the clamped input.
        """
        n, top, biased = self.sizes[layer], self.network.top, channel.biased
        up, down = up and (layer > 1 or below is not None), down and layer < top
        state, weight = channel.state(layer), self.weight[layer]
        if below is None:
            below = channel.state(layer - 1) if layer > 1 else state
        above, back = (channel.state(layer + 1), self.weight[layer + 1]) if layer < top else (state, weight)
        lateral = self.lateral.get(layer) if layer not in (0, top + 1) else None
        middle, other = work.middle.up[layer], work.difference
        if mode == STORE and channel is not work.difference:
            lateral = None if up else lateral  # of the input's drive, or a readout's, there is none
        launch(
            "layer", "relax_layer", self.network.dtype, dense.tiles(channel.rows, n), dense.GEMM_THREADS,
            (
                mode, channel.next(layer) if out is None else out, state, other.next(layer), other.state(layer),
                middle, channel.up[layer], channel.down[layer], below, weight, self.bias[layer], above, back,
                weight if lateral is None else lateral, work.pull, work.most[:1] if most is None else most,
                channel.rows, work.batch, n, self.sizes[layer - 1] if up else 0, self.sizes[layer + 1] if down else 0,
                int(lateral is not None), int(biased), float(gamma), float(nudge) if layer == top else 0.0,
                float(step), int(self.plan[layer, tiles.NEURON]),
            ),
            PRECISION=code_for(self.network.dtype),
        )  # fmt: skip

    def read_out(self, work: Workspace, channel: Channel) -> None:
        """The softmax readout of a channel."""
        last = len(self.sizes) - 1
        if self.network.top < last:
            self.visit(work, channel, last, True, False)
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
            for layers, up, down in self.spelt.visits(schedule.order, number, nudged):
                run(number, layers, up, down)
            if schedule.early_stop:
                settled = self.settled(work, number + 1, schedule, nudged, unit)
                if settled[1] < (schedule.tolerance or 0):
                    return settled
        return self.settled(work, number + 1, schedule, nudged, unit) if schedule.early_stop else None

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
            for layer in layers:
                self.visit(
                    work, channel, layer, up, down, mode=RELAX, gamma=schedule.gamma, step=schedule.step,
                    most=work.most[number : number + 1],
                )  # fmt: skip
            for layer in layers:
                channel.turn(layer)

        if work.most is None:
            work.most = current().arrays.zeros(1, np.uint32 if self.network.dtype == np.float32 else np.uint64)
        channel.begin()
        self.visit(work, channel, 1, True, False, below=x)
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
            if form == "difference":
                for layer in range(1, self.network.top + 1):
                    self.visit(work, free, layer, False, False, out=work.middle.up[layer])
            found = self.steps(work, relax, schedule, True, 1 / span)
            self.finish(work, form, variant, beta, states)
            return found

        def relax(number: int, layers: list[int], up: bool, down: bool) -> None:
            common = {"gamma": schedule.gamma, "step": schedule.step, "most": work.most[number : number + 1]}
            for layer in layers:
                if form == "plus-minus":
                    if live and layer == self.network.top:
                        self.read_out(work, states)
                        self.aim(work, states)
                    self.visit(work, states, layer, up, down, mode=RELAX, nudge=sign * beta, **common)
                elif form == "difference":
                    self.visit(work, work.difference, layer, up, down, mode=DIFFERENCE, nudge=span, **common)
                else:
                    out = work.middle.up[layer]
                    self.visit(work, work.difference, layer, up, down, nudge=span, out=out, **common)
                    self.visit(work, work.mean, layer, up, down, mode=MEAN_DIFFERENCE, **common)
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
