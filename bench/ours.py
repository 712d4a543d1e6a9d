"""eqkernel as a contestant, through its public functions alone."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import eqkernel
from eqkernel.bindings import set_precision

from .problem import Arrays, Problem, States


def network(p: Problem, schedule: Any, backend: str = "cpu") -> eqkernel.Network:
    """The eqkernel network of a problem, holding a copy of its weights."""
    build = eqkernel.Network.dense if all(a is None for a in p.lateral) else eqkernel.Network.recurrent
    output = "linear" if p.cost == "squared-error" else None
    net = build(*p.sizes, neuron=p.neuron, output=output, cost=p.cost, schedule=schedule, backend=backend)
    source: dict[str, Any] = {"dense": p.weights, "bias": p.biases, "lateral": p.lateral}
    for connection, parameter in zip(net.connections, net.parameters, strict=True):
        parameter[...] = source[connection.stem][connection.post - 1]
    return net


def parameters(net: eqkernel.Network, p: Problem) -> Arrays:
    """The network's parameters in the problem's order: W_1, b_1, [A_1,] W_2, ..."""
    named = {(c.post, c.stem): a for c, a in zip(net.connections, net.parameters, strict=True)}
    layers = range(1, len(p.sizes))
    return [named[l, s] for l in layers for s in ("dense", "bias", "lateral") if (l, s) in named]


def use_threads(threads: int | None) -> None:
    """Sets the number of threads, unless it is None."""
    if threads:
        eqkernel.set_threads(threads)


def can_split() -> bool:
    """Whether backend "c" can settle with products of bfloat16 here."""
    try:
        set_precision("bf16x3")
    except eqkernel.EqkernelError:
        return False
    set_precision("float32")
    return True


class EqSettle:
    """`threads` None leaves the number of threads as it is; `precision` is that of backend "c"."""

    def __init__(self, p: Problem, schedule: Any, threads: int | None = None, backend: str = "cpu",
                 precision: str = "float32"):  # fmt: skip
        self.p, self.schedule, self.threads, self.precision = p, schedule, threads, precision
        self.net, self.target = network(p, schedule, backend), p.target

    def run(self) -> None:
        use_threads(self.threads)
        if self.precision == "float32":
            return self.settle()
        set_precision(self.precision)
        try:
            self.settle()
        finally:
            set_precision("float32")

    def settle(self) -> None:
        self.free, self.nudged = eqkernel.both_phases(self.net, self.p.x, self.target, self.p.beta, reuse=True)

    def states(self) -> States:
        L = len(self.p.weights)
        pairs = list(zip(self.nudged.mean[-L:], self.nudged.difference[-L:], strict=True))
        plus, minus = ([m + sign * self.p.beta * d for m, d in pairs] for sign in (1, -1))
        return States(list(self.free.state[-L:]), plus, minus)


class Copies:
    """`count` settles at once, with one thread each: what the cores of this machine give without any handing over."""

    def __init__(self, p: Problem, schedule: Any, count: int):
        self.settles = [EqSettle(p, schedule) for _ in range(count)]
        self.pool = ThreadPoolExecutor(count)

    def run(self) -> None:
        before = eqkernel.get_threads()
        eqkernel.set_threads(1)
        list(self.pool.map(EqSettle.settle, self.settles))
        eqkernel.set_threads(before)


class EqStep:
    def __init__(self, p: Problem, schedule: Any, optimiser: str = "sgd", lr: float = 1e-4, eps: float = 1e-8,
                 threads: int | None = None, backend: str = "cpu"):  # fmt: skip
        self.p, self.threads, self.net = p, threads, network(p, schedule, backend)
        self.optimiser = eqkernel.Adam(lr=lr, eps=eps) if optimiser == "adam" else eqkernel.SGD(lr=lr)

    def run(self) -> None:
        use_threads(self.threads)
        p = self.p
        self.step = eqkernel.train_step(self.net, p.x, p.labels, beta=p.beta, optimiser=self.optimiser)

    def parameters(self) -> Arrays:
        return parameters(self.net, self.p)


class EqUpdate:
    """The update of a single clamped-input matrix and its bias."""

    def __init__(self, p: Problem, lr: float = 1e-3, backend: str = "cpu"):
        self.net, self.p = network(p, "converged", backend), p
        _, self.nudged = eqkernel.both_phases(self.net, p.x, p.target, p.beta)
        self.optimiser = eqkernel.Adam(lr=lr)

    def nudged_states(self) -> tuple[np.ndarray, np.ndarray]:
        m, d = self.nudged.mean[-1], self.nudged.difference[-1]
        return m + self.p.beta * d, m - self.p.beta * d

    def load(self, plus: np.ndarray, minus: np.ndarray) -> None:
        self.nudged.mean[-1][...] = (plus + minus) / 2
        self.nudged.difference[-1][...] = (plus - minus) / (2 * self.p.beta)

    def run(self) -> None:
        eqkernel.hebbian_update(self.net, self.nudged, self.optimiser)

    def parameters(self) -> Arrays:
        return parameters(self.net, self.p)[:1]
