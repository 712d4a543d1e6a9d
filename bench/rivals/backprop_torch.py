"""PyTorch, feed-forward backpropagation of the same net by autograd: Linear, hard sigmoid, cross-entropy,
torch.optim.
"""

import numpy as np
import torch
from torch import nn

from ..problem import Problem


class TorchBackprop:
    """`optimiser` "sgd" or "adam", each in the faster of torch's two forms: SGD foreach, Adam fused."""

    def __init__(self, p: Problem, optimiser: str = "sgd", lr: float = 1e-4, eps: float = 1e-8):
        self.x, self.labels = torch.from_numpy(p.x), torch.from_numpy(p.labels)
        modules: list[nn.Module] = []
        for W, b in zip(p.weights, p.biases, strict=True):
            linear = nn.Linear(W.shape[1], W.shape[0])
            linear.weight.data, linear.bias.data = torch.from_numpy(W.copy()), torch.from_numpy(b.copy())
            modules += [linear, nn.Hardtanh(0, 1, inplace=True)]
        self.net = nn.Sequential(*modules[:-1])
        parameters = self.net.parameters()
        self.optimiser: torch.optim.Optimizer
        if optimiser == "adam":
            self.optimiser = torch.optim.Adam(parameters, lr=lr, eps=eps, fused=True)
        else:
            self.optimiser = torch.optim.SGD(parameters, lr=lr)

    def run(self) -> None:
        loss = nn.functional.cross_entropy(self.net(self.x), self.labels)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()

    def parameters(self) -> list[np.ndarray]:
        return [a.detach().numpy() for a in self.net.parameters()]
