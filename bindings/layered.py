"""The fused phases of layered networks in the C library: what `eqkernel.relaxation` spells out, tile by tile."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..alignment import aligned
from ..connections import Connection, Conv
from ..costs import CrossEntropy, SquaredError, check_target_finite
from ..cpu import layered
from ..cpu.threads import WORTH_A_THREAD, get_threads, spread
from ..errors import EqkernelError
from ..interop import check_finite
from ..optimisers import Optimiser
from ..schedules import FORMS, NUDGES, ORDERS, Schedule
from ..step import Whole
from .library import POINTER, SUFFIX, check, ffi, functions, lib, variant
from .precision import code_for

if TYPE_CHECKING:
    from ..network import Network

COSTS = SquaredError, CrossEntropy  # those whose loss the library knows


class Workspace(layered.Workspace):
    """All memory of a training step for batches of up to `batch` samples, and the job that points into it."""

    def __init__(self, layers: NDArray, parameters: NDArray, batch: int) -> None:
        self.batch, self.dtype = batch, parameters.dtype
        self.blocks = [(int(row), int(n)) for row, n in layers[["row", "size"]][1:]]
        self._views = {}
        self._schedule: Schedule | None = None
        self._moments: list[NDArray] | None = None
        self.run = functions(self.dtype)
        self.layers, self.parameters = layers, parameters
        job = self.job = ffi.new(f"eqk_job_{SUFFIX[self.dtype]} *")
        job.version, job.variant, job.batch = lib.EQK_ABI_VERSION, variant(), batch
        job.layers, job.count = ffi.from_buffer("eqk_layer[]", layers), len(layers)
        job.parameters, job.parameter_count = self.pointer(parameters), parameters.size
        self.precision = job.schedule.precision = code_for(self.dtype)
        rows = int(layers["size"][1:].sum())
        self.memory = np.zeros(self.run.workspace(job), np.uint8)
        self.state, self.mean, self.difference = (_row(batch * rows, self.dtype) for _ in range(3))
        self.winners = _row(batch * rows if (layers["pool"] == lib.EQK_MAX_POOL).any() else 0, self.dtype)
        self.report = np.zeros((2 * self.run.tiles(job), 3))
        job.work, job.work_size = ffi.from_buffer(self.memory), self.memory.size
        self._point()

    def _point(self) -> None:
        job = self.job
        job.state, job.mean, job.difference = map(self.pointer, (self.state, self.mean, self.difference))
        if self.winners.size:
            job.winners = self.pointer(self.winners)
        job.report = ffi.from_buffer("eqk_report[]", self.report)
        self.loss, self.correct = ffi.new("double *"), ffi.new("int64_t *")

    def pointer(self, array: NDArray) -> Any:
        """Where an array of the network's type begins."""
        return pointer(array, self.dtype)

    def with_own_results(self) -> Workspace:
        """A workspace that shares all but the arrays a nudged phase returns."""
        other = copy(self)
        other.mean, other.difference = (_row(self.mean.size, self.dtype) for _ in range(2))
        other._views = {}
        other.report = self.report.copy()
        other.job = ffi.new(ffi.typeof(self.job), self.job[0])
        other._point()
        return other

    @property
    def nbytes(self) -> int:
        """Bytes of all its arrays."""
        return sum(a.nbytes for a in (self.memory, self.state, self.mean, self.difference, self.winners, self.report))

    def prepare(self, x: NDArray, schedule: Schedule) -> Any:
        """The job of a batch x (B, n_0) under `schedule`; x must stay alive until the call."""
        job = self.job
        job.variant, job.batch, job.x = variant(), len(x), self.pointer(x)
        if self._schedule is schedule:
            return job
        self._schedule = schedule
        fill_schedule(job, schedule)
        return job

    def aim(
        self, target: NDArray | None, beta: float, variant: str, schedule: Schedule, labels: NDArray | None = None
    ) -> None:
        """Adds the nudge to the job, towards `target` (B, n_L) or `labels` (B,); they must live until the call."""
        job = self.job
        job.target = ffi.NULL if target is None else self.pointer(target)
        job.labels = ffi.NULL if labels is None else ffi.from_buffer("int64_t[]", labels)
        job.beta = -beta if variant == "negative" else beta
        job.schedule.form = FORMS[schedule.form] if variant == "centered" else lib.EQK_STATE

    def learn(self, optimiser: Optimiser, parameters: NDArray) -> None:
        """Adds the optimiser's next step to the job."""
        job, moments = self.job, optimiser.moments_for(parameters)
        fill_optimiser(job, optimiser.rule, (optimiser.rate(), optimiser.weight_decay), optimiser.hyper())
        if self._moments is not moments:
            self._moments = moments
            job.first, job.second = (self.pointer(m) if m.size else ffi.NULL for m in moments)

    def make_room(self, parts: int) -> None:
        """Memory for an update in so many parts, after the phases."""
        if (size := self.run.update_workspace(self.job, parts)) > self.memory.size:
            self.memory = np.zeros(size, np.uint8)
            self.job.work, self.job.work_size = ffi.from_buffer(self.memory), size


def pointer(array: NDArray, dtype: np.dtype) -> Any:
    """Where an array of `dtype` begins; EqkernelError for one of another type, which a pointer would misread."""
    if array.dtype != dtype:
        raise EqkernelError(f"the C library was given an array of {array.dtype} for one of {dtype}")
    return ffi.from_buffer(POINTER[dtype], array)


def _row(size: int, dtype: np.dtype) -> NDArray:
    """So many zeros, from a line of the cache on."""
    return aligned(1, size, dtype)[0, :size]


class Layered(layered.Layered):
    """The phases of one layered network."""

    workspace: Workspace | None
    refuses_nan = True  # in the input and the target of a phase

    def __init__(self, network: Network, layers: NDArray) -> None:
        self.network, self.layers = network, layers
        self.reports_nan = not network.has_readout  # a residual is not finite where a state is not
        wires = zip(network.connections, network.parameters, strict=True)
        self.synapses = sum(w.size * positions(c, network) for c, w in wires)
        self.workspace = None
        self._rooms = np.empty(0, np.uint8)  # what the threads of an update work in

    def reserve(self, batch: int, reuse: bool) -> Workspace:
        """Memory for a batch: new, or the network's own, which grows to the largest batch and is then used again."""
        if not reuse:
            return Workspace(self.layers, self.network.buffer, batch)
        old = self.workspace
        if old is None or old.batch < batch or old.precision != code_for(old.dtype):
            self.workspace = Workspace(self.layers, self.network.buffer, batch)
        assert self.workspace is not None
        return self.workspace

    def free(self, x: NDArray, schedule: Schedule, reuse: bool = False) -> layered.Free:
        """The free phase from rest, x (B, n_0)."""
        workspace = self.reserve(len(x), reuse)
        workspace.prepare(x, schedule)
        self._pack(workspace)
        tiles = self._over_tiles(workspace, workspace.run.free_phase, schedule.free_steps, x)
        return self._freed(workspace, x, workspace.settled(tiles)[0])

    def nudged(
        self, workspace: Workspace, x: NDArray, target: NDArray, beta: float, variant: str, schedule: Schedule  # type: ignore[override]
    ) -> layered.Nudged:
        """Mean and difference, per unit of beta, of the nudged states, from the free state that `workspace` holds."""
        workspace.prepare(x, schedule)
        workspace.aim(target, beta, variant, schedule)
        self._pack(workspace)
        tiles = self._over_tiles(workspace, workspace.run.nudged_phase, schedule.nudged_steps, x, target)
        return self._drawn(workspace, x, workspace.settled(tiles)[1])

    def both(
        self, x: NDArray, target: NDArray, beta: float, variant: str, schedule: Schedule
    ) -> tuple[layered.Free, layered.Nudged]:
        """What `free` and then `nudged` give, in the network's own workspace, each tile through both phases."""
        workspace = self.reserve(len(x), True)
        workspace.prepare(x, schedule)
        workspace.aim(target, beta, variant, schedule)
        self._pack(workspace)
        steps = schedule.free_steps + schedule.nudged_steps
        free, nudged = workspace.settled(self._over_tiles(workspace, workspace.run.settle, steps, x, target))
        return self._freed(workspace, x, free), self._drawn(workspace, x, nudged)

    def step(
        self, x: NDArray, target: NDArray | None, labels: NDArray | None, beta: float, variant: str,
        schedule: Schedule, optimiser: Optimiser,
    ) -> Whole | None:  # fmt: skip
        """A whole training step, as `eqkernel.step` wants it: in one call, or on several threads in two turns.

        The first step of an optimiser with moments is left to the phases, which make these or refuse them.
        """
        network, batch = self.network, len(x)
        if optimiser.rule is None or type(network.cost) not in COSTS:
            return None
        if not optimiser.has_moments_for(network.buffer):
            return None
        workspace = self.reserve(batch, True)
        job, run = workspace.prepare(x, schedule), workspace.run
        workspace.aim(target, beta, variant, schedule, labels)
        workspace.learn(optimiser, network.buffer)
        flops = 4.0 * self.synapses * batch  # of the update; the phases have half of it and more
        if get_threads() == 1 or flops <= WORTH_A_THREAD:
            if run.train_step(job, workspace.loss, workspace.correct):
                return None
        else:
            self._pack(workspace)
            workspace.make_room(get_threads())
            try:
                self._over_tiles(workspace, run.settle, schedule.free_steps + schedule.nudged_steps, x, target)
            except EqkernelError:
                return None
            if run.measure(job, workspace.loss, workspace.correct):
                return None
            spread(lambda part, parts: check(run.update(job, part, parts)), get_threads(), flops)
        return Whole(*workspace.settled(run.tiles(job)), workspace.loss[0], workspace.correct[0])

    def _pack(self, workspace: Workspace) -> None:
        """Brings the weights into the form of the workspace's precision."""
        if workspace.precision:
            pack = lambda part, parts: check(workspace.run.pack(workspace.job, part, parts))  # noqa: E731
            spread(pack, get_threads(), 10.0 * self.synapses)  # instructions a weight, as counted

    def _over_tiles(  # type: ignore[override]
        self, workspace: Workspace, phase: Any, steps: int, x: NDArray, target: NDArray | None = None
    ) -> int:
        """Runs all tiles of a phase of these samples; how many tiles these are."""
        job = workspace.job
        count = workspace.run.tiles(job)

        def settle(first: int, last: int) -> None:
            if status := phase(job, first, last):
                check_numbers(status, x, target)

        if count == 1:
            settle(0, 1)
            return 1

        def part(index: int, parts: int) -> None:
            settle(count * index // parts, count * (index + 1) // parts)

        spread(part, count, 2.0 * self.synapses * job.batch * steps)
        return count

    def _update(self, theta, first, second, mean, difference, schedule, rule, rates, hyper) -> None:  # type: ignore[no-untyped-def, override]
        run, dtype = functions(self.network.dtype), self.network.dtype
        if rule == lib.EQK_GRADIENT:
            theta[...] = self.network.buffer  # a gradient replaces the weights that tell which places win
        job = ffi.new(f"eqk_job_{SUFFIX[dtype]} *")
        flat = layered._flat(mean), layered._flat(difference)
        x = mean[0]
        job.version, job.variant, job.batch, job.x = lib.EQK_ABI_VERSION, variant(), len(x), pointer(x, dtype)
        job.layers, job.count = ffi.from_buffer("eqk_layer[]", self.layers), len(self.layers)
        job.parameters, job.parameter_count = pointer(theta, dtype), theta.size
        job.mean, job.difference = (pointer(states, dtype) for states in flat)
        fill_schedule(job, schedule)
        fill_optimiser(job, rule, rates, hyper)
        if first.size:
            job.first = pointer(first, dtype)
        if second.size:
            job.second = pointer(second, dtype)
        if (size := run.update_workspace(job, get_threads())) > self._rooms.size:
            self._rooms = np.empty(size, np.uint8)
        job.work, job.work_size = ffi.from_buffer(self._rooms), self._rooms.size

        def part(index: int, parts: int) -> None:
            check(run.update(job, index, parts))

        spread(part, get_threads(), 4.0 * self.synapses * len(x))


def check_numbers(status: int, x: NDArray, target: NDArray | None) -> None:
    """EqkernelError for a status that is not EQK_OK: which of the two arrays holds a NaN, if one does."""
    if status == lib.EQK_NOT_FINITE:
        check_finite("x", x)
        if target is not None:
            check_target_finite(target)
    check(status)


def positions(connection: Connection, network: Network) -> int:
    """How often a sample meets each weight of a connection: a convolution's, once a pixel of its map."""
    if not isinstance(connection, Conv):
        return 1
    g = connection.geometry(network.shapes)
    return g.map_height * g.map_width


def fill_schedule(job: Any, schedule: Schedule) -> None:
    """All of it but the form, which is the variant's too, and the precision."""
    plan = job.schedule
    plan.gamma, plan.step = schedule.gamma, schedule.step
    plan.tolerance = schedule.tolerance if schedule.early_stop and schedule.tolerance else 0.0
    plan.free_steps, plan.nudged_steps = schedule.free_steps, schedule.nudged_steps
    plan.order, plan.nudge = ORDERS[schedule.order], NUDGES[schedule.nudge]


def fill_optimiser(job: Any, rule: int | None, rates: tuple[float, float], hyper: tuple[float, ...]) -> None:
    """The rule, (rate, decay) and constants of the step to come."""
    optimiser = job.optimiser
    optimiser.rule, (optimiser.rate, optimiser.decay) = rule, rates
    for i, constant in enumerate(hyper):
        optimiser.constants[i] = constant
