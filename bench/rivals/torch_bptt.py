"""PyTorch, backpropagation through time: autograd through every step of the free phase, which it has to
store.
"""

import torch

from ..problem import Problem


class TorchBPTT:
    """The gradient of the squared error after `steps` synchronous steps, layered nets; memory grows with
    `steps`.
    """

    def __init__(self, p: Problem, steps: int = 30):
        self.p, self.steps = p, steps
        self.x, self.target = torch.from_numpy(p.x), torch.from_numpy(p.target)
        self.W = [torch.from_numpy(w).requires_grad_() for w in p.weights]
        self.b = [torch.from_numpy(b).requires_grad_() for b in p.biases]

    def run(self) -> None:
        p, W, b, last = self.p, self.W, self.b, len(self.W) - 1
        s = [torch.zeros(p.batch, n) for n in p.sizes[1:]]
        drive = torch.nn.functional.linear(self.x, W[0], b[0])
        for _ in range(self.steps):
            up = [drive, *(torch.nn.functional.linear(s[l - 1], W[l], b[l]) for l in range(1, last + 1))]
            s = [*((up[l] + p.gamma * (s[l + 1] @ W[l + 1])).clamp(0, 1) for l in range(last)), up[last]]
        loss = ((self.target - s[-1]) ** 2).sum() / 2 / p.batch
        self.gradient = torch.autograd.grad(loss, [a for layer in zip(W, b, strict=True) for a in layer])
