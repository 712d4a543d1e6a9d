"""PyTorch, automatic differentiation of the scalar Phi for every step: the form of most published code
(Laborieux et al. 2021), short and general.  Input drive inside Phi, one phase after the other."""

import torch

from ..problem import Problem, States


class TorchAutogradEP:
    """Synchronous order; gamma must be 1, since Phi's own gradient feeds back at full strength."""

    def __init__(self, p: Problem, free_steps: int = 30, nudged_steps: int = 10):
        if p.gamma != 1:
            raise ValueError("the gradient of Phi has feedback gain 1")
        self.p, self.free_steps, self.nudged_steps = p, free_steps, nudged_steps
        self.x, self.target = torch.from_numpy(p.x), torch.from_numpy(p.target)
        self.W = [torch.from_numpy(w) for w in p.weights]
        self.b = [torch.from_numpy(b) for b in p.biases]
        self.A = [None if a is None else torch.from_numpy(a) for a in p.lateral]

    def phi(self, s: list[torch.Tensor], beta: float) -> torch.Tensor:
        """Phi - beta C, summed over the batch."""
        pre, total = self.x, torch.zeros(())
        for post, W, b, A in zip(s, self.W, self.b, self.A, strict=True):
            total = total + (post * torch.nn.functional.linear(pre, W, b)).sum()
            if A is not None:
                total = total + (post * (post @ A)).sum() / 2
            pre = post
        if beta:
            total = total - beta * ((self.target - s[-1]) ** 2).sum() / 2
        return total

    def relax(self, s: list[torch.Tensor], steps: int, beta: float) -> list[torch.Tensor]:
        for _ in range(steps):
            s = [a.detach().requires_grad_() for a in s]
            *hidden, out = torch.autograd.grad(self.phi(s, beta), s)
            rho = torch.tanh if self.p.neuron == "tanh" else lambda u: u.clamp(0, 1)
            s = [*(rho(u) for u in hidden), out]
        return s

    def run(self) -> None:
        zero = [torch.zeros(self.p.batch, n) for n in self.p.sizes[1:]]
        free = self.relax(zero, self.free_steps, 0.0)
        plus = self.relax(free, self.nudged_steps, self.p.beta)
        minus = self.relax(free, self.nudged_steps, -self.p.beta)
        self.answer = free, plus, minus

    def states(self) -> States:
        return States(*([a.numpy() for a in s] for s in self.answer))
