"""PyTorch on the network of two convolutions (28 x 28 -> 14 x 14 x 16 -> 14 x 14 x 16 -> 10, sigmoids throughout).

By hand, under no_grad: the input's drive hoisted, the transposed convolution as a convolution with the kernel turned
round (faster than conv_transpose2d), +beta and -beta as one batch of 2B. `layout` is NCHW or channels_last.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

Tensors = list[torch.Tensor]


def tensors(p: Any, channels_last: bool = False) -> tuple[torch.Tensor, Tensors, Tensors]:
    """Input (B, 1, 28, 28), weights and biases of a ConvProblem; W_3 reads the second map in the order of `layout`."""
    order = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.from_numpy(p.x).reshape(-1, 1, 28, 28).contiguous(memory_format=order)
    W = [torch.from_numpy(w).permute(0, 3, 1, 2).contiguous(memory_format=order) for w in p.weights[:2]]
    readout = torch.from_numpy(p.weights[2])
    if not channels_last:
        readout = readout.reshape(10, 14, 14, 16).permute(0, 3, 1, 2).reshape(10, -1).contiguous()
    return x, [*W, readout], [torch.from_numpy(b) for b in p.biases]


class TorchConvSettle:
    """Free phase and both nudged phases, squared error, live nudge; order "synchronous" or "even-odd" (where a `step`
    above 1 over-relaxes)."""

    def __init__(
        self, p: Any, order: str, free_steps: int, nudged_steps: int, channels_last: bool, step: float = 1.0
    ):
        self.p, self.order, self.steps, self.last = p, order, (free_steps, nudged_steps), channels_last
        self.step = step
        self.order_of = torch.channels_last if channels_last else torch.contiguous_format
        self.x, self.W, self.b = tensors(p, channels_last)
        self.turned = self.W[1].transpose(0, 1).flip(2, 3).contiguous(memory_format=self.order_of)
        self.target = torch.from_numpy(p.target).repeat(2, 1)
        self.strength = torch.tensor([p.beta, -p.beta]).repeat_interleave(p.batch)[:, None]

    def flat(self, s: torch.Tensor) -> torch.Tensor:
        return (s.permute(0, 2, 3, 1) if self.last else s).reshape(len(s), -1)

    def shaped(self, v: torch.Tensor) -> torch.Tensor:
        return v.view(-1, 14, 14, 16).permute(0, 3, 1, 2) if self.last else v.view(-1, 16, 14, 14)

    def layer(self, l: int, s: Tensors, drive: torch.Tensor, nudged: bool) -> torch.Tensor:
        """New state of layer l = 0, 1, 2."""
        if l == 0:
            back = F.conv2d(s[1], self.turned, padding=1)
            return back.mul_(self.p.gamma).add_(drive).sigmoid_()
        if l == 1:
            up = F.conv2d(s[0], self.W[1], self.b[1], padding=1)
            return up.add_(self.shaped(s[2] @ self.W[2]), alpha=self.p.gamma).sigmoid_()
        out = torch.addmm(self.b[2], self.flat(s[1]), self.W[2].t())
        if nudged:
            out.add_(self.strength * (self.target - s[2]))
        return out.sigmoid_()

    def relax(self, s: Tensors, drive: torch.Tensor, steps: int, nudged: bool) -> Tensors:
        for _ in range(steps):
            if self.order == "synchronous":
                s = [self.layer(l, s, drive, nudged) for l in range(3)]
            else:
                for l in (0, 2, 1):
                    new = self.layer(l, s, drive, nudged)
                    s[l] = new if self.step == 1 else s[l].lerp_(new, self.step)
        return s

    @torch.no_grad()
    def run(self) -> None:
        B, free = self.p.batch, self.order_of
        drive = F.conv2d(self.x, self.W[0], self.b[0], stride=2, padding=2)
        zero = torch.zeros(B, 16, 14, 14).contiguous(memory_format=free)
        self.free = self.relax([zero, zero.clone(), torch.zeros(B, 10)], drive, self.steps[0], False)
        both = [torch.cat([s, s]) for s in self.free]
        self.both = self.relax(both, torch.cat([drive, drive]), self.steps[1], True)

    def states(self) -> list[list[np.ndarray]]:
        """Free, + and - states of layers 1..3, (B, n), channels last."""
        B = self.p.batch
        rows = [[m.permute(0, 2, 3, 1).reshape(len(m), -1).numpy() for m in s[:2]] + [s[2].numpy()]
                for s in (self.free, self.both)]  # fmt: skip
        return [rows[0], [a[:B] for a in rows[1]], [a[B:] for a in rows[1]]]


class TorchConvAutogradEP(TorchConvSettle):
    """Automatic differentiation of Phi for every synchronous step, as most published code settles (gamma 1)."""

    def __init__(self, p: Any, free_steps: int, nudged_steps: int):
        super().__init__(p, "synchronous", free_steps, nudged_steps, channels_last=False)

    def phi(self, s: Tensors, beta: float) -> torch.Tensor:
        total = (s[0] * F.conv2d(self.x, self.W[0], self.b[0], stride=2, padding=2)).sum()
        total = total + (s[1] * F.conv2d(s[0], self.W[1], self.b[1], padding=1)).sum()
        total = total + (s[2] * F.linear(s[1].flatten(1), self.W[2], self.b[2])).sum()
        return total - beta * ((self.target[: self.p.batch] - s[2]) ** 2).sum() / 2 if beta else total

    def settle(self, s: Tensors, steps: int, beta: float) -> Tensors:
        for _ in range(steps):
            s = [a.detach().requires_grad_() for a in s]
            s = [g.sigmoid_() for g in torch.autograd.grad(self.phi(s, beta), s)]
        return s

    def run(self) -> None:
        B = self.p.batch
        zero = [torch.zeros(B, 16, 14, 14), torch.zeros(B, 16, 14, 14), torch.zeros(B, 10)]
        self.free = self.settle(zero, self.steps[0], 0.0)
        sides = [self.settle(self.free, self.steps[1], sign * self.p.beta) for sign in (1, -1)]
        self.both = [torch.cat(pair) for pair in zip(*sides, strict=True)]


class TorchConvBackprop:
    """The feed-forward twin: one step of backpropagation and momentum, binary cross-entropy, channels last."""

    def __init__(self, p: Any, lr: float):
        self.x, W, b = tensors(p, channels_last=True)
        self.parameters_ = [t.clone().requires_grad_() for pair in zip(W, b, strict=True) for t in pair]
        self.target = torch.from_numpy(p.target)
        self.optimiser = torch.optim.SGD(self.parameters_, lr, momentum=0.95)

    def run(self) -> None:
        W1, b1, W2, b2, W3, b3 = self.parameters_
        s = F.conv2d(self.x, W1, b1, stride=2, padding=2).sigmoid()
        s = F.conv2d(s, W2, b2, padding=1).sigmoid()
        out = F.linear(s.permute(0, 2, 3, 1).reshape(len(s), -1), W3, b3)
        loss = F.binary_cross_entropy_with_logits(out, self.target, reduction="sum") / len(out)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def gradient(self) -> list[np.ndarray]:
        """Of the last run, in eqkernel's order and layout."""
        grads = [p.grad for p in self.parameters_]
        return [(g.permute(0, 2, 3, 1) if g.ndim == 4 else g).numpy() for g in grads if g is not None]


class TorchConvStep(TorchConvSettle):
    """A step of equilibrium propagation by hand, channels last, as CORTEX recipes run: odd-even half-sweeps, +-beta
    states, rates nudged at the output (binary cross-entropy), Muon."""

    def __init__(self, p: Any, free_steps: int, nudged_steps: int, lr: float):
        super().__init__(p, "even-odd", free_steps, nudged_steps, channels_last=True)
        self.lr, self.velocity = lr, [torch.zeros_like(w) for w in self.W]

    def half(self, s: Tensors, drive: torch.Tensor, odd: bool, nudge: bool) -> None:
        for l in (0, 2) if odd else (1,):
            s[l] = self.layer(l, s, drive, False)
            if l == 2 and nudge:
                s[2].add_(self.strength * (self.target - s[2]))

    @torch.no_grad()
    def run(self) -> None:
        B, gamma = self.p.batch, self.p.gamma
        drive = F.conv2d(self.x, self.W[0], self.b[0], stride=2, padding=2)
        zero = torch.zeros(B, 16, 14, 14).contiguous(memory_format=torch.channels_last)
        s = [zero, zero.clone(), torch.zeros(B, 10)]
        for step in range(self.steps[0]):
            self.half(s, drive, step % 2 == 0, False)
        s[2] = self.layer(2, s, drive, False)
        both, twice = [torch.cat([a, a]) for a in s], torch.cat([drive, drive])
        both[2].add_(self.strength * (self.target - both[2]))
        for step in range(1, self.steps[1]):
            self.half(both, twice, step % 2 == 0, True)
        sign = self.strength.sign()[:, :, None, None]
        d1, scale = both[0][:B] - both[0][B:], -1 / (2 * self.p.beta * B)
        signed = [both[0], both[1] * sign, both[2] * self.strength.sign()]
        self.grads = [
            torch.nn.grad.conv2d_weight(self.x, self.W[0].shape, d1, stride=2, padding=2) * (scale * gamma**-2),
            torch.nn.grad.conv2d_weight(both[0], self.W[1].shape, signed[1], padding=1) * (scale * gamma**-1),
            signed[2].t() @ self.flat(both[1]) * scale,
        ]
        self.bias_grads = [d1.sum((0, 2, 3)) * (scale * gamma**-2), signed[1].sum((0, 2, 3)) * (scale / gamma),
                           signed[2].sum(0) * scale]  # fmt: skip
        for w, m, g in zip(self.W, self.velocity, self.grads, strict=True):
            m.mul_(0.95).add_(g)
            w.add_(newton_schulz((g + 0.95 * m).flatten(1)).view_as(w), alpha=-self.lr)
        for b, g in zip(self.b, self.bias_grads, strict=True):
            b.add_(g, alpha=-self.lr * 0.1)
        self.turned = self.W[1].transpose(0, 1).flip(2, 3).contiguous(memory_format=torch.channels_last)

    def gradient(self) -> list[np.ndarray]:
        """Of the last run, in eqkernel's order and layout."""
        pairs = zip(self.grads, self.bias_grads, strict=True)
        return [(g.permute(0, 2, 3, 1) if g.ndim == 4 else g).numpy() for pair in pairs for g in pair]


def newton_schulz(X: torch.Tensor) -> torch.Tensor:
    """Five steps towards U V^T (Jordan et al. 2024)."""
    X = X / (X.norm() + 1e-12)
    for _ in range(5):
        A = X @ X.t()
        X = 3.4445 * X + (-4.7750 * A + 2.0315 * A @ A) @ X
    return X


def exact_gradient(p: Any, cost: str) -> list[np.ndarray]:
    """dL/dtheta at the free fixed point in float64 by implicit differentiation, in the order W_1, b_1, W_2, ...

    With s = f(s, theta) the fixed point of a synchronous step and lambda = dC/ds + (df/ds)^T lambda, it is
    (df/dtheta)^T lambda.
    """
    wide = p.to("float64")
    machine = TorchConvSettle(wide, "synchronous", 1, 1, channels_last=True)
    theta = [t.requires_grad_() for pair in zip(machine.W, machine.b, strict=True) for t in pair]
    target = torch.from_numpy(wide.target)

    def step(s: Tensors) -> Tensors:
        W1, b1, W2, b2, W3, b3 = theta
        back = F.conv_transpose2d(s[1], W2, padding=1)
        up = F.conv2d(s[0], W2, b2, padding=1) + wide.gamma * machine.shaped(s[2] @ W3)
        first = F.conv2d(machine.x, W1, b1, stride=2, padding=2) + wide.gamma * back
        return [first.sigmoid(), up.sigmoid(), F.linear(machine.flat(s[1]), W3, b3).sigmoid()]

    B = wide.batch
    s = [torch.zeros(B, 16, 14, 14).double(), torch.zeros(B, 16, 14, 14).double(), torch.zeros(B, 10).double()]
    with torch.no_grad():
        for _ in range(500):
            s, before = step(s), s
            if max(float((a - b).abs().max()) for a, b in zip(s, before, strict=True)) < 1e-13:
                break
        else:
            raise ArithmeticError("the free state did not settle in float64")
    s = [a.requires_grad_() for a in s]
    out = s[2]
    if cost == "squared-error":
        loss = ((target - out) ** 2).sum() / 2
    else:
        loss = F.binary_cross_entropy(out, target, reduction="sum")
    source = torch.autograd.grad(loss / B, s[2])[0]
    new, lam = step(s), [torch.zeros_like(s[0]), torch.zeros_like(s[1]), source]
    for _ in range(500):
        back = torch.autograd.grad(new, s, lam, retain_graph=True)
        lam, before = [back[0], back[1], back[2] + source], lam
        if max(float((a - b).abs().max()) for a, b in zip(lam, before, strict=True)) < 1e-15:
            break
    grads = torch.autograd.grad(new, theta, lam)
    return [(g.permute(0, 2, 3, 1) if g.ndim == 4 else g).numpy() for g in grads]
