"""Optimisers that orthogonalise: a matrix moves by the nearest matrix of equal singular values, not by its gradient.

    Muon (Jordan et al. 2024)                m = mu m + g,          W -= lr Orth(g + mu m)
    AdaGO (Zhang, Liu & Schaeffer 2025)      m = mu m + (1 - mu) g,  W -= lr max(eps, min(|g|, c) / sqrt v) Orth(m),
                                             v += min(|g|, c)^2

Orth(U S V^T) = U V^T, to a few Newton-Schulz steps. The weights of a convolution are one row for each output channel. A
factor on the gradient of a whole matrix cancels, so weak feedback needs no rescaling here (docs/theory.md). Vectors
(biases) have no singular values: Muon gives them Adam, and AdaGO AdaGrad with one norm, v += |g|^2, b -= lr g / sqrt v.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from .blas import one_thread
from .errors import EqkernelError, is_finite, is_whole
from .optimisers import SGD, Adam, Momentum, Optimiser, RateSchedule

# Singular values s -> a s + b s^3 + c s^5: steepest at 0 among those that keep 1 within a band, not a fixed point.
QUINTIC = 3.4445, -4.7750, 2.0315


def orthogonalise(matrix: NDArray, steps: int = 5) -> NDArray:
    """Nearly U V^T of a matrix U S V^T (any shape; all axes but the first count as one), by Newton-Schulz steps.

    After five steps singular values of at least a hundredth of the Frobenius norm lie in [0.68, 1.14]; smaller ones are
    raised 3.4445-fold a step. Zero stays zero.
    """
    if not is_whole(steps, 1):
        raise EqkernelError(f"steps must be a whole number of at least 1, not {steps!r}")
    flat = matrix.reshape(len(matrix), -1)
    X = flat.T if len(flat) > flat.shape[1] else flat
    least = np.finfo(X.dtype).tiny
    X = X / np.maximum(np.abs(X).max(), least)  # squares of what is very small or large leave the type
    X = X / np.maximum(np.linalg.norm(X), least)
    a, b, c = (X.dtype.type(value) for value in QUINTIC)
    with one_thread(X):
        for _ in range(steps):
            A = X @ X.T
            X = a * X + (b * A + c * (A @ A)) @ X
    return (X.T if len(flat) > flat.shape[1] else X).reshape(matrix.shape)


class Muon(Optimiser):
    """Momentum, orthogonalised: every singular value of a step is about lr. Biases: Adam at lr * bias_rate."""

    moments: ClassVar[int] = 2

    def __init__(
        self,
        lr: float = 0.02,
        momentum: float = 0.95,
        bias_rate: float = 0.1,
        weight_decay: float = 0.0,
        schedule: RateSchedule | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, schedule)
        self.velocity = Momentum(lr, momentum)  # refuses a wrong momentum
        self.momentum, self.bias_rate = float(momentum), _bias_rate(bias_rate)
        self.biases = Adam(lr, (0.9, 0.99))

    def direction(self, gradient: NDArray, moments: list[NDArray]) -> NDArray:
        if gradient.ndim == 1:
            self.biases.steps = self.steps
            return self.bias_rate * self.biases.direction(gradient, moments)
        velocity = self.velocity.direction(gradient, moments)
        return orthogonalise(gradient + velocity.dtype.type(self.momentum) * velocity)


class AdaGO(Optimiser):
    """AdaGrad's step size on an orthogonalised mean gradient. Biases: AdaGrad with one norm, at lr * bias_rate.

    clip is c, least is eps: no step is smaller than lr * least. v starts at `start`.
    """

    moments: ClassVar[int] = 2

    def __init__(
        self,
        lr: float = 0.5,
        momentum: float = 0.95,
        clip: float = 1.0,
        least: float = 5e-3,
        start: float = 1e-2,
        bias_rate: float = 0.1,
        weight_decay: float = 0.0,
        schedule: RateSchedule | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, schedule)
        for name, value in (("clip", clip), ("start", start)):
            if not (is_finite(value) and value > 0):
                raise EqkernelError(f"{name} must be a positive number, not {value!r}")
        if not (is_finite(least) and least >= 0):
            raise EqkernelError(f"least must be a number of at least 0, not {least!r}")
        if not (is_finite(momentum) and 0 <= momentum < 1):
            raise EqkernelError(f"momentum must lie in [0, 1), not {momentum!r}")
        self.momentum, self.clip, self.least, self.start = map(float, (momentum, clip, least, start))
        self.bias_rate = _bias_rate(bias_rate)

    def direction(self, gradient: NDArray, moments: list[NDArray]) -> NDArray:
        mean, squares = moments[0], moments[1].reshape(-1)[:1]  # of which v is all that is needed
        norm = float(np.linalg.norm(gradient))
        if gradient.ndim == 1:
            squares += norm * norm
            return self.bias_rate / np.sqrt(self.start + squares) * gradient
        norm = min(norm, self.clip)
        squares += norm * norm
        mean *= self.momentum
        mean += (1 - self.momentum) * gradient
        return np.maximum(self.least, norm / np.sqrt(self.start + squares)) * orthogonalise(mean)


def _bias_rate(value: float) -> float:
    if not (is_finite(value) and value >= 0):
        raise EqkernelError(f"bias_rate must be a number of at least 0, not {value!r}")
    return float(value)


OPTIMISERS: dict[str, type[Optimiser]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "adam": Adam,
    "muon": Muon,
    "adago": AdaGO,
}
