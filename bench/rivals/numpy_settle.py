"""NumPy: the settle as it is commonly written, and with the clamped input's drive hoisted out of the loop."""

import numpy as np

from ..problem import RHO, Problem, States


class NumpyNaive:
    """Everything recomputed each step, one phase after the other, fresh arrays throughout."""

    def __init__(self, p: Problem, free_steps: int = 30, nudged_steps: int = 10):
        self.p, self.free_steps, self.nudged_steps = p, free_steps, nudged_steps
        self.target = p.target

    def relax(self, s: list[np.ndarray], steps: int, nudge: float) -> list[np.ndarray]:
        p, last = self.p, len(self.p.weights)
        for _ in range(steps):
            new = [s[0]]
            for l in range(1, last + 1):
                u = s[l - 1] @ p.weights[l - 1].T + p.biases[l - 1]
                if p.lateral[l - 1] is not None:
                    u = u + s[l] @ p.lateral[l - 1]
                u = u + p.gamma * (s[l + 1] @ p.weights[l]) if l < last else u + nudge * (self.target - s[l])
                new.append(RHO[p.rho(l)][0](u))
            s = new
        return s

    def run(self) -> None:
        p = self.p
        zero = [p.x, *(np.zeros((p.batch, n), p.x.dtype) for n in p.sizes[1:])]
        free = self.relax(zero, self.free_steps, 0.0)
        plus = self.relax(free, self.nudged_steps, p.beta)
        minus = self.relax(free, self.nudged_steps, -p.beta)
        self.answer = States(free[1:], plus[1:], minus[1:])

    def states(self) -> States:
        return self.answer


def half_steps(last: int, nudged: bool) -> list[int]:
    """Layers 0..last in even-odd order, beginning where the news comes in: at the input, or at the nudged
    output.
    """
    first = last % 2 if nudged else 0
    return [*range(first, last + 1, 2), *range(1 - first, last + 1, 2)]


class NumpyHoisted:
    """Input drive computed once, +beta and -beta as one batch of 2B, every product into a buffer that is
    reused. In even-odd order a `step` above 1 over-relaxes.
    """

    def __init__(
        self, p: Problem, order: str = "synchronous", free_steps: int = 30, nudged_steps: int = 10, step: float = 1.0
    ):
        self.p, self.order, self.free_steps, self.nudged_steps, self.step = p, order, free_steps, nudged_steps, step
        B, dtype = p.batch, p.x.dtype

        def buffers(rows: int) -> list[np.ndarray]:
            return [np.zeros((rows, n), dtype) for n in p.sizes[1:]]

        self.free, self.both = buffers(B), buffers(2 * B)
        self.spare_free, self.spare_both, self.part = buffers(B), buffers(2 * B), buffers(2 * B)
        self.drive = np.empty((2 * B, p.sizes[1]), dtype)
        strength = np.repeat(np.array([p.beta, -p.beta], dtype), B)[:, None]
        self.strength, self.push = strength, strength * np.tile(p.target, (2, 1))

    def layer(self, out: np.ndarray, s: list[np.ndarray], l: int, nudged: bool) -> None:
        """Writes rho(drive) of layer l (from 0: the first hidden one) into `out`."""
        p, last = self.p, len(s) - 1
        part = self.part[l][: len(out)]
        if l == 0:
            np.copyto(out, self.drive[: len(out)])
        else:
            np.matmul(s[l - 1], p.weights[l].T, out=out)
            out += p.biases[l]
        if (A := p.lateral[l]) is not None:
            np.matmul(s[l], A, out=part)
            out += part
        if l < last:
            np.matmul(s[l + 1], p.weights[l + 1], out=part)
            if p.gamma != 1:
                part *= p.gamma
            out += part
            if p.neuron == "tanh":
                np.tanh(out, out=out)
            else:
                np.maximum(out, 0, out=out)
                np.minimum(out, 1, out=out)
        elif nudged:
            np.multiply(self.strength, s[l], out=part)
            out += self.push
            out -= part

    def relax(self, s: list[np.ndarray], spare: list[np.ndarray], steps: int, nudged: bool) -> None:
        last = len(s) - 1
        if self.order == "even-odd":
            for _ in range(steps):
                for l in half_steps(last, nudged):
                    if self.step != 1:
                        self.layer(spare[l], s, l, nudged)
                        spare[l] -= s[l]
                        spare[l] *= self.step
                        s[l] += spare[l]
                    elif self.p.lateral[l] is None and not (nudged and l == last):
                        self.layer(s[l], s, l, nudged)
                    else:  # reads its own old state: written beside it, then swapped in
                        self.layer(spare[l], s, l, nudged)
                        s[l], spare[l] = spare[l], s[l]
            return
        for _ in range(steps):
            for l in range(last + 1):
                self.layer(spare[l], s, l, nudged)
            s[:], spare[:] = spare[:], s[:]

    def run(self) -> None:
        p, B = self.p, self.p.batch
        np.matmul(p.x, p.weights[0].T, out=self.drive[:B])
        self.drive[:B] += p.biases[0]
        self.drive[B:] = self.drive[:B]
        for a in self.free:
            a.fill(0)
        self.relax(self.free, self.spare_free, self.free_steps, False)
        for both, free in zip(self.both, self.free, strict=True):
            both[:B] = both[B:] = free
        self.relax(self.both, self.spare_both, self.nudged_steps, True)

    def states(self) -> States:
        B = self.p.batch
        return States(self.free, [a[:B] for a in self.both], [a[B:] for a in self.both])
