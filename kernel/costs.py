"""Costs C(output, target): what training lowers and what beta multiplies in the nudged phase.

    squared-error   C = |t - s|^2 / 2 on the last layer, a part of the dynamics: the nudge is beta (t - s)
    cross-entropy   C = -sum_k t_k ln p_k on a softmax readout p outside the dynamics (Laborieux et al. 2021)

Both have the error t - output: -dC/ds for the first, and -dC/d(drive of the softmax) for the second.
"""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .errors import EqkernelError, all_finite, lookup


class Cost(ABC):
    """A cost of a batch of outputs (B, n) against targets (B, n)."""

    name: str

    @abstractmethod
    def loss(self, output: NDArray, target: NDArray) -> NDArray:
        """The cost of each sample, (B,)."""

    def error(self, output: NDArray, target: NDArray) -> NDArray:
        """What the nudge adds to the drive of the output at beta = 1: target - output, (B, n)."""
        return target - output

    def targets(self, y: ArrayLike, classes: int, dtype: DTypeLike = np.float32) -> NDArray:
        """Targets (B, classes): one-hot rows of integer labels (B,), or numbers (B, classes) as they are.

        Raises EqkernelError for an empty batch, another shape or type, a label outside 0..classes-1, a NaN or
        an infinity. The result is a new C-ordered array.
        """
        try:
            y = np.asarray(y)
        except ValueError as error:
            raise EqkernelError(f"y is not an array: {error}") from error
        if y.size == 0:
            raise EqkernelError("y is empty: a batch needs at least one sample")
        if y.ndim == 1:
            return one_hot(y, classes, dtype)
        if y.ndim != 2 or y.shape[1] != classes:
            raise EqkernelError(f"y has shape {y.shape}: pass labels of shape (B,) or targets of shape (B, {classes})")
        if y.dtype.kind not in "fiub":
            raise EqkernelError(f"y has type {y.dtype}: targets must be real numbers")
        if y.dtype == dtype:
            target = y.copy()
        else:
            with np.errstate(over="ignore"):  # what overflows `dtype` is refused as the infinity it becomes
                target = np.array(y, dtype, order="C")
        if not all_finite(target):
            raise EqkernelError(f"y holds a NaN, an infinity or a number too large for {target.dtype}")
        return target

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class SquaredError(Cost):
    """C = |t - s|^2 / 2, on a last layer that takes part in the dynamics."""

    name = "squared-error"

    def loss(self, output: NDArray, target: NDArray) -> NDArray:
        """|t - s|^2 / 2 of each sample, (B,)."""
        return 0.5 * np.square(target - output).sum(axis=-1)


class CrossEntropy(Cost):
    """C = -sum_k t_k ln p_k, on probabilities p read out of the top layer by a softmax."""

    name = "cross-entropy"

    def loss(self, output: NDArray, target: NDArray) -> NDArray:
        """-sum_k t_k ln p_k of each sample, (B,), in nats; p is bounded below by the least normal number."""
        return -(target * np.log(np.maximum(output, np.finfo(output.dtype).tiny))).sum(axis=-1)

    def targets(self, y: ArrayLike, classes: int, dtype: DTypeLike = np.float32) -> NDArray:
        """As Cost.targets; rows of numbers must be probabilities, or t - p would not be the gradient."""
        target = super().targets(y, classes, dtype)
        if np.ndim(y) == 2 and ((target < 0).any() or (abs(target.sum(axis=1) - 1) > 1e-3).any()):
            raise EqkernelError("cross-entropy targets must be probabilities: rows >= 0 that sum to 1")
        return target


COSTS: dict[str, Cost] = {cost.name: cost for cost in (SquaredError(), CrossEntropy())}


def find_cost(cost: str | Cost) -> Cost:
    """The cost called `cost`, or `cost` itself if it is one; EqkernelError naming the costs otherwise."""
    return cost if isinstance(cost, Cost) else lookup("cost", cost, COSTS)


def one_hot(labels: NDArray, classes: int, dtype: DTypeLike) -> NDArray:
    """Rows (B, classes) that are 1 at the label and 0 elsewhere; labels are integers (B,) in 0..classes-1."""
    if labels.dtype.kind not in "iu":
        raise EqkernelError(
            f"labels have type {labels.dtype}: pass integers in 0..{classes - 1} of shape (B,), "
            f"or targets of shape (B, {classes})"
        )
    if labels.min() < 0 or labels.max() >= classes:
        found = f"{labels.min()} to {labels.max()}"
        raise EqkernelError(f"labels run from {found}: they must lie in 0..{classes - 1}")
    rows = np.zeros((len(labels), classes), dtype)
    rows[np.arange(len(labels)), labels] = 1
    return rows
