"""PyTorch, feed-forward backpropagation written out by hand: no graph, every product into a preallocated
buffer, SGD folded into the gradient's own product.
"""

import numpy as np
import torch

from ..problem import Problem


class HandBackprop:
    """`optimiser` "sgd" (W -= lr delta^T s, one addmm_) or "adam" (torch's fused step on preassigned
    gradients).
    """

    def __init__(self, p: Problem, optimiser: str = "sgd", lr: float = 1e-4, eps: float = 1e-8):
        self.batch, self.lr = p.batch, lr
        self.W = [torch.from_numpy(w.copy()) for w in p.weights]
        self.b = [torch.from_numpy(b.copy()) for b in p.biases]
        self.target = torch.from_numpy(p.target)
        self.s = [torch.from_numpy(p.x), *(torch.empty(p.batch, n) for n in p.sizes[1:])]
        self.delta = [torch.empty(p.batch, n) for n in p.sizes[1:]]
        self.adam = None
        if optimiser == "adam":
            flat = [p for layer in zip(self.W, self.b, strict=True) for p in layer]
            for a in flat:
                a.grad = torch.empty_like(a)
            self.adam = torch.optim.Adam(flat, lr=lr, eps=eps, fused=True)

    @torch.no_grad()
    def run(self) -> None:
        W, b, s, delta, last = self.W, self.b, self.s, self.delta, len(self.W) - 1
        for l in range(last + 1):
            torch.addmm(b[l], s[l], W[l].t(), out=s[l + 1])
            if l < last:
                s[l + 1].clamp_(0, 1)
        torch.softmax(s[-1], 1, out=delta[last])
        delta[last].sub_(self.target).mul_(1 / self.batch)
        for l in range(last, -1, -1):
            if l > 0:
                torch.mm(delta[l], W[l], out=delta[l - 1])
                torch.ops.aten.hardtanh_backward(delta[l - 1], s[l], 0, 1, grad_input=delta[l - 1])
            if self.adam:
                torch.mm(delta[l].t(), s[l], out=W[l].grad)
                torch.sum(delta[l], 0, out=b[l].grad)
            else:
                W[l].addmm_(delta[l].t(), s[l], alpha=-self.lr)
                b[l].sub_(delta[l].sum(0), alpha=self.lr)
        if self.adam:
            self.adam.step()

    def parameters(self) -> list[np.ndarray]:
        return [a.numpy() for layer in zip(self.W, self.b, strict=True) for a in layer]
