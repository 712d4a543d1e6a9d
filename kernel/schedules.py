"""Schedules: how a network settles. Three are named, and each is a different trade of work for exactness.

    converged      gamma 1, 30 + 10 even-odd steps, mean and difference: the setting of the literature
    few-step       gamma .003, 3 + 1 half-sweeps: weak feedback settles at once, the gradient stays exact (the default)
    single-sweep   gamma .001, 1 + 1 half-sweeps: backpropagation, with secants in place of derivatives

Weak feedback (gamma < 1) is exact, not an approximation: it is another energy, whose gradient is the plain Hebbian
contrast times a constant for each layer (docs/theory.md).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import EqkernelError, is_finite, is_whole, lookup, make_plain

if TYPE_CHECKING:
    from .network import Network

ORDERS = {"synchronous": 0, "even-odd": 1, "sweep": 2}
FORMS = {"difference": 3, "mean-difference": 4, "plus-minus": 2}
NUDGES = {"frozen": 0, "live": 1}
MOST_STEPS = 10**6  # a phase cannot be interrupted


@dataclass(frozen=True)
class Schedule:
    """How a network settles.

    gamma         gain of all feedback, per layer of distance; 0 < gamma <= 1
    free_steps    most steps of the free phase
    nudged_steps  most steps of the nudged phase
    order         "synchronous" all layers at once; "even-odd" odd then even layers, twice as far per step;
                  "sweep" one step is one half-sweep, forward or backward through the layers, reusing the other drive
    form          "difference" only d = s+ - s- settles, around the free state; "mean-difference" both settle;
                  "plus-minus" the two states themselves, whose contrast cancels digits at small beta or gamma
    nudge         "frozen" the error is taken at the free state; "live" it follows the state (plus-minus only)
    tolerance     residual (largest change of a state in a step) below which a phase counts as settled; None: not judged
    early_stop    stop a tile of samples as soon as its residual is below the tolerance
    step          size of a relaxation step, 0 < step <= 1; below 2 in even-odd order, where 1 < step < 2 over-relaxes:
                  if step = 1 leaves a share r of the residual at each step, 2 / (1 + sqrt(1 - r)) needs the fewest
                  (successive over-relaxation, Young 1954)
    """

    name: str = "few-step"
    gamma: float = 0.003
    free_steps: int = 3
    nudged_steps: int = 1
    order: str = "sweep"
    form: str = "difference"
    nudge: str = "frozen"
    tolerance: float | None = 0.1
    early_stop: bool = False
    step: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise EqkernelError(f"the name of a schedule must be a string, not {self.name!r}")
        lookup("order", self.order, ORDERS)
        lookup("form", self.form, FORMS)
        lookup("nudge", self.nudge, NUDGES)
        for field in ("free_steps", "nudged_steps"):
            value = getattr(self, field)
            if not is_whole(value, 1):
                raise EqkernelError(f"{field} must be a whole number of at least 1, not {value!r}")
            if value > MOST_STEPS:
                raise EqkernelError(f"{field} is {value}: give at most {MOST_STEPS:,}, as no phase can be interrupted")
        if not (is_finite(self.gamma) and 0 < self.gamma <= 1):
            raise EqkernelError(f"gamma must lie in (0, 1], not {self.gamma!r}")
        over = self.order == "even-odd" and is_finite(self.step) and 1 < self.step < 2
        if not over and not (is_finite(self.step) and 0 < self.step <= 1):
            raise EqkernelError(f"step must lie in (0, 1], in even-odd order in (0, 2), not {self.step!r}")
        if self.tolerance is not None and not (is_finite(self.tolerance) and self.tolerance > 0):
            raise EqkernelError(f"tolerance must be positive or None, not {self.tolerance!r}")
        if not isinstance(self.early_stop, bool | np.bool_):
            raise EqkernelError(f"early_stop must be True or False, not {self.early_stop!r}")
        if self.early_stop and self.tolerance is None:
            raise EqkernelError("early_stop needs a tolerance")
        if self.nudge == "live" and self.form != "plus-minus":
            raise EqkernelError(f'a live nudge needs form="plus-minus", not {self.form!r}')
        make_plain(self, float, "gamma", "step", "tolerance")
        make_plain(self, int, "free_steps", "nudged_steps")
        object.__setattr__(self, "early_stop", bool(self.early_stop))

    @property
    def feed_forward(self) -> bool:
        """Whether it is one half-sweep up and one down: no weight acts backwards on the free state, nor learns so.

        Between layers the contrast is then d_post m_pre^T alone: in the difference form the gradient of the loss of
        that one pass at any gamma. A lateral connection, whose two ends are one layer, learns from both
        (docs/theory.md).
        """
        return self.order == "sweep" and self.free_steps == self.nudged_steps == 1

    def but(self, **changes: Any) -> Schedule:
        """The same schedule with some fields changed; it is renamed to "custom"."""
        if not changes:
            return self
        try:
            return replace(self, **{"name": "custom", **changes})
        except TypeError:
            wrong = ", ".join(sorted(set(changes) - set(asdict(self))))
            raise EqkernelError(f"a schedule has no {wrong}; it has {', '.join(asdict(self))}") from None


SCHEDULES: dict[str, Schedule] = {
    schedule.name: schedule
    for schedule in (
        Schedule(
            "converged",
            gamma=1.0,
            free_steps=30,
            nudged_steps=10,
            order="even-odd",
            form="mean-difference",
            tolerance=1e-3,
        ),
        # Measured (docs/theory.md): below a free residual of .1 the gradient's cosine is above .999, and half-sweeps of
        # the nudged phase beyond the first do not raise it.
        Schedule("few-step"),
        Schedule("single-sweep", gamma=1e-3, free_steps=1, nudged_steps=1, tolerance=None),
    )
}


def find_schedule(schedule: str | Schedule) -> Schedule:
    """The schedule called `schedule`, or `schedule` itself if it is one."""
    return schedule if isinstance(schedule, Schedule) else lookup("schedule", schedule, SCHEDULES)


def plan_of(network: Network, schedule: str | Schedule | None) -> Schedule:
    """The schedule by which `network` settles: the one called `schedule`, or if that is None its own.

    Raises EqkernelError where the feedback from the top to layer 1, gamma^(top - 1), or its reciprocal, which scales
    that layer's update, is no normal number of the network's type.
    """
    plan = network.schedule if schedule is None else find_schedule(schedule)
    if plan is network.planned:
        return plan
    layers = network.top - 1
    if not is_normal(plan.gamma**layers, network.dtype):
        fix = "raise gamma" + (", or use dtype='float64'" if network.dtype == np.float32 else "")
        raise EqkernelError(f"gamma={plan.gamma!r} over {layers} layers leaves {network.dtype}: {fix}")
    network.planned = plan
    return plan


LEAST = {np.dtype(kind): float(np.finfo(kind).tiny) for kind in (np.float32, np.float64)}


def is_normal(value: float, dtype: np.dtype) -> bool:
    """Whether a number is positive, and like its reciprocal a normal one of float32 or float64."""
    least = LEAST[dtype]
    return least <= float(value) <= 1 / least
