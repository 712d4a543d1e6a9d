"""The phases of layered networks in fused kernels: what `eqkernel.relaxation` spells out, each block its samples.

Covers what `eqkernel.cpu.layered` does, as long as a sample's states fit the shared memory of a block (fused.cu).
`Shallow` has another kernel for one hidden layer below a narrow output.
"""

from __future__ import annotations

from copy import copy
from itertools import accumulate
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..costs import SquaredError
from ..cpu import tiles
from ..cpu.learner import Learner
from ..interop import on_device, targets_of, to_network
from ..optimisers import Optimiser
from ..outcomes import Outcome, judge
from ..schedules import FORMS, NUDGES, ORDERS, Schedule
from ..step import Whole
from . import dense, scores
from .device import current
from .launcher import launch
from .products import Product, product

if TYPE_CHECKING:
    from ..network import Network

Settled = tuple[int, float, float]
THREADS = 256  # of fused.cu
SECTIONS = 3  # of a channel: state, up, down
LANES = (4, 2, 1)  # samples of a tile: many spare reads of weights, few fill more multiprocessors


class Workspace:
    """All device memory of a training step for batches of up to `batch` samples."""

    def __init__(self, plan: NDArray, batch: int, lanes: int, dtype: np.dtype) -> None:
        arrays, rows = current().arrays, int(plan[1:, tiles.SIZE].sum())
        blocks = -(-batch // lanes)
        self.batch, self.lanes, self.blocks = batch, lanes, blocks
        self.input = arrays.empty((batch, int(plan[1, tiles.SIZE])), dtype)
        self.kept = arrays.empty(blocks * SECTIONS * rows * lanes, dtype)
        self.state, self.mean, self.difference = (arrays.empty(batch * rows, dtype) for _ in range(3))
        # All that travels back: a report of each block and phase, the loss of each sample, and whether it is right.
        self.found = arrays.empty(6 * blocks + 2 * batch, dtype)
        self.report = self.found[: 6 * blocks].reshape(2, blocks, 3)
        self.loss, self.right = self.found[6 * blocks : 6 * blocks + batch], self.found[6 * blocks + batch :]

    def with_own_results(self) -> Workspace:
        """A workspace that shares all but the arrays a nudged phase returns."""
        other, arrays = copy(self), current().arrays
        other.mean, other.difference = (arrays.empty(self.mean.shape, self.mean.dtype) for _ in range(2))
        return other


def room() -> int:
    """Bytes of shared memory that a block may choose at launch; the rest is for what kernels declare themselves."""
    return current().shared_memory - 1024


class Layered(Learner):
    """The phases of one layered network on the device.

    A free state that is not finite makes the residual NaN: `reports_nan` spares the host a look at the output.
    """

    reports_nan = True

    def __init__(self, network: Network, plan: NDArray) -> None:
        arrays = current().arrays
        self.network, self.plan, self.sizes = network, plan, network.sizes
        self.rows = [int(row) for row in plan[:, tiles.ROW]]
        self.device_plan = arrays.asarray(plan.astype(np.int32))
        # Where the weights begin that each step reads: all but those of layer 1.
        later = [at for at, c in zip(network.offsets, network.connections, strict=True) if c.post > 1 or c.pre == 1]
        self.inner = min(later, default=0)
        self.weights = network.buffer.size - self.inner if later else 0
        self.table, self.product = self._table()
        self.device_table = arrays.asarray(self.table)
        self.scales: dict[Any, Any] = {}
        self.workspace: Workspace | None = None

    # -- memory ------------------------------------------------------------------------------------------------------

    @staticmethod
    def tile(plan: NDArray, channels: int) -> int:
        """Elements of shared memory that one sample takes."""
        sizes = plan[1:, tiles.SIZE]
        return int(SECTIONS * channels * sizes.sum() + 3 * sizes.max() + sizes[-1])

    @classmethod
    def fits(cls, plan: NDArray, dtype: np.dtype) -> bool:
        """Whether a sample fits the shared memory of a block."""
        return cls.tile(plan, 2) * dtype.itemsize <= room()

    def lanes_for(self, batch: int) -> int:
        """Samples of a tile: as many as fit, unless multiprocessors would stand idle."""
        device, size = current(), self.tile(self.plan, 2) * self.network.dtype.itemsize
        for lanes in LANES:
            if lanes == 1 or (lanes * size <= room() and batch >= lanes * device.processors):
                return lanes
        raise AssertionError

    def shared(self, lanes: int, channels: int) -> tuple[int, int]:
        """(weights kept in shared memory beside the tile, bytes of it all)."""
        itemsize = self.network.dtype.itemsize
        size = self.tile(self.plan, channels) * lanes * itemsize
        staged = self.weights if size + self.weights * itemsize <= room() else 0
        return staged, size + staged * itemsize

    def reserve(self, batch: int, reuse: bool) -> Workspace:
        """Memory for a batch: new, or the network's own, which is kept while batches have one size."""
        lanes = self.lanes_for(batch)
        if not reuse:
            return Workspace(self.plan, batch, lanes, self.network.dtype)
        if self.workspace is None or self.workspace.batch != batch:
            self.workspace = Workspace(self.plan, batch, lanes, self.network.dtype)
        return self.workspace

    def views(self, x: Any, flat: Any) -> list[Any]:
        """The flat blocks (B, n_l) of layers 1..L as arrays, with x before them."""
        batch = len(x)
        blocks = zip(self.rows[1:], self.sizes[1:], strict=True)
        return [x, *(flat[batch * row : batch * (row + n)].reshape(batch, n) for row, n in blocks)]

    # -- phases ------------------------------------------------------------------------------------------------------

    def free(self, x: Any, schedule: Schedule, reuse: bool = False) -> tuple[Workspace, list[Any], Settled]:
        """The free phase from rest, x (B, n_0) on the device."""
        work, state = self.launch_free(x, schedule, reuse)
        return work, state, _settled(work.report[0].get())

    def launch_free(self, x: Any, schedule: Schedule, reuse: bool) -> tuple[Workspace, list[Any]]:
        """The same without waiting for how it settled."""
        network, batch, work = self.network, len(x), self.reserve(len(x), reuse)
        n, features, theta = self.sizes[1], self.sizes[0], network.buffer
        weight, bias = int(self.plan[1, tiles.WEIGHT]), int(self.plan[1, tiles.BIAS])
        W = theta[weight : weight + n * features].reshape(n, features)
        dense.input_drive(work.input, x, W, theta[bias : bias + n])
        self.settle(
            "free", work,
            (
                work.input, work.state, work.kept, work.report[0], batch, ORDERS[schedule.order], schedule.free_steps,
                float(schedule.gamma), float(schedule.step), _stop(schedule),
            ),
        )  # fmt: skip
        return work, self.views(x, work.state)

    def settle(self, phase: str, work: Workspace, arguments: tuple[Any, ...]) -> None:
        """Launch a phase, "free" or "nudged"."""
        staged, shared = self.shared(work.lanes, 1 if phase == "free" else 2)
        front = self.device_plan, len(self.sizes), self.network.buffer, self.inner, staged
        launch(
            "fused", f"{phase}_tiles", self.network.dtype, (work.blocks,), THREADS, (*front, *arguments), shared,
            LANES=work.lanes,
        )  # fmt: skip

    def detach(self, workspace: Workspace) -> Workspace:
        """The same free state with room of its own for a nudged phase, whose results are the caller's to keep."""
        return workspace.with_own_results()

    def nudged(
        self, workspace: Workspace, x: Any, target: Any, beta: float, variant: str, schedule: Schedule
    ) -> tuple[list[Any], list[Any], Settled]:
        """Mean and difference, per unit of beta, of the nudged states, from the free state that `workspace` holds."""
        mean, difference = self.launch_nudged(workspace, x, target, beta, variant, schedule)
        return mean, difference, _settled(workspace.report[1].get())

    def launch_nudged(
        self, workspace: Workspace, x: Any, target: Any, beta: float, variant: str, schedule: Schedule
    ) -> tuple[list[Any], list[Any]]:
        """The same without waiting for how it settled."""
        work = workspace
        form = FORMS[schedule.form] if variant == "centered" else int(tiles.RUN_STATE)
        self.settle(
            "nudged", work,
            (
                work.kept, target, work.mean, work.difference, work.report[1], len(x), form, ORDERS[schedule.order],
                schedule.nudged_steps, float(schedule.gamma), float(-beta if variant == "negative" else beta),
                float(schedule.step), NUDGES[schedule.nudge], _stop(schedule),
            ),
        )  # fmt: skip
        return self.views(x, work.mean), self.views(x, work.difference)

    def step(self, x: Any, y: Any, beta: float, variant: str, schedule: Schedule, optimiser: Optimiser) -> Whole | None:
        """A whole training step that waits for the device once: before the update, for all that may forbid it.

        None, with no weight changed, where it does not cover the step (targets on the device that the cost would have
        to look at) or the step must not be done: `eqkernel.learning` then finds out why.
        """
        network, device_labels = self.network, on_device(y) and y.ndim == 1
        if optimiser.rule is None or len(y) != len(x) or type(network.cost) not in scores.KNOWN:
            return None
        if on_device(y):
            if not isinstance(y, network.arrays.ndarray):
                y = network.arrays.from_dlpack(y)
            if y.dtype.kind not in ("iu" if device_labels else "fiub"):
                return None
            if device_labels:
                target = (y[:, None] == network.arrays.arange(self.sizes[-1])[None, :]).astype(network.dtype)
            elif type(network.cost) is SquaredError and y.shape == (len(x), self.sizes[-1]):
                target = to_network(network, "y", y)  # a NaN in it shows in the loss
            else:
                return None
        else:
            target = targets_of(network, y)
        work, state = self.launch_free(x, schedule, True)
        mean, difference = self.launch_nudged(work, x, target, beta, variant, schedule)
        scores.score(work.loss, work.right, state[-1], target, network.cost)
        found = work.found.get()
        reports, (losses, right) = found[: -2 * len(x)].reshape(work.report.shape), found[-2 * len(x) :].reshape(2, -1)
        phases, loss = [_settled(report) for report in reports], float(losses.mean())
        if device_labels and right.min() < 0:
            return None
        outcomes = (judge(residual, early, taken, schedule.tolerance) for taken, residual, early in phases)
        if not isfinite(loss) or Outcome.DIVERGED in outcomes:
            return None
        self.update(mean, difference, optimiser, schedule)
        return Whole(phases[0], phases[1], loss, int(right.sum()))

    # -- learning ----------------------------------------------------------------------------------------------------

    def _table(self) -> tuple[NDArray, Product]:
        """One row a matrix, as hebbian.cu reads it, and the launch of the largest."""
        plan, rows, last = self.plan, [], len(self.sizes) - 1
        for layer in range(1, last + 1):
            n, below, here = self.sizes[layer], self.sizes[layer - 1], self.rows[layer]
            readout = layer > self.network.top
            pre = -1 if layer == 1 else self.rows[layer - 1]
            both = int(layer > 1 and not readout)
            rows.append((plan[layer, tiles.WEIGHT], plan[layer, tiles.BIAS], below, n, pre, here, both, layer))
            if plan[layer, tiles.LATERAL] >= 0:
                rows.append((plan[layer, tiles.LATERAL], -1, n, n, here, here, 2, last + layer))
        largest = max(rows, key=lambda row: row[2] * row[3])
        how = product(largest[3], largest[2] + (largest[1] >= 0), self.network.dtype)
        tile = how.defines["TILE"]
        across = max(-(-(row[2] + (row[1] >= 0)) // tile) for row in rows)
        down = max(-(-row[3] // tile) for row in rows)
        return np.array(rows, np.int32), how._replace(grid=(int(across), int(down), len(rows)))

    def _update(self, theta, first, second, mean, difference, schedule, rule, rates, hyper) -> None:  # type: ignore[no-untyped-def]
        constants = [float(c) for c in hyper] + [0.0] * (7 - len(hyper))
        launch(
            "hebbian", "update", self.network.dtype, self.product.grid, self.product.threads,
            (
                self.device_table, self._scales(schedule, len(mean[0])), theta, first, second, mean[0], _flat(mean),
                _flat(difference), len(mean[0]), int(schedule.feed_forward), rule, *map(float, rates), *constants,
            ),
            **self.product.defines,
        )  # fmt: skip

    def _scales(self, schedule: Schedule, batch: int) -> Any:
        """For layer l: -gamma^(l - top) / B at l, and half of it, for its laterals, at L + l."""
        key = schedule.gamma, batch
        if key not in self.scales:
            last = len(self.sizes) - 1
            scales = np.zeros(2 * last + 1, self.network.dtype)
            for connection in self.network.connections:
                scales[connection.post] = self.network.scale(connection, schedule) / batch
            scales[last + 1 :] = scales[1 : last + 1] / 2
            self.scales = {key: current().arrays.asarray(scales)}
        return self.scales[key]


def _stop(schedule: Schedule) -> float:
    return float(schedule.tolerance) if schedule.early_stop and schedule.tolerance else 0.0


def _settled(report: NDArray) -> Settled:
    """Of all blocks, (blocks, 3)."""
    taken, residual, early = report.max(axis=0)  # a NaN wins
    return int(taken), float(residual), float(early)


def _flat(blocks: list[Any]) -> Any:
    """One flat array whose consecutive pieces are layers 1..L of `blocks`: where they lie so already, itself."""
    pieces, whole = blocks[1:], blocks[1].base
    if whole is not None and whole.ndim == 1:
        starts = accumulate((piece.nbytes for piece in pieces), initial=whole.data.ptr)
        if all(
            p.base is whole and p.dtype == whole.dtype and p.flags.c_contiguous and p.data.ptr == start
            for p, start in zip(pieces, starts, strict=False)
        ):
            return whole
    return np.concatenate([piece.reshape(-1) for piece in pieces])
