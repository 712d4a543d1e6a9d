"""The fused phases of layered networks: what `eqkernel.relaxation` spells out, in kernels, tile by tile.

Covers networks whose every layer is driven by the one below it (dense or convolution, and bias) and perhaps by itself
(lateral).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..alignment import aligned
from ..connections import Conv
from ..costs import one_hot
from ..errors import EqkernelError, all_finite
from ..geometry import MAX
from ..optimisers import Optimiser
from ..outcomes import Outcome, judge
from ..schedules import FORMS, NUDGES, ORDERS, Schedule
from ..step import Whole
from . import chain, conv, tiles, update
from .correlate import POOL
from .drives import are_finite
from .learner import Learner
from .microkernel import VECTOR_BYTES
from .plan import Plan
from .threads import get_threads, spread

if TYPE_CHECKING:
    from ..network import Network

Settled = tuple[int, float, float]
Free = tuple["Workspace", list[NDArray], Settled]  # with the state
Nudged = tuple[list[NDArray], list[NDArray], Settled]  # mean and difference
Phase = tuple[Callable[[int, int], None], int]  # settles tiles begin..end; multiply-adds for a sample, at most


class Constants(NamedTuple):
    """A schedule in the kernels' terms: codes, and numbers of the network's type."""

    order: int
    form: int
    nudge: int
    gamma: np.floating
    step: np.floating
    stop: np.floating


class Workspace:
    """All memory of a training step for batches of up to `batch` samples; its size knows nothing of settle steps."""

    def __init__(self, plan: Plan, batch: int, dtype: np.dtype) -> None:
        count = -(-batch // plan.width)
        rows = int(plan.table[1:, tiles.SIZE].sum())
        self.batch, self.width = batch, plan.width
        self.blocks = [(int(row), int(n)) for row, n in plan.table[1:, [tiles.ROW, tiles.SIZE]]]
        self.tiles = aligned(count, plan.size, dtype)
        for at, pair in plan.constants.items():
            self.tiles[:, at : at + 2] = pair
        self.state, self.mean, self.difference = (np.zeros(batch * rows, dtype) for _ in range(3))
        self.winners = np.zeros(batch * rows if (plan.table[:, tiles.SHAPE + POOL] == MAX).any() else 0, dtype)
        self.report = np.zeros((2 * count, 3))
        self._views: dict[str, tuple[int, list[NDArray]]] = {}

    def with_own_results(self) -> Workspace:
        """A workspace that shares all but the arrays a nudged phase returns, `state` as a mean among them."""
        other = copy(self)
        other.state, other._views = self.state.copy(), {}
        other.mean, other.difference = np.empty_like(self.mean), np.empty_like(self.difference)
        return other

    def views(self, name: str, batch: int) -> list[NDArray]:
        """The flat blocks (B, n_l) of layers 1..L of `state`, `mean` or `difference` as arrays, made once a batch size.

        The list and its arrays are the workspace's.
        """
        known, views = self._views.get(name, (0, []))
        if known != batch:
            flat = getattr(self, name)
            views = [flat[batch * row : batch * (row + n)].reshape(batch, n) for row, n in self.blocks]
            self._views[name] = batch, views
        return views

    def count(self, batch: int) -> int:
        """How many tiles so many samples fill."""
        return -(-batch // self.width)

    def settled(self, tiles: int) -> tuple[Settled, Settled]:
        """Steps, residual and early residual of the free and the nudged phase, of the slowest of so many tiles."""
        reports = self.report[: 2 * tiles]
        if tiles > 1:
            reports = reports.reshape(2, tiles, 3).max(axis=1)  # a NaN wins
        (free, residual, early), (nudged, residual_too, early_too) = reports.tolist()
        return (int(free), residual, early), (int(nudged), residual_too, early_too)

    @property
    def nbytes(self) -> int:
        """Bytes of all its arrays."""
        return sum(array.nbytes for array in vars(self).values() if isinstance(array, np.ndarray))


class Layered(Learner):
    """The phases of one layered network."""

    def __init__(self, network: Network, plan: Plan) -> None:
        self.network, self.plan, self.sizes = network, plan, network.sizes
        self.reports_nan = not network.has_readout  # a residual is not finite where a state is not
        self.workspace: Workspace | None = None
        self._constants: tuple[Schedule, Constants] | None = None
        self._scales: tuple[Schedule, int, NDArray] | None = None
        self._room = update.scratch(plan.table, VECTOR_BYTES // network.dtype.itemsize)
        self._rooms = aligned(0, self._room, network.dtype)

    def reserve(self, batch: int, reuse: bool) -> Workspace:
        """Memory for a batch: new, or the network's own, which grows to the largest batch and is then used again."""
        if not reuse:
            return Workspace(self.plan, batch, self.network.dtype)
        if self.workspace is None or self.workspace.batch < batch:
            self.workspace = Workspace(self.plan, batch, self.network.dtype)
        return self.workspace

    def constants(self, schedule: Schedule) -> Constants:
        """What the kernels take of a schedule; kept for the next call, which mostly has the same."""
        if self._constants is None or self._constants[0] is not schedule:
            real = self.network.dtype.type
            stop = schedule.tolerance if schedule.early_stop and schedule.tolerance else 0.0
            self._constants = schedule, Constants(
                ORDERS[schedule.order], FORMS[schedule.form], NUDGES[schedule.nudge],
                real(schedule.gamma), real(schedule.step), real(stop),
            )  # fmt: skip
        return self._constants[1]

    def free(self, x: NDArray, schedule: Schedule, reuse: bool = False) -> Free:
        """The free phase from rest, x (B, n_0)."""
        workspace = self.reserve(len(x), reuse)
        count = self._over_tiles(workspace, len(x), self._free(workspace, x, schedule, self._finite(len(x), 1)))
        return self._freed(workspace, x, workspace.settled(count)[0])

    def _freed(self, workspace: Workspace, x: NDArray, settled: Settled) -> Free:
        """The result of a free phase that settled like this."""
        return workspace, [x, *workspace.views("state", len(x))], settled

    def _finite(self, batch: int, first: int) -> bool:
        """Whether the weights of layers `first`, ... are known to be finite: a single sample has no use for it."""
        return batch > 1 and are_finite(self.plan.table, self.network.buffer, first)

    def _free(self, workspace: Workspace, x: NDArray, schedule: Schedule, finite: bool) -> Phase:
        c = self.constants(schedule)

        def run(begin: int, end: int) -> None:
            chain.free_tiles(
                self.plan.table, self.network.buffer, workspace.tiles, x.reshape(-1), workspace.state, workspace.report,
                begin, end, finite, c.order, schedule.free_steps, c.gamma, c.step, c.stop,
            )  # fmt: skip

        return run, self.plan.hoisted + schedule.free_steps * self._products(schedule)

    def detach(self, workspace: Workspace) -> Workspace:
        """The same free state with room of its own for a nudged phase, whose results are the caller's to keep."""
        return workspace.with_own_results()

    def nudged(
        self,
        workspace: Workspace,
        x: NDArray,
        target: NDArray,
        beta: float,
        variant: str,
        schedule: Schedule,
    ) -> Nudged:
        """Mean and difference, per unit of beta, of the nudged states, from the free state that `workspace` holds."""
        finite = self._finite(len(x), 2)  # the input's drive is that of the free phase
        count = self._over_tiles(workspace, len(x), self._nudged(workspace, target, beta, variant, schedule, finite))
        return self._drawn(workspace, x, workspace.settled(count)[1], self._mean(variant, schedule))

    def _nudged(
        self, workspace: Workspace, target: NDArray, beta: float, variant: str, schedule: Schedule, finite: bool
    ) -> Phase:
        c, form = self.constants(schedule), self._form(variant, schedule)
        report = workspace.report[workspace.count(len(target)) :]
        winners = workspace.winners if self._notes_winners(variant, schedule) else workspace.winners[:0]
        signed = self.network.dtype.type(-beta if variant == "negative" else beta)

        def run(begin: int, end: int) -> None:
            chain.nudged_tiles(
                self.plan.table, self.network.buffer, workspace.tiles, target.reshape(-1),
                workspace.mean, workspace.difference, winners, report, begin, end, finite,
                form, c.order, schedule.nudged_steps, c.gamma, signed, c.step, c.nudge, c.stop,
            )  # fmt: skip

        channels = 2 if form in (tiles.RUN_STATES, tiles.RUN_MEAN_DIFFERENCE) else 1
        return run, channels * schedule.nudged_steps * self._products(schedule)

    def _drawn(self, workspace: Workspace, x: NDArray, settled: Settled, mean: str = "mean") -> Nudged:
        """The result of a nudged phase that settled like this, whose mean the workspace calls `mean`."""
        m, d = workspace.views(mean, len(x)), workspace.views("difference", len(x))
        return [x, *m], [x, *d], settled

    def _mean(self, variant: str, schedule: Schedule) -> str:
        """Where the difference alone settles, the mean is the free state, and nothing writes it a second time."""
        return "state" if self._form(variant, schedule) == tiles.RUN_DIFFERENCE else "mean"

    def _form(self, variant: str, schedule: Schedule) -> int:
        return self.constants(schedule).form if variant == "centered" else int(tiles.RUN_STATE)

    def _notes_winners(self, variant: str, schedule: Schedule) -> bool:
        """Whether the mean is the state that chose the winners, for the update: the free one, after a sweep forward."""
        c = self.constants(schedule)
        forward = c.order == tiles.SWEEP and schedule.free_steps % 2 == 1 and c.stop == 0
        return forward and self._form(variant, schedule) == tiles.RUN_DIFFERENCE

    def _products(self, schedule: Schedule) -> int:
        """Multiply-adds of a step for one sample: a sweep goes up or down, other orders do both."""
        return self.plan.products if schedule.order == "sweep" else 2 * self.plan.products

    def _over_tiles(self, workspace: Workspace, batch: int, *phases: Phase) -> int:
        """Runs these phases of all tiles, one after the other in each thread's share; gives back how many tiles."""
        count = workspace.count(batch)

        def part(index: int, parts: int) -> None:
            for run, _ in phases:
                run(count * index // parts, count * (index + 1) // parts)

        if count == 1:
            part(0, 1)
        else:
            spread(part, count, 2.0 * batch * sum(products for _, products in phases))
        return count

    def both(self, x: NDArray, target: NDArray, beta: float, variant: str, schedule: Schedule) -> tuple[Free, Nudged]:
        """What `free` and then `nudged` give, in the network's own workspace, each tile through both phases."""
        workspace = self.reserve(len(x), True)
        finite = self._finite(len(x), 1)
        count = self._over_tiles(
            workspace, len(x), self._free(workspace, x, schedule, finite),
            self._nudged(workspace, target, beta, variant, schedule, finite),
        )  # fmt: skip
        free, nudged = workspace.settled(count)
        return self._freed(workspace, x, free), self._drawn(workspace, x, nudged, self._mean(variant, schedule))

    def step(
        self, x: NDArray, target: NDArray | None, labels: NDArray | None, beta: float, variant: str,
        schedule: Schedule, optimiser: Optimiser,
    ) -> Whole | None:  # fmt: skip
        """A whole training step, as `eqkernel.step` wants it: the phases' kernels, with less Python between them.

        The first step of an optimiser with moments is left to the phases, which make these or refuse them.
        """
        network = self.network
        if optimiser.rule is None:
            return None
        if not optimiser.has_moments_for(network.buffer):
            return None
        if target is None:
            try:
                target = one_hot(labels, network.sizes[-1], network.dtype)  # type: ignore[arg-type]
            except EqkernelError:
                return None
        (_, (*_, output), free), (mean, difference, nudged) = self.both(x, target, beta, variant, schedule)
        with np.errstate(over="ignore"):
            loss = float(network.cost.loss(output, target).mean())
        if not (isfinite(loss) and all_finite(output)):
            return None
        for steps, residual, early in (free, nudged):
            if judge(residual, early, steps, schedule.tolerance) is Outcome.DIVERGED:
                return None
        known = {"winners": self.reserve(len(x), True).winners} if self._notes_winners(variant, schedule) else {}
        self.update(mean, difference, optimiser, schedule, **known)
        correct = 0 if labels is None else int(np.count_nonzero(output.argmax(axis=1) == labels))
        return Whole(free, nudged, loss, correct)

    def _update(  # type: ignore[no-untyped-def]
        self, theta, first, second, mean, difference, schedule, rule, rates, hyper, winners=None
    ) -> None:
        """`winners` are those of the mean state, laid out as it is, where they are known."""
        dtype, batch, threads = self.network.dtype, len(mean[0]), get_threads()
        scales = self.scales(schedule, batch)
        rate, decay = (dtype.type(value) for value in rates)
        constants = np.array(hyper, dtype)
        if len(self._rooms) < threads:
            self._rooms = aligned(threads, self._room, dtype)
        rooms = self._rooms
        winners = self._winners(mean) if winners is None else winners
        x, flat_mean, flat_difference = mean[0].reshape(-1), _flat(mean), _flat(difference)

        def part(index: int, parts: int) -> None:
            update.update_part(
                self.plan.table, theta, first, second, x, flat_mean, flat_difference, winners, scales,
                schedule.feed_forward, rooms[index], index, parts, rate, decay, rule, constants,
            )  # fmt: skip

        spread(part, threads, 2.0 * (self.plan.hoisted + 2 * self.plan.products) * batch)

    def scales(self, schedule: Schedule, batch: int) -> NDArray:
        """The scales of `update.update_part` for so many samples; kept for the next call, which mostly has as many."""
        if self._scales is None or self._scales[0] is not schedule or self._scales[1] != batch:
            network = self.network
            scales = np.zeros(len(self.sizes), network.dtype)
            for connection in network.connections:
                scales[connection.post] = network.scale(connection, schedule) / batch
            scales[0] = network.has_readout
            self._scales = schedule, batch, scales
        return self._scales[2]

    def _winners(self, mean: list[NDArray]) -> NDArray:
        """Where the mean state's max poolings are, laid out as the flat states; empty if there are none."""
        wires = zip(self.network.connections, self.network.parameters, strict=True)
        pools = [(c, w) for c, w in wires if isinstance(c, Conv) and c.chooses]
        if not pools:
            return np.empty(0, self.network.dtype)
        winners, shapes = [np.zeros_like(block) for block in mean], self.network.shapes
        for c, weight in pools:
            conv.choose(winners[c.post], mean[c.pre], weight, c.geometry(shapes))
        return _flat(winners)


def _flat(blocks: list[NDArray]) -> NDArray:
    """The one flat array whose consecutive pieces are layers 1..L of `blocks`: they lie so already, or are copied."""
    pieces = blocks[1:]
    whole: Any = pieces[0].base
    is_line = isinstance(whole, np.ndarray) and whole.ndim == 1 and whole.flags.c_contiguous
    if is_line and all(p.dtype == whole.dtype and p.flags.c_contiguous and p.base is whole for p in pieces):
        starts = [piece.ctypes.data for piece in pieces]
        if all(at + p.nbytes == after for at, p, after in zip(starts, pieces, starts[1:], strict=False)):
            start = (starts[0] - whole.ctypes.data) // whole.itemsize
            return whole[start : start + sum(piece.size for piece in pieces)]
    return np.concatenate([piece.reshape(-1) for piece in pieces])
