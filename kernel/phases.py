"""The two phases of equilibrium propagation: the free phase, and the nudged phase that starts from it."""

from __future__ import annotations

import sys
import warnings
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .costs import Cost, check_target_finite
from .errors import DivergenceError, EqkernelError, all_finite, as_array, is_finite, lookup
from .interop import check_finite, laid_out, on_device, returner, stream_of, targets_of, to_network, turn_of
from .outcomes import FIXED_STEPS, SETTLED, Outcome, UnsettledWarning, judge
from .schedules import LEAST, Schedule, is_normal, plan_of

if TYPE_CHECKING:
    from .network import Network

VARIANTS = {"centered": 2, "positive": 1, "negative": 1}
Settled = tuple[int, float, float]  # steps, the residual of the last, and the largest of their first half


class Equilibrium(NamedTuple):
    """A settled state: state[l] (B, n_l) are the rates of layer l, state[0] the input, state[-1] the output.

    residual is the largest change of a rate in the last step; outcome says whether that counts as settled.
    Nudged phases of its network start from `memory`, which belongs to `engine`; a copy or pickle has neither.
    """

    state: list[NDArray]
    steps: int
    residual: float
    outcome: Outcome
    schedule: Schedule
    memory: Any
    engine: Any

    def __reduce__(self) -> tuple[Any, ...]:
        return Equilibrium, (*self[:5], None, None)

    @property
    def output(self) -> NDArray:
        """The output, (B, n_L): rates, or the probabilities of a softmax readout."""
        return self.state[-1]


class Nudged(NamedTuple):
    """The nudged states, as mean m = (s+ + s-)/2 and difference d = (s+ - s-)/(2 beta), lists of (B, n_l).

    One-sided variants put the free state in place of one of them, and beta for 2 beta. The difference of a softmax
    readout is its error t - p. The residual is in units of beta.
    """

    mean: list[NDArray]
    difference: list[NDArray]
    steps: int
    residual: float
    outcome: Outcome
    schedule: Schedule


def free_phase(
    network: Network, x: ArrayLike, schedule: str | Schedule | None = None, *, reuse: bool = False
) -> Equilibrium:
    """Settle from rest with the input clamped to x (B, n_0).

    With reuse=True the result lies in the network's own workspace: nothing is allocated, and the next phase that
    reuses it overwrites it. On backend "cuda" states come back as x came (see `eqkernel.interop`). Raises
    EqkernelError for an x of wrong shape or with a NaN, DivergenceError if the state diverges; warns once for each
    network that does not settle.
    """
    plan = plan_of(network, schedule)
    if network.arrays is np:
        with turn_of(network):
            return _free(network, x, plan, reuse)
    back = returner(network, x)
    with turn_of(network), stream_of(network, x):
        free = _free(network, x, plan, reuse)
        return free._replace(state=back(free.state))


def _free(network: Network, x: ArrayLike, plan: Schedule, reuse: bool) -> Equilibrium:
    """The free phase, its state where the network computes."""
    x = check_input(network, x)
    if not reuse:
        x = x.copy()  # the result must not follow a batch that its owner refills
    return _equilibrium(network, plan, *network.engine.free(x, plan, reuse))


def _equilibrium(network: Network, plan: Schedule, memory: Any, state: list[NDArray], settled: Settled) -> Equilibrium:
    """What an engine's free phase gave, judged."""
    reported = getattr(network.engine, "reports_nan", False)
    if not (isfinite(settled[1]) if reported else all_finite(state[-1])):
        settled = settled[0], float("nan"), settled[2]
        if on_device(state[0]):
            check_finite("x", state[0])
    outcome = judged(network, "free", settled, plan)
    return Equilibrium(state, settled[0], settled[1], outcome, plan, memory, network.engine)


def nudged_phase(
    network: Network,
    free: Equilibrium,
    y: ArrayLike,
    beta: float,
    variant: str = "centered",
    schedule: str | Schedule | None = None,
    *,
    reuse: bool = False,
) -> Nudged:
    """Settle again from the free state with the cost of y nudging the top layer by +beta and -beta.

    y holds labels (B,) or targets (B, n_L). variant "centered" uses both signs (error O(beta^2)), "positive" and
    "negative" one of them and the free state (error O(beta)), carried as states whatever the schedule's form. Raises
    as `free_phase`, for a beta that is not positive, and for a free state that is not this network's.
    """
    check_nudge(network, beta, variant)
    if not isinstance(free, Equilibrium) or free.engine is not network.engine:
        raise EqkernelError("free is not an equilibrium of this network: pass what its free_phase returned")
    plan = _after(free.schedule, plan_of(network, free.schedule if schedule is None else schedule))
    if network.arrays is np:
        with turn_of(network):
            return _nudged(network, free, y, float(beta), variant, plan, reuse)
    back = returner(network, free.state[0])
    with turn_of(network), stream_of(network, free.state[0]):
        nudged = _nudged(network, free, y, float(beta), variant, plan, reuse)
        return nudged._replace(mean=back(nudged.mean), difference=back(nudged.difference))


def _after(free: Schedule, plan: Schedule) -> Schedule:
    """The schedule of a nudged phase, with the steps of the free one: the update asks what the free state has felt."""
    if plan is free:
        return plan
    steps = free.free_steps if free.order == plan.order else max(plan.free_steps, 2)
    return plan if steps == plan.free_steps else plan.but(free_steps=steps)


def _nudged(
    network: Network, free: Equilibrium, y: ArrayLike, beta: float, variant: str, plan: Schedule, reuse: bool
) -> Nudged:
    """The nudged phase, its states where the network computes."""
    x, target = free.state[0], check_target(network, y, len(free.state[0]))
    memory = free.memory if reuse else network.engine.detach(free.memory)
    x = to_network(network, "x", x)
    return _judged_nudged(network, plan, *network.engine.nudged(memory, x, target, beta, variant, plan))


def _judged_nudged(
    network: Network, plan: Schedule, mean: list[NDArray], difference: list[NDArray], settled: Settled
) -> Nudged:
    """What an engine's nudged phase gave, judged; it need not say that the clamped input has no difference."""
    outcome = judged(network, "nudged", settled, plan)
    still = network.arrays.zeros(mean[0].shape, network.dtype)
    return Nudged(mean, [still, *difference[1:]], settled[0], settled[1], outcome, plan)


def both_phases(
    network: Network,
    x: ArrayLike,
    y: ArrayLike,
    beta: float,
    variant: str = "centered",
    schedule: str | Schedule | None = None,
    *,
    reuse: bool = False,
) -> tuple[Equilibrium, Nudged]:
    """`free_phase`, and `nudged_phase` from its state, to the same bits.

    With reuse=True the backends `c` and `cpu` carry each tile of samples through both in one call, and threads meet
    once for twice. Raises as these two.
    """
    at_once = getattr(network.engine, "both", None)
    if at_once is None or not reuse:
        with turn_of(network):
            free = free_phase(network, x, schedule, reuse=reuse)
            return free, nudged_phase(network, free, y, beta, variant, reuse=reuse)
    plan = plan_of(network, schedule)
    x = check_input(network, x)
    check_nudge(network, beta, variant)
    with turn_of(network):
        free, nudged = at_once(x, check_target(network, y, len(x)), float(beta), variant, plan)
        return _equilibrium(network, plan, *free), _judged_nudged(network, plan, *nudged)


def settle(
    network: Network,
    x: ArrayLike,
    y: ArrayLike | None = None,
    beta: float = 0.0,
    schedule: str | Schedule | None = None,
) -> Equilibrium:
    """The equilibrium at input x, and if beta is not 0 under the nudge beta towards y (beta may be negative)."""
    if not is_finite(beta):
        raise EqkernelError(f"beta must be a number, of either sign, not {beta!r}: it is the strength of the nudge")
    if beta and y is None:
        raise EqkernelError("settle with beta needs y, the target of the nudge")
    if beta:
        check_nudge(network, abs(beta))
    with turn_of(network):
        free = free_phase(network, x, schedule)
        if y is None or beta == 0:
            return free
        nudged = nudged_phase(network, free, y, abs(beta), "positive" if beta > 0 else "negative")
    state = [m + m.dtype.type(beta / 2) * d for m, d in zip(nudged.mean, nudged.difference, strict=True)]
    if network.has_readout:
        state[-1] = nudged.mean[-1]
    return free._replace(state=state, steps=nudged.steps, residual=nudged.residual, outcome=nudged.outcome)


def measure(network: Network, free: Equilibrium, y: ArrayLike) -> tuple[float, float | None]:
    """Mean loss of the free output and, for labels, the share of samples whose most active output is right."""
    output, target = to_network(network, "output", free.output), targets_of(network, y)
    with np.errstate(over="ignore"):
        loss = float(network.cost.loss(output, target).mean())
    if not np.isfinite(loss):
        raise DivergenceError(f"the loss is {loss}: lower the learning rate")
    if np.ndim(y) != 1:
        return loss, None
    return loss, float((output.argmax(axis=1) == target.argmax(axis=1)).mean())


def check_input(network: Network, x: ArrayLike) -> NDArray:
    """x as a C-contiguous (B, n_0) array of the network's type, where it computes; EqkernelError if it cannot be one.

    A NaN in a device array shows only in what comes of it: to look for it here would stop the device. One that an
    engine looks for itself, which `refuses_nan`, is left to it.
    """
    n = network.sizes[0]
    given_on_device = on_device(x)
    x = to_network(network, "x", x) if given_on_device else as_array("x", x)
    shape = x.shape
    if len(shape) != 2 or shape[1] != n:
        raise EqkernelError(f"x has shape {shape}: this network takes (B, {n})")
    if not shape[0]:
        raise EqkernelError("x is empty: a batch needs at least one sample")
    if given_on_device:
        return x
    x = laid_out("x", x, network.dtype)
    if not getattr(network.engine, "refuses_nan", False):
        check_finite("x", x)
    return network.arrays.asarray(x)


def check_nudge(network: Network, beta: float, variant: str = "centered") -> None:
    """EqkernelError for a nudge that cannot be, or not in the network's type."""
    lookup("variant", variant, VARIANTS)
    if not (is_finite(beta) and beta > 0):
        raise EqkernelError(f"beta must be a positive number, not {beta!r}: it is the strength of the nudge")
    if not is_normal(beta, network.dtype):
        least = LEAST[network.dtype]
        raise EqkernelError(f"beta={beta!r} leaves {network.dtype}: choose one from {least:.3g} to {1 / least:.3g}")


def check_target(network: Network, y: ArrayLike, batch: int) -> NDArray:
    """The targets (B, n_L) of labels or targets y, where the network computes; EqkernelError if they are not B.

    They may be y itself, and hold a NaN where the engine `refuses_nan`.
    """
    cost = network.cost
    if isinstance(y, np.ndarray) and type(cost).targets is Cost.targets and network.arrays is np:  # any numbers will do
        target = cost.shaped(y, network.sizes[-1], network.dtype)
        if not getattr(network.engine, "refuses_nan", False):
            check_target_finite(target)
    else:
        target = targets_of(network, y)
    if len(target) != batch:
        raise EqkernelError(f"x has {batch} samples and y has {len(target)}")
    return target


def judged(network: Network, phase: str, settled: Settled, schedule: Schedule) -> Outcome:
    """The outcome of a phase; DivergenceError for one that diverged, a warning for the first that did not settle."""
    steps, residual, early = settled
    outcome = judge(residual, early, steps, schedule.tolerance)
    if outcome is FIXED_STEPS or outcome is SETTLED:
        return outcome
    if outcome is Outcome.DIVERGED:
        raise DivergenceError(
            f"the {phase} phase diverged: residual {residual:.3g} after {steps} steps. Lower the learning rate, gamma "
            "or step, or give lateral connections a smaller bound; the weights may already be spoilt"
        )
    if not network.warned:
        network.warned = True
        warnings.warn(
            f"{phase} phase: {outcome.value} (residual {residual:.3g}, tolerance {schedule.tolerance:g}; "
            "said once for each network, every result says so in its outcome)",
            UnsettledWarning,
            stacklevel=_callers_level(),
        )
    return outcome


def _callers_level() -> int:
    """The stacklevel at which `judged` warns at the first line outside this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"].startswith(f"{__package__}."):
        level, frame = level + 1, frame.f_back
    return level
