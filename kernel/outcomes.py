"""How a settle ended: the values are the sentences a user reads."""

from __future__ import annotations

from enum import Enum
from math import isfinite


class Outcome(Enum):
    """How a settle ended."""

    SETTLED = "the residual fell below the tolerance"
    OUT_OF_STEPS = (
        "the steps ran out before the residual fell below the tolerance: the state is not yet an equilibrium; "
        "raise free_steps or nudged_steps, lower gamma, or lower the learning rate"
    )
    FIXED_STEPS = "ran the steps of its schedule; its residual is not judged (a single step, or no tolerance)"
    DIVERGED = "the state diverged"


FIXED_STEPS, SETTLED = Outcome.FIXED_STEPS, Outcome.SETTLED  # an enumeration looks its members up slowly


class UnsettledWarning(UserWarning):
    """A settle ran out of steps; given once for each network, and every Step says so too."""


def judge(residual: float, early: float, steps: int, tolerance: float | None) -> Outcome:
    """The outcome of `steps` steps that ended with `residual`; `early` is the largest residual of their first half.

    A residual that is not a number, or that after many steps is larger than it ever was in their first half, diverged.
    The residual of a single step is the whole move from the start and says nothing of how much is left.
    """
    if not isfinite(residual) or (steps >= 20 and residual > 2 * early and residual > 1e-6):
        return Outcome.DIVERGED
    if tolerance is None or steps == 1:
        return FIXED_STEPS
    return SETTLED if residual < tolerance else Outcome.OUT_OF_STEPS
