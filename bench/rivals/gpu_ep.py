"""Equilibrium propagation by hand in an array library, eager: what most published code does, without its autograd.

Input drive hoisted, +beta and -beta as one batch of 2B, all layers from their old states (synchronous order) or odd
then even ones, hard sigmoid and a linear output, the nudge frozen at the free state. A step settles twice and updates
W by SGD.
"""

from typing import Any


class Library:
    """The few functions in which CuPy (or NumPy) and PyTorch differ."""

    def __init__(self, name: str, module: Any, device: str = "") -> None:
        self.name, self.module, self.device = name, module, device

    def upload(self, array: Any) -> Any:
        if self.name == "torch":
            return self.module.from_numpy(array.copy()).to(self.device)
        return self.module.asarray(array.copy())

    def clip(self, u: Any) -> Any:
        return u.clamp(0, 1) if self.name == "torch" else self.module.clip(u, 0, 1)

    def twice(self, a: Any, b: Any) -> Any:
        return self.module.cat([a, b]) if self.name == "torch" else self.module.concatenate([a, b])

    def download(self, array: Any) -> Any:
        return array.cpu().numpy() if self.name == "torch" else array.get() if hasattr(array, "get") else array


class EagerStep:
    """`order` "synchronous" or "even-odd"; weights are changed in place, as a CUDA graph of it needs."""

    def __init__(
        self, problem: Any, library: Library, order: str, free_steps: int, nudged_steps: int, lr: float
    ) -> None:
        self.p, self.library, self.order = problem, library, order
        self.steps, self.lr = (free_steps, nudged_steps), lr
        self.x, self.target = library.upload(problem.x), library.upload(problem.target)
        self.W = [library.upload(w) for w in problem.weights]
        self.b = [library.upload(b) for b in problem.biases]

    def rate(self, s: list[Any], l: int, drive: Any, nudge: Any) -> Any:
        """rho of the drive of layer l, from 0: the first above the input."""
        last = len(self.W) - 1
        u = drive if l == 0 else s[l - 1] @ self.W[l].T + self.b[l]
        if l == last:
            return u if nudge is None else u + nudge
        return self.library.clip(u + s[l + 1] @ self.W[l + 1])

    def settle(self, s: list[Any], drive: Any, steps: int, nudge: Any = None) -> list[Any]:
        layers = range(len(self.W))
        first = 0 if nudge is None or len(self.W) % 2 == 1 else 1
        for _ in range(steps):
            if self.order == "synchronous":
                s = [self.rate(s, l, drive, nudge) for l in layers]
            else:
                for l in (*layers[first::2], *layers[1 - first :: 2]):
                    s[l] = self.rate(s, l, drive, nudge)
        return s

    def run(self) -> None:
        p, B = self.p, len(self.x)
        drive = self.x @ self.W[0].T + self.b[0]
        free = self.settle([drive[:, :1] * 0 + b * 0 for b in self.b], drive, self.steps[0])
        error = p.beta * (self.target - free[-1])
        both = [self.library.twice(s, s) for s in free]
        nudge = self.library.twice(error, -error)
        both = self.settle(both, self.library.twice(drive, drive), self.steps[1], nudge)
        pre = [self.library.twice(self.x, self.x), *both[:-1]]
        for W, b, below, here in zip(self.W, self.b, pre, both, strict=True):
            rate = self.lr / (2 * p.beta * B)
            W += rate * (here[:B].T @ below[:B] - here[B:].T @ below[B:])
            b += rate * (here[:B] - here[B:]).sum(0)

    def weights(self) -> list[Any]:
        return [self.library.download(w) for w in self.W]


def graphed(torch: Any, run: Any) -> Any:
    """`run` as a CUDA graph of PyTorch, after the warm-up that capture needs."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


class AutogradStep(EagerStep):
    """The same step, every drive the gradient of the scalar Phi by PyTorch's autograd."""

    def settle(self, s: list[Any], drive: Any, steps: int, nudge: Any = None) -> list[Any]:
        import torch

        x = self.x if len(drive) == len(self.x) else self.library.twice(self.x, self.x)
        for _ in range(steps):
            s = [a.detach().expand(len(drive), -1).clone().requires_grad_() for a in s]
            pre, phi = x, torch.zeros((), device=drive.device)
            for post, W, b in zip(s, self.W, self.b, strict=True):
                phi = phi + (post * (pre @ W.T + b)).sum()
                pre = post
            *hidden, out = torch.autograd.grad(phi, s)
            s = [*(self.library.clip(u) for u in hidden), out if nudge is None else out + nudge]
        return [a.detach() for a in s]


class BackpropStep:
    """Feed-forward backpropagation of the same net by PyTorch, squared error, SGD."""

    def __init__(self, problem: Any, library: Library, lr: float) -> None:
        import torch
        from torch import nn

        self.x, self.target = library.upload(problem.x), library.upload(problem.target)
        modules: list[Any] = []
        for W, b in zip(problem.weights, problem.biases, strict=True):
            linear = nn.Linear(W.shape[1], W.shape[0]).to(library.device)
            linear.weight.data, linear.bias.data = library.upload(W), library.upload(b)
            modules += [linear, nn.Hardtanh(0, 1)]
        self.net = nn.Sequential(*modules[:-1])
        self.optimiser = torch.optim.SGD(self.net.parameters(), lr=lr)

    def run(self) -> None:
        loss = 0.5 * ((self.net(self.x) - self.target) ** 2).sum() / len(self.x)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
