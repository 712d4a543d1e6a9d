"""PyTorch by hand, under no_grad: the input drive hoisted, every product into a preallocated buffer, +beta
and -beta as one batch of 2B.
"""

from collections.abc import Callable

import torch

from ..problem import Problem, States
from .numpy_settle import half_steps


def _rho(neuron: str) -> Callable[[torch.Tensor], torch.Tensor]:
    return torch.Tensor.tanh_ if neuron == "tanh" else lambda u: u.clamp_(0, 1)


class TorchSettle:
    """Layers without lateral connections; `order` "synchronous" (all layers from the old states) or
    "even-odd" (odd layers, then even layers, in place; a `step` above 1 over-relaxes).
    """

    def __init__(
        self, p: Problem, order: str = "synchronous", free_steps: int = 30, nudged_steps: int = 10, step: float = 1.0
    ):
        self.p, self.order, self.free_steps, self.nudged_steps, self.step = p, order, free_steps, nudged_steps, step
        B, self.last = p.batch, len(p.weights) - 1
        self.x = torch.from_numpy(p.x)
        self.W = [torch.from_numpy(w) for w in p.weights]
        self.b = [torch.from_numpy(b) for b in p.biases]
        self.free = [torch.zeros(B, n) for n in p.sizes[1:]]
        self.both = [torch.zeros(2 * B, n) for n in p.sizes[1:]]
        self.spare_free, self.spare_both = ([torch.empty_like(a) for a in s] for s in (self.free, self.both))
        self.drive = torch.empty(2 * B, p.sizes[1])
        self.strength = torch.tensor([p.beta, -p.beta]).repeat_interleave(B)[:, None]
        self.rho = _rho(p.neuron)
        self.push = self.b[-1] + self.strength * torch.from_numpy(p.target).repeat(2, 1)

    def layer(self, out: torch.Tensor, s: list[torch.Tensor], l: int, nudged: bool) -> None:
        """Writes rho(drive) of layer l (from 0: the first hidden one) into `out`."""
        W, gamma = self.W, self.p.gamma
        if l == self.last:
            torch.addmm(self.push if nudged else self.b[l], s[l - 1], W[l].t(), out=out)
            if nudged:
                out.addcmul_(self.strength, s[l], value=-1)
            return
        if l > 0:
            torch.addmm(self.b[l], s[l - 1], W[l].t(), out=out)
            out.addmm_(s[l + 1], W[l + 1], alpha=gamma)
        else:
            torch.addmm(self.drive[: len(out)], s[1], W[1], alpha=gamma, out=out)
        self.rho(out)

    def relax(self, s: list[torch.Tensor], spare: list[torch.Tensor], steps: int, nudged: bool) -> None:
        if self.order == "even-odd":
            for _ in range(steps):
                for l in half_steps(self.last, nudged):
                    if self.step != 1:
                        self.layer(spare[l], s, l, nudged)
                        s[l].lerp_(spare[l], self.step)
                    elif not (nudged and l == self.last):
                        self.layer(s[l], s, l, nudged)
                    else:  # reads its own old state: written beside it, then swapped in
                        self.layer(spare[l], s, l, nudged)
                        s[l], spare[l] = spare[l], s[l]
            return
        for _ in range(steps):
            for l in range(self.last + 1):
                self.layer(spare[l], s, l, nudged)
            s[:], spare[:] = spare[:], s[:]

    @torch.no_grad()
    def run(self) -> None:
        B = self.p.batch
        torch.addmm(self.b[0], self.x, self.W[0].t(), out=self.drive[:B])
        for a in self.free:
            a.zero_()
        self.relax(self.free, self.spare_free, self.free_steps, False)
        self.drive[B:] = self.drive[:B]
        for both, free in zip(self.both, self.free, strict=True):
            both[:B] = free
            both[B:] = free
        self.relax(self.both, self.spare_both, self.nudged_steps, True)

    def states(self) -> States:
        B = self.p.batch
        both = [a.numpy() for a in self.both]
        return States([a.numpy() for a in self.free], [a[:B] for a in both], [a[B:] for a in both])


class TorchRecurrent:
    """One hidden layer with lateral connections and a small output: all states side by side as (B, n_1 +
    n_2), so one product with [[A, W^T], [W, 0]] is a whole synchronous step.
    """

    def __init__(self, p: Problem, free_steps: int = 30, nudged_steps: int = 10):
        self.p, self.free_steps, self.nudged_steps = p, free_steps, nudged_steps
        B, (_, n, out) = p.batch, p.sizes
        lateral = p.lateral[0]
        assert lateral is not None
        W = torch.from_numpy(p.weights[1])
        self.n, self.x = n, torch.from_numpy(p.x)
        self.W0, self.b0 = torch.from_numpy(p.weights[0]), torch.from_numpy(p.biases[0])
        self.M = torch.zeros(n + out, n + out)
        self.M[:n, :n], self.M[:n, n:], self.M[n:, :n] = torch.from_numpy(lateral), W.t(), W * p.gamma
        self.constant = torch.zeros(2 * B, n + out)
        self.constant[:, n:] = torch.from_numpy(p.biases[1])
        self.strength = torch.tensor([p.beta, -p.beta]).repeat_interleave(B)[:, None]
        self.push = self.strength * torch.from_numpy(p.target).repeat(2, 1)
        self.buffers = [[torch.zeros(rows, n + out) for _ in range(2)] for rows in (B, 2 * B)]
        self.rho = _rho(p.neuron)

    def relax(self, s: torch.Tensor, spare: torch.Tensor, steps: int, nudged: bool) -> torch.Tensor:
        n, constant = self.n, self.constant[: len(s)]
        for _ in range(steps):
            torch.addmm(constant, s, self.M, out=spare)
            self.rho(spare[:, :n])
            if nudged:
                spare[:, n:].addcmul_(self.strength, s[:, n:], value=-1)
            s, spare = spare, s
        return s

    @torch.no_grad()
    def run(self) -> None:
        B, n = self.p.batch, self.n
        (free, spare), (both, spare_both) = self.buffers
        free.zero_()
        drive = torch.addmm(self.b0, self.x, self.W0.t())
        self.constant[:B, :n] = drive
        self.free = self.relax(free, spare, self.free_steps, False)
        self.constant[B:, :n] = drive
        both[:B] = self.free
        both[B:] = self.free
        self.constant[:, n:] += self.push
        self.both = self.relax(both, spare_both, self.nudged_steps, True)
        self.constant[:, n:] -= self.push

    def states(self) -> States:
        B, n = self.p.batch, self.n
        free, plus, minus = self.free.numpy(), self.both[:B].numpy(), self.both[B:].numpy()
        return States(*([a[:, :n], a[:, n:]] for a in (free, plus, minus)))
