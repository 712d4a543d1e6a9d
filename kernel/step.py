"""What a training step did; and steps that an engine takes at once, all phases in one call.

An engine on the host may offer `step(x, target, labels, beta, variant, schedule, optimiser)`, of an x (B, n_0) that
was checked and either targets (B, n_L) or labels (B,) that were not; one on a device `step(x, y, beta, ...)`, of y as
it was given. It does what the phases of `eqkernel.learning` do, to the same bits (but for the loss that it tells, which
may be summed in another precision), and gives back a Whole; or None,
having changed no weight, where it does not cover the step or the step must not be done. Then the phases take place one
by one, and say what is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .errors import EqkernelError, as_array
from .interop import laid_out
from .optimisers import Optimiser
from .outcomes import Outcome
from .phases import Settled, check_input, check_nudge, check_target, judged
from .schedules import Schedule, plan_of

if TYPE_CHECKING:
    from .network import Network


@dataclass(frozen=True)
class Step:
    """What one training step did: mean loss and accuracy before it, steps taken, and how well it settled.

    accuracy is None for targets that are not labels; residual and outcome are those of the phase that settled worse,
    among those that are judged if any is.
    """

    loss: float
    accuracy: float | None
    free_steps: int
    nudged_steps: int
    residual: float
    outcome: Outcome


Phase = tuple[int, float, Outcome]  # steps, residual, outcome


def summary(loss: float, accuracy: float | None, free: Phase, nudged: Phase) -> Step:
    """The Step of these two phases."""
    badness = (Outcome.FIXED_STEPS, Outcome.SETTLED, Outcome.OUT_OF_STEPS)
    _, residual, outcome = max(free, nudged, key=lambda phase: (badness.index(phase[2]), phase[1]))
    return Step(loss, accuracy, free[0], nudged[0], residual, outcome)


class Whole(NamedTuple):
    """A step that is done: both phases, mean loss, and how many labels the most active output had right."""

    free: Settled
    nudged: Settled
    loss: float
    correct: int


def step_at_once(
    network: Network,
    x: ArrayLike,
    y: ArrayLike,
    beta: float,
    optimiser: Optimiser,
    variant: str,
    schedule: str | Schedule | None,
) -> Step | None:
    """The whole training step by the engine; None, with nothing done, where the phases have to do it one by one.

    Raises EqkernelError for the x and the schedules that `free_phase` refuses, and the nudges of `nudged_phase`.
    """
    at_once = getattr(network.engine, "step", None)
    if at_once is None:
        return None
    plan = plan_of(network, schedule)
    x, target, labels = check_input(network, x), None, None
    check_nudge(network, beta, variant)
    if network.arrays is not np:
        try:
            whole = at_once(x, y, float(beta), variant, plan, optimiser) if hasattr(y, "ndim") else None
        except EqkernelError:
            return None
        return None if whole is None else _finished(network, whole, optimiser, plan, len(x) if np.ndim(y) == 1 else 0)
    try:
        given = as_array("y", y)
        if given.ndim == 1 and given.dtype.kind in "iu":
            labels = laid_out("y", given, np.dtype(np.int64))
        else:
            target = check_target(network, given, len(x))
    except EqkernelError:
        return None
    if len(given) != len(x) or (whole := at_once(x, target, labels, float(beta), variant, plan, optimiser)) is None:
        return None
    return _finished(network, whole, optimiser, plan, 0 if labels is None else len(x))


def _finished(network: Network, whole: Whole, optimiser: Optimiser, plan: Schedule, labelled: int) -> Step:
    """What is left of a step that an engine did on so many labels."""
    network.project()
    optimiser.steps += 1
    free, nudged = (
        (settled[0], settled[1], judged(network, phase, settled, plan))
        for phase, settled in (("free", whole.free), ("nudged", whole.nudged))
    )
    return summary(whole.loss, whole.correct / labelled if labelled else None, free, nudged)
