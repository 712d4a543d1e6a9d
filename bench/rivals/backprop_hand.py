"""PyTorch, feed-forward backpropagation written out by hand: no graph, every product into a preallocated
buffer, SGD folded into the gradient's own product.
"""

from dataclasses import replace

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

    def weigh(self, l: int) -> None:
        """s_{l+1} = W_l s_l + b_l."""
        torch.addmm(self.b[l], self.s[l], self.W[l].t(), out=self.s[l + 1])

    def learn(self, l: int) -> None:
        """The gradient of W_l, or with SGD its step."""
        if self.adam:
            torch.mm(self.delta[l].t(), self.s[l], out=self.W[l].grad)
        else:
            self.W[l].addmm_(self.delta[l].t(), self.s[l], alpha=-self.lr)

    @torch.no_grad()
    def run(self) -> None:
        W, b, s, delta, last = self.W, self.b, self.s, self.delta, len(self.W) - 1
        for l in range(last + 1):
            self.weigh(l)
            if l < last:
                s[l + 1].clamp_(0, 1)
        torch.softmax(s[-1], 1, out=delta[last])
        delta[last].sub_(self.target).mul_(1 / self.batch)
        for l in range(last, -1, -1):
            if l > 0:
                torch.mm(delta[l], W[l], out=delta[l - 1])
                torch.ops.aten.hardtanh_backward(delta[l - 1], s[l], 0, 1, grad_input=delta[l - 1])
            self.learn(l)
            if self.adam:
                torch.sum(delta[l], 0, out=b[l].grad)
            else:
                b[l].sub_(delta[l].sum(0), alpha=self.lr)
        if self.adam:
            self.adam.step()

    def parameters(self) -> list[np.ndarray]:
        return [a.numpy() for layer in zip(self.W, self.b, strict=True) for a in layer]


class SparseBackprop(HandBackprop):
    """The same without the input's zeros: in compressed rows (CSR), made once. W_1 lies (n_0, n_1), as that
    product likes it.
    """

    def __init__(self, p: Problem, optimiser: str = "sgd", lr: float = 1e-4, eps: float = 1e-8):
        first = p.weights[0].T
        super().__init__(replace(p, weights=[first, *p.weights[1:]]), optimiser, lr, eps)
        self.x, self.pixels = (a.contiguous().to_sparse_csr() for a in (self.s[0], self.s[0].t()))

    def weigh(self, l: int) -> None:
        if l > 0:
            super().weigh(l)
        else:
            torch.add(torch.sparse.mm(self.x, self.W[0]), self.b[0], out=self.s[1])

    def learn(self, l: int) -> None:
        if l > 0:
            super().learn(l)
        elif self.adam:
            self.W[0].grad.copy_(torch.sparse.mm(self.pixels, self.delta[0]))
        else:
            self.W[0].add_(torch.sparse.mm(self.pixels, self.delta[0]), alpha=-self.lr)

    def parameters(self) -> list[np.ndarray]:
        first, *rest = super().parameters()
        return [first.T, *rest]
