"""PyTorch: the Hebbian update of the input matrix, -(h+ - h-) / (2 beta B) with h = s^T x, followed by fused
Adam.
"""

import numpy as np
import torch


class TorchUpdate:
    """`contrast` "traces": one product of depth 2B with [s+; -s-] and [x; x], which also serves layers whose
    presynaptic state moves; "difference": (s+ - s-)^T x, depth B, for the clamped input alone.
    """

    def __init__(self, W: np.ndarray, x: np.ndarray, plus: np.ndarray, minus: np.ndarray, beta: float,
                 contrast: str = "difference", lr: float = 1e-3):  # fmt: skip
        self.W = torch.from_numpy(W.copy())
        self.W.grad = torch.empty_like(self.W)
        self.adam = torch.optim.Adam([self.W], lr=lr, fused=True)
        self.load(plus, minus)
        self.post = torch.empty((2 if contrast == "traces" else 1) * len(x), W.shape[0])
        self.pre = torch.from_numpy(x).repeat(len(self.post) // len(x), 1)
        self.contrast, self.scale, self.batch = contrast, -1 / (2 * beta * len(x)), len(x)

    def load(self, plus: np.ndarray, minus: np.ndarray) -> None:
        self.plus, self.minus = torch.from_numpy(plus), torch.from_numpy(minus)

    @torch.no_grad()
    def run(self) -> None:
        if self.contrast == "traces":
            torch.mul(self.plus, self.scale, out=self.post[: self.batch])
            torch.mul(self.minus, -self.scale, out=self.post[self.batch :])
        else:
            torch.sub(self.plus, self.minus, out=self.post)
            self.post.mul_(self.scale)
        torch.mm(self.post.t(), self.pre, out=self.W.grad)
        self.adam.step()

    def parameters(self) -> list[np.ndarray]:
        return [self.W.numpy()]
