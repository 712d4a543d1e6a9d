"""What a training step reports of each sample, in one launch."""

from __future__ import annotations

from typing import Any

from ..costs import Cost, CrossEntropy, SquaredError
from .checks import check
from .launcher import launch

KNOWN = (SquaredError, CrossEntropy)  # costs that `score` computes


def score(loss: Any, right: Any, output: Any, target: Any, cost: Cost) -> None:
    """loss (B,): that of each sample; right (B,): 1, 0, or -1 for a target (n,) that is 0 all over, as of no label."""
    batch, n = output.shape
    check(output, output.shape, (target, output.shape), (loss, (batch,)), (right, (batch,)))
    arguments = loss, right, output, target, batch, n, int(type(cost) is CrossEntropy)
    launch("scores", "score", output.dtype, (-(-batch * 32 // 256),), 256, arguments)
