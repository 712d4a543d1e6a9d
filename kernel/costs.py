"""Costs C(output, target): what training lowers and what beta multiplies in the nudged phase.

    squared-error   C = |t - s|^2 / 2 on the last layer, a part of the dynamics: the nudge is beta (t - s)
    cross-entropy   C = -sum_k t_k ln p_k on a softmax readout p outside the dynamics (Laborieux et al. 2021)
    binary-cross-entropy
                    C = -sum_k [t_k ln s_k + (1 - t_k) ln(1 - s_k)] on a last layer of sigmoids, a part of the dynamics:
                    its rate, not its drive, is nudged by beta (t - s)

All have the error t - output: -dC/ds for the first, -dC/d(drive) for the others. A force on the drive of a sigmoid
would have to be (t - s) / rho', without bound where the output is wrong and sure; on the rate it is t - s
(docs/theory.md).
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .errors import EqkernelError, all_finite, as_array, lookup


class Cost(ABC):
    """A cost of a batch of outputs (B, n) against targets (B, n).

    output   the neuron of the last layer unless another is chosen
    only     whether it must be that one
    on_rate  whether the nudge moves the output's rate, s -> rho(drive) + beta error, and not its drive
    """

    name: ClassVar[str]
    output: ClassVar[str] = "linear"
    only: ClassVar[bool] = False
    on_rate: ClassVar[bool] = False

    @abstractmethod
    def loss(self, output: NDArray, target: NDArray) -> NDArray:
        """The cost of each sample, (B,)."""

    def error(self, output: NDArray, target: NDArray) -> NDArray:
        """What the nudge adds to the drive (or rate) of the output at beta = 1: target - output, (B, n)."""
        return target - output

    def targets(self, y: ArrayLike, classes: int, dtype: DTypeLike = np.float32) -> NDArray:
        """Targets (B, classes): one-hot rows of integer labels (B,), or numbers (B, classes) as they are.

        Raises EqkernelError for an empty batch, another shape or type, a label outside 0..classes-1, a NaN or
        an infinity. The result is a new C-ordered array.
        """
        target = self.shaped(y, classes, dtype)
        check_target_finite(target)
        return target if target.flags.owndata and target is not y else target.copy()

    def shaped(self, y: ArrayLike, classes: int, dtype: DTypeLike) -> NDArray:
        """As `targets`, but numbers may be anything, and a C-ordered, aligned array of the type comes back itself."""
        y = as_array("y", y)
        if y.size == 0:
            raise EqkernelError("y is empty: a batch needs at least one sample")
        if y.ndim == 1:
            return one_hot(y, classes, dtype)
        if y.ndim != 2 or y.shape[1] != classes:
            raise EqkernelError(f"y has shape {y.shape}: pass labels of shape (B,) or targets of shape (B, {classes})")
        if y.dtype == dtype and y.flags.c_contiguous and y.flags.aligned:
            return y
        if y.dtype.kind not in "fiub":
            raise EqkernelError(f"y has type {y.dtype}: targets must be real numbers")
        with np.errstate(over="ignore"):  # what overflows `dtype` is refused as the infinity it becomes
            return np.array(y, dtype, order="C")

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class SquaredError(Cost):
    """C = |t - s|^2 / 2, on a last layer that takes part in the dynamics."""

    name, output = "squared-error", "linear"

    def loss(self, output: NDArray, target: NDArray) -> NDArray:
        """|t - s|^2 / 2 of each sample, (B,)."""
        return 0.5 * np.square(target - output).sum(axis=-1)


class CrossEntropy(Cost):
    """C = -sum_k t_k ln p_k, on probabilities p read out of the top layer by a softmax."""

    name, output, only = "cross-entropy", "softmax", True

    def loss(self, output: NDArray, target: NDArray) -> NDArray:
        """-sum_k t_k ln p_k of each sample, (B,), in nats; p is bounded below by the least normal number."""
        return -(target * np.log(np.maximum(output, np.finfo(output.dtype).tiny))).sum(axis=-1)

    def targets(self, y: ArrayLike, classes: int, dtype: DTypeLike = np.float32) -> NDArray:
        """As Cost.targets; rows of numbers must be probabilities, or t - p would not be the gradient."""
        target = super().targets(y, classes, dtype)
        if np.ndim(y) == 2 and ((target < 0).any() or (abs(target.sum(axis=1) - 1) > 1e-3).any()):
            raise EqkernelError("cross-entropy targets must be probabilities: rows >= 0 that sum to 1")
        return target


class BinaryCrossEntropy(Cost):
    """C = -sum_k [t_k ln s_k + (1 - t_k) ln(1 - s_k)], on a last layer of sigmoids that takes part in the dynamics."""

    name, output, only, on_rate = "binary-cross-entropy", "sigmoid", True, True

    def loss(self, output: NDArray, target: NDArray) -> NDArray:
        """The sum over the classes for each sample, (B,), in nats; s and 1 - s are at least a unit of rounding."""
        least = np.finfo(output.dtype).epsneg
        on, off = np.maximum(output, least), np.maximum(1 - output, least)
        return -(target * np.log(on) + (1 - target) * np.log(off)).sum(axis=-1)

    def targets(self, y: ArrayLike, classes: int, dtype: DTypeLike = np.float32) -> NDArray:
        """As Cost.targets; numbers must lie in [0, 1]."""
        target = super().targets(y, classes, dtype)
        if np.ndim(y) == 2 and ((target < 0) | (target > 1)).any():
            raise EqkernelError("binary-cross-entropy targets must be probabilities: numbers in [0, 1]")
        return target


def check_target_finite(target: NDArray) -> None:
    """EqkernelError if a target holds a NaN or an infinity."""
    if not all_finite(target):
        raise EqkernelError(f"y holds a NaN, an infinity or a number too large for {target.dtype}")


COSTS: dict[str, Cost] = {cost.name: cost for cost in (SquaredError(), CrossEntropy(), BinaryCrossEntropy())}


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
    hits = labels[:, None] == np.arange(classes)
    if np.count_nonzero(hits) != len(labels):
        found = f"{labels.min()} to {labels.max()}"
        raise EqkernelError(f"labels run from {found}: they must lie in 0..{classes - 1}")
    return hits.astype(dtype)
