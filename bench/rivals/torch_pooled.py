"""PyTorch on the pooled network (28 x 28 -> 32 maps of 12 x 12 -> 64 of 4 x 4 -> 10, 5 x 5 kernels, hard sigmoids)."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

Arrays = Sequence[np.ndarray]


class TorchPooled:
    """One step of backpropagation and fused Adam, cross-entropy."""

    def __init__(
        self, weights: Arrays, x: np.ndarray, y: np.ndarray, pool: str, channels_last: bool,
        dtype: torch.dtype = torch.float32,
    ):  # fmt: skip
        self.order = torch.channels_last if channels_last else torch.contiguous_format
        self.pool = F.max_pool2d if pool == "max" else F.avg_pool2d
        self.x, self.y = self.image(torch.from_numpy(x).to(dtype).reshape(-1, 28, 28, 1)), torch.from_numpy(y)
        tensors = [torch.from_numpy(w).to(dtype) for w in weights]
        self.parameters_ = [(self.image(t) if t.ndim == 4 else t).clone().requires_grad_() for t in tensors]
        self.optimiser = torch.optim.Adam(self.parameters_, 1e-6, fused=True)

    def image(self, t: torch.Tensor) -> torch.Tensor:
        """Of channels last, the layout that this contestant computes in."""
        return t.permute(0, 3, 1, 2).contiguous(memory_format=self.order)

    def loss(self) -> torch.Tensor:
        W1, b1, W2, b2, W3, b3 = self.parameters_
        s = self.pool(F.conv2d(self.x, W1, b1), 2).clamp(0, 1)
        s = self.pool(F.conv2d(s, W2, b2), 2).clamp(0, 1)
        return F.cross_entropy(F.linear(s.permute(0, 2, 3, 1).flatten(1), W3, b3), self.y)

    def run(self) -> None:
        self.optimiser.zero_grad()
        self.loss().backward()
        self.optimiser.step()

    def gradient(self) -> list[np.ndarray]:
        """In eqkernel's order and layout."""
        grads = torch.autograd.grad(self.loss(), self.parameters_)
        return [(g.permute(0, 2, 3, 1) if g.ndim == 4 else g).numpy() for g in grads]


def exact_gradient(weights: Arrays, x: np.ndarray, y: np.ndarray, pool: str) -> list[np.ndarray]:
    """The same in float64."""
    return TorchPooled(weights, x, y, pool, False, torch.float64).gradient()
